//! Keys: order, delimiters, alphabet, length.

use super::failure::{ensure, ensure_eq};
use super::seat::{key, number, paths};
use super::{Case, Seat, Verdict, case};
use crate::{ListOptions, MAX_KEY_LEN};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("key", a_prefix_ends_at_a_delimiter),
        case!("key", the_prefix_itself_is_not_below_it),
        case!("key", the_empty_prefix_covers_everything),
        case!("key", order_is_that_of_bytes),
        case!("key", order_holds_across_pages),
        case!("key", case_matters),
        case!("key", every_allowed_character),
        case!("key", no_character_is_a_wildcard),
        case!("key", the_longest_key),
        case!("key", a_document_and_others_below_it),
    ]
}

async fn a_prefix_ends_at_a_delimiter(seat: &mut Seat) -> Verdict {
    for path in [
        "hosts/host1/a",
        "hosts/host10/a",
        "hosts/host1",
        "hosts/host1-x/a",
        "hosts/host1.b/a",
        "hosts/host/a",
    ] {
        seat.put(path, 0).await?;
    }
    ensure_eq!(
        paths(&seat.list("hosts/host1").await?.items),
        ["hosts/host1/a"],
        "below hosts/host1/"
    );
    ensure_eq!(
        paths(&seat.list("hosts/host").await?.items),
        ["hosts/host/a"],
        "below hosts/host/"
    );
    ensure_eq!(seat.list("hosts").await?.items.len(), 6, "below hosts/");
    Ok(())
}

async fn the_prefix_itself_is_not_below_it(seat: &mut Seat) -> Verdict {
    seat.put("a/b", 0).await?;
    ensure!(seat.list("a/b").await?.items.is_empty(), "a/b is not below a/b/");
    Ok(())
}

async fn the_empty_prefix_covers_everything(seat: &mut Seat) -> Verdict {
    for path in ["x", "a/b/c/d/e/f", "-", "~/~"] {
        seat.put(path, 0).await?;
    }
    ensure_eq!(
        paths(&seat.list("").await?.items),
        ["-", "a/b/c/d/e/f", "x", "~/~"],
        "everything"
    );
    Ok(())
}

/// In byte order, with every character that sorts near the delimiter.
const ORDERED: [&str; 16] = [
    "a/+", "a/-", "a/.", "a/0", "a/0+", "a/0-", "a/0.", "a/0/0", "a/00", "a/0:", "a/9", "a/A", "a/Z", "a/_",
    "a/a", "a/~",
];

async fn order_is_that_of_bytes(seat: &mut Seat) -> Verdict {
    for n in 0..ORDERED.len() {
        seat.put(ORDERED[(n * 7) % ORDERED.len()], 0).await?;
    }
    ensure_eq!(paths(&seat.list("a").await?.items), ORDERED, "another order");
    Ok(())
}

async fn order_holds_across_pages(seat: &mut Seat) -> Verdict {
    for n in 0..ORDERED.len() {
        seat.put(ORDERED[(n * 5) % ORDERED.len()], 0).await?;
    }
    let mut found = Vec::new();
    let mut options = ListOptions::default().with_limit(3);
    loop {
        let page = seat.list_with("a", options.clone()).await?;
        found.extend(page.items.iter().map(|kv| kv.key.as_str().to_owned()));
        match page.items.last() {
            Some(last) if page.more => options = options.with_after(last.key.clone()),
            _ => break,
        }
    }
    ensure_eq!(found, ORDERED, "another order");
    Ok(())
}

async fn case_matters(seat: &mut Seat) -> Verdict {
    seat.create("a/Host", 1).await?;
    seat.create("a/host", 2).await?;
    seat.create("A/host", 3).await?;
    ensure_eq!(number(&seat.have("a/Host").await?)?, 1, "a/Host");
    ensure_eq!(number(&seat.have("a/host").await?)?, 2, "a/host");
    ensure_eq!(seat.list("a").await?.items.len(), 2, "below a/");
    Ok(())
}

async fn every_allowed_character(seat: &mut Seat) -> Verdict {
    let allowed = ('0'..='9')
        .chain('A'..='Z')
        .chain('a'..='z')
        .chain("._~:@+=-".chars());
    for c in allowed {
        let path = format!("c/{c}/{c}{c}");
        let revision = seat.create(&path, c.to_string()).await?;
        ensure_eq!(seat.have(&path).await?.created, revision, "{path}");
        ensure_eq!(
            paths(&seat.list(&format!("c/{c}")).await?.items),
            [path.as_str()],
            "below c/{c}/"
        );
    }
    Ok(())
}

async fn no_character_is_a_wildcard(seat: &mut Seat) -> Verdict {
    for path in ["a_b/1", "axb/1", "a.b/1", "a+b/1", "aab/1"] {
        seat.put(path, 0).await?;
    }
    for below in ["a_b", "a.b", "a+b"] {
        ensure_eq!(
            paths(&seat.list(below).await?.items),
            [format!("{below}/1")],
            "below {below}/"
        );
    }
    Ok(())
}

async fn the_longest_key(seat: &mut Seat) -> Verdict {
    // Room for a layer that puts every key below a prefix of its own.
    let path = format!("a/{}", "k".repeat(MAX_KEY_LEN - 2 - 64));
    let revision = seat.create(&path, 1).await?;
    ensure_eq!(
        seat.have(&path).await?.modified,
        revision,
        "get of the longest key"
    );
    let other = format!("{}j", &path[..path.len() - 1]);
    ensure!(
        seat.get(&other).await?.is_none(),
        "the last byte of a long key does not count"
    );
    let page = seat
        .list_with("a", ListOptions::default().with_after(key(&other)?))
        .await?;
    ensure_eq!(paths(&page.items), [path.as_str()], "list after its neighbour");
    Ok(())
}

async fn a_document_and_others_below_it(seat: &mut Seat) -> Verdict {
    seat.create("a", 1).await?;
    seat.create("a/b", 2).await?;
    seat.create("a/b/c", 3).await?;
    seat.delete("a/b").await?;
    ensure_eq!(
        paths(&seat.list("").await?.items),
        ["a", "a/b/c"],
        "deleting a document leaves those below it"
    );
    Ok(())
}
