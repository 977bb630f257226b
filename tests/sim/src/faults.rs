//! What can go wrong: the kinds, how often each bites, and the faults planned at a moment.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use skyloom_hypervisor::{ErrorKind, Fault, FaultPoint};

use crate::rng::Rng;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident => $name:literal,)*) => {
        /// A kind of fault. Each schedule draws which of them exist in it and how often they come.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[doc = $doc])* $kind,)* }
        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];
            /// Its name on the command line and in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// A process ends at some moment.
    Crash => "crash",
    /// A process ends at one of its calls: before it is sent, or before its answer is seen.
    CrashAtCall => "crash-at-call",
    /// A process is told to end, ends in order and is started again.
    Restart => "restart",
    /// A process stands still and goes on later.
    Pause => "pause",
    /// A process stands still, another takes its name, and then the first goes on.
    Zombie => "zombie",
    /// Requests of a process do not arrive.
    CutOut => "cut-out",
    /// Answers and events do not come back to a process.
    CutIn => "cut-in",
    /// Nothing passes between a process and the store.
    CutBoth => "cut-both",
    /// All answers come late to a process for a while.
    Lag => "lag",
    /// One request is lost.
    LoseRequest => "lose-request",
    /// One request happens and its answer is lost.
    LoseAnswer => "lose-answer",
    /// One request or answer takes very long.
    Slow => "slow",
    /// A watch loses its position.
    WatchGap => "watch-gap",
    /// A watch ends with an error.
    WatchError => "watch-error",
    /// A watch ends without a word.
    WatchEnd => "watch-end",
    /// An event comes twice.
    WatchTwice => "watch-twice",
    /// Two events come in the wrong order.
    WatchSwap => "watch-swap",
    /// An event does not come.
    WatchDrop => "watch-drop",
    /// An event comes late.
    WatchLate => "watch-late",
    /// The store forgets its history.
    Compact => "compact",
    /// The store has no room for a while.
    Full => "full",
    /// A lease ends before its time.
    Expire => "expire",
    /// Clocks run at different speeds.
    Drift => "drift",
    /// Somebody sets a clock.
    WallStep => "wall-step",
    /// A hypervisor or a disk pool does what it should not.
    Host => "host",
    /// A host's disk is full for a while.
    DiskFull => "disk-full",
    /// A guest ends by itself.
    GuestEnds => "guest-ends",
    /// Somebody with an agent's token writes what is not the agent's.
    Rogue => "rogue",
    /// An order for power that was held up on its way comes when newer ones have been carried out.
    OldOrder => "old-order",
    /// All engines are replaced by newer ones, and the tasks on their way are of the first format.
    OldFormat => "old-format",
}

impl Kind {
    /// Whether it bites single calls and events, and not at planned moments.
    #[must_use]
    pub const fn by_call(self) -> bool {
        matches!(
            self,
            Self::LoseRequest
                | Self::LoseAnswer
                | Self::Slow
                | Self::WatchGap
                | Self::WatchError
                | Self::WatchEnd
                | Self::WatchTwice
                | Self::WatchSwap
                | Self::WatchDrop
                | Self::WatchLate
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|k| k.name() == name)
            .ok_or_else(|| format!("no kind of fault is called {name}"))
    }
}

/// A fault at a moment. Processes are named by their place among all processes of the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Planned {
    Crash {
        process: usize,
        down_ms: u64,
    },
    CrashAtCall {
        process: usize,
        calls: u64,
    },
    Restart {
        process: usize,
    },
    Pause {
        process: usize,
        ms: u64,
    },
    Zombie {
        process: usize,
        ms: u64,
    },
    Cut {
        process: usize,
        kind: Kind,
        ms: u64,
    },
    Lag {
        process: usize,
        late_ms: u64,
        ms: u64,
    },
    Expire {
        process: usize,
    },
    WallStep {
        process: usize,
        by_ms: i64,
    },
    Compact,
    Full {
        ms: u64,
    },
    Host {
        host: usize,
        point: FaultPoint,
        fault: Fault,
    },
    DiskFull {
        host: usize,
        ms: u64,
    },
    GuestEnds {
        host: usize,
        pick: u64,
        crash: bool,
    },
    Rogue {
        host: usize,
        pick: u64,
    },
    OldOrder {
        host: usize,
        pick: u64,
    },
    OldFormat {
        apart_ms: u64,
    },
}

impl Planned {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Crash { .. } => Kind::Crash,
            Self::CrashAtCall { .. } => Kind::CrashAtCall,
            Self::Restart { .. } => Kind::Restart,
            Self::Pause { .. } => Kind::Pause,
            Self::Zombie { .. } => Kind::Zombie,
            Self::Cut { kind, .. } => *kind,
            Self::Lag { .. } => Kind::Lag,
            Self::Expire { .. } => Kind::Expire,
            Self::WallStep { .. } => Kind::WallStep,
            Self::Compact => Kind::Compact,
            Self::Full { .. } => Kind::Full,
            Self::Host { .. } => Kind::Host,
            Self::DiskFull { .. } => Kind::DiskFull,
            Self::GuestEnds { .. } => Kind::GuestEnds,
            Self::Rogue { .. } => Kind::Rogue,
            Self::OldOrder { .. } => Kind::OldOrder,
            Self::OldFormat { .. } => Kind::OldFormat,
        }
    }
}

/// Draws a fault of `kind` among `processes` processes and `hosts` hosts. Nothing for kinds that bite call by call.
pub(crate) fn draw(rng: &mut Rng, kind: Kind, processes: usize, hosts: usize) -> Option<Planned> {
    let process = rng.index(processes);
    let host = rng.index(hosts);
    Some(match kind {
        Kind::Crash => Planned::Crash {
            process,
            down_ms: rng.within(10, 15_000),
        },
        Kind::CrashAtCall => Planned::CrashAtCall {
            process,
            calls: rng.within(1, 30),
        },
        Kind::Restart => Planned::Restart { process },
        Kind::Pause => Planned::Pause {
            process,
            ms: rng.within(500, 30_000),
        },
        Kind::Zombie => Planned::Zombie {
            process,
            ms: rng.within(500, 30_000),
        },
        Kind::CutOut | Kind::CutIn | Kind::CutBoth => Planned::Cut {
            process,
            kind,
            ms: rng.within(200, 25_000),
        },
        Kind::Lag => Planned::Lag {
            process,
            late_ms: rng.within(300, 2_900),
            ms: rng.within(2_000, 25_000),
        },
        Kind::Expire => Planned::Expire { process },
        Kind::WallStep => Planned::WallStep {
            process,
            by_ms: rng.within(0, 1_200_000) as i64 - 600_000,
        },
        Kind::Compact => Planned::Compact,
        Kind::Full => Planned::Full {
            ms: rng.within(100, 8_000),
        },
        Kind::Host => host_fault(rng, host),
        Kind::DiskFull => Planned::DiskFull {
            host,
            ms: rng.within(100, 15_000),
        },
        Kind::GuestEnds => Planned::GuestEnds {
            host,
            pick: rng.next(),
            crash: rng.happens(300),
        },
        Kind::Rogue => Planned::Rogue {
            host,
            pick: rng.next(),
        },
        Kind::OldOrder => Planned::OldOrder {
            host,
            pick: rng.next(),
        },
        Kind::OldFormat => Planned::OldFormat {
            apart_ms: rng.within(10, 8_000),
        },
        Kind::LoseRequest
        | Kind::LoseAnswer
        | Kind::Slow
        | Kind::WatchGap
        | Kind::WatchError
        | Kind::WatchEnd
        | Kind::WatchTwice
        | Kind::WatchSwap
        | Kind::WatchDrop
        | Kind::WatchLate
        | Kind::Drift => return None,
    })
}

fn host_fault(rng: &mut Rng, host: usize) -> Planned {
    const PASSING: [ErrorKind; 3] = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Full];
    let point = *rng.pick(&FaultPoint::ALL);
    let lasting = rng.happens(150);
    let kind = if lasting {
        ErrorKind::Refused
    } else {
        *rng.pick(&PASSING)
    };
    let fault = if point == FaultPoint::Event {
        *rng.pick(&[Fault::Lose, Fault::Duplicate, Fault::Delay])
    } else {
        let late = Duration::from_millis(rng.within(100, 40_000));
        match rng.below(11) {
            0..=2 => Fault::Fail(kind),
            3..=4 => Fault::FailAfterEffect(kind),
            5 => Fault::Hang,
            6 => Fault::HangAfterEffect,
            7 => Fault::CannotTell,
            8 => Fault::Twice,
            _ => Fault::Late(late),
        }
    };
    Planned::Host { host, point, fault }
}

/// How often the kinds that bite call by call do so, in thousandths of calls or events; until it is calm.
#[derive(Debug)]
pub(crate) struct Weather {
    /// By kind, in the order of [`Kind::ALL`].
    rates: Vec<AtomicU32>,
    calm: AtomicBool,
}

impl Weather {
    pub(crate) fn new(rates: &BTreeMap<Kind, u32>) -> Self {
        let rate = |kind| rates.get(kind).copied().unwrap_or_default();
        Self {
            rates: Kind::ALL.iter().map(|kind| AtomicU32::new(rate(kind))).collect(),
            calm: AtomicBool::new(false),
        }
    }

    /// From now on `kind` bites that much more often, or less.
    pub(crate) fn change(&self, kind: Kind, by: i32) {
        let rate = &self.rates[kind as usize];
        let changed = rate.load(Ordering::Relaxed).saturating_add_signed(by);
        rate.store(changed, Ordering::Relaxed);
    }

    /// From now on nothing bites.
    pub(crate) fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Whether `kind` bites this time. A draw is made in any case, so that the stream does not shift.
    pub(crate) fn bites(&self, rng: &mut Rng, kind: Kind) -> bool {
        let drawn = rng.below(1000);
        let rate = self.rates[kind as usize].load(Ordering::Relaxed);
        !self.calm.load(Ordering::Relaxed) && drawn < u64::from(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        assert!("nonsense".parse::<Kind>().is_err());
    }

    #[test]
    fn weather_changes_and_calms() {
        let weather = Weather::new(&BTreeMap::from([(Kind::Slow, 1000)]));
        let mut rng = Rng::of(1, "weather");
        assert!(weather.bites(&mut rng, Kind::Slow));
        weather.change(Kind::Slow, -1000);
        weather.change(Kind::LoseAnswer, 1000);
        assert!(!weather.bites(&mut rng, Kind::Slow));
        assert!(weather.bites(&mut rng, Kind::LoseAnswer));
        weather.calm();
        assert!(!weather.bites(&mut rng, Kind::LoseAnswer));
    }

    #[test]
    fn a_planned_fault_is_of_the_kind_that_was_asked_for() {
        let mut rng = Rng::of(1, "planned");
        for kind in Kind::ALL {
            let planned = draw(&mut rng, *kind, 4, 2);
            assert_eq!(planned.is_none(), kind.by_call() || *kind == Kind::Drift);
            if let Some(planned) = planned {
                assert_eq!(planned.kind(), *kind);
            }
        }
    }
}
