//! A store that loses commits and answers: what is said to be done is done.

use std::sync::Arc;

use skyloom_identity::{ChangeError, DEFAULT_DOMAIN, Editor, verify};
use skyloom_store::DynBackend;
use skyloom_store::layer::{Chaos, ChaosConfig};

use crate::world::{World, id_of};

#[tokio::test]
async fn what_is_said_to_be_done_is_done() {
    let world = World::bootstrapped().await;
    let parent = world.project(DEFAULT_DOMAIN, None, "parent").await;
    let (mut done, mut unknown) = (0, 0);
    for seed in 0..60 {
        let store: DynBackend = world.store.clone();
        let config = ChaosConfig::default().with_lose_answer(300).with_lose_commit(300);
        let chaos: DynBackend = Arc::new(Chaos::new(store, config, seed));
        let clock = Arc::new(world.clock.clone());
        let editor = Editor::new(world.directory.clone(), chaos, clock, world.ids.clone());
        // Its parent is written as it is in the same commit: that proves nothing.
        let name = format!("p{seed}");
        let make =
            |e: &skyloom_identity::Edit<'_>| e.create_project(DEFAULT_DOMAIN, Some(parent), &name, |_| {});
        match editor.change(make).await {
            Ok(project) => {
                done += 1;
                assert!(
                    world.truth().await.project(id_of(&project)).is_some(),
                    "seed {seed}"
                );
            }
            Err(ChangeError::Store(_)) => unknown += 1,
            // A first try was done, and nobody could tell: its name is taken by itself.
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(done > 10 && unknown > 5, "{done} done, {unknown} unknown");
    assert_eq!(verify(&world.truth().await), []);
}
