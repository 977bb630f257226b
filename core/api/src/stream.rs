//! What keeps a long answer alive, and what ends it: the server's shutdown, a token that stops being good.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth::{Identity, still_good};
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::seats::Seat;

/// The keeper of one open stream. Holds its seat.
pub(crate) struct Keeper {
    state: AppState,
    identity: Identity,
    ticks: Interval,
    _seat: Seat,
}

/// What comes next in a kept stream.
pub(crate) enum Next<T> {
    /// An item of the stream itself.
    Item(T),
    /// Time to show the client that this end lives.
    Tick,
    /// Nothing more.
    End,
}

impl Keeper {
    pub(crate) fn new(state: &AppState, identity: Identity) -> Result<Self, ApiError> {
        let mut seat = state.streams.take()?;
        seat.name(identity.token)?;
        let every = state.parts.limits.heartbeat.max(Duration::from_millis(10));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        Ok(Self {
            state: state.clone(),
            identity,
            ticks,
            _seat: seat,
        })
    }

    /// The next of `stream`, a tick, or the end.
    pub(crate) async fn next<S: Stream + Unpin>(&mut self, stream: &mut S) -> Next<S::Item> {
        tokio::select! {
            biased;
            () = self.state.parts.shutdown.cancelled() => Next::End,
            _ = self.ticks.tick() => {
                if still_good(&self.state, &self.identity).await { Next::Tick } else { Next::End }
            }
            item = stream.next() => item.map_or(Next::End, Next::Item),
        }
    }
}
