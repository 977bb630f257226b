//! core/api
