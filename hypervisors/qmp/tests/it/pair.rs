//! Two hosts that see the same disks, and a guest that counts on its serial port.
//!
//! Each host is a hypervisor with a directory of its own that listens on a loopback address of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use skyloom_hypervisor::conformance::{MigrationExam, PairUnderExam, Side};
use skyloom_hypervisor::{Hypervisor, VmSpec};
use skyloom_model::ServerId;
use skyloom_qmp::{MigrationConfig, QmpConfig, QmpHypervisor};

use crate::guest::{Mode, counting_disk, tell};
use crate::host::{Host, PATIENCE, exists, fresh_uuid, qemus, signal};

/// A guest ticks 18 times a second: one that says nothing for so long does not execute.
const SILENCE: Duration = Duration::from_secs(3);

/// The exam of migrations. Memory goes slowly, so that a busy guest is faster.
#[allow(dead_code, reason = "not every test program uses it")]
#[derive(Debug)]
pub(crate) struct QmpPairs;

#[async_trait]
impl MigrationExam for QmpPairs {
    async fn sit(&self) -> Box<dyn PairUnderExam> {
        Box::new(Pair::slow().await)
    }
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// The hypervisors are dropped first, as agents end before their hosts.
pub(crate) struct Pair {
    open: [Option<Arc<QmpHypervisor>>; 2],
    hosts: [Host; 2],
    migration: [MigrationConfig; 2],
}

const fn number(side: Side) -> usize {
    match side {
        Side::Source => 0,
        Side::Destination => 1,
    }
}

fn loopback() -> SocketAddr {
    let [.., a, b, c] = fresh_uuid().into_bytes();
    SocketAddr::from((Ipv4Addr::new(127, a | 1, b, c.clamp(1, 254)), 4711))
}

#[allow(dead_code, reason = "not every test program uses it")]
impl Pair {
    /// Memory goes as fast as it can.
    pub(crate) async fn fast() -> Self {
        Self::new(MigrationConfig::new).await
    }
    pub(crate) async fn slow() -> Self {
        Self::new(|at| {
            MigrationConfig::new(at)
                .with_bytes_per_second(4 << 20)
                .with_downtime(Duration::from_millis(30))
        })
        .await
    }
    async fn new(configure: impl Fn(SocketAddr) -> MigrationConfig) -> Self {
        let migration = [configure(loopback()), configure(loopback())];
        let hosts = [Host::new(), Host::new()];
        let mut pair = Self {
            open: [None, None],
            hosts,
            migration,
        };
        pair.open_both().await;
        pair
    }
    fn config(&self, side: Side) -> QmpConfig {
        let at = number(side);
        self.hosts[at].config().with_migration(self.migration[at])
    }
    async fn open_both(&mut self) {
        for side in [Side::Source, Side::Destination] {
            let at = number(side);
            let opened = self.hosts[at].open_with(self.config(side)).await;
            self.open[at] = Some(Arc::new(opened));
        }
    }
    pub(crate) fn at(&self, side: Side) -> Arc<QmpHypervisor> {
        self.open[number(side)].clone().expect("open")
    }
    pub(crate) fn host(&self, side: Side) -> &Host {
        &self.hosts[number(side)]
    }
    pub(crate) fn address(&self, side: Side) -> SocketAddr {
        self.migration[number(side)].listen
    }
    /// A guest that counts; its disk is the source's.
    pub(crate) fn counting(&self, busy: bool) -> VmSpec {
        let spec = self.hosts[0].spec("counting", Mode::Idle);
        fs::write(&spec.disks[0].path, counting_disk(busy)).unwrap();
        spec
    }
    fn serial(&self, side: Side, id: ServerId) -> PathBuf {
        self.host(side).vm_dir(id).join("serial.log")
    }
    /// All that the guest has written on this side.
    pub(crate) fn written(&self, side: Side, id: ServerId) -> String {
        String::from_utf8_lossy(&fs::read(self.serial(side, id)).unwrap_or_default()).into_owned()
    }
    /// The processes of this side alone.
    pub(crate) fn processes(&self, side: Side, id: ServerId) -> Vec<u32> {
        let dir = self.host(side).vm_dir(id);
        let here = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir);
        qemus(id).into_iter().filter(here).collect()
    }
}

/// Looks again and again at something that needs no waiting.
async fn seen<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The counters in what a guest wrote, in order.
#[allow(dead_code, reason = "not every test program uses it")]
pub(crate) fn counters(written: &str) -> Vec<u32> {
    lines(written).map(|(counter, _)| counter).collect()
}

/// Counter and number of each whole line.
fn lines(written: &str) -> impl Iterator<Item = (u32, u64)> {
    let whole = written.rfind('\n').map_or("", |end| &written[..end]);
    whole.lines().filter_map(|line| {
        let letters: Option<Vec<u32>> = line
            .bytes()
            .map(|b| (b'a'..=b'p').contains(&b).then(|| u32::from(b - b'a')))
            .collect();
        let letters = letters.filter(|l| l.len() == 6)?;
        let value = |l: &[u32]| l.iter().fold(0, |all, l| all << 4 | l);
        Some((value(&letters[..4]), u64::from(value(&letters[4..]))))
    })
}

#[async_trait]
impl PairUnderExam for Pair {
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor> {
        self.at(side)
    }
    async fn reopen(&mut self) {
        self.open = [None, None];
        self.open_both().await;
    }
    async fn spec(&self, busy: bool) -> VmSpec {
        self.counting(busy)
    }
    async fn executes(&self, side: Side, id: ServerId) -> bool {
        if self.processes(side, id).is_empty() {
            return false;
        }
        let length = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
        let file = self.serial(side, id);
        let before = length(&file);
        let grows = async {
            while length(&file) == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SILENCE, grows).await.is_ok()
    }
    async fn remember(&self, side: Side, id: ServerId, number: u64) {
        let disk = self.hosts[0].temp.path().join(format!("{id}.raw"));
        tell(&disk, &[b'R', b'M', u8::try_from(number).unwrap()]);
        seen("the guest knows the number", || {
            lines(&self.written(side, id))
                .any(|(_, n)| n == number)
                .then_some(())
        })
        .await;
        // From here on it is in its memory alone.
        tell(&disk, &[0, 0, 0]);
    }
    async fn memory(&self, side: Side, id: ServerId) -> u64 {
        let before = self.written(side, id).len();
        seen("the guest says its number", || {
            let written = self.written(side, id);
            let new = &written[before.min(written.len())..];
            // The first line may be half a line.
            lines(new).nth(1).map(|(_, number)| number)
        })
        .await
    }
    async fn crash(&self, side: Side, id: ServerId) {
        let pids = self.processes(side, id);
        for pid in &pids {
            signal(*pid, Signal::KILL);
        }
        let there = |pid: &u32| exists(Path::new(&format!("/proc/{pid}")));
        seen("it is gone", || (!pids.iter().any(there)).then_some(())).await;
    }
}
