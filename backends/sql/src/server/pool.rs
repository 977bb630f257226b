//! Connections for reading and for small errands: lent for one call, kept when it went well, dropped when it did not.
//!
//! The driver's own pool asks the server after every use whether the connection still works, which doubles the work of
//! a read, and waits without a limit for answers to abandoned calls.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use skyloom_store::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;

use super::dialect::{Dialect, Fault, Link, failed};
use super::queue::closed;
use super::{Limits, timed};

#[derive(Debug)]
pub(super) struct Pool<D: Dialect> {
    pub(super) dialect: Arc<D>,
    idle: Mutex<Vec<Link<D::Raw>>>,
    room: Semaphore,
    limits: Limits,
}

impl<D: Dialect> Pool<D> {
    pub(super) fn new(dialect: Arc<D>, connections: u32, limits: Limits) -> Self {
        Self {
            dialect,
            idle: Mutex::new(Vec::new()),
            room: Semaphore::new(connections as usize),
            limits,
        }
    }

    /// A new connection, within the time limit.
    pub(super) async fn connect(&self) -> Result<Link<D::Raw>> {
        let connect = self.dialect.connect();
        match tokio::time::timeout(self.limits.wait, connect).await {
            Ok(link) => link,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "connect")
                .with("state", "no answer from the server")
                .with("waited ms", self.limits.wait.as_millis())),
        }
    }

    /// Runs `call`, which changes nothing, on one of the connections. One that turns out to be broken is replaced.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        call: impl for<'c> Fn(&'c D, &'c mut Link<D::Raw>) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync,
    ) -> Result<T> {
        let room = match tokio::time::timeout(self.limits.wait, self.room.acquire()).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(closed(operation)),
            Err(_) => {
                return Err(Error::new(ErrorKind::Overloaded, operation)
                    .with("state", "all connections are in use")
                    .with("waited ms", self.limits.wait.as_millis()));
            }
        };
        let mut idle = self.idle.lock().pop();
        let answer = loop {
            let (mut link, old) = match idle.take() {
                Some(link) => (link, true),
                None => (self.connect().await?, false),
            };
            match timed(self.limits.patience, call(&self.dialect, &mut link)).await {
                Ok(answer) => {
                    if !link.dirty && !self.room.is_closed() {
                        self.idle.lock().push(link);
                    }
                    break Ok(answer);
                }
                Err(e) => {
                    let fault = self.dialect.fault(&e);
                    if old && matches!(fault, Fault::Lost(_)) {
                        // The others are as old.
                        self.idle.lock().clear();
                        continue;
                    }
                    break Err(failed(&*self.dialect, operation, e));
                }
            }
        };
        drop(room);
        answer
    }

    /// Refuses further calls and closes what is idle.
    pub(super) async fn close(&self) {
        self.room.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for link in idle {
            let _ = tokio::time::timeout(self.limits.wait, self.dialect.disconnect(link)).await;
        }
    }
}
