//! Who calls: a bearer token, looked up by the hash of its secret before anything of the body is read.
//!
//! ```text
//! Authorization: Bearer sky_… ── SHA-256 ──> token-hashes/{hex} ──> Token { role, expires_at } ──> Identity ──> Caller
//! ```
//!
//! The facade looks it up by its hash, so nothing is compared that a caller could measure. Every way of failing gives
//! the same answer. Tokens are read from the store at each request: a revoked one stops at once.

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, IF_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Uri};
use serde::Deserialize;
use skyloom_cloud::Caller;
use skyloom_model::{Actor, ProjectId, Resource as _, Role, Secret, TokenId};
use skyloom_store::Revision;

use crate::observe::RequestId;
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::serve::Peer;

/// Picks the project that an administrator works in, by id or name.
pub(crate) const PROJECT: HeaderName = HeaderName::from_static("x-skyloom-project");
/// "Do this once."
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The bearer of a good token.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// To ask again, while a stream is open.
    secret: Secret<String>,
    pub(crate) token: TokenId,
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// Lets through who has a good token, and no more of them at a time than there are seats. What its body takes is
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
    let identity = match identify(&state, request.headers()).await {
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
    request.extensions_mut().insert(identity);
    let response = next.run(request).await;
    drop(held);
    response
}

/// Whose token the request carries.
pub(crate) async fn identify(state: &AppState, headers: &HeaderMap) -> Result<Identity, ApiError> {
    let secret = bearer(headers).ok_or_else(ApiError::unauthenticated)?;
    let found = state.parts.cloud.authenticate(secret).await?;
    let token = found.ok_or_else(ApiError::unauthenticated)?;
    Ok(Identity {
        secret: Secret::new(secret.to_owned()),
        token: TokenId::from_uuid(token.meta.id),
        name: token.meta.name.to_string(),
        role: token.spec.role,
    })
}

/// Whether a token that was good when a stream began still is. A store that cannot be asked ends no streams.
pub(crate) async fn still_good(state: &AppState, identity: &Identity) -> bool {
    !matches!(
        state.parts.cloud.authenticate(identity.secret.expose()).await,
        Ok(None)
    )
}

/// The secret in the only `Authorization` header, if it has the form of one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = only(headers, &AUTHORIZATION).ok()??;
    let (scheme, secret) = text.split_once(' ')?;
    let body = secret.strip_prefix("sky_")?;
    let formed = body.len() == 43
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
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
        let Identity {
            token, name, role, ..
        } = Identity::from_request_parts(parts, state).await?;
        let headers = &parts.headers;
        let project = match &role {
            Role::Admin { project } => match only(headers, &PROJECT)? {
                None => *project,
                Some(wanted) => state.parts.cloud.find_project(wanted).await?.value.id(),
            },
            Role::Member { project } | Role::Reader { project } => *project,
            // They own nothing; the facade decides what they may do all the same.
            Role::Engine | Role::Agent { .. } => ProjectId::from_uuid(uuid::Uuid::nil()),
        };
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
            role,
            project,
            actor: Actor {
                id: token.to_string(),
                name,
            },
            request_id: RequestId::of(&parts.extensions),
            idempotency_key,
            if_match,
            dry_run,
        }))
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
        let secret = format!("sky_{}", "aZ0-_".repeat(9).get(..43).unwrap());
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
            &format!("{good}x"),
            &good[..good.len() - 1],
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
