//! core/cloud
