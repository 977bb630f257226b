//! Keys for signed requests: `OS-EC2` of a user, and the same as credentials of type `ec2`.

use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_identity::{
    Actor, Credential, CredentialId, CredentialKind, Doomed, Ec2Key, Sealed, User, UserId, Via, paths,
};
use skyloom_model::{Id, ProjectId, Secret};
use skyloom_store::{Key, Versioned};

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids::{self, hex};
use super::kept::random_hex;
use super::secrets::of;

/// The only type of credentials that is kept here. Second factors are enrolled in the cloud's own API.
const EC2: &str = "ec2";
const CALLED: &str = "credential";

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route(
            "/users/{user}/credentials/OS-EC2",
            get(list_of_user).post(create_for_user),
        )
        .route(
            "/users/{user}/credentials/OS-EC2/{access}",
            get(show_of_user).delete(delete_of_user),
        )
        .route("/credentials", get(list).post(create))
        .route("/credentials/{id}", get(show).patch(update).delete(delete))
}

fn key_of(credential: &Credential) -> Option<&Ec2Key> {
    match &credential.kind {
        CredentialKind::Ec2(key) => Some(key),
        _ => None,
    }
}

/// Where a key's secret is sealed for.
fn place(user: UserId, id: CredentialId) -> Answer<Key> {
    Key::parse(&paths::credential(user, id))
        .map_err(|e| Refusal::bad(format!("Invalid input for field 'id': {e}")))
}

async fn seal(ask: &Ask, user: UserId, id: CredentialId, secret: &str) -> Answer<Sealed> {
    let secret = Secret::new(secret.as_bytes().to_vec());
    Ok(ask.identity().secrets().seal(&place(user, id)?, &secret).await?)
}

async fn open(ask: &Ask, credential: &Credential, key: &Ec2Key) -> Answer<String> {
    let place = place(credential.user, credential.id)?;
    let secret = ask.identity().secrets().open(&place, &key.sealed).await?;
    String::from_utf8(secret.expose().clone()).map_err(|e| Refusal::internal(&e))
}

/// Whether who asks may use a user's keys: its own, and those of whom it commands. Others see keys without their secrets.
fn may_use(ask: &Ask, user: &User) -> bool {
    user.id == ask.user()
        || (ask.may("credential:create", &of(user, None, CALLED))
            && ask.at.commands(&ask.rights.principal, Actor::User(user.id)))
}

async fn required(ask: &Ask, user: &User) -> Answer<()> {
    ask.require("credential:create", &of(user, None, CALLED)).await?;
    // A key counts in every project that it names, so nothing narrower than a user makes one.
    let narrow = matches!(
        ask.rights.principal.via,
        Via::ApplicationCredential { .. } | Via::Trust { .. }
    );
    if !narrow && may_use(ask, user) {
        return Ok(());
    }
    Err(Refusal::not_allowed("identity:create_credential"))
}

async fn make(
    ask: &Ask,
    user: &User,
    project: Option<ProjectId>,
    access: &str,
    secret: &str,
) -> Answer<Credential> {
    required(ask, user).await?;
    let id: CredentialId = Id::fresh(&*ask.parts.ids);
    let key = Ec2Key {
        access: access.to_owned(),
        sealed: seal(ask, user.id, id, secret).await?,
        project,
    };
    ask.change(
        |edit| edit.create_ec2_key(id, user.id, key.clone()),
        |made| of(user, Some(made.id.uuid()), CALLED).deed("credential:create"),
    )
    .await
}

async fn remove(ask: &Ask, user: &User, id: CredentialId) -> Answer<StatusCode> {
    let thing = of(user, Some(id.uuid()), CALLED);
    ask.require("credential:delete", &thing).await?;
    ask.remove(Doomed::Credential(id), thing.deed("credential:delete"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A key as `OS-EC2` shows it.
async fn of_user(ask: &Ask, credential: &Credential, key: &Ec2Key, open_it: bool) -> Answer<Value> {
    let user = hex(credential.user);
    let secret = if open_it {
        Some(open(ask, credential, key).await?)
    } else {
        None
    };
    Ok(json!({
        "access": key.access,
        "secret": secret,
        "user_id": user,
        "tenant_id": key.project.map(hex),
        "trust_id": null,
        "links": ask.shape().link(&format!("users/{user}/credentials/OS-EC2/{}", key.access)),
    }))
}

async fn list_of_user(ask: Ask, Path(user): Path<String>) -> Answer {
    let user = ask.find_user(&user).await?;
    ask.require("credential:read", &of(&user.value, None, CALLED))
        .await?;
    let usable = may_use(&ask, &user.value);
    let mut shown = Vec::new();
    for found in ask.at.credentials_of(user.value.id) {
        if let Some(key) = key_of(&found.value) {
            shown.push(of_user(&ask, &found.value, key, usable).await?);
        }
    }
    ask.page("credentials", shown, &[])
}

async fn create_for_user(ask: Ask, Path(user): Path<String>, body: Bytes) -> Answer {
    let user = ask.find_user(&user).await?;
    let mut body = Fields::whole(&body)?;
    let project = body.id("tenant_id", "project")?;
    let access = ask.parts.ids.uuid().simple().to_string();
    let secret = random_hex(&ask);
    let made = make(&ask, &user.value, project, &access, secret.expose()).await?;
    let key = key_of(&made).ok_or_else(|| Refusal::missing(CALLED, &access))?;
    let shown = of_user(&ask, &made, key, true).await?;
    Ok((StatusCode::CREATED, Json(json!({"credential": shown}))).into_response())
}

async fn find_of_user(
    ask: &Ask,
    user: &str,
    access: &str,
) -> Answer<(Arc<Versioned<User>>, Arc<Versioned<Credential>>)> {
    let user = ask.find_user(user).await?;
    ask.require("credential:read", &of(&user.value, None, CALLED))
        .await?;
    let found = ask
        .at
        .ec2_key(access)
        .filter(|found| found.value.user == user.value.id);
    Ok((
        user.clone(),
        found.cloned().ok_or_else(|| Refusal::missing(CALLED, access))?,
    ))
}

async fn show_of_user(ask: Ask, Path((user, access)): Path<(String, String)>) -> Answer {
    let (user, found) = find_of_user(&ask, &user, &access).await?;
    let key = key_of(&found.value).ok_or_else(|| Refusal::missing(CALLED, &access))?;
    let shown = of_user(&ask, &found.value, key, may_use(&ask, &user.value)).await?;
    Ok(Json(json!({"credential": shown})).into_response())
}

async fn delete_of_user(ask: Ask, Path((user, access)): Path<(String, String)>) -> Answer<StatusCode> {
    let (user, found) = find_of_user(&ask, &user, &access).await?;
    remove(&ask, &user.value, found.value.id).await
}

/// A key as credentials show it: public half and secret are a text of JSON in it.
async fn shape(ask: &Ask, credential: &Credential, key: &Ec2Key, user: &User) -> Answer<Value> {
    let id = hex(credential.id);
    let mut blob = json!({"access": key.access});
    if may_use(ask, user) {
        blob["secret"] = open(ask, credential, key).await?.into();
    }
    Ok(json!({
        "id": id,
        "type": EC2,
        "user_id": hex(credential.user),
        "project_id": key.project.map(hex),
        "blob": blob.to_string(),
        "links": ask.shape().link(&format!("credentials/{id}")),
    }))
}

/// A key that is there and that may be seen, and whose it is.
async fn find(ask: &Ask, id: &str) -> Answer<(Arc<Versioned<Credential>>, Arc<Versioned<User>>)> {
    let found = ids::parse(id)
        .and_then(|id| ask.at.credential(id))
        .filter(|found| key_of(&found.value).is_some());
    let user = found.and_then(|found| ask.at.user(found.value.user));
    let (Some(found), Some(user)) = (found, user) else {
        return Err(ask.absent("credential:read", CALLED, id));
    };
    ask.require(
        "credential:read",
        &of(&user.value, Some(found.value.id.uuid()), CALLED),
    )
    .await?;
    Ok((found.clone(), user.clone()))
}

/// Public half and secret of a body's blob.
fn halves(blob: &str) -> Answer<(String, String)> {
    let wrong =
        || Refusal::bad("Invalid input for field 'blob': it is a text of JSON with 'access' and 'secret'");
    let blob: Value = serde_json::from_str(blob).map_err(|_| wrong())?;
    let text = |name: &str| {
        blob.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    text("access").zip(text("secret")).ok_or_else(wrong)
}

async fn list(ask: Ask) -> Answer {
    ask.require_list("credential:read")?;
    let mut shown = Vec::new();
    for found in ask.at.credentials() {
        let user = ask.at.user(found.value.user);
        if let (Some(key), Some(user)) = (key_of(&found.value), user)
            && ask.may(
                "credential:read",
                &of(&user.value, Some(found.value.id.uuid()), CALLED),
            )
        {
            shown.push(shape(&ask, &found.value, key, &user.value).await?);
        }
    }
    ask.page("credentials", shown, &["user_id", "type"])
}

async fn show(ask: Ask, Path(id): Path<String>) -> Answer {
    let (found, user) = find(&ask, &id).await?;
    let key = key_of(&found.value).ok_or_else(|| Refusal::missing(CALLED, &id))?;
    Ok(Json(json!({"credential": shape(&ask, &found.value, key, &user.value).await?})).into_response())
}

async fn create(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "credential")?;
    if body.needed("type")? != EC2 {
        return Err(Refusal::bad(
            "Invalid input for field 'type': credentials of type 'ec2' are kept here",
        ));
    }
    let user = body.text("user_id")?.unwrap_or_else(|| hex(ask.user()));
    let user = ask.find_user(&user).await?;
    let project = body.id("project_id", "project")?;
    let project = project.ok_or_else(|| Refusal::bad("'project_id' is a required property"))?;
    let (access, secret) = halves(&body.needed("blob")?)?;
    let made = make(&ask, &user.value, Some(project), &access, &secret).await?;
    let key = key_of(&made).ok_or_else(|| Refusal::missing(CALLED, &access))?;
    let shown = shape(&ask, &made, key, &user.value).await?;
    Ok((StatusCode::CREATED, Json(json!({"credential": shown}))).into_response())
}

async fn update(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let (found, user) = find(&ask, &id).await?;
    required(&ask, &user.value).await?;
    let mut body = Fields::of(&body, "credential")?;
    body.same_id(&id)?;
    let key = key_of(&found.value).ok_or_else(|| Refusal::missing(CALLED, &id))?;
    let fixed = [
        ("type", Some(EC2.to_owned())),
        ("user_id", Some(hex(found.value.user))),
        ("project_id", key.project.map(hex)),
    ];
    for (field, is) in fixed {
        if body.nullable(field)?.is_some_and(|said| said != is) {
            return Err(Refusal::bad(format!("Update of `{field}` is not allowed.")));
        }
    }
    let (access, secret) = halves(&body.needed("blob")?)?;
    let credential = found.value.id;
    let sealed = seal(&ask, found.value.user, credential, &secret).await?;
    let made = ask
        .change(
            |edit| {
                edit.update_ec2_key(credential, |key| {
                    (key.access, key.sealed) = (access.clone(), sealed.clone());
                })
            },
            |made| {
                of(&user.value, Some(made.id.uuid()), CALLED)
                    .deed("credential:create")
                    .changed(&["blob"])
            },
        )
        .await?;
    let key = key_of(&made).ok_or_else(|| Refusal::missing(CALLED, &id))?;
    Ok(Json(json!({"credential": shape(&ask, &made, key, &user.value).await?})).into_response())
}

async fn delete(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let (found, user) = find(&ask, &id).await?;
    remove(&ask, &user.value, found.value.id).await
}
