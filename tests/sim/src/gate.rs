//! The way in and out of one process: what stops it, what cuts it off.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A process's gate. Every call out of the process and every answer into it passes here.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Nothing goes on in the process (SIGSTOP).
    paused: bool,
    /// The process is no more: whoever still waits here waits for ever.
    dead: bool,
    /// Requests do not get out.
    cut_out: bool,
    /// Answers and events do not get in.
    cut_in: bool,
    /// How much later than usual answers come, in milliseconds.
    lag: u64,
}

impl Gate {
    /// Goes on when the process runs.
    pub(crate) async fn pass(&self) {
        self.until(|s| !s.paused && !s.dead).await;
    }

    /// Goes on when the process runs and is not cut off from what comes in.
    pub(crate) async fn receive(&self) {
        self.until(|s| !s.paused && !s.dead && !s.cut_in).await;
    }

    async fn until(&self, open: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if open(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_waiters();
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.set(|s| s.paused = paused);
    }

    pub(crate) fn cut(&self, out: bool, inwards: bool) {
        self.set(|s| (s.cut_out, s.cut_in) = (out, inwards));
    }

    pub(crate) fn lag(&self, ms: u64) {
        self.state.lock().lag = ms;
    }

    /// How much later than usual answers come.
    pub(crate) fn lagging(&self) -> u64 {
        self.state.lock().lag
    }

    pub(crate) fn kill(&self) {
        self.state.lock().dead = true;
    }

    /// Whether requests are cut off, and whether answers are.
    pub(crate) fn cuts(&self) -> (bool, bool) {
        let s = self.state.lock();
        (s.cut_out, s.cut_in)
    }
}
