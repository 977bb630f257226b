//! The flows of images, with every job run twice, failing before and after its effect, and taken back twice.

use skyloom_model::{ImageState, Resource as _, TaskState};

use crate::engine::{Engine, FATES, Fate, one};
use crate::world::{World, bytes, image};

#[tokio::test]
async fn an_import_that_fails_anywhere_keeps_no_content() {
    for url in [false, true] {
        for kind in ["image.fetch", "image.inspect", "image.publish"] {
            for fate in FATES {
                if kind == "image.fetch" && !url {
                    continue;
                }
                let case = format!("{kind} {fate:?} {url}");
                let world = World::new();
                let admin = world.admin().await;
                let mut request = image("i");
                request.url = url.then(|| "https://example.org/i".to_owned());
                let made = world.cloud.create_image(&admin, request).await.unwrap();
                let id = made.image.id();
                let task = match made.task {
                    Some(task) => task,
                    None => {
                        let sent = world
                            .cloud
                            .upload_image(&admin, id, bytes(crate::world::DISK), None)
                            .await;
                        sent.unwrap().task.unwrap()
                    }
                };
                let ended = Engine::new(&world).await.carry_with(&task, one(kind, fate)).await;
                assert_eq!(ended.state, TaskState::Failed, "{case}");
                assert!(world.files().is_empty(), "{case}: {:?}", world.files());
                let left = world.cloud.get_image(&admin, id).await.unwrap().value;
                assert_eq!(left.status.state, ImageState::Error, "{case}");
                assert_eq!(left.status.fault.unwrap().code, "test.injected", "{case}");
            }
        }
    }
}

#[tokio::test]
async fn an_import_with_every_job_done_twice_is_one_image() {
    let world = World::new();
    let admin = world.admin().await;
    let mut request = image("i");
    request.url = Some("https://example.org/i".to_owned());
    let made = world.cloud.create_image(&admin, request).await.unwrap();
    let mut engine = Engine::new(&world).await;
    let ended = engine.carry_with(&made.task.unwrap(), |_| Fate::Twice).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(world.files(), [format!("images/{}", made.image.id())]);
    let gone = world
        .cloud
        .delete_image(&admin, made.image.id())
        .await
        .unwrap()
        .task
        .unwrap();
    assert_eq!(
        engine.carry_with(&gone, |_| Fate::Twice).await.state,
        TaskState::Done
    );
    assert!(world.files().is_empty());
}
