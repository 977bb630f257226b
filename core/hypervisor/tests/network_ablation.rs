//! The network's exam can see: fakes with one bug each fail the case that is there for it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use skyloom_hypervisor::conformance::{NetworkExam, NetworkUnderExam, exam_wiring, network_cases};
use skyloom_hypervisor::{
    Error, ErrorKind, FakeNetwork, FakeWorld, HostNetwork, NetworkCapability, NicDevice, PortThere,
    PortWiring, Result,
};
use skyloom_model::PortId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    WiresStale,
    RemovesStale,
    KeepsRemoved,
    RemovesAll,
    AbsentIsAnError,
    OneDevice,
    DeviceOfTheGeneration,
    IgnoresNewer,
    MovesPorts,
    StealsAddresses,
    AddressesAreTheHosts,
    TakesNonsense,
    NeverComplete,
    ForgetsWithItsAgent,
    ForgetsGenerationWithItsAgent,
}

/// The last part is whether it was opened again.
#[derive(Debug)]
struct Broken(FakeNetwork, Bug, bool);

impl Broken {
    fn there(&self, port: PortId) -> Option<PortWiring> {
        self.0.world().wiring(port).unwrap()
    }
    async fn remove_others(&self, wanted: impl Fn(&PortThere) -> bool) {
        for port in self.0.ports().await.unwrap().iter().filter(|p| wanted(p)) {
            self.0.remove_port(port.port, u64::MAX).await.unwrap();
        }
    }
}

#[async_trait]
impl HostNetwork for Broken {
    fn capability(&self) -> NetworkCapability {
        self.0.capability()
    }

    async fn ensure_port(&self, wiring: &PortWiring) -> Result<NicDevice> {
        let mut wiring = wiring.clone();
        let there = self.there(wiring.port);
        match (self.1, &there) {
            (Bug::WiresStale, Some(there)) => wiring.generation = wiring.generation.max(there.generation),
            (Bug::IgnoresNewer, Some(there)) => wiring = there.clone(),
            (Bug::ForgetsGenerationWithItsAgent, Some(_)) if self.2 => {
                self.0.remove_port(wiring.port, u64::MAX).await?;
            }
            (Bug::MovesPorts, Some(there)) if there.network.id != wiring.network.id => {
                self.0.remove_port(wiring.port, u64::MAX).await?;
            }
            (Bug::TakesNonsense, _) if wiring.check().is_err() => wiring = exam_wiring(1, 1),
            _ => {}
        }
        let mut wired = self.0.ensure_port(&wiring).await;
        let conflict = wired.as_ref().is_err_and(|e| e.kind() == ErrorKind::Conflict);
        if self.1 == Bug::StealsAddresses && conflict {
            self.remove_others(|p| p.port != wiring.port).await;
            wired = self.0.ensure_port(&wiring).await;
        }
        if self.1 == Bug::AddressesAreTheHosts {
            let ports = self.0.ports().await?;
            let others = ports
                .iter()
                .filter(|p| p.port != wiring.port)
                .map(|p| self.there(p.port).unwrap());
            if others.clone().any(|other| other.addresses == wiring.addresses) {
                return Err(Error::new(ErrorKind::Conflict, "wire port"));
            }
        }
        let mut device = wired?;
        match self.1 {
            Bug::OneDevice => device.device = Some("tap0".to_owned()),
            Bug::DeviceOfTheGeneration => device.device = Some(format!("tap{}", wiring.generation)),
            _ => {}
        }
        Ok(device)
    }

    async fn remove_port(&self, port: PortId, generation: u64) -> Result<()> {
        match self.1 {
            Bug::RemovesStale => self.0.remove_port(port, u64::MAX).await,
            Bug::ForgetsGenerationWithItsAgent if self.2 => self.0.remove_port(port, u64::MAX).await,
            Bug::KeepsRemoved => Ok(()),
            Bug::AbsentIsAnError if self.there(port).is_none() => {
                Err(Error::new(ErrorKind::NotFound, "remove port"))
            }
            Bug::RemovesAll => {
                self.remove_others(|_| true).await;
                Ok(())
            }
            _ => self.0.remove_port(port, generation).await,
        }
    }

    async fn ports(&self) -> Result<Vec<PortThere>> {
        let mut ports = self.0.ports().await?;
        match self.1 {
            Bug::NeverComplete => ports.iter_mut().for_each(|p| p.complete = false),
            Bug::ForgetsWithItsAgent if self.2 => ports.clear(),
            _ => {}
        }
        Ok(ports)
    }

    async fn recover(&self) -> Result<()> {
        self.0.recover().await
    }
}

#[derive(Debug)]
struct BrokenExam(Bug);

struct Host(FakeWorld, Bug, bool);

#[async_trait]
impl NetworkExam for BrokenExam {
    async fn sit(&self) -> Box<dyn NetworkUnderExam> {
        Box::new(Host(FakeWorld::in_memory(), self.0, false))
    }
}

#[async_trait]
impl NetworkUnderExam for Host {
    fn network(&self) -> Arc<dyn HostNetwork> {
        Arc::new(Broken(self.0.network(), self.1, self.2))
    }
    async fn reopen(&mut self) {
        self.2 = true;
    }
    async fn things(&self) -> BTreeSet<String> {
        let ports = self.0.network().ports().await.unwrap();
        ports.iter().map(|p| p.port.to_string()).collect()
    }
}

async fn passes(bug: Bug, case: &str) -> bool {
    let case = network_cases().into_iter().find(|c| c.name == case).unwrap();
    AssertUnwindSafe(case.run(&BrokenExam(bug)))
        .catch_unwind()
        .await
        .is_ok()
}

#[tokio::test]
async fn each_bug_of_a_network_fails_its_case() {
    let bugs = [
        (Bug::WiresStale, "older_wiring_is_refused"),
        (Bug::RemovesStale, "older_removal_is_refused"),
        (Bug::KeepsRemoved, "removed_port_leaves_nothing"),
        (Bug::RemovesAll, "removed_port_leaves_others"),
        (Bug::AbsentIsAnError, "absent_port_is_removed"),
        (Bug::OneDevice, "ports_have_devices_of_their_own"),
        (Bug::DeviceOfTheGeneration, "newer_wiring_is_taken_on"),
        (Bug::IgnoresNewer, "newer_wiring_is_taken_on"),
        (Bug::MovesPorts, "port_stays_in_its_network"),
        (Bug::StealsAddresses, "taken_addresses_are_refused"),
        (Bug::AddressesAreTheHosts, "same_addresses_in_two_networks"),
        (Bug::TakesNonsense, "senseless_wirings_leave_nothing"),
        (Bug::NeverComplete, "port_is_there"),
        (Bug::ForgetsWithItsAgent, "ports_outlive_the_agent"),
        (
            Bug::ForgetsGenerationWithItsAgent,
            "generation_outlives_the_agent",
        ),
    ];
    for (bug, case) in bugs {
        assert!(passes(Bug::None, case).await, "{case} fails without a bug");
        assert!(!passes(bug, case).await, "{case} does not see {bug:?}");
    }
}
