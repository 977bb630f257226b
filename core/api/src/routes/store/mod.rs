//! The server half of the store protocol: `backends/remote` is the client half, [`skyloom_store::wire`] the words.

mod schema;
mod watch;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json as Answer};
use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use skyloom_store::wire::{
    CapabilityRequest, CommitRequest, Done, GetAnswer, GetRequest, GrantRequest, LeasesAnswer, LeasesRequest,
    ListAnswer, ListRequest, MAX_TTL_MS, RenewRequest, RevokeRequest, WireCapability, WireDocument,
};
use skyloom_store::{Error, ErrorKind, Grant, Outcome, Renewal, Txn};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Identity;
use crate::extract::StoreJson;
use crate::held::Held;
use crate::parts::AppState;
use crate::problem::ApiError;
use skyloom_cloud::StoreScope;

type Result<T> = std::result::Result<Answer<T>, ApiError>;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(capability))
        .routes(routes!(get))
        .routes(routes!(list))
        .routes(routes!(commit))
        .routes(routes!(lease_grant))
        .routes(routes!(lease_renew))
        .routes(routes!(lease_revoke))
        .routes(routes!(leases))
        .routes(routes!(watch::watch))
}

/// Show what the store can do
///
/// Whether commits outlive the machine, and the limits of transactions and documents.
#[utoipa::path(post, path = "/v1/store/capability", operation_id = "store_capability", tag = "store",
    request_body = schema::CapabilityRequest,
    responses((status = 200, description = "Abilities and limits.", body = schema::Capability)))]
async fn capability(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(CapabilityRequest {}): StoreJson<CapabilityRequest>,
) -> Result<WireCapability> {
    StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    Ok(Answer(state.parts.backend.capability().into()))
}

/// Read one document
///
/// Answers the document under a key with its revisions, or `null`. Engines and administrators may read everything,
/// an agent only below its own host's areas.
#[utoipa::path(post, path = "/v1/store/get", operation_id = "store_get", tag = "store",
    request_body = schema::GetRequest,
    responses((status = 200, description = "The document, or null.", body = schema::GetAnswer)))]
async fn get(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<GetRequest>,
) -> Result<GetAnswer> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let found = async {
        scope.read(&request.key)?;
        state
            .parts
            .backend
            .get(&request.key)
            .await?
            .as_ref()
            .map(WireDocument::try_from)
            .transpose()
    };
    let item = found.await.map_err(|e| ApiError::store(&e))?;
    Ok(Answer(GetAnswer { item }))
}

/// List documents
///
/// One page of the documents below a prefix, in key order, all as of one revision. A page is cut at its limit or at
/// 8 MiB; `more` says whether documents follow, `after` and `at` ask for them.
#[utoipa::path(post, path = "/v1/store/list", operation_id = "store_list", tag = "store",
    request_body = schema::ListRequest,
    responses((status = 200, description = "One page.", body = schema::ListAnswer)))]
async fn list(
    State(state): State<AppState>,
    identity: Identity,
    Extension(held): Extension<Held>,
    StoreJson(request): StoreJson<ListRequest>,
) -> std::result::Result<Response, ApiError> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let page = async {
        scope.below(&request.prefix, "list")?;
        let page = state
            .parts
            .backend
            .list(&request.prefix, request.options())
            .await?;
        ListAnswer::from_page(&page)
    };
    let page = page.await.map_err(|e| ApiError::store(&e))?;
    let bytes = serde_json::to_vec(&page).map_err(|_| ApiError::internal())?;
    held.take(bytes.len())?;
    Ok(in_pieces(bytes.into(), held))
}

/// A long JSON answer, handed on as far as the client reads: what is held for it is given back with the last piece.
fn in_pieces(bytes: Bytes, held: Held) -> Response {
    const PIECE: usize = 64 << 10;
    let pieces = stream::unfold((bytes, held), |(mut bytes, held)| async {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        (!piece.is_empty()).then(|| (Ok::<_, Infallible>(piece), (bytes, held)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Commit a transaction
///
/// Checks all guards and makes all writes at one revision, or changes nothing and says which guard did not hold.
/// An agent may write its own reports and replace its own jobs and queries, nothing else.
#[utoipa::path(post, path = "/v1/store/commit", operation_id = "store_commit", tag = "store",
    request_body = schema::CommitRequest,
    responses((status = 200, description = "Committed, or which guard did not hold.", body = schema::Outcome)))]
async fn commit(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<CommitRequest>,
) -> Result<Outcome> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let outcome = scope.commit_through(&state.parts.backend, Txn::from(request));
    outcome.await.map(Answer).map_err(|e| ApiError::store(&e))
}

/// The time that a lease is asked for, bounded.
fn ttl(ms: u64, operation: &'static str) -> skyloom_store::Result<Duration> {
    if ms > MAX_TTL_MS {
        return Err(Error::new(ErrorKind::Invalid, operation)
            .with("ttl_ms", ms)
            .with("limit", MAX_TTL_MS));
    }
    Ok(Duration::from_millis(ms))
}

/// Ask for a lease
///
/// Grants a name for a time, with an epoch greater than every one before, or says who holds it. An agent may ask for its
/// own host's lease only.
#[utoipa::path(post, path = "/v1/store/lease-grant", operation_id = "store_lease_grant", tag = "store",
    request_body = schema::GrantRequest,
    responses((status = 200, description = "Granted, or held by another.", body = schema::Grant)))]
async fn lease_grant(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<GrantRequest>,
) -> Result<Grant> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let granted = async {
        scope.lease(&request.name, "grant lease")?;
        let ttl = ttl(request.ttl_ms, "grant lease")?;
        state
            .parts
            .backend
            .grant(&request.name, &request.holder, ttl, request.mode)
            .await
    };
    granted.await.map(Answer).map_err(|e| ApiError::store(&e))
}

/// Extend a lease
///
/// Extends a lease that is still held at the given epoch. A lost lease never comes back.
#[utoipa::path(post, path = "/v1/store/lease-renew", operation_id = "store_lease_renew", tag = "store",
    request_body = schema::RenewRequest,
    responses((status = 200, description = "Still held, or lost.", body = schema::Renewal)))]
async fn lease_renew(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<RenewRequest>,
) -> Result<Renewal> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let renewed = async {
        scope.lease(&request.name, "renew lease")?;
        let ttl = ttl(request.ttl_ms, "renew lease")?;
        state.parts.backend.renew(&request.name, request.epoch, ttl).await
    };
    renewed.await.map(Answer).map_err(|e| ApiError::store(&e))
}

/// Give a lease back
///
/// Ends a lease that is held at the given epoch; any other is left alone.
#[utoipa::path(post, path = "/v1/store/lease-revoke", operation_id = "store_lease_revoke", tag = "store",
    request_body = schema::RevokeRequest,
    responses((status = 200, description = "It is not held at that epoch any more.", body = schema::Done)))]
async fn lease_revoke(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<RevokeRequest>,
) -> Result<Done> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let revoked = async {
        scope.lease(&request.name, "revoke lease")?;
        state.parts.backend.revoke(&request.name, request.epoch).await
    };
    revoked
        .await
        .map(|()| Answer(Done {}))
        .map_err(|e| ApiError::store(&e))
}

/// List leases
///
/// All leases below a prefix that are not revoked, run-out ones included. Not for agents.
#[utoipa::path(post, path = "/v1/store/leases", operation_id = "store_leases", tag = "store",
    request_body = schema::LeasesRequest,
    responses((status = 200, description = "The leases in name order.", body = schema::LeasesAnswer)))]
async fn leases(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<LeasesRequest>,
) -> Result<LeasesAnswer> {
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    let leases = async {
        scope.leases()?;
        state.parts.backend.leases(&request.prefix).await
    };
    leases
        .await
        .map(|leases| Answer(LeasesAnswer { leases }))
        .map_err(|e| ApiError::store(&e))
}
