//! hypervisors/pool
