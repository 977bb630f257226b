//! Questions to the archive.

use serde::de::DeserializeOwned;
use skyloom_model::{Event, Scope, Server, Task, paths};
use skyloom_store::ListOptions;

use super::Archive;
use super::copy::{key, prefix};
use super::document::TaskOf;
use crate::facade::{PageOf, Range, Source, makes, wanted_event, wanted_task};
use crate::{EventQuery, Listed, Result, TaskQuery};

/// Documents that one call looks at. They are larger than the hot ones.
const MAX_SCAN: usize = 1000;
/// Documents that are asked for at once.
const PAGE: usize = 100;
/// Tasks that are looked at for the one that made a server.
const MAX_LOOK: usize = 300;

impl Archive {
    /// A page of the archived tasks of these scopes, by their ends.
    pub(crate) async fn list_tasks(&self, scopes: &[Scope], query: &TaskQuery) -> Result<Listed<Task>> {
        let range = |scope: &Scope| {
            let at = |end| key(&paths::archived_since(*scope, end));
            Ok(Range {
                below: prefix(&paths::archived_tasks(*scope))?,
                from: query.ended_after.map(at).transpose()?,
                until: query.ended_before.map(at).transpose()?,
            })
        };
        let ranges = scopes.iter().map(range).collect::<Result<_>>()?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        let Listed { items, next } = self
            .page(ranges, page, |of: &TaskOf| wanted_task(query, &of.task))
            .await?;
        let items = items.into_iter().map(|of| of.task).collect();
        Ok(Listed { items, next })
    }

    /// A page of the archived events of these scopes, oldest first.
    pub(crate) async fn list_events(&self, scopes: &[Scope], query: &EventQuery) -> Result<Listed<Event>> {
        let range = |scope: &Scope| Ok(prefix(&paths::archived_events(*scope))?.into());
        let ranges = scopes.iter().map(range).collect::<Result<_>>()?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        self.page(ranges, page, |event: &Event| wanted_event(query, event))
            .await
    }

    async fn page<T: DeserializeOwned>(
        &self,
        ranges: Vec<Range>,
        page: PageOf<'_>,
        keep: impl Fn(&T) -> bool + Send,
    ) -> Result<Listed<T>> {
        let source = Source {
            store: self.store(),
            ranges,
            scan: MAX_SCAN,
            page: PAGE,
        };
        source.page(page, keep).await
    }

    /// The task that made a server: it ended after the server's record was made, mostly soon after.
    pub(crate) async fn creation_of(&self, server: &Server) -> Result<Option<Task>> {
        let scope = server.meta.scope;
        let (below, mut after) = (
            prefix(&paths::archived_tasks(scope))?,
            key(&paths::archived_since(scope, server.meta.created_at))?,
        );
        let mut looked = 0;
        while looked < MAX_LOOK {
            let options = ListOptions::default().with_limit(PAGE).with_after(after);
            let page = self.store().list(&below, options).await?;
            let tasks = page.items.iter().filter_map(|kv| kv.value.parse::<TaskOf>().ok());
            let made = |t: &Task| t.subject.id == server.meta.id && makes(&t.flow);
            if let Some(found) = tasks.map(|of| of.task).find(made) {
                return Ok(Some(found));
            }
            looked += page.items.len();
            match page.items.last().filter(|_| page.more) {
                Some(last) => after = last.key.clone(),
                None => break,
            }
        }
        Ok(None)
    }
}
