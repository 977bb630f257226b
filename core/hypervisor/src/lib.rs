//! core/hypervisor
