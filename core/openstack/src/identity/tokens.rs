//! Tokens: given, shown, taken back; and what a token could be exchanged for.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_identity::{
    AuthScope, DomainId, LogIn, Method, Rights, Session, Snapshot, TokenClaims, Valid, Via,
};
use skyloom_model::{ProjectId, Timestamp};

use super::ask::{Ask, Open};
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids::{hex, time};
use super::listing::Query;
use super::proofs;
use super::shape::Shape;
use super::thing::Thing;

const SUBJECT: &str = "x-subject-token";

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/auth/tokens", get(validate).post(issue).delete(revoke))
        .route("/auth/projects", get(projects))
        .route("/auth/domains", get(domains))
        .route("/auth/system", get(system))
        .route("/auth/catalog", get(catalog))
}

async fn issue(open: Open, uri: axum::http::Uri, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "auth")?;
    let proofs = proofs::read(&mut body)?;
    let scope = proofs::scope(&mut body)?;
    let asked = LogIn::new(proofs, scope).in_request(open.request_id.clone());
    let identity = &open.parts.identity;
    let session = identity.log_in(asked, &open.throttled_as()).await?;
    let at = identity.directory().snapshot();
    let Session {
        token,
        rights,
        claims,
        expires_at,
    } = &session;
    let bare = Query::parse(uri.query().unwrap_or_default())
        .get("nocatalog")
        .is_some();
    let shape = Shape {
        root: &open.root,
        at: &at,
    };
    let told = shown(shape, rights, Some(claims), Some(*expires_at), bare);
    let subject = [(SUBJECT, token.expose().clone())];
    Ok((StatusCode::CREATED, subject, Json(json!({"token": told}))).into_response())
}

/// A method as Keystone names it.
fn method(method: Method) -> &'static str {
    match method {
        Method::Password => "password",
        Method::Totp => "totp",
        Method::ApplicationCredential => "application_credential",
        Method::Token | Method::ApiToken => "token",
        Method::Ec2 => "ec2credential",
        Method::External | Method::Certificate => "external",
    }
}

/// What a token says, in Keystone's words.
fn shown(
    shape: Shape<'_>,
    rights: &Rights,
    claims: Option<&TokenClaims>,
    ends: Option<Timestamp>,
    bare: bool,
) -> Value {
    let (at, principal) = (shape.at, &rights.principal);
    let mut methods: Vec<&str> = principal.methods.iter().map(|known| method(*known)).collect();
    methods.dedup();
    let audit = claims.map(TokenClaims::audit_ids).unwrap_or_default();
    // The token's own id, and that of the first one that it was made from.
    let audit: Vec<String> = [audit.first(), audit.last().filter(|_| audit.len() > 1)]
        .into_iter()
        .flatten()
        .map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes()))
        .collect();
    let user = at.user(principal.user).map(|found| &found.value);
    let mut token = json!({
        "methods": methods,
        "user": {
            "id": hex(principal.user),
            "name": user.map(|user| user.name.as_str()),
            "domain": shape.domain_ref(principal.domain),
            "password_expires_at": user.and_then(|user| user.password_expires_at).map(super::ids::bare_time),
        },
        "audit_ids": audit,
        "expires_at": ends.map_or_else(|| "9999-12-31T23:59:59.000000Z".to_owned(), time),
        "issued_at": time(claims.map_or(Timestamp::UNIX_EPOCH, TokenClaims::given_at)),
    });
    let mut project = None;
    match principal.scope {
        AuthScope::None => {}
        AuthScope::System => token["system"] = json!({"all": true}),
        AuthScope::Domain(id) => token["domain"] = shape.domain_ref(id),
        AuthScope::Project(id) => {
            project = Some(id);
            token["project"] = project_ref(shape, at, id);
            token["is_domain"] = false.into();
        }
    }
    if principal.scope != AuthScope::None {
        token["roles"] = shape.token_roles(principal.roles.iter());
        if !bare {
            token["catalog"] = shape.catalog(project, principal.user);
        }
    }
    match principal.via {
        Via::ApplicationCredential { id } => {
            let own = at.credential(id).and_then(|found| found.value.application());
            let mut credential = json!({
                "id": hex(id),
                "name": own.map(|own| own.name.as_str()),
                "restricted": own.is_none_or(|own| !own.unrestricted),
            });
            if let Some(own) = own.filter(|own| !own.access_rules.is_empty()) {
                credential["access_rules"] = own.access_rules.iter().map(super::shape::access_rule).collect();
            }
            token["application_credential"] = credential;
        }
        Via::Trust { id, trustee } => {
            let trust = at.trust(id).map(|found| &found.value);
            token["OS-TRUST:trust"] = json!({
                "id": hex(id),
                "impersonation": trust.is_some_and(|trust| trust.impersonation),
                "trustor_user": {"id": trust.map(|trust| hex(trust.trustor))},
                "trustee_user": {"id": hex(trustee)},
            });
        }
        Via::User | Via::ApiToken { .. } | Via::Host { .. } => {}
    }
    token
}

fn project_ref(shape: Shape<'_>, at: &Snapshot, id: ProjectId) -> Value {
    let found = at.project(id);
    let domain = found.map(|found| shape.domain_ref(DomainId::from_uuid(found.value.spec.domain)));
    json!({"id": hex(id), "name": found.map(|found| found.value.meta.name.as_str()), "domain": domain})
}

/// The token that a call is about; others than one's own users' are for those who may see tokens.
async fn subject(ask: &Ask, headers: &HeaderMap) -> Answer<Valid> {
    let token = headers.get(SUBJECT).and_then(|token| token.to_str().ok());
    let token = token.ok_or_else(|| Refusal::bad("X-Subject-Token is missing."))?;
    if token == ask.token {
        return Ok(ask.valid.clone());
    }
    let gone = || Refusal::missing("token", "that was given");
    let found = ask
        .identity()
        .validate(token)
        .await
        .map_err(|error| match Refusal::from(error) {
            refused if refused.status == StatusCode::UNAUTHORIZED => gone(),
            other => other,
        })?;
    let user = ask.at.user(found.rights.principal.user).ok_or_else(gone)?;
    ask.require("token:read", &Thing::of_user("token", &user.value))
        .await?;
    Ok(found)
}

async fn validate(ask: Ask, headers: HeaderMap) -> Answer {
    let found = subject(&ask, &headers).await?;
    let bare = ask.query.get("nocatalog").is_some();
    let token = shown(
        ask.shape(),
        &found.rights,
        found.claims.as_deref(),
        found.expires_at,
        bare,
    );
    let subject = headers.get(SUBJECT).cloned();
    let mut response = Json(json!({"token": token})).into_response();
    if let Some(subject) = subject {
        response.headers_mut().insert(SUBJECT, subject);
    }
    Ok(response)
}

async fn revoke(ask: Ask, headers: HeaderMap) -> Answer<StatusCode> {
    let found = subject(&ask, &headers).await?;
    let user = found.rights.principal.user;
    if user != ask.user() {
        let user = ask
            .at
            .user(user)
            .ok_or_else(|| Refusal::missing("token", "that was given"))?;
        ask.require("token:delete", &Thing::of_user("token", &user.value))
            .await?;
    }
    let Some(claims) = &found.claims else {
        return Err(Refusal::forbidden(
            "API tokens are deleted in the cloud's own API.",
        ));
    };
    ask.identity().revoke(&ask.call(), claims).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn projects(ask: Ask) -> Answer {
    let scopes = ask
        .at
        .scopes_of(ask.user())
        .into_iter()
        .filter_map(|scope| match scope {
            AuthScope::Project(id) => ask.at.project(id),
            _ => None,
        });
    let projects = scopes.map(|found| ask.shape().project(&found.value)).collect();
    ask.page("projects", projects, &["name", "domain_id", "enabled"])
}

async fn domains(ask: Ask) -> Answer {
    let scopes = ask
        .at
        .scopes_of(ask.user())
        .into_iter()
        .filter_map(|scope| match scope {
            AuthScope::Domain(id) => ask.at.domain(id),
            _ => None,
        });
    let domains = scopes.map(|found| ask.shape().domain(&found.value)).collect();
    ask.page("domains", domains, &["name", "enabled"])
}

async fn system(ask: Ask) -> Answer<Response> {
    let any = ask.at.scopes_of(ask.user()).contains(&AuthScope::System);
    let system: Vec<Value> = if any {
        vec![json!({"all": true})]
    } else {
        Vec::new()
    };
    let links = json!({"self": ask.link("auth/system"), "next": null, "previous": null});
    Ok(Json(json!({"system": system, "links": links})).into_response())
}

async fn catalog(ask: Ask) -> Answer {
    let principal = &ask.valid.rights.principal;
    let project = match principal.scope {
        AuthScope::Project(id) => Some(id),
        AuthScope::None => {
            return Err(Refusal::forbidden(
                "The request is not scoped, so there is no catalog for it.",
            ));
        }
        AuthScope::System | AuthScope::Domain(_) => None,
    };
    let catalog = ask.shape().catalog(project, principal.user);
    let links = json!({"self": ask.link("auth/catalog"), "next": null, "previous": null});
    Ok(Json(json!({"catalog": catalog, "links": links})).into_response())
}
