//! Which versions there are.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::ask::Open;
use super::edge::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().route("/", get(versions)).route("/v3", get(version))
}

/// The version of Keystone's API that this is.
fn v3(root: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{root}/v3/")}],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

async fn versions(open: Open) -> Response {
    let all = json!({"versions": {"values": [v3(&open.root)]}});
    (StatusCode::MULTIPLE_CHOICES, Json(all)).into_response()
}

async fn version(open: Open) -> Response {
    Json(json!({"version": v3(&open.root)})).into_response()
}
