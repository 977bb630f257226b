//! Threads of our own for calls that block. A call that hangs (a frozen daemon) keeps its thread and nothing else: neither
//! a thread of the runtime nor the runtime's end waits for it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use parking_lot::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads and what waits for them.
#[derive(Debug)]
pub(crate) struct Threads {
    jobs: Mutex<Option<Sender<Job>>>,
    /// Closed when the last thread has ended.
    ended: tokio::sync::Mutex<tokio::sync::mpsc::Receiver<()>>,
}

impl Threads {
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let (alive, ended) = tokio::sync::mpsc::channel(1);
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..count {
            let (waiting, alive) = (Arc::clone(&waiting), alive.clone());
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    while let Some(job) = next(&waiting) {
                        // A job that panics answers nobody; the thread is there for the next one.
                        if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                            tracing::error!("a call to libvirt has panicked");
                        }
                    }
                    drop(alive);
                })?;
        }
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    /// Queues a job; it is dropped when the threads are closed.
    pub(crate) fn run(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock() {
            // The threads live as long as this sender.
            let _ = jobs.send(job);
        }
    }

    /// Lets the threads end when they have done what is queued.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().take());
    }

    /// Waits for their end, at most for `limit`.
    pub(crate) async fn ended(&self, limit: Duration) {
        let mut ended = self.ended.lock().await;
        let _ = tokio::time::timeout(limit, ended.recv()).await;
    }
}

/// One thread waits in the channel, the others for it.
fn next(waiting: &Mutex<Receiver<Job>>) -> Option<Job> {
    waiting.lock().recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_queued_is_done_before_the_end_and_nothing_after() {
        let threads = Threads::start("test", 2).unwrap();
        let (told, heard) = mpsc::channel();
        for number in 0..100 {
            let told = told.clone();
            threads.run(Box::new(move || told.send(number).unwrap()));
        }
        for _ in 0..4 {
            threads.run(Box::new(|| panic!("a thread survives this")));
        }
        let last = told.clone();
        threads.run(Box::new(move || last.send(100).unwrap()));
        threads.close();
        threads.run(Box::new(|| unreachable!("closed")));
        threads.ended(Duration::from_secs(60)).await;
        drop(told);
        let mut all: Vec<i32> = heard.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (0..=100).collect::<Vec<_>>());
    }
}
