//! Application credentials, their access rules, and keys for signed requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_identity::{
    AccessRule, Credential, Doomed, NewApplicationCredential, NewSecret, SecretHash, User, UserId,
};
use skyloom_model::Secret;
use skyloom_store::Versioned;
use uuid::Uuid;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids::{self, hex};
use super::shape::access_rule;
use super::shelf::Document;
use super::thing::Thing;

/// Longest name of an application credential, as Keystone has it.
const MAX_NAME: usize = 255;
/// Shortest secret that a user chooses: it is looked up by its hash, so it must not be guessed.
const MIN_SECRET: usize = 32;
/// Where access rules lie whose credentials are gone.
const RULES: &str = "openstack/access-rules";

pub(crate) fn routes() -> Routes {
    super::ec2::routes()
        .route("/users/{user}/application_credentials", get(list).post(create))
        .route(
            "/users/{user}/application_credentials/{id}",
            get(show).delete(delete),
        )
        .route("/users/{user}/access_rules", get(list_rules))
        .route(
            "/users/{user}/access_rules/{id}",
            get(show_rule).delete(delete_rule),
        )
}

/// Something of a user that is there, as the policy sees it.
pub(super) fn of(user: &User, id: Option<Uuid>, called: &'static str) -> Thing {
    let thing = Thing::of_user("credential", user).called_so(called);
    match id {
        Some(id) => thing.with_id(id),
        None => thing,
    }
}

async fn applications(
    ask: &Ask,
    user: &str,
) -> Answer<(Arc<Versioned<User>>, Vec<Arc<Versioned<Credential>>>)> {
    let user = ask.find_user(user).await?;
    ask.require(
        "credential:read",
        &of(&user.value, None, "application credential"),
    )
    .await?;
    let all = ask
        .at
        .credentials_of(user.value.id)
        .filter(|c| c.value.application().is_some());
    let all = all.cloned().collect();
    Ok((user, all))
}

async fn find(ask: &Ask, user: &str, id: &str) -> Answer<(Arc<Versioned<User>>, Arc<Versioned<Credential>>)> {
    let (user, all) = applications(ask, user).await?;
    let wanted = ids::parse(id);
    let found = all.into_iter().find(|found| Some(found.value.id) == wanted);
    Ok((
        user,
        found.ok_or_else(|| Refusal::missing("application credential", id))?,
    ))
}

fn shape(ask: &Ask, credential: &Credential) -> Value {
    let own = credential.application();
    own.map_or(Value::Null, |own| ask.shape().application(credential, own))
}

async fn list(ask: Ask, Path(user): Path<String>) -> Answer {
    let (_, all) = applications(&ask, &user).await?;
    let all = all.iter().map(|found| shape(&ask, &found.value)).collect();
    ask.page("application_credentials", all, &["name"])
}

async fn show(ask: Ask, Path((user, id)): Path<(String, String)>) -> Answer {
    let (_, found) = find(&ask, &user, &id).await?;
    Ok(Json(json!({"application_credential": shape(&ask, &found.value)})).into_response())
}

/// The access rules of a body: new ones, or those of the user by their ids.
async fn rules(ask: &Ask, user: UserId, body: Option<Vec<Fields>>) -> Answer<Vec<AccessRule>> {
    let known = known_rules(ask, user).await?;
    let mut rules = Vec::new();
    for mut one in body.unwrap_or_default() {
        if let Some(id) = one.text("id")? {
            let found = Uuid::try_parse(&id).ok().and_then(|id| known.get(&id));
            rules.push(found.ok_or_else(|| Refusal::missing("access rule", &id))?.clone());
            continue;
        }
        let mut rule = AccessRule {
            id: ask.parts.ids.uuid(),
            service: one.needed("service")?,
            method: one.needed("method")?.to_ascii_uppercase(),
            path: one.needed("path")?,
        };
        // The same rule is the same rule.
        if let Some(same) = known.values().find(|known| known.same(&rule)) {
            rule.id = same.id;
        }
        rules.push(rule);
    }
    Ok(rules)
}

async fn create(ask: Ask, Path(user): Path<String>, body: Bytes) -> Answer {
    let user = ask.find_user(&user).await?;
    let thing = of(&user.value, None, "application credential");
    // Nobody makes one for somebody else: it would act as that one.
    if user.value.id != ask.user() {
        return Err(Refusal::not_allowed("identity:create_application_credential"));
    }
    ask.require("credential:create", &thing).await?;
    let mut body = Fields::of(&body, "application_credential")?;
    let chosen = body.text("secret")?.map(Secret::new);
    let secret = match chosen {
        None => NewSecret::generate(&*ask.parts.ids),
        Some(secret) => NewSecret {
            hash: taken(&ask, &secret)?,
            hint: String::new(),
            secret,
        },
    };
    if let Some(project) = body.text("project_id")?
        && ids::parse(&project).map(skyloom_identity::AuthScope::Project) != Some(ask.rights.principal.scope)
        && ids::parse(&project).map(skyloom_identity::AuthScope::Project)
            != Some(ask.valid.rights.principal.scope)
    {
        return Err(Refusal::bad(
            "Invalid input for field 'project_id': it is that of the token",
        ));
    }
    let asked = NewApplicationCredential {
        name: body.needed_name("name", MAX_NAME)?,
        description: body.text("description")?.unwrap_or_default(),
        roles: ask
            .roles_in(body.objects("roles")?)?
            .filter(|roles| !roles.is_empty()),
        secret_hash: secret.hash.clone(),
        expires_at: body.time("expires_at")?,
        unrestricted: body.flag("unrestricted")?.unwrap_or(false),
        access_rules: rules(&ask, user.value.id, body.objects("access_rules")?).await?,
        permissions: Vec::new(),
    };
    let by = &ask.valid.rights.principal;
    let made = ask
        .change(
            |edit| edit.create_application_credential(by, asked.clone()),
            |made| {
                thing
                    .deed("credential:create")
                    .on(made.id.uuid())
                    .named(&asked.name)
            },
        )
        .await?;
    let mut shown = shape(&ask, &made);
    shown["secret"] = secret.secret.expose().as_str().into();
    Ok((
        StatusCode::CREATED,
        Json(json!({"application_credential": shown})),
    )
        .into_response())
}

/// The hash of a secret that the user has chosen.
fn taken(ask: &Ask, secret: &Secret<String>) -> Answer<SecretHash> {
    let long = secret.expose().len() >= MIN_SECRET;
    let hash = skyloom_identity::parse_secret(secret.expose())
        .ok()
        .filter(|_| long);
    // Two with one secret could not be told apart.
    let free = hash.filter(|hash| ask.at.credential_of_secret(hash).is_none());
    free.ok_or_else(|| {
        Refusal::bad(format!(
            "Invalid input for field 'secret': a secret of one's own has {MIN_SECRET} to 256 printable characters; leave it \
             out to have one made"
        ))
    })
}

async fn delete(ask: Ask, Path((user, id)): Path<(String, String)>) -> Answer<StatusCode> {
    let (user, found) = find(&ask, &user, &id).await?;
    let thing = of(&user.value, Some(found.value.id.uuid()), "application credential");
    ask.require("credential:delete", &thing).await?;
    // Its rules stay until they are deleted themselves.
    if let Some(own) = found.value.application() {
        for rule in &own.access_rules {
            keep_rule(&ask, user.value.id, rule).await?;
        }
    }
    ask.remove(
        Doomed::Credential(found.value.id),
        thing.deed("credential:delete"),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn folder(user: UserId) -> String {
    format!("{RULES}/{}", hex(user))
}

async fn keep_rule(ask: &Ask, user: UserId, rule: &AccessRule) -> Answer<()> {
    let place = format!("{}/{}", folder(user), rule.id.simple());
    if ask.shelved(&place).await?.is_some() {
        return Ok(());
    }
    let document: Document = access_rule(rule).as_object().cloned().unwrap_or_default();
    match ask.shelve(&folder(user), &place, &document).await {
        // The same rule of two credentials that go at once.
        Err(refusal) if refusal.status == StatusCode::CONFLICT => Ok(()),
        kept => kept,
    }
}

/// All access rules of a user: those of its credentials, and those whose credentials are gone.
async fn known_rules(ask: &Ask, user: UserId) -> Answer<BTreeMap<Uuid, AccessRule>> {
    let mut known = BTreeMap::new();
    for document in ask.all_shelved(&folder(user)).await? {
        let text = |field: &str| {
            document
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let Ok(id) = Uuid::try_parse(&text("id")) else {
            continue;
        };
        let (service, method, path) = (text("service"), text("method"), text("path"));
        known.insert(
            id,
            AccessRule {
                id,
                service,
                method,
                path,
            },
        );
    }
    let own = ask
        .at
        .credentials_of(user)
        .filter_map(|found| found.value.application());
    for rule in own.flat_map(|own| &own.access_rules) {
        known.insert(rule.id, rule.clone());
    }
    Ok(known)
}

async fn rules_of(ask: &Ask, user: &str) -> Answer<(Arc<Versioned<User>>, BTreeMap<Uuid, AccessRule>)> {
    let user = ask.find_user(user).await?;
    ask.require("credential:read", &of(&user.value, None, "access rule"))
        .await?;
    let known = known_rules(ask, user.value.id).await?;
    Ok((user, known))
}

fn rule_shape(ask: &Ask, user: UserId, rule: &AccessRule) -> Value {
    let mut shown = access_rule(rule);
    let link = format!("users/{}/access_rules/{}", hex(user), rule.id.simple());
    shown["links"] = ask.shape().link(&link);
    shown
}

async fn list_rules(ask: Ask, Path(user): Path<String>) -> Answer {
    let (user, known) = rules_of(&ask, &user).await?;
    let rules = known
        .values()
        .map(|rule| rule_shape(&ask, user.value.id, rule))
        .collect();
    ask.page("access_rules", rules, &["service", "path", "method"])
}

async fn show_rule(ask: Ask, Path((user, id)): Path<(String, String)>) -> Answer {
    let (user, known) = rules_of(&ask, &user).await?;
    let found = Uuid::try_parse(&id).ok().and_then(|id| known.get(&id));
    let found = found.ok_or_else(|| Refusal::missing("access rule", &id))?;
    Ok(Json(json!({"access_rule": rule_shape(&ask, user.value.id, found)})).into_response())
}

async fn delete_rule(ask: Ask, Path((user, id)): Path<(String, String)>) -> Answer<StatusCode> {
    let (user, known) = rules_of(&ask, &user).await?;
    let found = Uuid::try_parse(&id).ok().and_then(|id| known.get(&id));
    let found = found.ok_or_else(|| Refusal::missing("access rule", &id))?;
    ask.require(
        "credential:delete",
        &of(&user.value, Some(found.id), "access rule"),
    )
    .await?;
    let mut own = ask
        .at
        .credentials_of(user.value.id)
        .filter_map(|kept| kept.value.application());
    if own.any(|own| own.access_rules.iter().any(|rule| rule.id == found.id)) {
        return Err(Refusal::forbidden(
            "Unable to delete the access rule, it is in use by an application credential.",
        ));
    }
    if ask
        .unshelve(&format!("{}/{}", folder(user.value.id), found.id.simple()))
        .await?
    {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::missing("access rule", &id))
}
