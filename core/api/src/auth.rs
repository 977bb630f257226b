//! Who calls: the bearer's secret is asked about before anything of the body is read.
//!
//! ```text
//! Authorization: Bearer … ──Authenticator──> Identified ─┬─ Person(Rights) ──> Caller {rights, project, …}
//!                                                        └─ Engine, Agent(host): the store protocol and images
//! ```
//!
//! Every way of failing gives the same answer, but for too many of them. Nothing is remembered from one request to the next: what was
//! taken away is gone with the next request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, IF_MATCH};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, Method, Uri};
use serde::Deserialize;
use skyloom_cloud::Caller;
use skyloom_identity::{
    AuthError, AuthScope, DomainId, Identified, Lineage, MAX_TOKEN, Principal, Rights, Via,
};
use skyloom_model::{Actor, Project, ProjectId, Reason, Resource as _, Secret, TokenId};
use skyloom_store::Revision;

use crate::edge::Source;
use crate::observe::RequestId;
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::serve::Peer;
use crate::shown;

/// Picks the project that a caller of the whole system works in, by id or name.
pub(crate) const PROJECT: HeaderName = HeaderName::from_static("x-skyloom-project");
/// "Do this once."
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Who was let in.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// To ask again, while a stream is open.
    proof: Proof,
    source: Option<Source>,
    /// By what seats and bytes are counted: the token, the credential, the user, or the host.
    pub(crate) token: TokenId,
    pub(crate) who: Identified,
}

/// What somebody was let in by.
#[derive(Debug, Clone)]
enum Proof {
    Bearer(Secret<String>),
    /// The certificate that was shown on this connection.
    Shown(Peer),
}

/// Lets through who is let in, and no more of them at a time than there are seats. What its body takes is
/// held until the answer.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut seat = match state.requests.take() {
        Ok(seat) => seat,
        Err(e) => return e.into_response(),
    };
    let identity = match identify(&state, request.headers(), request.extensions()).await {
        Ok(identity) => identity,
        Err(e) => return e.into_response(),
    };
    if let Err(e) = seat.name(identity.token) {
        return e.into_response();
    }
    if let Some(peer) = request.extensions().get::<Peer>()
        && let Err(e) = peer.admit(&state.connections, identity.token)
    {
        return e.into_response();
    }
    let held = state.bytes.hold(identity.token);
    request.extensions_mut().insert(held.clone());
    let tried = (!matches!(*request.method(), Method::GET | Method::HEAD)).then(|| {
        let source = identity.source.as_ref().and_then(Source::address);
        (identity.who.clone(), source, RequestId::of(request.extensions()))
    });
    request.extensions_mut().insert(identity);
    let response = next.run(request).await;
    if let Some((Identified::Person(rights), source, request_id)) = tried
        && let Some(missing) = response
            .extensions()
            .get::<ApiError>()
            .and_then(ApiError::missing_permission)
    {
        let cloud = &state.parts.cloud;
        cloud.audit_denied(&rights, source, &request_id, missing).await;
    }
    drop(held);
    response
}

/// Whose bearer the request carries; without any, whose certificate was shown on its connection.
pub(crate) async fn identify(
    state: &AppState,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Identity, ApiError> {
    let source = extensions.get::<Source>().cloned();
    if !headers.contains_key(AUTHORIZATION)
        && let Some((peer, who)) = shown::agent(state, extensions)?
    {
        return Ok(Identity {
            proof: Proof::Shown(peer),
            token: counted(&who),
            source,
            who,
        });
    }
    let bearer = bearer(headers).ok_or_else(ApiError::unauthenticated)?;
    let asked = state
        .parts
        .authenticator
        .authenticate(bearer, name_of(source.as_ref()));
    let who = asked.await.map_err(refused)?;
    Ok(Identity {
        proof: Proof::Bearer(Secret::new(bearer.to_owned())),
        token: counted(&who),
        source,
        who,
    })
}

/// What a source is called; of unknown origin where nobody said.
fn name_of(source: Option<&Source>) -> &str {
    source.map_or("unknown", Source::name)
}

fn refused(error: AuthError) -> ApiError {
    match error {
        AuthError::Denied(_) => ApiError::unauthenticated(),
        AuthError::Throttled(throttled) => ApiError::throttled(throttled.retry_after),
        AuthError::Unavailable(why) => ApiError::auth_unavailable(&why),
    }
}

/// Whether what was good when a stream began still is. An authority that cannot be asked ends no streams.
pub(crate) async fn still_good(state: &AppState, identity: &Identity) -> bool {
    let bearer = match &identity.proof {
        Proof::Bearer(bearer) => bearer,
        Proof::Shown(peer) => return shown::still_good(state, peer),
    };
    let authenticator = &state.parts.authenticator;
    let asked = authenticator.authenticate(bearer.expose(), name_of(identity.source.as_ref()));
    !matches!(asked.await, Err(AuthError::Denied(_)))
}

fn counted(who: &Identified) -> TokenId {
    TokenId::from_uuid(match who {
        Identified::Engine { token }
        | Identified::Agent {
            token: Some(token), ..
        } => token.uuid(),
        Identified::Agent { host, token: None } => host.uuid(),
        Identified::Person(rights) => match &rights.principal.via {
            Via::User => rights.principal.user.uuid(),
            Via::ApplicationCredential { id } => id.uuid(),
            Via::ApiToken { id } => id.uuid(),
            Via::Trust { trustee, .. } => trustee.uuid(),
            Via::Host { id } => id.uuid(),
        },
    })
}

/// The secret in the only `Authorization` header, if it has the form of one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = only(headers, &AUTHORIZATION).ok()??;
    let (scheme, secret) = text.split_once(' ')?;
    let formed = (1..=MAX_TOKEN).contains(&secret.len())
        && secret
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (scheme.eq_ignore_ascii_case("bearer") && formed).then_some(secret)
}

/// The text of a header that may stand there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    let wrong = || ApiError::bad_request("header.invalid", format!("the header {name} cannot be used"));
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(wrong());
    }
    value.to_str().map(Some).map_err(|_| wrong())
}

/// `"42"` or `*`.
fn if_match(text: &str) -> Result<Option<Revision>, ApiError> {
    let text = text.trim();
    if text == "*" {
        return Ok(None);
    }
    let digits = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let revision = digits
        .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|d| d.parse().ok());
    revision.map(|r| Some(Revision(r))).ok_or_else(|| {
        ApiError::bad_request(
            "if_match.invalid",
            "If-Match takes one ETag as it was given, such as \"42\"",
        )
    })
}

fn idempotency_key(text: &str) -> Result<String, ApiError> {
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if text.is_empty() || text.len() > 128 || !printable {
        return Err(ApiError::bad_request(
            "idempotency.key_invalid",
            "an Idempotency-Key has 1 to 128 printable characters",
        ));
    }
    Ok(text.to_owned())
}

/// `?dry_run=plan` of a change. What else stands in the query is for others to look at.
fn dry_run(uri: &Uri) -> Result<bool, ApiError> {
    #[derive(Deserialize)]
    struct Wanted {
        dry_run: Option<String>,
    }
    let wrong = || {
        ApiError::bad_request(
            "dry_run.invalid",
            "dry_run takes only `plan`, once: leave it out to have the change made",
        )
    };
    let Query(wanted) = Query::<Wanted>::try_from_uri(uri).map_err(|_| wrong())?;
    match wanted.dry_run.as_deref() {
        None => Ok(false),
        Some("plan") => Ok(true),
        // Nobody who asks for some dry run wants the change to be made.
        Some(_) => Err(wrong()),
    }
}

impl FromRequestParts<AppState> for Identity {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(ApiError::internal)
    }
}

/// The facade's caller, made of the token and the request's headers.
pub(crate) struct User(pub(crate) Caller);

impl FromRequestParts<AppState> for User {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Identity { who, source, .. } = Identity::from_request_parts(parts, state).await?;
        let Identified::Person(rights) = who else {
            let reason = Reason::new("auth.forbidden", "engines and agents make no user calls");
            return Err(ApiError::denied(reason));
        };
        let headers = &parts.headers;
        let (project, lineage) = place(state, &rights, only(headers, &PROJECT)?).await?;
        let changes = !matches!(parts.method, Method::GET | Method::HEAD);
        let idempotency_key = match only(headers, &IDEMPOTENCY_KEY)? {
            Some(text) if changes => Some(idempotency_key(text)?),
            _ => None,
        };
        let if_match = match only(headers, &IF_MATCH)? {
            Some(text) if changes => if_match(text)?,
            _ => None,
        };
        let dry_run = changes && dry_run(&parts.uri)?;
        Ok(Self(Caller {
            actor: actor(state, &rights.principal),
            rights,
            project,
            lineage,
            source: source.and_then(|source| source.address()),
            request_id: RequestId::of(&parts.extensions),
            idempotency_key,
            if_match,
            dry_run,
        }))
    }
}

/// Where a request comes from, for those who have not proven who they are.
pub(crate) struct Origin {
    /// What wrong answers are counted by.
    pub(crate) source: String,
    /// The client's address, where somebody said.
    pub(crate) address: Option<IpAddr>,
    /// The request.
    pub(crate) request_id: String,
}

impl FromRequestParts<AppState> for Origin {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Ok(Self {
            source: name_of(parts.extensions.get::<Source>()).to_owned(),
            address: parts.extensions.get::<Source>().and_then(Source::address),
            request_id: RequestId::of(&parts.extensions),
        })
    }
}

/// As whom records name a principal.
fn actor(state: &AppState, principal: &Principal) -> Actor {
    let id = principal.user.to_string();
    let name = state.parts.authenticator.name_of(principal.user);
    Actor {
        name: name.unwrap_or_else(|| id.clone()),
        id,
    }
}

/// The project that a call works in. Who is of a project names that one or none; who is of the system picks any, and otherwise has
/// the default one, if it is there.
async fn place(
    state: &AppState,
    rights: &Rights,
    wanted: Option<&str>,
) -> Result<(ProjectId, Lineage), ApiError> {
    let cloud = &state.parts.cloud;
    let found = match rights.principal.scope {
        AuthScope::System => match wanted {
            Some(wanted) => Some(cloud.find_project(wanted).await?),
            None => cloud.default_project().await?,
        },
        AuthScope::Project(own) => {
            let known = rights.projects.lineage(own).filter(|_| wanted.is_none());
            if let Some(lineage) = known {
                return Ok((own, lineage));
            }
            let named = cloud.find_project(wanted.unwrap_or(&own.to_string())).await?;
            if named.value.id() != own {
                return Err(ApiError::not_found("project"));
            }
            Some(named)
        }
        AuthScope::Domain(_) | AuthScope::None => match wanted {
            Some(_) => return Err(ApiError::not_found("project")),
            None => None,
        },
    };
    match found.map(|found| found.value) {
        Some(project) => Ok((project.id(), lineage(state, rights, &project).await?)),
        None => {
            let nowhere = Lineage {
                domain: DomainId::from_uuid(uuid::Uuid::nil()),
                ancestors: Arc::default(),
            };
            Ok((Caller::NO_PROJECT, nowhere))
        }
    }
}

async fn lineage(state: &AppState, rights: &Rights, project: &Project) -> Result<Lineage, ApiError> {
    match rights.projects.lineage(project.id()) {
        Some(lineage) => Ok(lineage),
        // Made so lately that it has not been heard of.
        None => Ok(state.parts.cloud.lineage(project).await?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_a_well_formed_single_bearer_is_looked_up() {
        let secret = format!("sky_{}.x", "aZ0-_".repeat(9));
        let good = format!("Bearer {secret}");
        assert_eq!(bearer(&headers(&[&good])), Some(secret.as_str()));
        assert_eq!(
            bearer(&headers(&[&good.replace("Bearer", "bearer")])),
            Some(secret.as_str())
        );
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Basic YTpi",
            &secret,
            &format!("Bearer {}", "x".repeat(MAX_TOKEN + 1)),
            &good.replace('0', "/"),
            &format!("Bearer  {secret}"),
        ] {
            assert_eq!(bearer(&headers(&[bad])), None, "{bad}");
        }
        assert_eq!(bearer(&headers(&[&good, &good])), None);
        assert_eq!(bearer(&headers(&[])), None);
    }

    #[test]
    fn a_dry_run_is_asked_for_in_one_way() {
        let asked = |query: &str| dry_run(&format!("/v1/servers{query}").parse().unwrap());
        assert!(!asked("").unwrap() && !asked("?x=1").unwrap());
        assert!(asked("?dry_run=plan").unwrap() && asked("?x=1&dry_run=plan").unwrap());
        for bad in [
            "?dry_run=",
            "?dry_run",
            "?dry_run=true",
            "?dry_run=plan&dry_run=plan",
        ] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn etags_are_taken_as_they_were_given() {
        assert_eq!(if_match("\"42\"").unwrap(), Some(Revision(42)));
        assert_eq!(if_match("*").unwrap(), None);
        for bad in [
            "42",
            "\"\"",
            "W/\"42\"",
            "\"4\", \"5\"",
            "\"-1\"",
            "\"99999999999999999999\"",
        ] {
            assert!(if_match(bad).is_err(), "{bad}");
        }
    }
}
