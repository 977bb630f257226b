//! What the disk can do: the floor under every durable commit.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use skyloom::model::{Clock as _, SystemClock};

use crate::meter::{Anyhow, Meter};
use crate::table::Samples;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 1024;

/// 4 KiB written and `fdatasync`ed, again and again, over a file whose room is already taken: what a log that is reused
/// does at best.
pub(crate) fn fdatasync(dir: &Path, limit: Duration, clock: SystemClock) -> Result<Samples, Anyhow> {
    let path = dir.join("probe");
    let file = File::create(&path)?;
    for n in 0..BLOCKS {
        file.write_all_at(&[1; BLOCK], n * BLOCK as u64)?;
    }
    file.sync_all()?;
    let block = [7; BLOCK];
    let meter = Meter::start(clock)?;
    let start = clock.monotonic();
    let mut took = Vec::new();
    for n in 0u64.. {
        let begin = clock.monotonic();
        if begin.saturating_sub(start) >= limit {
            break;
        }
        file.write_all_at(&block, (n % BLOCKS) * BLOCK as u64)?;
        file.sync_data()?;
        took.push(clock.monotonic().saturating_sub(begin));
    }
    let samples = Samples::new(took, meter.stop()?);
    std::fs::remove_file(path)?;
    Ok(samples)
}
