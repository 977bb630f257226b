//! core/agent
