//! Typed documents: conflicts, retries, what is given up.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use skyloom_store::{Error, ErrorKind, Guard, ListOptions, Store as _, Table, Txn};

use crate::{commit, delete, key, memory, prefix, put, shared};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lamp {
    on: bool,
    watts: u32,
}

const DARK: Lamp = Lamp { on: false, watts: 5 };

#[derive(Debug, PartialEq)]
enum Refusal {
    TooBright,
    Store(ErrorKind),
}
impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        Self::Store(e.kind())
    }
}

#[tokio::test]
async fn documents_are_created_read_replaced_and_deleted() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let desk = lamps.key("desk").unwrap();
    assert_eq!(lamps.get(&desk).await.unwrap(), None);

    let made = lamps.create(&desk, &DARK).await.unwrap();
    assert_eq!(lamps.get(&desk).await.unwrap().as_ref(), Some(&made));
    assert_eq!(
        lamps.create(&desk, &DARK).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );

    let lit = lamps.replace(&made, Lamp { on: true, watts: 5 }).await.unwrap();
    assert_eq!(lamps.get(&desk).await.unwrap().as_ref(), Some(&lit));
    assert_eq!(
        lamps.replace(&made, DARK).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(lamps.delete(&made).await.unwrap_err().kind(), ErrorKind::Conflict);

    lamps.delete(&lit).await.unwrap();
    assert_eq!(lamps.get(&desk).await.unwrap(), None);
    assert_eq!(lamps.delete(&lit).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn an_update_looks_again_when_somebody_was_faster() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let desk = lamps.key("desk").unwrap();
    lamps.create(&desk, &DARK).await.unwrap();
    let calls = AtomicUsize::new(0);
    let updated = lamps
        .update(&desk, |lamp| {
            // Somebody else writes between this read and the commit, twice.
            if calls.fetch_add(1, Ordering::Relaxed) < 2 {
                futures::executor::block_on(put(
                    &*store,
                    "lamps/desk",
                    Lamp {
                        on: false,
                        watts: lamp.watts + 10,
                    },
                ));
            }
            lamp.on = true;
            Ok::<(), Error>(())
        })
        .await
        .unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(updated.value, Lamp { on: true, watts: 25 });
    assert_eq!(lamps.get(&desk).await.unwrap(), Some(updated));
}

#[tokio::test]
async fn an_update_gives_up_when_others_are_always_faster() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let desk = lamps.key("desk").unwrap();
    lamps.create(&desk, &DARK).await.unwrap();
    let refused = lamps
        .update(&desk, |lamp| {
            futures::executor::block_on(put(&*store, "lamps/desk", &*lamp));
            lamp.on = true;
            Ok::<(), Error>(())
        })
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn an_update_ends_with_the_callers_refusal_or_without_a_document() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let desk = lamps.key("desk").unwrap();
    let refuse = |_: &mut Lamp| Err(Refusal::TooBright);
    assert_eq!(
        lamps.update(&desk, refuse).await.unwrap_err(),
        Refusal::Store(ErrorKind::NotFound)
    );
    let made = lamps.create(&desk, &DARK).await.unwrap();
    assert_eq!(lamps.update(&desk, refuse).await.unwrap_err(), Refusal::TooBright);
    assert_eq!(lamps.get(&desk).await.unwrap(), Some(made));
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let desk = lamps.key("desk").unwrap();
    let made = lamps.create(&desk, &DARK).await.unwrap();
    assert_eq!(lamps.update(&desk, |_| Ok::<(), Error>(())).await.unwrap(), made);
    assert_eq!(store.revision(), made.modified);
}

#[tokio::test]
async fn several_records_in_one_commit() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let desk = lamps.create(&lamps.key("desk").unwrap(), &DARK).await.unwrap();
    let hall = lamps.create(&lamps.key("hall").unwrap(), &DARK).await.unwrap();
    let door = lamps.create(&lamps.key("door").unwrap(), &DARK).await.unwrap();
    let lit = Lamp { on: true, watts: 9 };
    let txn = || {
        Txn::new()
            .and(desk.replace(&lit).unwrap())
            .and(hall.delete())
            .guard(door.unchanged())
    };
    assert_eq!(txn().guards[2], Guard::Revision(door.key.clone(), door.modified));

    let moved = lamps.replace(&door, lit.clone()).await.unwrap();
    assert!(
        store.commit(txn()).await.unwrap().committed().is_none(),
        "the door has changed"
    );
    let txn = Txn::new()
        .and(desk.replace(&lit).unwrap())
        .and(hall.delete())
        .guard(moved.unchanged());
    commit(&*store, txn).await;
    assert_eq!(lamps.get(&desk.key).await.unwrap().unwrap().value, lit);
    assert_eq!(lamps.get(&hall.key).await.unwrap(), None);
}

#[tokio::test]
async fn listing_pages_and_everything() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    for n in 0..2500 {
        put(&*store, &format!("lamps/{n:04}"), DARK).await;
    }
    put(&*store, "lamps2/x", "no lamp").await;
    let page = lamps.list(ListOptions::default().with_limit(10)).await.unwrap();
    assert_eq!((page.items.len(), page.more), (10, true));
    let all = lamps.list_all().await.unwrap();
    assert_eq!(
        (all.items.len(), all.more, all.revision),
        (2500, false, store.revision())
    );
    assert!(all.items.windows(2).all(|w| w[0].key < w[1].key));
}

#[tokio::test]
async fn what_is_no_document_of_the_type_says_where_it_is() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    put(&*store, "lamps/broken", "no lamp").await;
    let refused = lamps.get(&key("lamps/broken")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("lamps/broken"), "{refused}");
    assert_eq!(lamps.list_all().await.unwrap_err().kind(), ErrorKind::Corrupt);
    delete(&*store, "lamps/broken").await;
    assert!(lamps.list_all().await.unwrap().items.is_empty());
}

#[tokio::test]
async fn keys_of_other_tables_are_refused() {
    let store = memory();
    let lamps = Table::<Lamp>::new(shared(&store), prefix("lamps"));
    let foreign = key("lamps2/x");
    assert_eq!(lamps.get(&foreign).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        lamps.create(&foreign, &DARK).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(lamps.key("a b").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.revision().0, 0);
}
