//! Several servers at once: made by one request, acted on by one request. Each is a change of its own, with its own task and answer.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use skyloom_identity::Amounts;
use skyloom_model::{Reason, Resource as _, Server, ServerId};

use super::Cloud;
use super::quotas::Quota;
use crate::{
    BatchAnswer, BatchItem, BatchServers, Caller, CloudError, CreateServer, CreateServers, ErrorKind,
    FieldError, ListQuery, Result, Selector, amounts, checks, hash,
};

/// Most servers of one request.
const MOST: usize = 100;

impl Cloud {
    /// One action on several servers. What is refused for one does not keep it from the others. A dry run says for each
    /// whether it would be refused.
    ///
    /// # Errors
    /// `selector.invalid`, `auth.forbidden`. What goes wrong with single servers stands in the answer.
    pub async fn batch_servers(&self, caller: &Caller, request: BatchServers) -> Result<BatchAnswer> {
        caller.may_here("server:batch")?;
        let selected = self.selected(caller, &request.selector).await?;
        let options = match request.options.is_empty() {
            true => Json::Null,
            false => Json::Object(request.options),
        };
        let mut items = Vec::with_capacity(selected.len());
        for (id, name) in selected {
            let caller = one_of(caller, &id.to_string());
            let item = BatchItem {
                name,
                ..nothing(Some(id))
            };
            let asked = self
                .act_on_server(&caller, id, request.action, options.clone())
                .await;
            items.push(match asked {
                Ok(done) => BatchItem {
                    name: Some(done.server.meta.name.to_string()),
                    server: Some(done.server),
                    task: done.task,
                    ..item
                },
                Err(error) => refused(item, &error),
            });
        }
        Ok(answer(items))
    }

    /// Several servers alike. The quota must have room for all of them before the first is made; when others take that room
    /// meanwhile, the last ones are refused.
    ///
    /// # Errors
    /// `count.invalid`, `quota.…`, and those of [`Cloud::create_server`] that would be the same for all.
    pub async fn create_servers(&self, caller: &Caller, request: CreateServers) -> Result<BatchAnswer> {
        let count = usize::try_from(request.count).unwrap_or(usize::MAX);
        if !(1..=MOST).contains(&count) {
            let message = format!("{count} is not within 1 to {MOST}");
            return Err(CloudError::field(FieldError::new(
                "count",
                "count.invalid",
                message,
            )));
        }
        caller.here()?;
        // The first as a dry run: whatever is wrong with the request is wrong with all of them.
        let first = numbered(&request.server, 1);
        let trial = Caller {
            dry_run: true,
            idempotency_key: None,
            ..caller.clone()
        };
        match self.create_server(&trial, first).await {
            Err(error) if error.kind() == ErrorKind::Previewed => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(CloudError::internal("a dry run was carried out")),
        }
        let all = self.amounts_of(caller, &request.server, count).await?;
        self.would_charge(caller, &Quota::Charge(all)).await?;
        let mut items = Vec::with_capacity(count);
        for number in 1..=count {
            let server = numbered(&request.server, number);
            let caller = one_of(caller, &number.to_string());
            let item = BatchItem {
                name: server.name.clone().or(server.hostname.clone()),
                ..nothing(None)
            };
            items.push(match self.create_server(&caller, server).await {
                Ok(made) => BatchItem {
                    id: Some(made.server.id()),
                    server: Some(made.server),
                    task: Some(made.task),
                    password: made.password,
                    ..item
                },
                Err(error) => refused(item, &error),
            });
        }
        Ok(answer(items))
    }

    /// What so many of them take of the quota.
    async fn amounts_of(&self, caller: &Caller, request: &CreateServer, count: usize) -> Result<Amounts> {
        let flavor = self.flavor_of(caller, &request.flavor).await?.value;
        let nics = checks::networks::check(request.networks.as_deref())?.len();
        let one = amounts::of_new_server(&flavor.spec, nics);
        Ok((0..count).fold(Amounts::new(), |sum, _| sum.plus(&one)))
    }

    async fn selected(
        &self,
        caller: &Caller,
        selector: &Selector,
    ) -> Result<Vec<(ServerId, Option<String>)>> {
        let wrong =
            |message: String| CloudError::field(FieldError::new("selector", "selector.invalid", message));
        match (selector.ids.is_empty(), selector.labels.is_empty()) {
            (false, true) if selector.ids.len() <= MOST => {
                let mut seen = BTreeSet::new();
                let ids = selector.ids.iter().filter(|id| seen.insert(**id));
                Ok(ids.map(|id| (*id, None)).collect())
            }
            (false, true) => Err(wrong(format!("more than {MOST} ids"))),
            (true, false) => {
                let mut found = Vec::new();
                let mut query = ListQuery {
                    limit: Some(1000),
                    ..ListQuery::default()
                };
                loop {
                    let labels = &selector.labels;
                    let fits = |s: &Server| labels.iter().all(|(k, v)| s.meta.labels.get(k) == Some(v));
                    let page = self
                        .list_resources_where(caller, "server:read", &[caller.scope()], &query, fits)
                        .await?;
                    found.extend(page.items.iter().map(|s| (s.id(), Some(s.meta.name.to_string()))));
                    if found.len() > MOST {
                        return Err(wrong(format!("more than {MOST} servers have these labels")));
                    }
                    match page.next {
                        Some(next) => query.cursor = Some(next),
                        None => return Ok(found),
                    }
                }
            }
            _ => Err(wrong("give either ids or labels".to_owned())),
        }
    }
}

/// The caller for one of several: with a key of its own, and without a condition that can hold for one only.
pub(super) fn one_of(caller: &Caller, which: &str) -> Caller {
    let key = caller.idempotency_key.as_ref();
    Caller {
        idempotency_key: key.map(|key| hash::sha256_of(&[key.as_bytes(), which.as_bytes()])),
        if_match: None,
        ..caller.clone()
    }
}

fn numbered(server: &CreateServer, number: usize) -> CreateServer {
    let numbered = |name: &Option<String>| name.as_ref().map(|name| format!("{name}-{number}"));
    CreateServer {
        name: numbered(&server.name),
        hostname: numbered(&server.hostname),
        ..server.clone()
    }
}

pub(super) const fn nothing(id: Option<ServerId>) -> BatchItem {
    BatchItem {
        id,
        name: None,
        server: None,
        task: None,
        password: None,
        refused: None,
    }
}

pub(super) fn refused(item: BatchItem, error: &CloudError) -> BatchItem {
    let why = (error.kind() != ErrorKind::Previewed).then(|| -> Reason { error.reason().clone() });
    BatchItem { refused: why, ..item }
}

pub(super) fn answer(items: Vec<BatchItem>) -> BatchAnswer {
    BatchAnswer {
        refused: items.iter().filter(|item| item.refused.is_some()).count(),
        items,
    }
}
