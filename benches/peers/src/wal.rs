//! A bare write-ahead log with group commit: the least that "durable before it is acknowledged" can cost.
//!
//! ```text
//! append ─> channel ─> writer thread: all that is waiting ─> one pwrite ─> one fdatasync ─> all answers
//! ```
//!
//! The file has its full length before the first record, as logs do that reuse their segments: so an `fdatasync` writes
//! data and no metadata. When the end is reached it goes on at the beginning; nobody reads this log but the tests.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

/// Room of the log.
const LENGTH: u64 = 64 << 20;
/// Most records that share one `fdatasync`.
const BATCH: usize = 4096;

type Waiting = (Vec<u8>, oneshot::Sender<()>);

/// A log that any number of tasks append to.
#[derive(Debug)]
pub struct Wal {
    records: Option<mpsc::UnboundedSender<Waiting>>,
    syncs: Arc<AtomicU64>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Wal {
    /// A new log at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..LENGTH).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        let (records, waiting) = mpsc::unbounded_channel();
        let syncs = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&syncs);
        let writer = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || write(&file, waiting, &counter))?;
        Ok(Self {
            records: Some(records),
            syncs,
            writer: Some(writer),
        })
    }

    /// Returns when `record` is on disk.
    pub async fn append(&self, record: Vec<u8>) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        let records = self
            .records
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("the log is closed"))?;
        records.send((record, done))?;
        Ok(answer.await?)
    }

    /// Durable writes so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        drop(self.records.take());
        if let Some(writer) = self.writer.take() {
            // What could not be written was never acknowledged.
            let _ = writer.join();
        }
    }
}

/// The writer thread: until every handle is gone, or the disk fails.
fn write(file: &File, mut waiting: mpsc::UnboundedReceiver<Waiting>, syncs: &AtomicU64) -> io::Result<()> {
    let (mut batch, mut bytes, mut at) = (Vec::with_capacity(BATCH), Vec::new(), 0);
    while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
        bytes.clear();
        for (record, _) in &batch {
            bytes.extend_from_slice(record);
            bytes.push(b'\n');
        }
        if at + bytes.len() as u64 > LENGTH {
            at = 0;
        }
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        syncs.fetch_add(1, Ordering::Relaxed);
        at += bytes.len() as u64;
        for (_, done) in batch.drain(..) {
            // A caller that is gone does not hear it.
            let _ = done.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::{mpsc, oneshot};

    use super::{Wal, write};

    /// An acknowledged record is in the file, in the order of the acknowledgements, before the next one is asked for.
    #[tokio::test]
    async fn what_is_acknowledged_is_in_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("wal");
        let wal = Wal::create(&path).expect("a log");
        let mut expected = Vec::new();
        for n in 0..20_u8 {
            wal.append(vec![b'a' + n; 3]).await.expect("an answer");
            expected.extend([b'a' + n; 3]);
            expected.push(b'\n');
            let file = std::fs::read(&path).expect("the file");
            assert_eq!(file[..expected.len()], expected[..]);
        }
        assert_eq!(wal.syncs(), 20, "one by one, each has its own");
    }

    #[test]
    fn those_who_wait_together_share_a_sync() {
        let (records, waiting) = mpsc::unbounded_channel();
        let mut answers = Vec::new();
        for _ in 0..500 {
            let (done, answer) = oneshot::channel();
            records.send((vec![7; 512], done)).expect("a reader");
            answers.push(answer);
        }
        drop(records);
        let syncs = AtomicU64::new(0);
        write(&tempfile::tempfile().expect("a file"), waiting, &syncs).expect("a good disk");
        assert_eq!(syncs.load(Ordering::Relaxed), 1);
        assert!(answers.iter_mut().all(|a| a.try_recv().is_ok()));
    }
}
