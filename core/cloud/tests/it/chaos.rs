//! A store that refuses calls and loses answers: a caller that repeats with its key gets one thing, whole.

use std::sync::Arc;

use skyloom_cloud::ErrorKind;
use skyloom_identity::BuiltIn;
use skyloom_model::{ManualClock, Resource as _};
use skyloom_store::layer::{Chaos, ChaosConfig};
use skyloom_store::{DynBackend, MemoryConfig, MemoryStore};

use crate::engine::active_image;
use crate::world::{World, caller, list, server, with_key};

#[tokio::test]
async fn a_create_repeated_until_it_is_answered_is_one_server() {
    let mut unclear = 0;
    for seed in 0..40 {
        let clock = ManualClock::new();
        let store: DynBackend = Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default()));
        let calm = World::over(store.clone(), clock.clone());
        let admin = calm.admin().await;
        let image = active_image(&calm, &admin).await;
        let faults = ChaosConfig::default()
            .with_refuse(100)
            .with_lose_answer(150)
            .with_lose_commit(150);
        let rough = World::over(Arc::new(Chaos::new(store, faults, seed)), clock);
        // The same caller; other ids than those of the calm world.
        let rough_caller = with_key(&caller(BuiltIn::Admin, admin.project), "once");
        for _ in 0..seed {
            rough.ids.uuid();
        }
        let mut tries = 0;
        let made = loop {
            tries += 1;
            assert!(tries < 1000, "seed {seed}");
            match rough.cloud.create_server(&rough_caller, server("s", image)).await {
                Ok(made) => break made,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}");
                    assert!(error.reason().retryable);
                    unclear += u32::from(error.code() == "store.outcome_unknown");
                }
            }
        };
        let servers = calm.cloud.list_servers(&admin, &list()).await.unwrap().items;
        assert_eq!(servers, std::slice::from_ref(&made.server), "seed {seed}");
        for (below, count) in [("active", 1), ("idempotency", 1), ("secrets", 1)] {
            assert_eq!(calm.documents(below).await.len(), count, "seed {seed}: {below}");
        }
        assert_eq!(
            calm.cloud.list_ports(&admin, &list()).await.unwrap().items.len(),
            1
        );
        let task = calm.cloud.get_task(&admin, made.task.id).await.unwrap().value;
        assert_eq!(task.subject.id, made.server.id().uuid());
    }
    assert!(unclear > 0, "the faults were seen");
}
