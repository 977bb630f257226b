//! Regions, services and endpoints.

use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use skyloom_identity::{Deed, Doomed, Endpoint, Interface, Region, Service};
use skyloom_store::Versioned;
use uuid::Uuid;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids;
use super::thing::{Lies, Thing};

/// Longest names and ids.
const MAX_NAME: usize = 255;
const CHANGE: &str = "catalog:update";

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/regions", get(list_regions).post(create_region))
        .route(
            "/regions/{region}",
            get(show_region)
                .put(create_named_region)
                .patch(update_region)
                .delete(delete_region),
        )
        .route("/services", get(list_services).post(create_service))
        .route(
            "/services/{service}",
            get(show_service).patch(update_service).delete(delete_service),
        )
        .route("/endpoints", get(list_endpoints).post(create_endpoint))
        .route(
            "/endpoints/{endpoint}",
            get(show_endpoint).patch(update_endpoint).delete(delete_endpoint),
        )
}

async fn may_read(ask: &Ask) -> Answer<()> {
    ask.require("catalog:read", &Thing::new("catalog", Lies::Shared))
        .await
}

async fn may_change(ask: &Ask) -> Answer<()> {
    ask.require(CHANGE, &Thing::new("catalog", Lies::System)).await
}

fn deed(id: Option<Uuid>, name: &str) -> Deed {
    let deed = Deed::new(CHANGE).named(name);
    match id {
        Some(id) => deed.on(id),
        None => deed,
    }
}

async fn find_region(ask: &Ask, id: &str) -> Answer<Arc<Versioned<Region>>> {
    may_read(ask).await?;
    ask.at
        .region(id)
        .cloned()
        .ok_or_else(|| Refusal::missing("region", id))
}

async fn list_regions(ask: Ask) -> Answer {
    may_read(&ask).await?;
    let mut regions: Vec<Value> = ask
        .at
        .regions()
        .map(|region| ask.shape().region(&region.value))
        .collect();
    regions.sort_by_key(|region| region["id"].to_string());
    ask.page("regions", regions, &["parent_region_id"])
}

async fn show_region(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = find_region(&ask, &id).await?;
    Ok(Json(json!({"region": ask.shape().region(&found.value)})).into_response())
}

async fn make_region(ask: &Ask, id: String, mut body: Fields) -> Answer<Region> {
    may_change(ask).await?;
    let description = body.text("description")?.unwrap_or_default();
    let parent = body.text("parent_region_id")?;
    ask.change(
        |edit| {
            edit.create_region(&id, |region| {
                region.description.clone_from(&description);
                region.parent.clone_from(&parent);
            })
        },
        |region| deed(None, &region.id),
    )
    .await
}

async fn create_region(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "region")?;
    let id = body.name("id", MAX_NAME)?;
    let id = id.unwrap_or_else(|| ask.parts.ids.uuid().simple().to_string());
    let made = make_region(&ask, id, body).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"region": ask.shape().region(&made)})),
    )
        .into_response())
}

async fn create_named_region(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut body = if body.is_empty() {
        Fields::default()
    } else {
        Fields::of(&body, "region")?
    };
    body.same_id(&id)?;
    let made = make_region(&ask, id, body).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"region": ask.shape().region(&made)})),
    )
        .into_response())
}

async fn update_region(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    find_region(&ask, &id).await?;
    may_change(&ask).await?;
    let mut body = Fields::of(&body, "region")?;
    body.same_id(&id)?;
    let description = body.nullable("description")?;
    let parent = body.nullable("parent_region_id")?;
    let made = ask
        .change(
            |edit| {
                edit.update_region(&id, |region| {
                    if let Some(parent) = &parent {
                        region.parent.clone_from(parent);
                    }
                    if let Some(description) = &description {
                        region.description = description.clone().unwrap_or_default();
                    }
                })
            },
            |region| deed(None, &region.id),
        )
        .await?;
    Ok(Json(json!({"region": ask.shape().region(&made)})).into_response())
}

async fn delete_region(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    find_region(&ask, &id).await?;
    may_change(&ask).await?;
    ask.change(|edit| edit.delete_region(&id), |region| deed(None, &region.id))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find_service(ask: &Ask, id: &str) -> Answer<Arc<Versioned<Service>>> {
    may_read(ask).await?;
    let found = ids::parse(id).and_then(|id| ask.at.service(id));
    found.cloned().ok_or_else(|| Refusal::missing("service", id))
}

async fn list_services(ask: Ask) -> Answer {
    may_read(&ask).await?;
    let services = ask
        .at
        .services()
        .map(|service| ask.shape().service(&service.value))
        .collect();
    ask.page("services", services, &["name", "type"])
}

async fn show_service(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = find_service(&ask, &id).await?;
    Ok(Json(json!({"service": ask.shape().service(&found.value)})).into_response())
}

/// What a body says of a service.
struct ServiceBody {
    kind: Option<String>,
    name: Option<Option<String>>,
    description: Option<Option<String>>,
    enabled: Option<bool>,
}

impl ServiceBody {
    fn read(mut body: Fields) -> Answer<Self> {
        Ok(Self {
            kind: body.name("type", MAX_NAME)?,
            name: body.nullable("name")?,
            description: body.nullable("description")?,
            enabled: body.flag("enabled")?,
        })
    }
    fn apply(&self, service: &mut Service) {
        if let Some(kind) = &self.kind {
            service.kind.clone_from(kind);
        }
        if let Some(name) = &self.name {
            service.name = name.clone().unwrap_or_default();
        }
        if let Some(description) = &self.description {
            service.description = description.clone().unwrap_or_default();
        }
        if let Some(enabled) = self.enabled {
            service.enabled = enabled;
        }
    }
}

async fn create_service(ask: Ask, body: Bytes) -> Answer {
    may_change(&ask).await?;
    let body = ServiceBody::read(Fields::of(&body, "service")?)?;
    let kind = body
        .kind
        .clone()
        .ok_or_else(|| Refusal::bad("'type' is a required property"))?;
    let made = ask
        .change(
            |edit| edit.create_service(&kind, |service| body.apply(service)),
            |service| deed(Some(service.id.uuid()), &service.name),
        )
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"service": ask.shape().service(&made)})),
    )
        .into_response())
}

async fn update_service(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = find_service(&ask, &id).await?;
    may_change(&ask).await?;
    let mut body = Fields::of(&body, "service")?;
    body.same_id(&id)?;
    let body = ServiceBody::read(body)?;
    let made = ask
        .change(
            |edit| edit.update_service(found.value.id, |service| body.apply(service)),
            |service| deed(Some(service.id.uuid()), &service.name),
        )
        .await?;
    Ok(Json(json!({"service": ask.shape().service(&made)})).into_response())
}

async fn delete_service(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = find_service(&ask, &id).await?;
    may_change(&ask).await?;
    let deed = deed(Some(found.value.id.uuid()), &found.value.name);
    ask.remove(Doomed::Service(found.value.id), deed).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find_endpoint(ask: &Ask, id: &str) -> Answer<Arc<Versioned<Endpoint>>> {
    may_read(ask).await?;
    let found = ids::parse(id).and_then(|id| ask.at.endpoint(id));
    found.cloned().ok_or_else(|| Refusal::missing("endpoint", id))
}

async fn list_endpoints(ask: Ask) -> Answer {
    may_read(&ask).await?;
    let endpoints = ask
        .at
        .endpoints()
        .map(|endpoint| ask.shape().endpoint(&endpoint.value))
        .collect();
    ask.page(
        "endpoints",
        endpoints,
        &["interface", "service_id", "region", "region_id"],
    )
}

async fn show_endpoint(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = find_endpoint(&ask, &id).await?;
    Ok(Json(json!({"endpoint": ask.shape().endpoint(&found.value)})).into_response())
}

/// What a body says of an endpoint.
struct EndpointBody {
    service: Option<skyloom_identity::ServiceId>,
    interface: Option<Interface>,
    url: Option<String>,
    region: Option<Option<String>>,
    enabled: Option<bool>,
}

impl EndpointBody {
    fn read(mut body: Fields) -> Answer<Self> {
        let interface = match body.text("interface")?.as_deref() {
            None => None,
            Some("public" | "publicURL") => Some(Interface::Public),
            Some("internal" | "internalURL") => Some(Interface::Internal),
            Some("admin" | "adminURL") => Some(Interface::Admin),
            Some(_) => {
                return Err(Refusal::bad(
                    "Invalid input for field 'interface': it is public, internal or admin",
                ));
            }
        };
        let (newer, older) = (body.nullable("region_id")?, body.nullable("region")?);
        Ok(Self {
            service: body.id("service_id", "service")?,
            interface,
            url: body.text("url")?,
            region: newer.or(older),
            enabled: body.flag("enabled")?,
        })
    }

    fn apply(&self, endpoint: &mut Endpoint) {
        if let Some(service) = self.service {
            endpoint.service = service;
        }
        if let Some(interface) = self.interface {
            endpoint.interface = interface;
        }
        if let Some(url) = &self.url {
            endpoint.url.clone_from(url);
        }
        if let Some(region) = &self.region {
            endpoint.region.clone_from(region);
        }
        if let Some(enabled) = self.enabled {
            endpoint.enabled = enabled;
        }
    }

    /// Makes the region that is named if there is none, as Keystone does.
    async fn region_made(&self, ask: &Ask) -> Answer<()> {
        let Some(Some(id)) = &self.region else {
            return Ok(());
        };
        if ask.at.region(id).is_some() {
            return Ok(());
        }
        let call = ask.call();
        let made = ask.identity().change(
            &call,
            |edit| edit.create_region(id, |_| {}),
            |r| deed(None, &r.id),
        );
        match made.await {
            // Somebody else was as quick.
            Ok(_) | Err(skyloom_identity::ChangeError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn endpoint_deed(endpoint: &Endpoint) -> Deed {
    deed(
        Some(endpoint.id.uuid()),
        super::shape::interface(endpoint.interface),
    )
}

async fn create_endpoint(ask: Ask, body: Bytes) -> Answer {
    may_change(&ask).await?;
    let body = EndpointBody::read(Fields::of(&body, "endpoint")?)?;
    let missing = |field: &str| Refusal::bad(format!("'{field}' is a required property"));
    let service = body.service.ok_or_else(|| missing("service_id"))?;
    let interface = body.interface.ok_or_else(|| missing("interface"))?;
    let url = body.url.clone().ok_or_else(|| missing("url"))?;
    body.region_made(&ask).await?;
    let made = ask
        .change(
            |edit| edit.create_endpoint(service, interface, &url, |endpoint| body.apply(endpoint)),
            endpoint_deed,
        )
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"endpoint": ask.shape().endpoint(&made)})),
    )
        .into_response())
}

async fn update_endpoint(ask: Ask, Path(id): Path<String>, body: Bytes) -> Answer {
    let found = find_endpoint(&ask, &id).await?;
    may_change(&ask).await?;
    let mut body = Fields::of(&body, "endpoint")?;
    body.same_id(&id)?;
    let body = EndpointBody::read(body)?;
    body.region_made(&ask).await?;
    let made = ask
        .change(
            |edit| edit.update_endpoint(found.value.id, |endpoint| body.apply(endpoint)),
            endpoint_deed,
        )
        .await?;
    Ok(Json(json!({"endpoint": ask.shape().endpoint(&made)})).into_response())
}

async fn delete_endpoint(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = find_endpoint(&ask, &id).await?;
    may_change(&ask).await?;
    ask.change(|edit| edit.delete_endpoint(found.value.id), endpoint_deed)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
