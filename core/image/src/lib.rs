//! core/image
