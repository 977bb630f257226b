//! What libvirt's states mean.

use skyloom_model::PowerState;
use virt_sys as sys;

/// How a domain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Its CPUs execute.
    Up,
    /// Its CPUs are held.
    Held,
    /// A start is under way.
    Starting,
    /// Its guest is off, and its process is being ended.
    Ending,
    /// Its guest has panicked; its process is there.
    Dead,
    /// No process, and why; `Unknown` when libvirt cannot tell.
    Off(PowerState),
    /// A number that we do not know.
    Unknown(u32),
}

/// From libvirt's numbers.
pub(crate) const fn of(state: sys::virDomainState, reason: u32) -> Seen {
    match (state, reason) {
        (sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED, _) => Seen::Up,
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_STARTING_UP) => Seen::Starting,
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN) | (sys::VIR_DOMAIN_SHUTDOWN, _) => {
            Seen::Ending
        }
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_CRASHED) | (sys::VIR_DOMAIN_CRASHED, _) => Seen::Dead,
        (sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED, _) => Seen::Held,
        (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_CRASHED | sys::VIR_DOMAIN_SHUTOFF_DAEMON) => {
            Seen::Off(PowerState::Crashed)
        }
        // Never started, or the daemon has forgotten it.
        (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_UNKNOWN) => Seen::Off(PowerState::Unknown),
        (sys::VIR_DOMAIN_SHUTOFF, _) => Seen::Off(PowerState::Stopped),
        _ => Seen::Unknown(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_state_is_up_and_only_shut_off_is_off() {
        for state in 0..20 {
            for reason in 0..20 {
                let seen = of(state, reason);
                assert_eq!(seen == Seen::Up, matches!(state, 1 | 2), "{state} {reason}");
                assert_eq!(matches!(seen, Seen::Off(_)), state == 5, "{state} {reason}");
                if state > 7 || state == 0 {
                    assert_eq!(seen, Seen::Unknown(state));
                }
            }
        }
        assert_eq!(
            of(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_STARTING_UP),
            Seen::Starting
        );
    }
}
