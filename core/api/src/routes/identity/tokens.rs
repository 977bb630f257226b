//! `/v1/tokens`: long secrets for programs and for the cloud's own machines.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::{Listed, ShownOnce};
use skyloom_identity::{ApiToken, Holder, NewApiToken, Object, Place, UserId};
use skyloom_model::{HostId, Meta, Name, Scope, Timestamp, TokenId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::ScopeView;
use super::{Asker, page};
use crate::answer::{Result, created};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(delete))
}

/// Who acts with a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
enum HolderView {
    /// A user in one scope: never with more than the user has there at the moment.
    User {
        /// The user's id; by default the caller's.
        user: Option<Uuid>,
        /// Where; by default where the caller is.
        scope: Option<ScopeView>,
        /// If there are any: the patterns of permissions to which alone it reaches.
        #[serde(default)]
        permissions: Vec<String>,
    },
    /// An engine of the cloud.
    Engine,
    /// The agent of a host.
    Agent {
        /// The host's id.
        host: Uuid,
    },
}

/// An API token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct TokenView {
    /// Identity.
    meta: Meta,
    /// Content.
    spec: TokenContent,
}

/// Content of a token.
#[derive(Debug, Serialize, ToSchema)]
struct TokenContent {
    /// Who acts with it.
    holder: HolderView,
    /// The secret's first characters, to find it again.
    #[schema(example = "sky_Vm9k")]
    hint: String,
    /// When it stops working.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// When it was last used, give or take some minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Timestamp>,
}

fn view(token: &ApiToken) -> Result<TokenView> {
    let name = Name::new(&token.name).or_else(|_| Name::new(token.id.to_string()));
    let name = name.map_err(|_| ApiError::internal())?;
    Ok(TokenView {
        meta: Meta::new(token.id.uuid(), name, Scope::System, token.created_at),
        spec: TokenContent {
            holder: match &token.holder {
                Holder::User {
                    user,
                    scope,
                    permissions,
                } => HolderView::User {
                    user: Some(user.uuid()),
                    scope: Some((*scope).into()),
                    permissions: permissions.clone(),
                },
                Holder::Engine => HolderView::Engine,
                Holder::Agent { host } => HolderView::Agent { host: host.uuid() },
            },
            hint: token.hint.clone(),
            expires_at: token.expires_at,
            last_used: token.last_used,
        },
    })
}

/// Makes an API token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateToken {
    /// What it is called.
    #[schema(example = "ci")]
    name: String,
    /// Who acts with it; by default the caller, where the caller is.
    holder: Option<HolderView>,
    /// When it stops working; by default never.
    expires_at: Option<Timestamp>,
}

/// A token and its secret, shown once.
#[derive(Debug, Serialize, ToSchema)]
struct TokenAccepted {
    /// The token.
    token: TokenView,
    /// The secret.
    secret: ShownOnce,
}

/// Which tokens.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct TokenQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Only what has exactly this name.
    name: Option<String>,
    /// Only those whose secrets begin so: the first eight characters are enough.
    prefix: Option<String>,
    /// Only those of this user.
    user: Option<Uuid>,
}

fn allowed(asker: &Asker, permission: &'static str, token: &ApiToken) -> Result<()> {
    let at = asker.at();
    match token.user() {
        None => asker.may(permission, &Object::one("token", Place::System)),
        Some(user) => {
            let place = at
                .user(user)
                .map_or(Place::System, |user| Place::Domain(user.value.domain));
            asker.may(permission, &Object::one("token", place).owned_by(user))
        }
    }
}

/// Make a token
///
/// Makes an API token of the caller, of a user whom the caller may act for, or of one of the cloud's own machines. Its secret is
/// shown this once; only its hash is kept. It goes with its user, project or domain.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens",
    request_body = CreateToken,
    responses((status = 201, description = "The token's record, and its secret.", body = TokenAccepted)))]
async fn create(State(state): State<AppState>, asker: Asker, Json(request): Json<CreateToken>) -> Result {
    let by = &asker.caller.rights.principal;
    if request.expires_at.is_some_and(|end| end <= asker.identity.now()) {
        return Err(super::field(
            "expires_at",
            "token.expired",
            "it would have expired already",
        ));
    }
    let own = HolderView::User {
        user: None,
        scope: None,
        permissions: Vec::new(),
    };
    let holder = match request.holder.unwrap_or(own) {
        HolderView::User {
            user,
            scope,
            permissions,
        } => {
            let user = user.map_or(by.user, UserId::from_uuid);
            asker.may_of_user("token:create", user)?;
            let scope = scope.map_or(by.scope, Into::into);
            Holder::User {
                user,
                scope,
                permissions,
            }
        }
        HolderView::Engine => {
            asker.may("token:create", &Object::all("token", Place::System))?;
            asker.may("store:use", &Object::all("store", Place::System))?;
            Holder::Engine
        }
        HolderView::Agent { host } => {
            let host = HostId::from_uuid(host);
            asker.may("token:create", &Object::all("token", Place::System))?;
            asker.may("host:create", &Object::all("host", Place::System))?;
            state.parts.cloud.get_host(&asker.caller, host).await?;
            Holder::Agent { host }
        }
    };
    let asked = NewApiToken {
        name: request.name,
        holder,
        expires_at: request.expires_at,
    };
    let made = asker.identity.create_token(&asker.call(), asked).await?;
    let accepted = TokenAccepted {
        token: view(&made.token)?,
        secret: ShownOnce::new(made.secret.expose().clone()),
    };
    Ok(created("/v1/tokens", accepted))
}

/// List tokens
///
/// The tokens of the caller and those that it may see otherwise, without their secrets, in the order of their ids.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens", params(TokenQuery),
    responses((status = 200, description = "One page.", body = Listed<TokenView>)))]
async fn list(asker: Asker, Query(query): Query<TokenQuery>) -> Result<Answer<Listed<TokenView>>> {
    asker.may_list("token:read")?;
    let at = asker.at();
    let user = query.user.map(UserId::from_uuid);
    let begin = query.prefix.as_deref();
    let all = at.tokens().map(|found| &found.value).filter(|token| {
        user.is_none_or(|user| token.user() == Some(user))
            && begin.is_none_or(|begin| token.hint.starts_with(begin) || begin.starts_with(&token.hint))
            && allowed(&asker, "token:read", token).is_ok()
    });
    let part = super::PageQuery {
        limit: query.limit,
        cursor: query.cursor,
        name: query.name,
    };
    let all: Vec<TokenView> = all.map(view).collect::<Result<_>>()?;
    Ok(Answer(page(
        &part,
        all.into_iter(),
        |t| t.meta.id.to_string(),
        |t| Some(t.meta.name.to_string()),
    )?))
}

/// Take a token back
///
/// The token stops working at once; open streams of it end within seconds.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "delete_token", tag = "tokens",
    responses((status = 204, description = "It works no more.")))]
async fn delete(asker: Asker, id: RawId) -> Result<StatusCode> {
    let id: TokenId = id.of("token")?;
    let at = asker.at();
    let found = at.token(id).ok_or_else(|| ApiError::not_found("token"))?;
    allowed(&asker, "token:delete", &found.value)?;
    asker.fits(found.modified)?;
    asker.identity.delete_token(&asker.call(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
