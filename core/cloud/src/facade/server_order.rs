//! Lists of servers in another order than that of their keys.
//!
//! ```text
//!  all servers of the project ──> those that fit, behind the cursor ──> the first `limit` of the order (nothing else is kept)
//!  cursor = (order, what the last one is sorted by, its id): a position, not a key, so it leads nowhere outside of the project
//! ```
//!
//! What is made, removed or renamed between two pages moves no other server: none is shown twice and none is left out for it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use skyloom_model::{Reason, Resource as _, Server, paths};
use skyloom_store::ListOptions;
use uuid::Uuid;

use super::Cloud;
use super::list::{Wanted, limit_of};
use super::records::prefix;
use crate::{Caller, CloudError, ListQuery, Listed, Result, ServerSort};

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    sort: ServerSort,
    by: String,
    id: Uuid,
}

impl Position {
    fn of(sort: ServerSort, server: &Server) -> Self {
        let (meta, status) = (&server.meta, &server.status);
        let by = match sort {
            ServerSort::Name | ServerSort::NameDown => meta.name.as_str().to_owned(),
            ServerSort::Created | ServerSort::CreatedDown => {
                format!("{:032}", meta.created_at.as_nanosecond().max(0))
            }
            ServerSort::State | ServerSort::StateDown => {
                format!("{:?} {:?}", status.lifecycle, status.power).to_lowercase()
            }
        };
        Self {
            sort,
            by,
            id: meta.id,
        }
    }

    fn key(&self) -> (String, Uuid) {
        (self.by.clone(), self.id)
    }

    fn cursor(&self) -> Result<String> {
        let text = serde_json::to_vec(self).map_err(|e| CloudError::internal(e.to_string()))?;
        Ok(URL_SAFE_NO_PAD.encode(text))
    }

    fn read(cursor: &str, sort: ServerSort) -> Result<Self> {
        let read = || serde_json::from_slice::<Self>(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok();
        read().filter(|position| position.sort == sort).ok_or_else(|| {
            let reason = Reason::new("cursor.invalid", "the cursor does not belong to this list");
            CloudError::bad_request(reason.hint("pass `next` of the page before unchanged, or leave it out"))
        })
    }
}

const fn down(sort: ServerSort) -> bool {
    matches!(
        sort,
        ServerSort::NameDown | ServerSort::CreatedDown | ServerSort::StateDown
    )
}

impl Cloud {
    /// A page of the project's servers that fit, in this order. It looks at all of them, and keeps one page.
    pub(super) async fn servers_in_order(
        &self,
        caller: &Caller,
        sort: ServerSort,
        query: &ListQuery,
        fits: impl Fn(&Server) -> bool + Send + Sync,
    ) -> Result<Listed<Server>> {
        caller.here()?;
        let shown = caller.list("server:read")?;
        let wanted = Wanted::of(query)?;
        let limit = limit_of(query.limit)?;
        let after = match &query.cursor {
            Some(cursor) => Some(Position::read(cursor, sort)?.key()),
            None => None,
        };
        let mut first: BTreeMap<(String, Uuid), Server> = BTreeMap::new();
        if !shown.covers(caller.scope()) {
            return Ok(Listed {
                items: Vec::new(),
                next: None,
            });
        }
        let below = prefix(&paths::scoped(Server::KIND, caller.scope()))?;
        let mut options = ListOptions::default();
        loop {
            let page = self.parts.backend.list(&below, options).await?;
            for kv in &page.items {
                let Ok(server) = kv.value.parse::<Server>() else {
                    tracing::warn!(key = %kv.key, "left out of a list");
                    continue;
                };
                let keep = wanted.fits(&server) && fits(&server) && shown.item(caller, &server.meta);
                let at = Position::of(sort, &server).key();
                let behind = match &after {
                    None => true,
                    Some(after) if down(sort) => at < *after,
                    Some(after) => at > *after,
                };
                if keep && behind {
                    first.insert(at, server);
                }
                // One more than the page: whether there is a next.
                if first.len() > limit + 1 {
                    let _behind = if down(sort) {
                        first.pop_first()
                    } else {
                        first.pop_last()
                    };
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some(last) => options = ListOptions::default().with_after(last.key.clone()),
                None => break,
            }
        }
        let mut items: Vec<Server> = first.into_values().collect();
        if down(sort) {
            items.reverse();
        }
        let more = items.len() > limit;
        items.truncate(limit);
        let next = match items.last().filter(|_| more) {
            Some(last) => Some(Position::of(sort, last).cursor()?),
            None => None,
        };
        Ok(Listed { items, next })
    }
}
