//! `GET /v1/watch`: changes of a project's resources as server-sent events.

use std::collections::VecDeque;

use axum::extract::State;
use axum::response::sse::Event;
use futures::stream::{self, BoxStream};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use skyloom_cloud::{Caller, Shown};
use skyloom_identity::{Object, Place};
use skyloom_model::{
    Flavor, Host, Image, Keypair, Meta, Port, Project, Resource, Scope, Server, Snapshot, Volume, paths,
};
use skyloom_store::{Change, ListOptions, Prefix, Revision, WatchEvent, WatchOptions};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::{Identity, User};
use crate::extract::Query;
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::sse;
use crate::stream::{Keeper, Next};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// What to watch.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// Kinds, with commas between them: `servers`, `tasks`, `events`, `images`, `keypairs`, `ports`, `volumes`,
    /// `snapshots`, `flavors`, `hosts`,
    /// `projects`. Each takes the permission to read it.
    #[param(example = "servers,tasks")]
    kinds: Option<String>,
}

/// The data of `put` and `delete` events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// Plural kind, such as `servers`.
    #[schema(example = "servers")]
    kind: &'static str,
    /// Which one.
    #[schema(format = Uuid)]
    id: String,
    /// The commit that changed it.
    revision: u64,
    /// The record as it is now; `null` when it is gone.
    #[schema(value_type = Option<Object>)]
    record: Option<serde_json::Value>,
}

/// Watch resources
///
/// Server-sent events of the project: first `ready`, then `put` and `delete` with `{kind, id, revision, record}` in the
/// order of the commits. The event id is the revision and the store's history that it is of; `Last-Event-ID` goes on from
/// there. When that is too long ago, or of a history before a restore: one `gap`, and the end. Then list again and watch anew. Without `kinds`: servers, tasks and images.
#[utoipa::path(get, path = "/v1/watch", operation_id = "watch", tag = "watch", params(WatchQuery),
    responses((status = 200, description = "Events until one side closes.",
        body = Changed, content_type = "text/event-stream")))]
async fn watch(
    State(state): State<AppState>,
    identity: Identity,
    User(caller): User,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Result {
    let kinds = query.kinds.as_deref().unwrap_or("servers,tasks,images");
    let areas = areas(&caller, kinds)?;
    let last = sse::last_event_id(&headers)?;
    let keeper = Keeper::new(&state, identity)?;
    let backend = &state.parts.backend;
    // One area alone is watched alone. Several would come in no common order, so the whole store is watched for them.
    let prefix = match areas.as_slice() {
        [area] => area.prefix.clone(),
        _ => Prefix::all(),
    };
    let failed = |e| ApiError::from(skyloom_cloud::CloudError::from(e));
    let history = sse::History::of(&**backend).await.map_err(failed)?;
    let position = match last {
        Some(last) if last.is_of(history) => last.revision,
        Some(_) => return Ok(sse::respond(stream::iter([gap(Revision(0))]))),
        None => {
            let page = backend.list(&prefix, ListOptions::default().with_limit(1)).await;
            page.map_err(failed)?.revision
        }
    };
    let options = WatchOptions::after(position).with_buffer(state.parts.limits.watch_buffer);
    let ready = Event::default()
        .event("ready")
        .id(history.id(position))
        .data(position.to_string());
    let watcher = Watcher {
        state: state.clone(),
        events: backend.watch(&prefix, options),
        keeper,
        caller,
        areas,
        history,
        position,
        pending: VecDeque::from([ready]),
        ended: false,
    };
    Ok(sse::respond(stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((event, watcher))
    })))
}

/// What is between is not told. An empty id makes a browser come back without one.
fn gap(floor: Revision) -> Event {
    Event::default().event("gap").id("").data(floor.to_string())
}

/// Where records of one kind lie, and what of them is told.
struct Area {
    kind: &'static str,
    prefix: Prefix,
    /// `None`: all.
    each: Option<Shown>,
}

/// Where the asked kinds lie, as far as the caller may see them.
fn areas(caller: &Caller, kinds: &str) -> Result<Vec<Area>> {
    let place = caller.place().unwrap_or(Place::System);
    caller.may("watch:read", &Object::all("watch", place))?;
    let (own, cloud) = (caller.scope(), Scope::System);
    let mut areas: Vec<Area> = Vec::new();
    for kind in kinds.split(',') {
        let (kind, permission, scopes): (_, _, &[Scope]) = match kind {
            Server::KIND => (Server::KIND, "server:read", &[own]),
            "tasks" => ("tasks", "task:read", &[own, cloud]),
            "events" => ("events", "event:read", &[own, cloud]),
            Image::KIND => (Image::KIND, "image:read", &[own, cloud]),
            Keypair::KIND => (Keypair::KIND, "keypair:read", &[own]),
            Port::KIND => (Port::KIND, "port:read", &[own]),
            Volume::KIND => (Volume::KIND, "volume:read", &[own]),
            Snapshot::KIND => (Snapshot::KIND, "snapshot:read", &[own]),
            Flavor::KIND => (Flavor::KIND, "flavor:read", &[cloud]),
            Host::KIND => (Host::KIND, "host:read", &[cloud]),
            Project::KIND => (Project::KIND, "project:read", &[cloud]),
            _ => return Err(unknown()),
        };
        let shown = caller.list(permission)?;
        if !scopes.iter().any(|scope| shown.covers(*scope)) {
            return Err(unknown());
        }
        for scope in scopes.iter().filter(|scope| shown.covers(**scope)) {
            let path = match kind {
                "tasks" => paths::tasks(*scope),
                "events" => paths::events(*scope),
                _ => paths::scoped(kind, *scope),
            };
            let prefix = Prefix::parse(&path).map_err(|_| ApiError::internal())?;
            if !areas.iter().any(|known| known.prefix == prefix) {
                let each = shown.each().then_some(shown);
                areas.push(Area { kind, prefix, each });
            }
        }
    }
    Ok(areas)
}

fn unknown() -> ApiError {
    ApiError::bad_request("kinds.unknown", "kinds has a kind that cannot be watched")
}

impl Area {
    /// Whether the caller is told of a record under conditions. What has no labels meets none.
    fn tells(&self, caller: &Caller, record: &serde_json::Value) -> bool {
        let Some(shown) = self.each else { return true };
        let meta = record.get("meta").cloned().map(serde_json::from_value::<Meta>);
        matches!(meta, Some(Ok(meta)) if shown.item(caller, &meta))
    }
}

struct Watcher {
    state: AppState,
    keeper: Keeper,
    events: BoxStream<'static, skyloom_store::Result<WatchEvent>>,
    caller: Caller,
    areas: Vec<Area>,
    history: sse::History,
    /// Everything up to it has been sent or is nothing of this watcher's.
    position: Revision,
    pending: VecDeque<Event>,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.keeper.next(&mut self.events).await {
                Next::Tick => return Some(sse::heartbeat(Some(self.history.id(self.position)))),
                Next::End | Next::Item(Err(_)) => return None,
                Next::Item(Ok(WatchEvent::Progress(revision))) => self.position = self.position.max(revision),
                Next::Item(Ok(WatchEvent::Gap { floor })) => {
                    self.ended = true;
                    return Some(gap(floor));
                }
                Next::Item(Ok(WatchEvent::Commit { revision, changes })) => self.commit(revision, changes)?,
            }
        }
    }

    /// A record as the caller may see it.
    fn shown(&self, kind: &str, mut record: serde_json::Value) -> serde_json::Value {
        let name = match kind {
            Server::KIND => "Server",
            Volume::KIND => "Volume",
            _ => return record,
        };
        self.state.fields.hide(&self.caller.rights, name, &mut record);
        record
    }

    /// Only the last event of a commit carries its revision as id: who comes back in the middle gets all of it again.
    fn commit(&mut self, revision: Revision, changes: Vec<Change>) -> Option<()> {
        let mut changed: Vec<(&'static str, Changed)> = Vec::new();
        for change in changes {
            let Some(area) = self.areas.iter().find(|area| area.prefix.covers(change.key())) else {
                continue;
            };
            let id = area.prefix.strip(change.key()).unwrap_or_default().to_owned();
            let (event, record) = match change {
                Change::Put(kv) => ("put", Some(self.shown(area.kind, kv.value.parse().ok()?))),
                Change::Delete(_) => ("delete", None),
            };
            if record
                .as_ref()
                .is_some_and(|record| !area.tells(&self.caller, record))
            {
                continue;
            }
            changed.push((
                event,
                Changed {
                    kind: area.kind,
                    id,
                    revision: revision.0,
                    record,
                },
            ));
        }
        let last = changed.len();
        for (i, (name, data)) in changed.iter().enumerate() {
            let mut event = Event::default().event(name).json_data(data).ok()?;
            if i + 1 == last {
                event = event.id(self.history.id(revision));
            }
            self.pending.push_back(event);
        }
        self.position = revision;
        Some(())
    }
}
