//! hypervisors/qmp
