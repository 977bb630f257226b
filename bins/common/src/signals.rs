//! From SIGINT and SIGTERM to an orderly end.

use std::future::Future;
use std::io;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How [`run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended<T> {
    /// The work came to its own end, asked or not.
    Finished(T),
    /// A second signal came before the work had ended; it was dropped where it stood.
    Abandoned,
}

/// Runs `work` to its end. The first SIGINT or SIGTERM cancels `shutdown` and the work goes on until it returns; the
/// second one drops it.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn run<F: Future>(shutdown: CancellationToken, work: F) -> io::Result<Ended<F::Output>> {
    let mut signals = Signals::install()?;
    let mut work = pin!(work);
    // Signals first, both times: work that is never idle must not keep them waiting.
    tokio::select! {
        biased;
        name = signals.next() => {
            tracing::info!(signal = name, "shutting down; once more ends at once");
            shutdown.cancel();
        }
        done = &mut work => return Ok(Ended::Finished(done)),
    }
    tokio::select! {
        biased;
        name = signals.next() => {
            tracing::warn!(signal = name, "ended before the shutdown was complete");
            Ok(Ended::Abandoned)
        }
        done = &mut work => Ok(Ended::Finished(done)),
    }
}

/// The signals that ask a process to end.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs the handlers: from now on these signals end nothing by themselves.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Sig, getpid, kill_process};

    /// One test, because signals belong to the whole process.
    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_ends() {
        // Installed before any signal is sent: the process survives them all.
        let mut seen = Signals::install().unwrap();

        let token = CancellationToken::new();
        let ended = run(token.clone(), async { 7 }).await.unwrap();
        assert_eq!(ended, Ended::Finished(7));
        assert!(!token.is_cancelled());

        let token = CancellationToken::new();
        let asked = token.clone();
        let ended = run(token, async {
            kill_process(getpid(), Sig::TERM).unwrap();
            asked.cancelled().await;
            "clean"
        });
        assert_eq!(ended.await.unwrap(), Ended::Finished("clean"));
        assert_eq!(seen.next().await, "SIGTERM");

        let token = CancellationToken::new();
        let asked = token.clone();
        let ended = run(token, async {
            kill_process(getpid(), Sig::INT).unwrap();
            asked.cancelled().await;
            kill_process(getpid(), Sig::INT).unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(ended.await.unwrap(), Ended::Abandoned);
    }
}
