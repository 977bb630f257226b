//! A connection to libvirt, the threads that call over it, and who opens it again.
//!
//! ```text
//!  verb ──call(limit, hold, work)──> own thread ── work(connection) ──> libvirt
//!       <── answer, or Late ──────────┘  hold is let go when the call has really returned
//!  keeper: connection dead ──> Down ──> open, with back-off ──> Up   (and tells listeners that they lost events)
//! ```
//!
//! There are two: one for looks, one for work, so that no look waits behind a start.

use std::sync::Arc;
use std::time::Duration;

use skyloom_model::report;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;

use crate::config::LibvirtConfig;
use crate::errors::{Fault, is_dead};
use crate::hub::Hub;
use crate::r#loop::EventLoop;
use crate::raw;
use crate::threads::Threads;

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// An open connection.
#[derive(Debug)]
pub(crate) struct Conn {
    connect: Connect,
    driver: Driver,
    /// Cancelled when the connection is of no use any more.
    dead: CancellationToken,
    lifecycle: Option<i32>,
    watched: bool,
    /// Outlives the connection.
    _events: Arc<EventLoop>,
}

/// What is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// QEMU, by a daemon.
    Qemu,
    /// libvirt's test driver, in this process.
    Test,
}

impl Conn {
    /// Blocks.
    fn open(uri: &str, keep_alive: u16, hub: Option<&Arc<Hub>>) -> Result<Self, Fault> {
        let events = EventLoop::get().map_err(|e| Fault::Down(e.to_string()))?;
        let connect = Connect::open(Some(uri))?;
        let mut conn = Self {
            connect,
            driver: Driver::Qemu,
            dead: CancellationToken::new(),
            lifecycle: None,
            watched: false,
            _events: events,
        };
        conn.driver = match conn.connect.get_type()?.as_str() {
            "QEMU" => Driver::Qemu,
            "TEST" => Driver::Test,
            other => return Err(Fault::Unsupported(format!("the hypervisor {other}"))),
        };
        if conn.driver == Driver::Qemu {
            conn.connect.set_keep_alive(i32::from(keep_alive), 3)?;
            let dead = conn.dead.clone();
            raw::on_close(&conn.connect, Box::new(move |_| dead.cancel()))?;
            conn.watched = true;
        }
        if let Some(hub) = hub {
            let hub = Arc::downgrade(hub);
            let told = move |change| {
                if let Some(hub) = hub.upgrade() {
                    hub.changed(&change);
                }
            };
            conn.lifecycle = Some(raw::on_lifecycle(&conn.connect, Box::new(told))?);
        }
        Ok(conn)
    }
}

impl Drop for Conn {
    /// Blocks: dropped on a thread of a lane.
    fn drop(&mut self) {
        let said = |e: virt::error::Error| tracing::debug!(error = %e, "closing a connection to libvirt");
        if let Some(id) = self.lifecycle.take() {
            raw::off_lifecycle(&self.connect, id).unwrap_or_else(said);
        }
        if self.watched {
            raw::off_close(&self.connect).unwrap_or_else(said);
        }
        if let Err(e) = self.connect.close() {
            said(e);
        }
    }
}

#[derive(Debug, Clone)]
enum State {
    Up(Arc<Conn>),
    Down(String),
}

/// A connection that is opened again when it ends.
#[derive(Debug)]
pub(crate) struct Lane {
    uri: String,
    keep_alive: u16,
    longest_pause: Duration,
    threads: Threads,
    /// Listeners of this connection's events, if it has any.
    hub: Option<Arc<Hub>>,
    state: watch::Sender<State>,
}

impl Lane {
    /// Starts the threads and opens the connection for the first time.
    pub(crate) async fn open(
        config: &LibvirtConfig,
        name: &str,
        threads: usize,
        hub: Option<Arc<Hub>>,
    ) -> Result<(Arc<Self>, Driver), Fault> {
        if config.uri.contains('\0') {
            return Err(Fault::Down("the URI is none".to_owned()));
        }
        let lane = Self {
            uri: config.uri.clone(),
            keep_alive: config.timeouts.keep_alive,
            longest_pause: config.timeouts.reconnect,
            threads: Threads::start(name, threads).map_err(|e| Fault::Down(e.to_string()))?,
            hub,
            state: watch::Sender::new(State::Down("not connected yet".to_owned())),
        };
        let limit = config.timeouts.connect;
        let opened = tokio::time::timeout(limit, lane.connect()).await;
        let conn = match opened {
            Ok(Ok(conn)) => conn,
            Ok(Err(fault)) => {
                lane.shut();
                return Err(fault);
            }
            Err(_) => {
                lane.shut();
                return Err(Fault::Late(limit));
            }
        };
        let driver = conn.driver;
        lane.state.send_replace(State::Up(conn));
        Ok((Arc::new(lane), driver))
    }

    async fn connect(&self) -> Result<Arc<Conn>, Fault> {
        let (sender, opened) = oneshot::channel();
        let (uri, keep_alive, hub) = (self.uri.clone(), self.keep_alive, self.hub.clone());
        self.threads.run(Box::new(move || {
            let conn = Conn::open(&uri, keep_alive, hub.as_ref()).map(Arc::new);
            // Nobody waits any more: it is dropped, here.
            drop(sender.send(conn));
        }));
        opened.await.map_err(|_| Fault::Closed)?
    }

    /// Keeps the connection up, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            let State::Up(conn) = self.state.borrow().clone() else {
                return;
            };
            conn.dead.cancelled().await;
            self.let_go(conn, "the connection has ended");
            self.tell_lost();
            let mut pause = FIRST_PAUSE;
            loop {
                // No limit: a second attempt beside a hanging one would hang, too.
                match self.connect().await {
                    Ok(conn) => {
                        self.state.send_replace(State::Up(conn));
                        break;
                    }
                    Err(fault) => {
                        let why = report(&fault);
                        tracing::debug!(uri = %self.uri, error = %why, "no connection to libvirt");
                        self.state.send_replace(State::Down(why));
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(self.longest_pause);
            }
            tracing::info!(uri = %self.uri, "connected to libvirt again");
            // Whatever happened in between was told to nobody.
            self.tell_lost();
        }
    }

    fn tell_lost(&self) {
        if let Some(hub) = &self.hub {
            hub.lost();
        }
    }

    /// The connection is closed on one of the threads, when nobody uses it any more.
    fn let_go(&self, conn: Arc<Conn>, why: &str) {
        let old = self.state.send_replace(State::Down(why.to_owned()));
        self.threads.run(Box::new(move || drop((conn, old))));
    }

    /// Why there is no connection, if there is none.
    pub(crate) fn down(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(_) => None,
            State::Down(why) => Some(why.clone()),
        }
    }

    /// Does `work` on a thread of its own, and waits for it at most for `limit`. `hold` is dropped only when the work
    /// has really ended: a lock in it keeps others from overtaking a call that is late.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        hold: impl Send + 'static,
        work: impl FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let conn = match &*self.state.borrow() {
            State::Up(conn) => Arc::clone(conn),
            State::Down(why) => return Err(Fault::Down(why.clone())),
        };
        let (sender, answer) = oneshot::channel();
        let span = tracing::Span::current();
        self.threads.run(Box::new(move || {
            let _in_span = span.enter();
            let done = work(&conn.connect);
            if let Err(Fault::Libvirt(e)) = &done
                && is_dead(e)
            {
                conn.dead.cancel();
            }
            drop((conn, hold));
            // Nobody may wait any more.
            drop(sender.send(done));
        }));
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Fault::Closed),
            Err(_) => Err(Fault::Late(limit)),
        }
    }

    /// Closes the connection and lets the threads end.
    pub(crate) fn shut(&self) {
        let old = self
            .state
            .send_replace(State::Down("the hypervisor is closed".to_owned()));
        self.threads.run(Box::new(move || drop(old)));
        self.threads.close();
    }

    /// Waits for the end of the threads after [`Lane::shut`].
    pub(crate) async fn ended(&self, limit: Duration) {
        self.threads.ended(limit).await;
    }
}
