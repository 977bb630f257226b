//! Domains, projects and their tags. To Keystone a domain is a project, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use skyloom_identity::{Domain, DomainId, Doomed, UserId};
use skyloom_model::{Name, Project, ProjectId};
use skyloom_store::Versioned;

use super::ask::Ask;
use super::assignments::granted_projects;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::{Fields, merge};
use super::ids::{self, hex};
use super::thing::{Lies, Thing};

/// Longest name of a domain or project, as Keystone has it.
const MAX_NAME: usize = 64;
const FILTERS: &[&str] = &["name", "domain_id", "enabled", "parent_id", "is_domain"];

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/domains", get(list_domains).post(create_domain))
        .route(
            "/domains/{domain}",
            get(show_domain).patch(update_domain).delete(delete_domain),
        )
        .route("/projects", get(list_projects).post(create_project))
        .route(
            "/projects/{project}",
            get(show_project).patch(update_project).delete(delete_project),
        )
        .route(
            "/projects/{project}/tags",
            get(list_tags).put(set_tags).delete(clear_tags),
        )
        .route(
            "/projects/{project}/tags/{tag}",
            put(add_tag).get(check_tag).delete(remove_tag),
        )
}

fn id_of(project: &Project) -> ProjectId {
    ProjectId::from_uuid(project.meta.id)
}

impl Ask {
    /// A domain that is there and that may be seen. Its own domain everybody may see.
    pub(crate) async fn find_domain(&self, id: &str) -> Answer<Arc<Versioned<Domain>>> {
        let found = ids::parse_domain(id).and_then(|id| self.at.domain(id));
        let found = found.filter(|domain| !domain.value.deleting);
        let found = found.ok_or_else(|| self.absent("domain:read", "domain", id))?;
        let own = [self.own_domain(), self.rights.principal.domain].contains(&found.value.id);
        if !own {
            let thing = Thing::domain(found.value.id, &found.value.name);
            self.require("domain:read", &thing).await?;
        }
        Ok(found.clone())
    }

    pub(crate) async fn find_project(&self, id: &str) -> Answer<Arc<Versioned<Project>>> {
        let found = ids::parse(id).and_then(|id| self.at.project(id));
        let found = found.filter(|project| !project.value.spec.deleting);
        let found = found.ok_or_else(|| self.absent("project:read", "project", id))?;
        self.require("project:read", &Thing::project(&found.value))
            .await?;
        Ok(found.clone())
    }

    /// The projects in which a user has a role: all of its own, of others those that may be seen.
    pub(crate) fn projects_of(&self, user: UserId, own: bool) -> Vec<Value> {
        let ids = granted_projects(&self.at, user)
            .into_iter()
            .filter_map(|id| self.at.project(id));
        let seen = ids.filter(|found| own || self.may("project:read", &Thing::project(&found.value)));
        seen.map(|found| self.shape().project(&found.value)).collect()
    }
}

async fn list_domains(ask: Ask) -> Answer {
    ask.require_list("domain:read")?;
    let domains = ask.at.domains().filter(|domain| !domain.value.deleting);
    let seen = domains.filter(|d| ask.may("domain:read", &Thing::domain(d.value.id, &d.value.name)));
    let domains = seen.map(|domain| ask.shape().domain(&domain.value)).collect();
    ask.page("domains", domains, &["name", "enabled"])
}

async fn show_domain(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_domain(&id).await?;
    Ok(Json(json!({"domain": ask.shape().domain(&found.value)})).into_response())
}

/// What a body says of a domain or project, beside where it lies.
struct Common {
    name: Option<String>,
    description: Option<Option<String>>,
    enabled: Option<bool>,
    tags: Option<BTreeSet<String>>,
    rest: Map<String, Value>,
}

impl Common {
    fn read(mut body: Fields) -> Answer<Self> {
        if let Some(mut options) = body.object("options")? {
            let immutable = options
                .value("immutable")
                .is_some_and(|value| value == Value::Bool(true));
            if immutable || !options.rest().is_empty() {
                return Err(Refusal::bad(
                    "Invalid input for field 'options': there are none here",
                ));
            }
        }
        Ok(Self {
            name: body.name("name", MAX_NAME)?,
            description: body.nullable("description")?,
            enabled: body.flag("enabled")?,
            tags: body.texts("tags")?.map(BTreeSet::from_iter),
            rest: body.rest(),
        })
    }

    fn needed_name(&self) -> Answer<String> {
        let name = self.name.clone();
        name.ok_or_else(|| Refusal::bad("'name' is a required property"))
    }

    fn apply_domain(&self, domain: &mut Domain) {
        if let Some(description) = &self.description {
            domain.description = description.clone().unwrap_or_default();
        }
        if let Some(enabled) = self.enabled {
            domain.enabled = enabled;
        }
        merge(&mut domain.extra, &self.rest);
    }

    /// Further attributes of projects are labels, so they are texts.
    fn labels(&self) -> Answer<Vec<(String, Option<String>)>> {
        let label = |(name, value): (&String, &Value)| match value {
            Value::Null => Ok((name.clone(), None)),
            Value::String(text) => Ok((name.clone(), Some(text.clone()))),
            Value::Bool(_) | Value::Number(_) => Ok((name.clone(), Some(value.to_string()))),
            _ => Err(Refusal::bad(format!(
                "Invalid input for field '{name}': it is a text"
            ))),
        };
        self.rest.iter().map(label).collect()
    }

    fn apply_project(&self, project: &mut skyloom_model::ProjectSpec) {
        if let Some(description) = &self.description {
            project.description = description.clone().unwrap_or_default();
        }
        if let Some(enabled) = self.enabled {
            project.enabled = enabled;
        }
        if let Some(tags) = &self.tags {
            project.tags.clone_from(tags);
        }
    }
}

async fn made_domain(ask: &Ask, common: &Common) -> Answer<Domain> {
    let name = common.needed_name()?;
    ask.require("domain:create", &Thing::new("domain", Lies::System).named(&name))
        .await?;
    ask.change(
        |edit| edit.create_domain(&name, |domain| common.apply_domain(domain)),
        |domain| Thing::domain(domain.id, &domain.name).deed("domain:create"),
    )
    .await
}

async fn create_domain(ask: Ask, body: Bytes) -> Answer {
    let common = Common::read(Fields::of(&body, "domain")?)?;
    let made = made_domain(&ask, &common).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"domain": ask.shape().domain(&made)})),
    )
        .into_response())
}

async fn changed_domain(ask: &Ask, id: DomainId, name: &str, common: &Common) -> Answer<Domain> {
    let thing = Thing::domain(id, name);
    ask.require("domain:update", &thing).await?;
    ask.change(
        |edit| {
            edit.update_domain(id, |domain| {
                if let Some(name) = &common.name {
                    domain.name.clone_from(name);
                }
                common.apply_domain(domain);
            })
        },
        |_| thing.deed("domain:update"),
    )
    .await
}

async fn update_domain(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = ask.find_domain(&id).await?;
    let mut body = Fields::of(&body, "domain")?;
    body.same_id(&id)?;
    let common = Common::read(body)?;
    let made = changed_domain(&ask, found.value.id, &found.value.name, &common).await?;
    Ok(Json(json!({"domain": ask.shape().domain(&made)})).into_response())
}

async fn removed_domain(ask: &Ask, domain: &Domain) -> Answer<()> {
    let thing = Thing::domain(domain.id, &domain.name);
    ask.require("domain:delete", &thing).await?;
    if domain.enabled {
        return Err(Refusal::forbidden(
            "You are not authorized to perform the requested action: cannot delete a domain that is enabled, please \
             disable it first.",
        ));
    }
    for project in ask.at.projects_in(domain.id) {
        empty(ask, id_of(&project.value)).await?;
    }
    ask.remove(Doomed::Domain(domain.id), thing.deed("domain:delete"))
        .await
}

async fn delete_domain(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_domain(&id).await?;
    removed_domain(&ask, &found.value).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses where a project still holds something.
async fn empty(ask: &Ask, project: ProjectId) -> Answer<()> {
    match ask.parts.contents.held(project).await? {
        None => Ok(()),
        Some(what) => Err(Refusal::conflict(format!(
            "Conflict occurred attempting to delete project {}: it still holds {what}.",
            hex(project)
        ))),
    }
}

async fn list_projects(ask: Ask) -> Answer {
    ask.require_list("project:read")?;
    if ask.query.flag("is_domain") {
        let domains = ask.at.domains().filter(|domain| !domain.value.deleting);
        let seen = domains.filter(|d| ask.may("domain:read", &Thing::domain(d.value.id, &d.value.name)));
        let domains = seen
            .map(|domain| ask.shape().domain_project(&domain.value))
            .collect();
        return ask.page("projects", domains, FILTERS);
    }
    let projects = ask.at.projects().filter(|project| !project.value.spec.deleting);
    let seen = projects.filter(|found| ask.may("project:read", &Thing::project(&found.value)));
    let tagged = seen.filter(|found| tags_fit(&found.value.spec.tags, &ask));
    let projects = tagged.map(|found| ask.shape().project(&found.value)).collect();
    ask.page("projects", projects, FILTERS)
}

/// `tags`, `tags-any`, `not-tags`, `not-tags-any`.
fn tags_fit(tags: &BTreeSet<String>, ask: &Ask) -> bool {
    let asked = |name: &str| -> Option<Vec<String>> {
        Some(ask.query.get(name)?.split(',').map(str::to_owned).collect())
    };
    let all = |wanted: &Vec<String>| wanted.iter().all(|tag| tags.contains(tag));
    let any = |wanted: &Vec<String>| wanted.iter().any(|tag| tags.contains(tag));
    asked("tags").is_none_or(|wanted| all(&wanted))
        && asked("tags-any").is_none_or(|wanted| any(&wanted))
        && asked("not-tags").is_none_or(|wanted| !all(&wanted))
        && asked("not-tags-any").is_none_or(|wanted| !any(&wanted))
}

async fn show_project(ask: Ask, Path(id): Path<String>) -> Answer {
    if let Some(domain) = domain_of(&ask, &id) {
        let found = ask.find_domain(&ids::domain(domain)).await?;
        return Ok(Json(json!({"project": ask.shape().domain_project(&found.value)})).into_response());
    }
    let found = ask.find_project(&id).await?;
    let mut shown = ask.shape().project(&found.value);
    relatives(&ask, &found.value, &mut shown);
    Ok(Json(json!({"project": shown})).into_response())
}

/// The domain that has this id, for calls that take domains as projects.
fn domain_of(ask: &Ask, id: &str) -> Option<DomainId> {
    let id = ids::parse_domain(id)?;
    ask.at.domain(id).map(|_| id)
}

/// What the query wants to know of the projects above and below.
fn relatives(ask: &Ask, project: &Project, shown: &mut Value) {
    let seen = |found: &&Arc<Versioned<Project>>| ask.may("project:read", &Thing::project(&found.value));
    let mut above = Vec::new();
    let mut next = project.spec.parent;
    while let Some(found) = next.and_then(|id| ask.at.project(id)) {
        above.push(found);
        next = found.value.spec.parent;
    }
    let domain = ids::domain(DomainId::from_uuid(project.spec.domain));
    if ask.query.flag("parents_as_list") {
        let list = above.iter().copied().filter(seen);
        let list = list.map(|found| json!({"project": ask.shape().project(&found.value)}));
        shown["parents"] = list.collect();
    } else if ask.query.flag("parents_as_ids") {
        let mut tree = json!({domain: null});
        for found in above.iter().rev() {
            tree = json!({hex(id_of(&found.value)): tree});
        }
        shown["parents"] = tree;
    }
    if ask.query.flag("subtree_as_list") {
        let mut list = Vec::new();
        below(ask, id_of(project), &mut |found| {
            if seen(&found) {
                list.push(json!({"project": ask.shape().project(&found.value)}));
            }
        });
        shown["subtree"] = list.into();
    } else if ask.query.flag("subtree_as_ids") {
        shown["subtree"] = subtree_ids(ask, id_of(project));
    }
}

fn below<'a>(ask: &'a Ask, project: ProjectId, tell: &mut dyn FnMut(&'a Arc<Versioned<Project>>)) {
    for child in ask.at.children(project) {
        tell(child);
        below(ask, id_of(&child.value), tell);
    }
}

fn subtree_ids(ask: &Ask, project: ProjectId) -> Value {
    let mut tree = Map::new();
    for child in ask.at.children(project) {
        let id = id_of(&child.value);
        tree.insert(hex(id), subtree_ids(ask, id));
    }
    if tree.is_empty() { Value::Null } else { tree.into() }
}

async fn create_project(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "project")?;
    let domain = body.domain("domain_id")?;
    let parent = body.text("parent_id")?;
    if body.flag("is_domain")?.unwrap_or(false) {
        if domain.is_some() || parent.is_some() {
            return Err(Refusal::bad("A domain has no domain and no parent."));
        }
        let made = made_domain(&ask, &Common::read(body)?).await?;
        let shown = ask.shape().domain_project(&made);
        return Ok((StatusCode::CREATED, Json(json!({"project": shown}))).into_response());
    }
    let above = match &parent {
        None => None,
        // A domain stands above the topmost projects.
        Some(id) => match domain_of(&ask, id) {
            Some(of) => Some(Err(of)),
            None => Some(Ok(ask.find_project(id).await?)),
        },
    };
    let (parent, domain) = match above {
        None => (None, domain.unwrap_or_else(|| ask.own_domain())),
        Some(Err(of)) => (None, of),
        Some(Ok(above)) => {
            let of = DomainId::from_uuid(above.value.spec.domain);
            if domain.is_some_and(|domain| domain != of) {
                return Err(Refusal::bad(
                    "Invalid input for field 'parent_id': it is in another domain",
                ));
            }
            (Some(id_of(&above.value)), of)
        }
    };
    let common = Common::read(body)?;
    let (name, labels) = (common.needed_name()?, common.labels()?);
    ask.require(
        "project:create",
        &Thing::new("project", Lies::Domain(domain)).named(&name),
    )
    .await?;
    let mut made = ask
        .change(
            |edit| edit.create_project(domain, parent, &name, |spec| common.apply_project(spec)),
            |project| {
                Thing::project(project)
                    .deed("project:create")
                    .in_project(id_of(project), domain)
            },
        )
        .await?;
    if !labels.is_empty() {
        let at = ask.identity().directory().snapshot();
        let found = at
            .project(id_of(&made))
            .ok_or_else(|| Refusal::missing("project", &hex(id_of(&made))))?;
        made = changed_project(&ask, &found.value, "project:create", |project| {
            set_labels(project, &labels)
        })
        .await?;
    }
    Ok((
        StatusCode::CREATED,
        Json(json!({"project": ask.shape().project(&made)})),
    )
        .into_response())
}

async fn update_project(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "project")?;
    body.same_id(&id)?;
    if let Some(domain) = domain_of(&ask, &id) {
        for fixed in ["domain_id", "parent_id", "is_domain"] {
            body.value(fixed);
        }
        let found = ask.find_domain(&ids::domain(domain)).await?;
        let made = changed_domain(&ask, domain, &found.value.name, &Common::read(body)?).await?;
        return Ok(Json(json!({"project": ask.shape().domain_project(&made)})).into_response());
    }
    let found = ask.find_project(&id).await?;
    let shown = ask.shape().project(&found.value);
    for fixed in ["domain_id", "parent_id", "is_domain"] {
        if body.value(fixed).is_some_and(|said| said != shown[fixed]) {
            return Err(Refusal::bad(format!("Update of `{fixed}` is not allowed.")));
        }
    }
    let common = Common::read(body)?;
    let labels = common.labels()?;
    let name = common.name.as_deref().map(Name::new).transpose();
    let name = name.map_err(|e| Refusal::bad(format!("Invalid input for field 'name': it {e}")))?;
    let made = changed_project(&ask, &found.value, "project:update", |project| {
        if let Some(name) = &name {
            project.meta.name = name.clone();
        }
        set_labels(project, &labels);
        common.apply_project(&mut project.spec);
    })
    .await?;
    Ok(Json(json!({"project": ask.shape().project(&made)})).into_response())
}

fn set_labels(project: &mut Project, labels: &[(String, Option<String>)]) {
    for (name, value) in labels {
        match value {
            Some(value) => drop(project.meta.labels.insert(name.clone(), value.clone())),
            None => drop(project.meta.labels.remove(name)),
        }
    }
}

async fn changed_project(
    ask: &Ask,
    project: &Project,
    permission: &'static str,
    change: impl Fn(&mut Project),
) -> Answer<Project> {
    let thing = Thing::project(project);
    ask.require(permission, &thing).await?;
    ask.change(
        |edit| edit.update_project(id_of(project), &change),
        |_| thing.deed_at(permission, &ask.at),
    )
    .await
}

async fn delete_project(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    if let Some(domain) = domain_of(&ask, &id) {
        let found = ask.find_domain(&ids::domain(domain)).await?;
        removed_domain(&ask, &found.value).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let found = ask.find_project(&id).await?;
    let thing = Thing::project(&found.value);
    ask.require("project:delete", &thing).await?;
    empty(&ask, id_of(&found.value)).await?;
    let deed = thing.deed_at("project:delete", &ask.at);
    ask.remove(Doomed::Project(id_of(&found.value)), deed).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_tags(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_project(&id).await?;
    let link = ask.link(&format!("projects/{}/tags", hex(id_of(&found.value))));
    let links = json!({"self": link, "next": null, "previous": null});
    Ok(Json(json!({"tags": found.value.spec.tags, "links": links})).into_response())
}

async fn set_tags(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = ask.find_project(&id).await?;
    let tags = Fields::whole(&body)?.texts("tags")?.unwrap_or_default();
    let tags = BTreeSet::from_iter(tags);
    let set = |project: &mut Project| project.spec.tags.clone_from(&tags);
    changed_project(&ask, &found.value, "project:update", set).await?;
    Ok(Json(json!({"tags": tags})).into_response())
}

async fn clear_tags(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_project(&id).await?;
    changed_project(&ask, &found.value, "project:update", |project| {
        project.spec.tags.clear()
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add_tag(ask: Ask, Path((id, tag)): Path<(String, String)>) -> Answer<Response> {
    let found = ask.find_project(&id).await?;
    let add = |project: &mut Project| {
        project.spec.tags.insert(tag.clone());
    };
    changed_project(&ask, &found.value, "project:update", add).await?;
    let here = ask.link(&format!("projects/{id}/tags/{tag}"));
    Ok((StatusCode::CREATED, [(LOCATION, here)]).into_response())
}

async fn check_tag(ask: Ask, Path((id, tag)): Path<(String, String)>) -> Answer<StatusCode> {
    let found = ask.find_project(&id).await?;
    if found.value.spec.tags.contains(&tag) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::missing("project tag", &tag))
}

async fn remove_tag(ask: Ask, Path((id, tag)): Path<(String, String)>) -> Answer<StatusCode> {
    let found = ask.find_project(&id).await?;
    if !found.value.spec.tags.contains(&tag) {
        return Err(Refusal::missing("project tag", &tag));
    }
    let remove = |project: &mut Project| {
        project.spec.tags.remove(&tag);
    };
    changed_project(&ask, &found.value, "project:update", remove).await?;
    Ok(StatusCode::NO_CONTENT)
}
