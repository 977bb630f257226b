//! The network sits the exam.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use skyloom_bridge::BridgeNetwork;
use skyloom_hypervisor::HostNetwork;
use skyloom_hypervisor::conformance::{NetworkExam, NetworkUnderExam};

use crate::world::{World, things};

#[derive(Debug)]
pub(crate) struct BridgeExam;

#[async_trait]
impl NetworkExam for BridgeExam {
    async fn sit(&self) -> Box<dyn NetworkUnderExam> {
        Box::new(Host(Some(World::new().await)))
    }
}

struct Host(Option<World>);

#[async_trait]
impl NetworkUnderExam for Host {
    fn network(&self) -> Arc<dyn HostNetwork> {
        self.0.as_ref().unwrap().network.clone()
    }
    async fn reopen(&mut self) {
        let (dir, config) = self.0.take().unwrap().die().await;
        let network = Arc::new(BridgeNetwork::open(config.clone()).await.unwrap());
        self.0 = Some(World { dir, network, config });
    }
    async fn things(&self) -> BTreeSet<String> {
        things(&self.0.as_ref().unwrap().config.dir)
    }
}
