//! `/v1/catalog`: where services are.

use axum::Json as Answer;
use serde::Serialize;
use skyloom_identity::{Interface, Object, Place};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Asker;
use crate::answer::Result;
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get))
}

/// Where services are.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogView {
    /// The places of services.
    regions: Vec<RegionView>,
    /// The services.
    services: Vec<ServiceView>,
}

/// A place of services.
#[derive(Debug, Serialize, ToSchema)]
struct RegionView {
    /// Its name.
    #[schema(example = "east")]
    id: String,
    /// Free text.
    description: String,
    /// The name of the region around it.
    parent: Option<String>,
}

/// A service.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceView {
    /// Which.
    id: Uuid,
    /// What it does.
    #[schema(example = "compute")]
    r#type: String,
    /// What it is called.
    name: String,
    /// Where it is.
    endpoints: Vec<EndpointView>,
}

/// One address of a service.
#[derive(Debug, Serialize, ToSchema)]
struct EndpointView {
    /// For whom: `public`, `internal` or `admin`.
    interface: String,
    /// The name of its region.
    region: Option<String>,
    /// The address.
    url: String,
}

/// Show the catalog
///
/// The services that clients are told of, with their addresses.
#[utoipa::path(get, path = "/v1/catalog", operation_id = "get_catalog", tag = "auth",
    responses((status = 200, description = "Where services are.", body = CatalogView)))]
async fn get(asker: Asker) -> Result<Answer<CatalogView>> {
    asker.may("catalog:read", &Object::all("catalog", Place::Shared))?;
    let at = asker.at();
    let regions = at.regions().map(|region| RegionView {
        id: region.value.id.clone(),
        description: region.value.description.clone(),
        parent: region.value.parent.clone(),
    });
    let endpoints = |service| {
        let of = at
            .endpoints()
            .filter(move |e| e.value.service == service && e.value.enabled);
        of.map(|endpoint| EndpointView {
            interface: match endpoint.value.interface {
                Interface::Public => "public",
                Interface::Internal => "internal",
                Interface::Admin => "admin",
            }
            .to_owned(),
            region: endpoint.value.region.clone(),
            url: endpoint.value.url.clone(),
        })
        .collect()
    };
    let services = at
        .services()
        .filter(|service| service.value.enabled)
        .map(|service| ServiceView {
            id: service.value.id.uuid(),
            r#type: service.value.kind.clone(),
            name: service.value.name.clone(),
            endpoints: endpoints(service.value.id),
        });
    let mut catalog = CatalogView {
        regions: regions.collect(),
        services: services.collect(),
    };
    catalog.regions.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Answer(catalog))
}
