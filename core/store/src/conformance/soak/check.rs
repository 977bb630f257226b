//! Whether one order of all calls explains what each of them was told: linearizability of one key.
//!
//! The search is that of Wing and Gong with Lowe's memory of what has been tried: calls are put in order one by one, the next
//! always one that began before the first end of those that are left; where none fits, the last choice is taken back. Calls
//! whose outcome nobody knows are put in only right before one that cannot be explained otherwise, which loses no order: a
//! write that nobody sees before the next one might as well not have happened.

use std::collections::{HashMap, HashSet};

use super::history::{Action, Answer, Call, Demand, DocId};
use crate::Revision;

/// Choices that are tried before a history counts as too hard.
const MOST_STEPS: u64 = 20_000_000;
/// Unknown writes in a row that may be needed to explain one answer: a removal, then a creation, and one more.
const MOST_PRELUDES: usize = 3;

/// Why a history is not linearizable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// One document was seen with two revisions, or a revision was seen of two documents.
    Revisions(DocId, Revision),
    /// A read found a document that nobody wrote, or whose write was refused.
    OutOfNowhere(DocId),
    /// No order explains these calls, the first of which that cannot be put anywhere in the longest order that was found.
    NoOrder(Vec<Call>),
    /// It could not be found out.
    TooHard,
}

/// Checks the calls of one key that was absent in the beginning.
///
/// # Errors
/// What is wrong with them.
pub fn linearizable(calls: &[Call]) -> Result<(), Wrong> {
    let revisions = revisions(calls)?;
    let mut certain: Vec<Call> = Vec::new();
    let mut unknown: Vec<Call> = Vec::new();
    for call in calls {
        match call.answer {
            Answer::Unknown => unknown.push(*call),
            _ => certain.push(*call),
        }
    }
    certain.sort_by_key(|c| c.begin);
    unknown.sort_by_key(|c| c.begin);
    Search {
        revisions,
        certain,
        unknown,
        tried: HashSet::new(),
        steps: 0,
        longest: 0,
    }
    .run()
}

/// The revision of each document of which it is known.
fn revisions(calls: &[Call]) -> Result<HashMap<DocId, Revision>, Wrong> {
    let mut of_doc: HashMap<DocId, Revision> = HashMap::new();
    let mut of_revision: HashMap<Revision, DocId> = HashMap::new();
    let mut written: HashSet<DocId> = HashSet::new();
    for call in calls {
        let known = match (call.action, call.answer) {
            (Action::Put(doc, _), Answer::Done(revision)) => {
                written.insert(doc);
                Some((doc, revision))
            }
            (Action::Put(doc, _), Answer::Unknown) => {
                written.insert(doc);
                None
            }
            (_, Answer::Found(found)) => found,
            _ => None,
        };
        if let Some((doc, revision)) = known
            && (*of_doc.entry(doc).or_insert(revision) != revision
                || *of_revision.entry(revision).or_insert(doc) != doc)
        {
            return Err(Wrong::Revisions(doc, revision));
        }
    }
    match of_doc.keys().find(|doc| !written.contains(doc)) {
        Some(doc) => Err(Wrong::OutOfNowhere(*doc)),
        None => Ok(of_doc),
    }
}

/// What is under the key.
type State = Option<DocId>;

/// Which calls have been put in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }
    fn set(&mut self, call: usize, done: bool) {
        let bit = 1 << (call % 64);
        if done {
            self.0[call / 64] |= bit;
        } else {
            self.0[call / 64] &= !bit;
        }
    }
}

/// A choice that can be taken back: an unknown call put in, or a certain one with those before it.
#[derive(Debug)]
struct Choice {
    call: usize,
    preludes: Vec<usize>,
    before: State,
}

/// What may come next at one point, and what of it has been tried.
struct Point {
    options: Vec<(usize, Vec<usize>, State)>,
    next: usize,
}

struct Search {
    revisions: HashMap<DocId, Revision>,
    certain: Vec<Call>,
    unknown: Vec<Call>,
    tried: HashSet<(Done, State)>,
    steps: u64,
    longest: usize,
}

impl Search {
    fn run(&mut self) -> Result<(), Wrong> {
        let all = self.certain.len() + self.unknown.len();
        let mut done = Done(vec![0; all.div_ceil(64)]);
        let mut state: State = None;
        let mut choices: Vec<Choice> = Vec::new();
        let mut points = vec![self.point(&done, state)];
        let mut best = done.clone();
        while choices.len() < self.certain.len() {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err(Wrong::TooHard);
            }
            if choices.len() > self.longest {
                self.longest = choices.len();
                best = done.clone();
            }
            let Some(point) = points.last_mut() else {
                return Err(self.no_order(&best));
            };
            let Some((call, preludes, after)) = point.options.get(point.next).cloned() else {
                points.pop();
                if let Some(choice) = choices.pop() {
                    self.mark(&mut done, &choice, false);
                    state = choice.before;
                }
                continue;
            };
            point.next += 1;
            let choice = Choice {
                call,
                preludes,
                before: state,
            };
            self.mark(&mut done, &choice, true);
            if self.tried.insert((done.clone(), after)) {
                state = after;
                choices.push(choice);
                points.push(self.point(&done, state));
            } else {
                self.mark(&mut done, &choice, false);
            }
        }
        Ok(())
    }

    fn mark(&self, done: &mut Done, choice: &Choice, value: bool) {
        done.set(choice.call, value);
        for prelude in &choice.preludes {
            done.set(self.certain.len() + prelude, value);
        }
    }

    /// The calls that may come next, each with the unknown writes that must come right before it.
    fn point(&self, done: &Done, state: State) -> Point {
        // They are in the order of their begins: those that begin after the first end cannot come next, nor end it.
        let (mut first_end, mut open) = (u64::MAX, Vec::new());
        for i in (0..self.certain.len()).filter(|i| !done.has(*i)) {
            if self.certain[i].begin > first_end {
                break;
            }
            first_end = first_end.min(self.certain[i].end);
            open.push(i);
        }
        open.retain(|i| self.certain[*i].begin <= first_end);
        let (mut options, mut puzzling) = (Vec::new(), Vec::new());
        for i in open {
            match self.step(&self.certain[i], state) {
                Some(after) => options.push((i, Vec::new(), after)),
                None => puzzling.push(i),
            }
        }
        // Those that need no help come first; they are nearly always right.
        for i in puzzling {
            let mut preludes = Vec::new();
            self.helped(i, state, first_end, done, &mut preludes, &mut options);
        }
        Point { options, next: 0 }
    }

    /// All ways to put unknown writes before the certain call `i` so that it is explained.
    fn helped(
        &self,
        i: usize,
        state: State,
        first_end: u64,
        done: &Done,
        preludes: &mut Vec<usize>,
        options: &mut Vec<(usize, Vec<usize>, State)>,
    ) {
        if preludes.len() >= MOST_PRELUDES {
            return;
        }
        for (u, call) in self.unknown.iter().enumerate() {
            if call.begin > first_end {
                return;
            }
            if done.has(self.certain.len() + u) || preludes.contains(&u) {
                continue;
            }
            let Some(after) = self.write(call.action, state) else {
                continue;
            };
            if after == state {
                continue;
            }
            preludes.push(u);
            match self.step(&self.certain[i], after) {
                Some(end) => options.push((i, preludes.clone(), end)),
                None => self.helped(i, after, first_end, done, preludes, options),
            }
            preludes.pop();
        }
    }

    /// What is under the key after the call, if the key's state explains the answer.
    fn step(&self, call: &Call, state: State) -> Option<State> {
        match (call.action, call.answer) {
            (Action::Read, Answer::Found(found)) => (found.map(|(doc, _)| doc) == state).then_some(state),
            (action, Answer::Done(_)) => self.write(action, state),
            (Action::Put(_, demand) | Action::Delete(demand), Answer::Conflict(current)) => {
                let told = match (state, current) {
                    (None, None) => true,
                    (Some(doc), Some(told)) => self.is_of(doc, told),
                    _ => false,
                };
                // What it was told is what is there, also of a document of which nothing else tells the revision.
                let held = match demand {
                    Demand::Any => true,
                    Demand::Absent => current.is_none(),
                    Demand::At(revision) => current == Some(revision),
                };
                (told && !held).then_some(state)
            }
            _ => None,
        }
    }

    /// What is under the key after the write, if what it demands holds.
    fn write(&self, action: Action, state: State) -> Option<State> {
        match action {
            Action::Read => Some(state),
            Action::Put(doc, demand) => self.holds(demand, state).then_some(Some(doc)),
            Action::Delete(demand) => self.holds(demand, state).then_some(None),
        }
    }

    fn holds(&self, demand: Demand, state: State) -> bool {
        match demand {
            Demand::Any => true,
            Demand::Absent => state.is_none(),
            Demand::At(revision) => state.is_some_and(|doc| self.is_of(doc, revision)),
        }
    }

    /// Whether the document may have been modified last at `revision`: one that nobody has read may have any that no
    /// other document has.
    fn is_of(&self, doc: DocId, revision: Revision) -> bool {
        self.revisions.get(&doc).map_or_else(
            || !self.revisions.values().any(|known| *known == revision),
            |known| *known == revision,
        )
    }

    /// The calls around the end of the longest order.
    fn no_order(&self, best: &Done) -> Wrong {
        let left: Vec<usize> = (0..self.certain.len()).filter(|i| !best.has(*i)).collect();
        let first_end = left
            .iter()
            .map(|i| self.certain[*i].end)
            .min()
            .unwrap_or_default();
        let calls = left.iter().map(|i| self.certain[*i]);
        Wrong::NoOrder(calls.filter(|c| c.begin <= first_end).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(begin: u64, end: u64, action: Action, answer: Answer) -> Call {
        Call {
            begin,
            end,
            action,
            answer,
        }
    }
    fn put(begin: u64, end: u64, doc: DocId, demand: Demand, answer: Answer) -> Call {
        call(begin, end, Action::Put(doc, demand), answer)
    }
    fn read(begin: u64, end: u64, found: Option<(DocId, u64)>) -> Call {
        let found = found.map(|(doc, revision)| (doc, Revision(revision)));
        call(begin, end, Action::Read, Answer::Found(found))
    }
    fn done(revision: u64) -> Answer {
        Answer::Done(Revision(revision))
    }

    #[test]
    fn good_histories() {
        let histories: Vec<Vec<Call>> = vec![
            vec![],
            vec![read(0, 1, None)],
            // One after the other.
            vec![put(0, 1, 1, Demand::Absent, done(5)), read(2, 3, Some((1, 5)))],
            // A read beside a write may see it or not.
            vec![
                put(0, 9, 1, Demand::Any, done(5)),
                read(1, 2, None),
                read(3, 4, Some((1, 5))),
            ],
            // A write of unknown outcome is seen later, or never, or after another one.
            vec![
                put(0, 0, 1, Demand::Any, Answer::Unknown),
                read(1, 2, None),
                put(3, 4, 2, Demand::Absent, done(6)),
                read(5, 6, Some((1, 7))),
            ],
            // A conflict tells of a write that nobody else saw.
            vec![
                put(0, 0, 1, Demand::Any, Answer::Unknown),
                put(1, 2, 2, Demand::Absent, Answer::Conflict(Some(Revision(3)))),
            ],
            // It also tells that what is there has not the revision of a removal.
            vec![
                put(0, 1, 1, Demand::Absent, done(1)),
                call(2, 3, Action::Delete(Demand::Any), done(2)),
                put(4, 4, 2, Demand::Any, Answer::Unknown),
                call(
                    5,
                    6,
                    Action::Delete(Demand::At(Revision(2))),
                    Answer::Conflict(Some(Revision(3))),
                ),
            ],
            // A removal and a creation, both unknown, explain what is read.
            vec![
                put(0, 1, 1, Demand::Absent, done(1)),
                call(2, 2, Action::Delete(Demand::At(Revision(1))), Answer::Unknown),
                put(3, 3, 2, Demand::Absent, Answer::Unknown),
                read(4, 5, Some((2, 9))),
            ],
            // A removal that finds nothing.
            vec![call(0, 1, Action::Delete(Demand::Any), done(0)), read(2, 3, None)],
        ];
        for history in histories {
            assert_eq!(linearizable(&history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn bad_histories() {
        let unknown = Answer::Unknown;
        let histories: Vec<(&str, Vec<Call>)> = vec![
            (
                "lost write",
                vec![put(0, 1, 1, Demand::Any, done(1)), read(2, 3, None)],
            ),
            (
                "stale read",
                vec![
                    put(0, 1, 1, Demand::Any, done(1)),
                    put(2, 3, 2, Demand::Any, done(2)),
                    read(4, 5, Some((1, 1))),
                ],
            ),
            (
                "seen, then not seen",
                vec![
                    put(0, 9, 1, Demand::Any, done(1)),
                    read(1, 2, Some((1, 1))),
                    read(3, 4, None),
                ],
            ),
            (
                "two creations",
                vec![
                    put(0, 5, 1, Demand::Absent, done(1)),
                    put(0, 5, 2, Demand::Absent, done(2)),
                ],
            ),
            (
                "both replace the same",
                vec![
                    put(0, 1, 1, Demand::Absent, done(1)),
                    put(2, 9, 2, Demand::At(Revision(1)), done(2)),
                    put(2, 9, 3, Demand::At(Revision(1)), done(3)),
                ],
            ),
            (
                "conflict without a reason",
                vec![put(0, 1, 1, Demand::Absent, Answer::Conflict(Some(Revision(4))))],
            ),
            (
                "seen before it was asked for",
                vec![read(0, 1, Some((1, 1))), put(2, 3, 1, Demand::Any, done(1))],
            ),
            (
                "an unknown write happens twice",
                vec![
                    put(0, 0, 1, Demand::Any, unknown),
                    read(1, 2, Some((1, 1))),
                    put(3, 4, 2, Demand::Any, done(2)),
                    read(5, 6, Some((1, 1))),
                ],
            ),
            (
                "an unknown removal explains one absence only",
                vec![
                    put(0, 1, 1, Demand::Any, done(1)),
                    call(2, 2, Action::Delete(Demand::Any), unknown),
                    read(3, 4, None),
                    put(5, 6, 2, Demand::Any, done(2)),
                    read(7, 8, None),
                ],
            ),
            ("nobody wrote it", vec![read(0, 1, Some((1, 1)))]),
            (
                "two revisions of one document",
                vec![put(0, 1, 1, Demand::Any, done(1)), read(2, 3, Some((1, 2)))],
            ),
        ];
        for (name, history) in histories {
            assert!(linearizable(&history).is_err(), "{name}");
        }
    }

    /// A register that answers at a moment between begin and end of each call, some answers of which are lost.
    fn played(script: &[(u8, u8, u8, bool, bool)]) -> Vec<Call> {
        let (mut state, mut revision): (Option<(DocId, Revision)>, u64) = (None, 0);
        let mut known: Option<Revision> = None;
        let mut calls = Vec::new();
        for (n, (what, before, after, lost, happens)) in script.iter().enumerate() {
            let at = n as u64 * 10 + 1_000;
            let demand = match what % 3 {
                0 => Demand::Any,
                1 => Demand::Absent,
                _ => known.map_or(Demand::Absent, Demand::At),
            };
            let holds = match demand {
                Demand::Any => true,
                Demand::Absent => state.is_none(),
                Demand::At(of) => state.is_some_and(|(_, r)| r == of),
            };
            let action = match what / 3 % 3 {
                0 => Action::Read,
                1 => Action::Put(n as DocId, demand),
                _ => Action::Delete(demand),
            };
            let writes = action != Action::Read;
            let answer = if writes && *lost {
                Answer::Unknown
            } else if !writes {
                known = state.map(|(_, r)| r);
                Answer::Found(state)
            } else if holds {
                Answer::Done(Revision(revision + 1))
            } else {
                Answer::Conflict(state.map(|(_, r)| r))
            };
            if writes && holds && (!*lost || *happens) {
                revision += 1;
                state = match action {
                    Action::Put(doc, _) => Some((doc, Revision(revision))),
                    _ => None,
                };
            }
            calls.push(call(
                at - u64::from(*before),
                at + u64::from(*after),
                action,
                answer,
            ));
        }
        calls
    }

    fn scripts() -> impl Strategy<Value = Vec<(u8, u8, u8, bool, bool)>> {
        let one = (
            0..9_u8,
            0..60_u8,
            0..60_u8,
            prop::bool::weighted(0.1),
            any::<bool>(),
        );
        prop::collection::vec(one, 0..120)
    }

    proptest! {
        #[test]
        fn what_a_register_does_is_linearizable(script in scripts()) {
            prop_assert_eq!(linearizable(&played(&script)), Ok(()));
        }

        /// A read that goes back to a document that was seen to be replaced.
        #[test]
        fn going_back_is_not(script in scripts()) {
            let apart: Vec<_> = script.into_iter().map(|(what, _, _, lost, happens)| (what, 0, 0, lost, happens)).collect();
            let mut calls = played(&apart);
            let seen: Vec<(DocId, Revision)> = calls
                .iter()
                .filter_map(|c| match c.answer { Answer::Found(Some(found)) => Some(found), _ => None })
                .collect();
            if let (Some(first), Some(last)) = (seen.first(), seen.last())
                && first != last
            {
                calls.push(read(1_000_000, 1_000_001, Some((first.0, first.1.0))));
                prop_assert!(linearizable(&calls).is_err());
            }
        }
    }
}
