//! backends/sql
