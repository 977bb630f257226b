//! `/v1/domains`: organisations, each with users, groups and projects of its own.

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{Deed, Domain, DomainId, Doomed, Object, Place};
use skyloom_model::Timestamp;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, PageQuery, page, shown};
use crate::answer::{Result, created, tagged};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
}

/// An organisation.
#[derive(Debug, Serialize, ToSchema)]
struct DomainView {
    /// Which.
    id: Uuid,
    /// Its name, unique.
    #[schema(example = "acme")]
    name: String,
    /// Free text.
    description: String,
    /// Whether its users can log in and its projects be worked in.
    enabled: bool,
    /// When it was made.
    created_at: Timestamp,
}

fn view(domain: &Domain) -> DomainView {
    DomainView {
        id: domain.id.uuid(),
        name: domain.name.clone(),
        description: domain.description.clone(),
        enabled: domain.enabled,
        created_at: domain.created_at,
    }
}

/// Makes a domain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateDomain {
    /// Its name, unique.
    #[schema(example = "acme")]
    name: String,
    /// Free text.
    #[serde(default)]
    description: String,
}

/// Changes a domain: what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UpdateDomain {
    /// Another name.
    name: Option<String>,
    /// Another text.
    description: Option<String>,
    /// Disabled, nothing can be done in it, and all tokens of it end.
    enabled: Option<bool>,
}

fn deed(action: &'static str, domain: &Domain) -> Deed {
    Deed::new(action)
        .on(domain.id.uuid())
        .named(&domain.name)
        .in_domain(domain.id)
}

fn object(id: DomainId) -> Object<'static> {
    Object::one("domain", Place::Domain(id))
}

/// Make a domain
///
/// Makes an organisation without users. Its name must be free.
#[utoipa::path(post, path = "/v1/domains", operation_id = "create_domain", tag = "domains",
    request_body = CreateDomain,
    responses((status = 201, description = "The domain.", body = DomainView)))]
async fn create(asker: Asker, Json(request): Json<CreateDomain>) -> Result {
    asker.may("domain:create", &Object::all("domain", Place::System))?;
    let made = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.create_domain(&request.name, |domain| {
                    domain.description.clone_from(&request.description)
                })
            },
            |domain| deed("domain:create", domain),
        )
        .await?;
    Ok(created(&format!("/v1/domains/{}", made.id), view(&made)))
}

/// List domains
///
/// The domains that the caller may see, in the order of their ids.
#[utoipa::path(get, path = "/v1/domains", operation_id = "list_domains", tag = "domains", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<DomainView>)))]
async fn list(asker: Asker, Query(query): Query<PageQuery>) -> Result<Answer<Listed<DomainView>>> {
    asker.may_list("domain:read")?;
    let at = asker.at();
    let all = at.domains().map(|found| &found.value);
    let all = all
        .filter(|domain| asker.shows("domain:read", &object(domain.id)))
        .map(view);
    Ok(Answer(page(
        &query,
        all,
        |d| d.id.to_string(),
        |d| Some(d.name.clone()),
    )?))
}

/// Show a domain
///
/// One domain, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/domains/{id}", operation_id = "get_domain", tag = "domains",
    responses((status = 200, description = "The domain.", body = DomainView)))]
async fn get(asker: Asker, id: RawId) -> Result {
    let id: DomainId = id.of("domain")?;
    let at = asker.at();
    let found = at.domain(id).ok_or_else(|| ApiError::not_found("domain"))?;
    asker.may("domain:read", &object(id))?;
    Ok(tagged(shown(found, view)))
}

/// Change a domain
///
/// Changes its name or text, disables or enables it. Disabling ends all tokens of its users and for its projects.
#[utoipa::path(patch, path = "/v1/domains/{id}", operation_id = "update_domain", tag = "domains",
    request_body = UpdateDomain,
    responses((status = 200, description = "The domain as it is now.", body = DomainView)))]
async fn update(asker: Asker, id: RawId, Json(request): Json<UpdateDomain>) -> Result<Answer<DomainView>> {
    let id: DomainId = id.of("domain")?;
    let found = asker.at().domain(id).map(|found| found.modified);
    let found = found.ok_or_else(|| ApiError::not_found("domain"))?;
    asker.may("domain:update", &object(id))?;
    asker.fits(found)?;
    let changed = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.update_domain(id, |domain| {
                    domain
                        .name
                        .clone_from(request.name.as_ref().unwrap_or(&domain.name.clone()));
                    if let Some(description) = &request.description {
                        domain.description.clone_from(description);
                    }
                    domain.enabled = request.enabled.unwrap_or(domain.enabled);
                })
            },
            |domain| deed("domain:update", domain),
        )
        .await?;
    Ok(Answer(view(&changed)))
}

/// Delete a domain
///
/// Removes a domain that is disabled, with its users, groups, roles and projects. Its projects must be empty.
#[utoipa::path(delete, path = "/v1/domains/{id}", operation_id = "delete_domain", tag = "domains",
    responses((status = 204, description = "Gone.")))]
async fn delete(
    asker: Asker,
    axum::extract::State(state): axum::extract::State<AppState>,
    id: RawId,
) -> Result<StatusCode> {
    let id: DomainId = id.of("domain")?;
    let at = asker.at();
    let found = at.domain(id).ok_or_else(|| ApiError::not_found("domain"))?;
    asker.may("domain:delete", &object(id))?;
    asker.fits(found.modified)?;
    for project in at.projects_in(id) {
        super::projects::is_empty(&state, skyloom_model::ProjectId::from_uuid(project.value.meta.id)).await?;
    }
    asker
        .identity
        .remove(
            &asker.call(),
            Doomed::Domain(id),
            deed("domain:delete", &found.value),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
