//! What is around every route: trailing slashes, bounded bodies, and the headers that all answers have.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tower::util::MapRequest;
use uuid::Uuid;

use super::error::Refusal;
use super::{MOUNT, OpenstackParts};

/// Longest body, as Keystone's default.
const MAX_BODY: usize = 114_688;
/// The header with the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// The id of a request, `req-` and a UUID.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// The address of this service as the caller knows it, without a slash at its end: `http://host/identity`.
#[derive(Debug, Clone)]
pub(crate) struct Root(pub(crate) String);

pub(crate) type Routes = Router<Arc<OpenstackParts>>;

/// Requests with what handlers need, answers with what clients expect.
pub(crate) fn around(
    routes: Routes,
    parts: Arc<OpenstackParts>,
) -> MapRequest<Router, fn(Request) -> Request> {
    let router = routes
        .fallback(async || Refusal::no_route().into_response())
        .method_not_allowed_fallback(async || Refusal::no_method().into_response())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(parts.clone(), marked))
        .with_state(parts);
    MapRequest::new(router, without_slash as fn(Request) -> Request)
}

/// `/v3/users/` is `/v3/users`.
fn without_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    let short = path.trim_end_matches('/');
    if short.len() < path.len() && !short.is_empty() {
        let query = request
            .uri()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        if let Ok(path) = format!("{short}{query}").parse() {
            parts.path_and_query = Some(path);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}

/// Gives the request its id and root, and the answer its headers.
async fn marked(State(parts): State<Arc<OpenstackParts>>, mut request: Request, next: Next) -> Response {
    let root = root(&parts, &request);
    let id = format!("req-{}", random(&parts));
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(Root(root.clone()));
    let mut response = next.run(request).await;
    let status = response.status();
    // What the framework refuses (a body that is too long, a path that is no text) is no JSON.
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if status.is_client_error() && !json {
        response = Refusal::of_status(status).into_response();
    }
    let refused = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("X-Auth-Token"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if refused && let Ok(uri) = HeaderValue::from_str(&format!("Keystone uri=\"{root}\"")) {
        headers.insert(WWW_AUTHENTICATE, uri);
    }
    response
}

/// A random UUID (version 4): what clients expect in a request's id.
fn random(parts: &OpenstackParts) -> Uuid {
    let mut bytes = [0; 16];
    parts.ids.random(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn root(parts: &OpenstackParts, request: &Request) -> String {
    let base = parts.config.public_url.trim_end_matches('/');
    if !base.is_empty() {
        return format!("{base}{MOUNT}");
    }
    let said = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = said.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    // It comes back in links: what is no host is not repeated.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    let host = host.filter(|host| !host.is_empty() && host.len() <= 255 && host.chars().all(plain));
    let scheme = if parts.config.tls { "https" } else { "http" };
    format!("{scheme}://{}{MOUNT}", host.unwrap_or("localhost"))
}
