//! Reading: present, paged, and as of older revisions.

use std::collections::BTreeMap;

use futures::future::try_join;
use tokio::task::yield_now;

use super::failure::{ensure, ensure_eq};
use super::seat::{commit, document, json, key, list_in_pages, number, paths, prefix, refused};
use super::{Abilities, Case, Failure, Seat, Verdict, case};
use crate::{ErrorKind, ListOptions, Revision, Txn};

pub(super) fn cases() -> Vec<Case> {
    let compact = Abilities {
        compact: true,
        reopen: false,
    };
    vec![
        case!("read", nothing_is_there_at_first),
        case!("read", get_sees_a_commit_at_once),
        case!("read", list_sees_a_commit_at_once),
        case!("read", another_handle_sees_a_commit_at_once),
        case!("read", list_gives_whole_documents),
        case!("list", pages_cover_everything_once),
        case!("list", a_full_last_page_says_that_no_more_follow),
        case!("list", limit_zero_is_the_largest_page),
        case!("list", a_huge_limit_is_cut),
        case!("list", after_need_not_be_a_document),
        case!("list", after_outside_the_prefix),
        case!("list", pages_are_of_one_revision_while_others_write),
        case!("list", as_of_the_present_revision),
        case!("list", as_of_an_older_revision),
        case!("list", as_of_every_revision),
        case!("list", as_of_an_older_revision_in_pages),
        case!("list", as_of_before_the_first_commit),
        case!("list", as_of_a_future_revision_is_refused),
        case!("list", as_of_a_compacted_revision_is_refused).needing(compact),
        case!("list", compaction_keeps_the_present).needing(compact),
        case!("list", more_than_one_page_of_documents),
    ]
}

async fn nothing_is_there_at_first(seat: &mut Seat) -> Verdict {
    ensure!(seat.get("a").await?.is_none(), "a document in an empty store");
    let page = seat.list("").await?;
    ensure!(
        page.items.is_empty() && !page.more,
        "a listing of an empty store: {page:?}"
    );
    Ok(())
}

async fn get_sees_a_commit_at_once(seat: &mut Seat) -> Verdict {
    for n in 0..50 {
        let revision = seat.put("a", n).await?;
        let kv = seat.have("a").await?;
        ensure_eq!(
            (number(&kv)?, kv.modified),
            (n, revision),
            "an older document was read"
        );
    }
    Ok(())
}

async fn list_sees_a_commit_at_once(seat: &mut Seat) -> Verdict {
    for n in 0..50 {
        let revision = seat.put(&format!("a/{n:02}"), n).await?;
        let page = seat.list("a").await?;
        ensure_eq!(page.revision, revision, "a listing of another revision");
        ensure_eq!(
            page.items.last().map(number).transpose()?,
            Some(n),
            "the last commit is missing"
        );
    }
    Ok(())
}

async fn another_handle_sees_a_commit_at_once(seat: &mut Seat) -> Verdict {
    let (here, there) = (seat.store.clone(), seat.second());
    for n in 0..30 {
        let (writer, reader) = if n % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        let revision = commit(&**writer, Txn::new().put(key("a")?, json(n)?)).await?;
        let kv = reader.get(&key("a")?).await?;
        ensure_eq!(
            kv.map(|kv| kv.modified),
            Some(revision),
            "get through another handle"
        );
        ensure_eq!(
            reader.list(&prefix("")?, ListOptions::default()).await?.revision,
            revision,
            "list through another handle"
        );
    }
    Ok(())
}

async fn list_gives_whole_documents(seat: &mut Seat) -> Verdict {
    let created = seat.create("a/1", "one").await?;
    let modified = seat.put("a/1", "uno").await?;
    let page = seat.list("a").await?;
    let [kv] = &page.items[..] else {
        return Err(Failure::new(format!("wanted one document: {page:?}")));
    };
    ensure_eq!(
        (kv.created, kv.modified, document(kv)?),
        (created, modified, "uno".into()),
        "wrong document"
    );
    ensure_eq!(seat.get("a/1").await?.as_ref(), Some(kv), "get and list differ");
    Ok(())
}

/// `count` documents below `below`, some per commit.
async fn fill(seat: &Seat, below: &str, count: usize) -> Result<Revision, Failure> {
    let mut last = Revision(0);
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let mut txn = Txn::new();
        for n in chunk {
            txn = txn.put(key(&format!("{below}/{n:05}"))?, json(*n)?);
        }
        last = seat.commit(txn).await?;
    }
    Ok(last)
}

async fn pages_cover_everything_once(seat: &mut Seat) -> Verdict {
    let last = fill(seat, "a", 53).await?;
    seat.put("b", 1).await?;
    let wanted: Vec<String> = (0..53).map(|n| format!("a/{n:05}")).collect();
    for limit in [1, 2, 7, 52, 53, 54] {
        let (items, revision) = list_in_pages(&*seat.store, &prefix("a")?, limit).await?;
        ensure_eq!(paths(&items), wanted, "with pages of {limit}");
        ensure!(revision > last, "an old revision");
    }
    Ok(())
}

async fn a_full_last_page_says_that_no_more_follow(seat: &mut Seat) -> Verdict {
    fill(seat, "a", 10).await?;
    fill(seat, "b", 10).await?;
    let page = seat.list_with("a", ListOptions::default().with_limit(10)).await?;
    ensure_eq!(
        (page.items.len(), page.more),
        (10, false),
        "ten documents with limit ten"
    );
    let page = seat.list_with("a", ListOptions::default().with_limit(9)).await?;
    ensure_eq!(
        (page.items.len(), page.more),
        (9, true),
        "ten documents with limit nine"
    );
    Ok(())
}

async fn limit_zero_is_the_largest_page(seat: &mut Seat) -> Verdict {
    fill(seat, "a", 300).await?;
    let page = seat.list_with("a", ListOptions::default().with_limit(0)).await?;
    let wanted = seat.store.capability().max_page.min(300);
    ensure_eq!(page.items.len(), wanted, "limit 0 is no limit of its own");
    Ok(())
}

async fn a_huge_limit_is_cut(seat: &mut Seat) -> Verdict {
    fill(seat, "a", 30).await?;
    let page = seat
        .list_with("a", ListOptions::default().with_limit(usize::MAX))
        .await?;
    ensure_eq!(
        (page.items.len(), page.more),
        (30, false),
        "with the largest limit there is"
    );
    Ok(())
}

async fn after_need_not_be_a_document(seat: &mut Seat) -> Verdict {
    for path in ["a/1", "a/3", "a/3/x", "a/5"] {
        seat.put(path, 0).await?;
    }
    for (after, wanted) in [
        ("a/0", vec!["a/1", "a/3", "a/3/x", "a/5"]),
        ("a/1", vec!["a/3", "a/3/x", "a/5"]),
        ("a/2", vec!["a/3", "a/3/x", "a/5"]),
        ("a/3", vec!["a/3/x", "a/5"]),
        ("a/5", vec![]),
    ] {
        let page = seat
            .list_with("a", ListOptions::default().with_after(key(after)?))
            .await?;
        ensure_eq!(paths(&page.items), wanted, "after {after}");
    }
    Ok(())
}

async fn after_outside_the_prefix(seat: &mut Seat) -> Verdict {
    for path in ["a/1", "b/1", "b/2", "c/1"] {
        seat.put(path, 0).await?;
    }
    for (after, wanted) in [
        ("a/1", vec!["b/1", "b/2"]),
        ("b", vec!["b/1", "b/2"]),
        ("c", vec![]),
        ("zzz", vec![]),
    ] {
        let page = seat
            .list_with("b", ListOptions::default().with_after(key(after)?))
            .await?;
        ensure_eq!(paths(&page.items), wanted, "below b after {after}");
        ensure!(!page.more, "more after {after}");
    }
    Ok(())
}

async fn pages_are_of_one_revision_while_others_write(seat: &mut Seat) -> Verdict {
    // Every commit writes the same number into all documents, so a listing with two numbers is torn.
    const DOCUMENTS: usize = 12;
    let write = |n: i64| {
        let mut txn = Txn::new();
        for d in 0..DOCUMENTS {
            txn = txn.put(key(&format!("a/{d:02}"))?, json(n)?);
        }
        Ok::<_, Failure>(txn)
    };
    seat.commit(write(0)?).await?;
    let (writer, reader) = (seat.second(), seat.store.clone());
    let writing = async {
        for n in 1..=60 {
            commit(&*writer, write(n)?).await?;
            yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let reading = async {
        for _ in 0..20 {
            let (items, revision) = list_in_pages(&*reader, &prefix("a")?, 5).await?;
            let numbers = items.iter().map(number).collect::<Result<Vec<_>, _>>()?;
            ensure_eq!(numbers.len(), DOCUMENTS, "documents got lost between the pages");
            ensure!(
                numbers.windows(2).all(|w| w[0] == w[1]),
                "a torn listing at {revision}: {numbers:?}"
            );
            yield_now().await;
        }
        Ok(())
    };
    try_join(writing, reading).await?;
    Ok(())
}

async fn as_of_the_present_revision(seat: &mut Seat) -> Verdict {
    let present = fill(seat, "a", 5).await?;
    let page = seat
        .list_with("a", ListOptions::default().with_at(present))
        .await?;
    ensure_eq!(
        (page.items.len(), page.revision),
        (5, present),
        "as of the present"
    );
    Ok(())
}

async fn as_of_an_older_revision(seat: &mut Seat) -> Verdict {
    let created = seat.create("a/changed", 1).await?;
    let then = seat.create("a/deleted", 1).await?;
    seat.put("a/changed", 2).await?;
    seat.delete("a/deleted").await?;
    seat.create("a/new", 1).await?;
    let page = seat.list_with("a", ListOptions::default().with_at(then)).await?;
    ensure_eq!(page.revision, then, "another revision");
    ensure_eq!(paths(&page.items), ["a/changed", "a/deleted"], "other documents");
    let first = page
        .items
        .first()
        .map(|kv| (kv.created, kv.modified, number(kv).ok()));
    ensure_eq!(first, Some((created, created, Some(1))), "a later content");
    Ok(())
}

async fn as_of_every_revision(seat: &mut Seat) -> Verdict {
    // The truth is what a listing said when its revision was the present.
    let mut truth = BTreeMap::new();
    for n in 0..30_i64 {
        let path = format!("a/{}", n % 4);
        let revision = if n % 5 == 4 {
            seat.delete(&path).await?
        } else {
            seat.put(&path, n).await?
        };
        truth.insert(revision, seat.list("a").await?.items);
    }
    for (revision, items) in truth {
        let page = seat
            .list_with("a", ListOptions::default().with_at(revision))
            .await?;
        ensure_eq!(page.items, items, "as of {revision}");
    }
    Ok(())
}

async fn as_of_an_older_revision_in_pages(seat: &mut Seat) -> Verdict {
    let then = fill(seat, "a", 20).await?;
    let wanted = seat.list("a").await?.items;
    for n in 0..20 {
        match n % 3 {
            0 => seat.delete(&format!("a/{n:05}")).await?,
            1 => seat.put(&format!("a/{n:05}"), -1).await?,
            _ => seat.put(&format!("a/{n:05}.new"), 0).await?,
        };
    }
    let mut items = Vec::new();
    let mut options = ListOptions::default().with_limit(3).with_at(then);
    loop {
        let page = seat.list_with("a", options.clone()).await?;
        items.extend(page.items);
        match items.last() {
            Some(last) if page.more => options = options.with_after(last.key.clone()),
            _ => break,
        }
    }
    ensure_eq!(items, wanted, "pages as of {then}");
    Ok(())
}

async fn as_of_before_the_first_commit(seat: &mut Seat) -> Verdict {
    let start = seat.revision().await?;
    seat.create("a", 1).await?;
    let page = seat.list_with("", ListOptions::default().with_at(start)).await?;
    ensure!(page.items.is_empty(), "there was nothing yet: {page:?}");
    Ok(())
}

async fn as_of_a_future_revision_is_refused(seat: &mut Seat) -> Verdict {
    let present = seat.create("a", 1).await?;
    let options = ListOptions::default().with_at(Revision(present.0 + 1));
    refused(
        seat.store.list(&prefix("")?, options).await,
        ErrorKind::Invalid,
        "a revision that is not reached",
    )
}

async fn as_of_a_compacted_revision_is_refused(seat: &mut Seat) -> Verdict {
    let old = seat.put("a", 1).await?;
    let kept = seat.put("a", 2).await?;
    seat.put("a", 3).await?;
    seat.compact(kept).await?;
    let options = ListOptions::default().with_at(old);
    refused(
        seat.store.list(&prefix("")?, options).await,
        ErrorKind::Compacted,
        "a compacted revision",
    )
}

async fn compaction_keeps_the_present(seat: &mut Seat) -> Verdict {
    seat.put("a/1", 1).await?;
    seat.put("a/2", 2).await?;
    seat.delete("a/1").await?;
    let present = seat.put("a/3", 3).await?;
    let before = seat.list("a").await?;
    seat.compact(present).await?;
    ensure_eq!(
        seat.list("a").await?,
        before,
        "after compaction up to the present"
    );
    ensure_eq!(
        Some(&seat.have("a/2").await?),
        before.items.first(),
        "get after compaction"
    );
    let next = seat.put("a/1", 4).await?;
    ensure!(next > present, "the revision went back");
    Ok(())
}

async fn more_than_one_page_of_documents(seat: &mut Seat) -> Verdict {
    let page = seat.store.capability().max_page.min(1500);
    let count = page + page / 2;
    fill(seat, "a", count).await?;
    let (items, _) = list_in_pages(&*seat.store, &prefix("a")?, page).await?;
    ensure_eq!(items.len(), count, "documents got lost");
    ensure!(items.windows(2).all(|w| w[0].key < w[1].key), "not in key order");
    Ok(())
}
