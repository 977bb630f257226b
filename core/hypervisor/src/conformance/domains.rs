//! What the cases do again and again.

use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use skyloom_model::{Name, PowerState, ServerId};

use super::Guest;
use super::harness::Desk;
use crate::{ErrorKind, Hypervisor, Inspection, Result, StopMode, VmEvent, VmEventKind, VmSpec};

impl Desk {
    pub(super) fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        self.host.hypervisor()
    }
    /// A spec with an idle guest.
    pub(super) async fn idle(&self) -> VmSpec {
        self.host.spec(name("idle"), Guest::Idle).await
    }
    /// An idle guest's domain, off.
    pub(super) async fn defined(&self) -> VmSpec {
        let spec = self.idle().await;
        self.hypervisor().define(&spec).await.expect("define");
        spec
    }
    /// An idle guest's domain, running.
    pub(super) async fn running(&self) -> VmSpec {
        let spec = self.defined().await;
        self.hypervisor()
            .start(spec.id, spec.generation)
            .await
            .expect("start");
        spec
    }
    /// A live guest's domain, running.
    pub(super) async fn live(&self) -> VmSpec {
        let spec = self.host.spec(name("live"), Guest::Live).await;
        self.hypervisor().define(&spec).await.expect("define");
        self.hypervisor()
            .start(spec.id, spec.generation)
            .await
            .expect("start");
        spec
    }
    pub(super) async fn force_off(&self, spec: &VmSpec) {
        self.hypervisor()
            .stop(spec.id, spec.generation, StopMode::Force)
            .await
            .expect("stop");
    }
    /// Inspect says exactly this.
    pub(super) async fn must_be(&self, spec: &VmSpec, generation: u64, power: PowerState) {
        let seen = self.hypervisor().inspect(spec.id).await.expect("inspect");
        assert_eq!(seen, Inspection::Found { generation, power });
        let processes = self.host.processes(spec.id).await;
        assert_eq!(
            processes,
            usize::from(power.may_execute()),
            "guest processes of a {power:?} domain"
        );
    }
    pub(super) async fn must_be_absent(&self, id: ServerId) {
        assert_eq!(
            self.hypervisor().inspect(id).await.expect("inspect"),
            Inspection::Absent
        );
        assert_eq!(
            self.host.processes(id).await,
            0,
            "guest processes of an absent domain"
        );
    }
    /// Waits until inspect says that no guest can run, and says which state it is in.
    pub(super) async fn until_off(&self, id: ServerId) -> PowerState {
        let deadline = tokio::time::sleep(self.offers.patience);
        tokio::pin!(deadline);
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            if let Inspection::Found { power, .. } = self.hypervisor().inspect(id).await.expect("inspect")
                && !power.may_execute()
            {
                return power;
            }
            assert!(
                deadline.as_mut().now_or_never().is_none(),
                "the guest has ended, but inspect does not say so"
            );
            pause.tick().await;
        }
    }
    /// Waits for the event that says `power` of `id`.
    pub(super) async fn until_told(
        &self,
        events: &mut BoxStream<'static, VmEvent>,
        id: ServerId,
        power: PowerState,
    ) {
        let told = async {
            while let Some(event) = events.next().await {
                if event.id == Some(id)
                    && matches!(event.kind, VmEventKind::Power { power: p, .. } if p == power)
                {
                    return;
                }
            }
            panic!("the stream of events has ended");
        };
        let in_time = tokio::time::timeout(self.offers.patience, told).await;
        assert!(in_time.is_ok(), "no event says that the domain is {power:?}");
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

/// The call is refused in this way.
pub(super) fn must_refuse<T: Debug>(done: Result<T>, kind: ErrorKind) {
    match done {
        Ok(done) => panic!("must be refused with {kind:?}, but says {done:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{error:?}"),
    }
}

/// The same domain in another generation.
pub(super) fn at(spec: &VmSpec, generation: u64) -> VmSpec {
    VmSpec {
        generation,
        ..spec.clone()
    }
}
