//! core/scheduler
