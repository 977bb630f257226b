//! `/v1/images`: what root disks are made from.

use std::io;
use std::time::Duration;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use hyper::body::Body as _;
use skyloom_cloud::{CreateImage, ImageAccepted, ListQuery, Listed, Measured};
use skyloom_identity::Identified;
use skyloom_model::Image;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, created, tagged};
use crate::auth::{Identity, User};
use crate::extract::{Json, Query, RawId, media_type};
use crate::parts::AppState;
use crate::problem::ApiError;

const BYTES: &str = "application/octet-stream";

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
}

pub(super) fn content_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(upload, download))
}

/// Register an image
///
/// With a `url` the cloud fetches, inspects and publishes the content; with a `server`, a `volume` or a `snapshot` that disk's
/// host copies and sends it: follow the task. Without any the image waits for its content to be sent. Public images take the permission `image:publish`.
#[utoipa::path(post, path = "/v1/images", operation_id = "create_image", tag = "images",
    request_body = CreateImage,
    responses(
        (status = 201, description = "The image, waiting for its content.", body = ImageAccepted),
        (status = 202, description = "The image, and the task that makes its content.", body = ImageAccepted)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateImage>,
) -> Result {
    let made = state.parts.cloud.create_image(&caller, request).await?;
    Ok(answer(made))
}

fn answer(made: ImageAccepted) -> Response {
    match made.task.as_ref().map(|task| task.id) {
        Some(task) => accepted(task, made),
        None => created(&format!("/v1/images/{}", made.image.meta.id), made),
    }
}

/// List images
///
/// The project's images, oldest first, then the public ones.
#[utoipa::path(get, path = "/v1/images", operation_id = "list_images", tag = "images", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Image>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Image>>> {
    Ok(Answer(state.parts.cloud.list_images(&caller, &query).await?))
}

/// Show an image
///
/// One image of the project or a public one, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/images/{id}", operation_id = "get_image", tag = "images",
    responses((status = 200, description = "The image.", body = Image)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(
        state.parts.cloud.get_image(&caller, id.of("image")?).await?,
    ))
}

/// Delete an image
///
/// Removes an image and its content: follow the task. Servers that were made from it keep their disks.
#[utoipa::path(delete, path = "/v1/images/{id}", operation_id = "delete_image", tag = "images",
    responses((status = 202, description = "The image, and the task that removes it.", body = ImageAccepted)))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(answer(
        state.parts.cloud.delete_image(&caller, id.of("image")?).await?,
    ))
}

/// Send an image's content
///
/// Streams the bytes of an image that waits for them. They are inspected before anything else looks at them; content
/// that is not of the claimed format is refused. Follow the task. A host's agent sends here what a job of its own names, and is
/// answered what arrived.
#[utoipa::path(put, path = "/v1/images/{id}/data", operation_id = "upload_image", tag = "images",
    request_body(content = String, content_type = "application/octet-stream", description = "The bytes."),
    responses(
        (status = 200, description = "What arrived from a host.", body = Measured),
        (status = 202, description = "The image, and the task that imports it.", body = ImageAccepted)))]
async fn upload(State(state): State<AppState>, identity: Identity, id: RawId, request: Request) -> Result {
    let id = id.of("image")?;
    let (mut parts, body) = request.into_parts();
    let host = match identity.who {
        Identified::Agent { host, .. } => Ok(host),
        _ => Err(User::from_request_parts(&mut parts, &state).await?),
    };
    if body.is_end_stream() {
        return Err(ApiError::bad_request(
            "body.missing",
            "this request needs the image's bytes as its body",
        ));
    }
    if !media_type(&parts.headers, BYTES) {
        return Err(ApiError::media_type(BYTES));
    }
    let length = body.size_hint().exact();
    let content = patient(body, state.parts.limits.body_timeout);
    let cloud = &state.parts.cloud;
    match host {
        Ok(host) => {
            let arrived = cloud.receive_image(host, id, content, length).await?;
            Ok(Answer(arrived).into_response())
        }
        Err(User(caller)) => Ok(answer(cloud.upload_image(&caller, id, content, length).await?)),
    }
}

/// The chunks of a body, as long as it does not fall silent.
fn patient(body: Body, silence: Duration) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold(Some(body.into_data_stream()), move |chunks| async move {
        let mut chunks = chunks?;
        match tokio::time::timeout(silence, chunks.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(e))) => Some((Err(io::Error::other(e)), None)),
            Ok(None) => None,
            Err(_) => Some((
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no bytes came for too long",
                )),
                None,
            )),
        }
    })
    .boxed()
}

/// Fetch an image's content
///
/// The bytes of an active image: for who may download it, and for agents and engines.
#[utoipa::path(get, path = "/v1/images/{id}/data", operation_id = "download_image", tag = "images",
    responses((status = 200, description = "The bytes.", body = String, content_type = "application/octet-stream")))]
async fn download(State(state): State<AppState>, identity: Identity, id: RawId, mut parts: Parts) -> Result {
    let (cloud, id) = (&state.parts.cloud, id.of("image")?);
    let published = match identity.who {
        Identified::Engine { .. } => cloud.open_image_for_host(None, id).await?,
        Identified::Agent { host, .. } => cloud.open_image_for_host(Some(host), id).await?,
        Identified::Person(_) => {
            let User(caller) = User::from_request_parts(&mut parts, &state).await?;
            cloud.open_image(&caller, id).await?
        }
    };
    let mut response = Body::from_stream(published.content).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(BYTES));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(published.size));
    Ok(response)
}
