//! Lists: pages, filters, cursors.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use skyloom_cloud::{Caller, CreateKeypair, ErrorKind, ListQuery, TaskQuery};
use skyloom_model::TaskState;

use crate::world::{World, image, list, server};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl";

async fn keypairs(world: &World, caller: &Caller, count: usize) {
    for i in 0..count {
        let request = CreateKeypair {
            name: format!("k{i}"),
            public_key: KEY.to_owned(),
        };
        world.cloud.create_keypair(caller, request).await.unwrap();
    }
}

fn limit(n: u32) -> ListQuery {
    ListQuery {
        limit: Some(n),
        ..ListQuery::default()
    }
}

#[tokio::test]
async fn pages_give_everything_once_and_no_empty_page_at_the_end() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    keypairs(&world, &member, 10).await;
    for size in [1, 3, 5, 10, 11] {
        let (mut seen, mut pages, mut cursor) = (BTreeSet::new(), 0, None);
        loop {
            let query = ListQuery {
                cursor: cursor.clone(),
                ..limit(size)
            };
            let page = world.cloud.list_keypairs(&member, &query).await.unwrap();
            pages += 1;
            assert!(!page.items.is_empty());
            for item in page.items {
                assert!(seen.insert(item.meta.name.to_string()), "twice");
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), pages), (10, 10_u32.div_ceil(size)));
    }
}

#[tokio::test]
async fn limits_and_labels_are_checked() {
    let world = World::new();
    let admin = world.admin().await;
    for bad in [
        limit(0),
        limit(1001),
        ListQuery {
            label: Some("x".to_owned()),
            ..list()
        },
    ] {
        assert_eq!(
            world.cloud.list_flavors(&admin, &bad).await.unwrap_err().kind(),
            ErrorKind::Invalid,
            "{bad:?}"
        );
    }
    assert!(world.cloud.list_flavors(&admin, &limit(1000)).await.is_ok());
}

#[tokio::test]
async fn a_cursor_opens_nothing_but_its_own_list() {
    let world = World::new();
    let admin = world.admin().await;
    let (one, other) = (
        world.member(&admin, "one").await,
        world.member(&admin, "other").await,
    );
    keypairs(&world, &one, 3).await;
    keypairs(&world, &other, 3).await;
    let foreign = world
        .cloud
        .list_keypairs(&other, &limit(1))
        .await
        .unwrap()
        .next
        .unwrap();
    let flavors = world
        .cloud
        .list_flavors(&one, &limit(1))
        .await
        .unwrap()
        .next
        .unwrap();
    let forged = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for bad in [
        foreign,
        flavors,
        String::new(),
        "%%%".to_owned(),
        forged(""),
        forged("secrets/x/y"),
        forged(&format!("r/keypairs/{}", one.project)),
        forged(&format!("r/keypairs/{}/../x y", one.project)),
        forged("\u{0}"),
    ] {
        let query = ListQuery {
            cursor: Some(bad.clone()),
            ..list()
        };
        let error = world.cloud.list_keypairs(&one, &query).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::BadRequest, "cursor.invalid"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn filters_pick_by_name_label_and_task_fields() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    for (name, tier) in [("a", "web"), ("b", "db"), ("a", "db")] {
        let mut request = image(name);
        request.labels.insert("tier".to_owned(), tier.to_owned());
        world.cloud.create_image(&member, request).await.unwrap();
    }
    let find = |name: Option<&str>, label: Option<&str>| ListQuery {
        name: name.map(str::to_owned),
        label: label.map(str::to_owned),
        ..list()
    };
    for (query, count) in [
        (find(Some("a"), None), 2),
        (find(None, Some("tier=db")), 2),
        (find(Some("a"), Some("tier=db")), 1),
        (find(Some("A"), None), 0),
        (find(None, Some("tier=")), 0),
    ] {
        assert_eq!(
            world
                .cloud
                .list_images(&member, &query)
                .await
                .unwrap()
                .items
                .len(),
            count,
            "{query:?}"
        );
    }

    let mut fetched = image("u");
    fetched.url = Some("https://example.org/u".to_owned());
    let task = world
        .cloud
        .create_image(&member, fetched)
        .await
        .unwrap()
        .task
        .unwrap();
    let tasks = |query: TaskQuery| {
        let (world, member) = (&world, &member);
        async move { world.cloud.list_tasks(member, &query).await.unwrap().items }
    };
    assert_eq!(tasks(TaskQuery::default()).await, std::slice::from_ref(&task));
    let by = TaskQuery {
        subject: Some(task.subject.id),
        flow: Some("image.import".to_owned()),
        ..TaskQuery::default()
    };
    assert_eq!(tasks(by).await, [task]);
    assert!(
        tasks(TaskQuery {
            state: Some(TaskState::Done),
            ..TaskQuery::default()
        })
        .await
        .is_empty()
    );
    assert!(
        tasks(TaskQuery {
            flow: Some("server.create".to_owned()),
            ..TaskQuery::default()
        })
        .await
        .is_empty()
    );
    let nobody = server("s", skyloom_model::ImageId::from_uuid(uuid::Uuid::nil()));
    assert_eq!(
        world
            .cloud
            .create_server(&member, nobody)
            .await
            .unwrap_err()
            .code(),
        "image.not_found"
    );
}
