//! core/flow
