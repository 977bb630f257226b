//! One queue with many readers: what is pushed is kept once, and every reader has a place in it.
//!
//! ```text
//! push ──> [ … | … | … | … ]            kept from the slowest reader's place on
//!            ↑ slow      ↑ fast readers: whoever is further behind than it asked for is lost
//! ```
//!
//! Pushing costs the same for one reader and for thousands, but for waking those that wait. What is kept is bounded by
//! the readers' own bounds and by weight; nobody is waited for.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::End;
use crate::Revision;

/// Items that are kept before readers' places are looked at.
const TRIM_ITEMS: usize = 64;
/// Weight that is kept before readers' places are looked at.
const TRIM_WEIGHT: usize = 256 << 10;

/// The queue.
#[derive(Debug)]
pub struct Ring<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, usize)>,
    /// How many were pushed before the first that is kept.
    base: u64,
    weight: usize,
    max_weight: usize,
    /// The last pushed item's revision, or where the ring began.
    last: Revision,
    /// Nothing more comes up to here.
    progress: Revision,
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    waiting: usize,
    trim_items: usize,
    trim_weight: usize,
    end: Option<End>,
}

/// A reader's place.
#[derive(Debug)]
struct Seat {
    /// The number of the next item.
    next: u64,
    buffer: u64,
    waker: Option<Waker>,
}

/// What a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Items, put where it wanted them.
    Items,
    /// Nothing but that everything up to here has been read.
    Progress(Revision),
}

/// One reader; dropping it leaves.
#[derive(Debug)]
pub struct Reader<T> {
    ring: Arc<Ring<T>>,
    index: usize,
    told: Revision,
}

impl<T> Ring<T> {
    /// A ring that begins after `start` and keeps at most `max_weight` for slow readers.
    #[must_use]
    pub fn new(start: Revision, max_weight: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            items: VecDeque::new(),
            base: 0,
            weight: 0,
            max_weight,
            last: start,
            progress: start,
            seats: Vec::new(),
            free: Vec::new(),
            waiting: 0,
            trim_items: TRIM_ITEMS,
            trim_weight: TRIM_WEIGHT,
            end: None,
        })))
    }

    /// A reader of everything that is pushed from now on. It is lost when it is more than `buffer` items behind.
    #[must_use]
    pub fn join(self: &Arc<Self>, buffer: usize) -> Reader<T> {
        self.sit(&mut self.0.lock(), buffer)
    }

    /// As [`Ring::join`], but only when nothing has been pushed after `position`: else this reader would miss it.
    #[must_use]
    pub fn join_at(self: &Arc<Self>, position: Revision, buffer: usize) -> Option<Reader<T>> {
        let mut state = self.0.lock();
        (state.last <= position && state.end.is_none()).then(|| self.sit(&mut state, buffer))
    }

    fn sit(self: &Arc<Self>, state: &mut State<T>, buffer: usize) -> Reader<T> {
        let seat = Seat {
            next: state.head(),
            buffer: buffer.max(1) as u64,
            waker: None,
        };
        let index = state.free.pop().unwrap_or(state.seats.len());
        if index == state.seats.len() {
            state.seats.push(Some(seat));
        } else {
            state.seats[index] = Some(seat);
        }
        Reader {
            ring: Arc::clone(self),
            index,
            told: state.progress,
        }
    }

    /// Appends the item of `revision`, which weighs `weight`, unless one of that revision or a later one is in already; tells
    /// whether it did. Who waits is woken by [`Ring::wake`].
    pub fn push_after(&self, item: &T, revision: Revision, weight: usize) -> bool
    where
        T: Clone,
    {
        let mut state = self.0.lock();
        if revision <= state.last {
            return false;
        }
        state.items.push_back((item.clone(), weight));
        state.weight += weight;
        state.last = revision;
        state.progress = state.progress.max(revision);
        if state.items.len() >= state.trim_items || state.weight >= state.trim_weight {
            state.trim();
        }
        true
    }

    /// Tells that nothing more comes up to `revision`.
    pub fn progress(&self, revision: Revision) {
        let mut state = self.0.lock();
        state.progress = state.progress.max(revision);
    }

    /// Ends it: readers get what is left, then `end`.
    pub fn end(&self, end: End) {
        self.0.lock().end.get_or_insert(end);
    }

    /// Wakes who waits for what was pushed.
    pub fn wake(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.0.lock();
            if state.waiting == 0 {
                return;
            }
            state.waiting = 0;
            let seats = state.seats.iter_mut().flatten();
            seats.filter_map(|seat| seat.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many readers there are.
    #[must_use]
    pub fn readers(&self) -> usize {
        let state = self.0.lock();
        state.seats.len() - state.free.len()
    }

    /// How far it has come.
    #[must_use]
    pub fn reached(&self) -> Revision {
        self.0.lock().progress
    }
}

impl<T> State<T> {
    /// The number of the next item to be pushed.
    fn head(&self) -> u64 {
        self.base + self.items.len() as u64
    }

    /// Forgets what every reader has, or may not expect to get any more.
    fn trim(&mut self) {
        let head = self.head();
        let places = self.seats.iter().flatten();
        let kept = places.filter(|seat| head - seat.next <= seat.buffer);
        let oldest = kept.map(|seat| seat.next).min().unwrap_or(head);
        while self.base < oldest || self.weight > self.max_weight {
            let Some((_, weight)) = self.items.pop_front() else {
                break;
            };
            self.base += 1;
            self.weight -= weight;
        }
        self.trim_items = TRIM_ITEMS.max(self.items.len() * 2);
        self.trim_weight = TRIM_WEIGHT.max((self.weight * 2).min(self.max_weight));
    }
}

impl<T: Clone> Reader<T> {
    /// Puts up to `most` items into `out`, or tells of progress, or waits.
    ///
    /// # Errors
    /// Why nothing more comes. Dropping the future loses nothing.
    pub async fn next(&mut self, most: usize, out: &mut VecDeque<T>) -> Result<Turn, End> {
        poll_fn(|cx| self.poll_next(cx, most, out)).await
    }

    /// As [`Reader::next`], for those who poll.
    ///
    /// # Errors
    /// Those of `next`.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        out: &mut VecDeque<T>,
    ) -> Poll<Result<Turn, End>> {
        let mut state = self.ring.0.lock();
        let state = &mut *state;
        let (head, base) = (state.head(), state.base);
        let Some(seat) = state.seats.get_mut(self.index).and_then(Option::as_mut) else {
            return Poll::Ready(Err(End::Closed));
        };
        if seat.next < base || head - seat.next > seat.buffer {
            return Poll::Ready(Err(End::Lost));
        }
        if seat.next < head {
            let skip = (seat.next - base) as usize;
            let upto = state.items.len().min(skip.saturating_add(most.max(1)));
            out.extend(state.items.range(skip..upto).map(|(item, _)| item.clone()));
            seat.next = base + upto as u64;
            if seat.next == head {
                self.told = state.progress;
                if state.seats.len() == 1 {
                    state.trim();
                }
            }
            return Poll::Ready(Ok(Turn::Items));
        }
        if state.progress > self.told {
            self.told = state.progress;
            return Poll::Ready(Ok(Turn::Progress(state.progress)));
        }
        if let Some(end) = state.end {
            return Poll::Ready(Err(end));
        }
        if seat.waker.replace(cx.waker().clone()).is_none() {
            state.waiting += 1;
        }
        Poll::Pending
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        let mut state = self.ring.0.lock();
        if let Some(seat) = state.seats.get_mut(self.index).and_then(Option::take)
            && seat.waker.is_some()
        {
            state.waiting -= 1;
        }
        state.free.push(self.index);
        if state.free.len() == state.seats.len() {
            state.trim();
        }
    }
}

#[cfg(test)]
mod tests;
