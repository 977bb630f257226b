//! Tasks that wait for room on some host, and which of them looks next.
//!
//! ```text
//!  no room ─ enter (what there was) ──> waiting, those who have not looked for the longest first ──> next ──> a turn ──> done, or enter again
//!  a host came, was opened, or has less on it ── there is more than before ─┘
//! ```
//!
//! Each change of the world lets everybody look once, the oldest first, [`AT_ONCE`] at a time: a thousand who wait are no herd, and a large
//! server at their head keeps no small one behind it from its room. Changes that come meanwhile count together.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_model::TaskId;

/// How many look at the same time.
const AT_ONCE: usize = 4;

/// Who waits for room.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    /// What there was when they looked, and who.
    order: BTreeSet<(u64, TaskId)>,
    waiting: BTreeMap<TaskId, u64>,
    looking: BTreeSet<TaskId>,
}

impl Rooms {
    /// There was no room for it in the world of `seen`.
    pub(crate) fn enter(&mut self, task: TaskId, seen: u64) {
        self.leave(task);
        self.waiting.insert(task, seen);
        self.order.insert((seen, task));
    }

    /// It has a turn, or had one and waits for nothing any more.
    pub(crate) fn leave(&mut self, task: TaskId) {
        self.looking.remove(&task);
        if let Some(seen) = self.waiting.remove(&task) {
            self.order.remove(&(seen, task));
        }
    }

    /// Who looks next in the world of `now`, if it is somebody's turn.
    pub(crate) fn next(&mut self, now: u64) -> Option<TaskId> {
        if self.looking.len() >= AT_ONCE {
            return None;
        }
        let (_, task) = self.order.first().copied().filter(|(seen, _)| *seen < now)?;
        self.leave(task);
        self.looking.insert(task);
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u32) -> TaskId {
        format!("00000000-0000-7000-8000-{n:012}").parse().unwrap()
    }

    fn all(rooms: &mut Rooms, now: u64) -> Vec<TaskId> {
        std::iter::from_fn(|| rooms.next(now)).collect()
    }

    #[test]
    fn a_few_look_at_a_time_the_oldest_first_and_each_once_for_a_change() {
        let mut rooms = Rooms::default();
        (0..10).for_each(|n| rooms.enter(task(n), 7));
        assert_eq!(all(&mut rooms, 7), [], "nothing has changed");
        let mut looked = Vec::new();
        loop {
            let few = all(&mut rooms, 8);
            assert!(few.len() <= AT_ONCE);
            let Some(one) = few.first().copied() else { break };
            looked.extend(few.iter().copied());
            for looks in few {
                match looks == one {
                    true => rooms.leave(looks),
                    false => rooms.enter(looks, 8),
                }
            }
        }
        assert_eq!(looked, (0..10).map(task).collect::<Vec<_>>());
        assert_eq!(rooms.waiting.len(), 7, "three found room");
        assert_eq!(rooms.order.len(), 7);
    }

    #[test]
    fn who_looked_in_an_older_world_comes_first_and_who_is_gone_does_not_look() {
        let mut rooms = Rooms::default();
        rooms.enter(task(1), 9);
        rooms.enter(task(2), 8);
        rooms.enter(task(3), 8);
        rooms.leave(task(3));
        assert_eq!(all(&mut rooms, 10), [task(2), task(1)]);
        rooms.enter(task(2), 10);
        rooms.enter(task(2), 10);
        assert_eq!(all(&mut rooms, 11), [task(2)]);
    }
}
