//! Whose turn it is: priorities in proportion, projects in turn, oldest first.
//!
//! Pure: what is put in comes out once, however often it was put in before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skyloom_model::{Priority, Scope, TaskId};

/// Turns per round: high before normal before low, and none of them starves.
const TURNS: [(Priority, u32); 3] = [(Priority::High, 8), (Priority::Normal, 4), (Priority::Low, 1)];

/// Tasks that wait for their turn.
#[derive(Debug)]
pub(crate) struct Fair {
    lanes: [Lane; 3],
    /// Which lane is being served, and how many turns it has left in this round.
    at: usize,
    left: u32,
    known: BTreeMap<TaskId, (Priority, Scope)>,
}

/// The tasks of one priority.
#[derive(Debug, Default)]
struct Lane {
    /// Scopes with tasks, the next first.
    order: VecDeque<Scope>,
    tasks: BTreeMap<Scope, BTreeSet<TaskId>>,
}

impl Lane {
    fn insert(&mut self, scope: Scope, task: TaskId) {
        let tasks = self.tasks.entry(scope).or_default();
        if tasks.is_empty() {
            self.order.push_back(scope);
        }
        tasks.insert(task);
    }

    fn pop(&mut self) -> Option<TaskId> {
        let scope = self.order.pop_front()?;
        let tasks = self.tasks.get_mut(&scope)?;
        let task = tasks.pop_first(); // ids sort by age: the oldest
        if tasks.is_empty() {
            self.tasks.remove(&scope);
        } else {
            self.order.push_back(scope);
        }
        task
    }
}

impl Fair {
    pub(crate) fn new() -> Self {
        Self {
            lanes: Default::default(),
            at: 0,
            left: TURNS[0].1,
            known: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Puts a task in, once.
    pub(crate) fn insert(&mut self, task: TaskId, scope: Scope, priority: Priority) {
        if self.known.insert(task, (priority, scope)).is_none() {
            self.lanes[lane_of(priority)].insert(scope, task);
        }
    }

    /// The task whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<TaskId> {
        for _ in 0..=TURNS.len() {
            if self.left > 0
                && let Some(task) = self.lanes[self.at].pop()
            {
                self.left -= 1;
                self.known.remove(&task);
                return Some(task);
            }
            self.at = (self.at + 1) % TURNS.len();
            self.left = TURNS[self.at].1;
        }
        None
    }
}

fn lane_of(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skyloom_model::{Id, ManualClock, ProjectId, SeededIds};

    use super::*;

    fn ids() -> SeededIds<ManualClock> {
        SeededIds::new(ManualClock::new(), 1)
    }

    #[test]
    fn projects_take_turns() {
        let ids = ids();
        let (a, b) = (
            Scope::Project(ProjectId::fresh(&ids)),
            Scope::Project(ProjectId::fresh(&ids)),
        );
        let mut fair = Fair::new();
        let many: Vec<TaskId> = (0..100).map(|_| Id::fresh(&ids)).collect();
        for task in &many {
            fair.insert(*task, a, Priority::Normal);
        }
        let late: TaskId = Id::fresh(&ids);
        fair.insert(late, b, Priority::Normal);
        let first: Vec<TaskId> = (0..2).filter_map(|_| fair.pop()).collect();
        assert_eq!(
            first,
            [many[0], late],
            "one project's hundred do not keep another waiting"
        );
    }

    #[test]
    fn no_priority_starves() {
        let ids = ids();
        let mut fair = Fair::new();
        let mut low = Vec::new();
        for _ in 0..50 {
            fair.insert(Id::fresh(&ids), Scope::System, Priority::High);
            fair.insert(Id::fresh(&ids), Scope::System, Priority::Normal);
            low.push(Id::fresh(&ids));
            fair.insert(low[low.len() - 1], Scope::System, Priority::Low);
        }
        let first: Vec<TaskId> = (0..26).filter_map(|_| fair.pop()).collect();
        assert_eq!(first.iter().filter(|t| low.contains(t)).count(), 2);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_once(puts in prop::collection::vec((0_usize..40, 0_usize..3, 0_usize..3), 0..200)) {
            let ids = ids();
            let tasks: Vec<TaskId> = (0..40).map(|_| Id::fresh(&ids)).collect();
            let scopes: Vec<Scope> = (0..3).map(|_| Scope::Project(ProjectId::fresh(&ids))).collect();
            let mut fair = Fair::new();
            let mut expected = BTreeSet::new();
            for (task, scope, priority) in puts {
                fair.insert(tasks[task], scopes[scope], TURNS[priority].0);
                expected.insert(tasks[task]);
            }
            let mut seen = BTreeSet::new();
            while let Some(task) = fair.pop() {
                prop_assert!(seen.insert(task), "twice");
            }
            prop_assert!(fair.is_empty());
            prop_assert_eq!(seen, expected);
        }
    }
}
