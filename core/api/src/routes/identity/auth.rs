//! `/v1/auth`: logging in and out, and who one is.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::ShownOnce;
use skyloom_identity::{
    AuthScope, CredentialRef, Deed, DomainRef, LogIn, Method, Oidc, ProjectRef, Proof, ScopeAsked, UserRef,
    Via,
};
use skyloom_model::{Secret, Timestamp};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, field, id_of, service};
use crate::answer::Result;
use crate::auth::Origin;
use crate::extract::Json;
use crate::parts::AppState;

pub(super) fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(login))
}

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(logout))
        .routes(routes!(whoami))
}

/// A login: a password (with a code where there is a second factor), a bearer token, an application credential, or the word of an identity provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    /// The user's name or id.
    #[schema(example = "anna")]
    user: Option<String>,
    /// The name or id of the user's domain; by default the default one.
    domain: Option<String>,
    /// The user's password.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<Secret<String>>,
    /// A code of the second factor.
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// In its place, a code for the day when the device is lost.
    #[schema(value_type = Option<String>)]
    recovery_code: Option<Secret<String>>,
    /// A bearer token that was given before, or an API token.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
    /// An ID token of an identity provider that the cloud is set up with.
    #[schema(value_type = Option<String>)]
    id_token: Option<Secret<String>>,
    /// The random text that the ID token was made for.
    #[schema(value_type = Option<String>)]
    nonce: Option<Secret<String>>,
    /// Which identity provider; not needed where there is one.
    issuer: Option<String>,
    /// The name (with `user`) or id of an application credential.
    credential: Option<String>,
    /// The application credential's secret.
    #[schema(value_type = Option<String>)]
    secret: Option<Secret<String>>,
    /// Where the roles shall count; by default in the user's default project, or in that of the credential.
    scope: Option<LoginScope>,
    /// Seconds that the token shall live, if not as long as usual.
    #[schema(minimum = 1, maximum = 86400)]
    life_seconds: Option<u32>,
}

/// Where roles shall count.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LoginScope {
    /// Nowhere: one may ask which scopes one could choose.
    None,
    /// In the cloud itself.
    System,
    /// In the domain of that name or id.
    Domain(String),
    /// In the project of that name (in `domain`) or id.
    Project(String),
    /// Where a delegation says.
    Trust(Uuid),
}

/// Where roles count.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub(super) enum ScopeView {
    /// In the cloud itself.
    System,
    /// In a domain.
    Domain(Uuid),
    /// In a project.
    Project(Uuid),
    /// Nowhere.
    None,
}

impl From<AuthScope> for ScopeView {
    fn from(scope: AuthScope) -> Self {
        match scope {
            AuthScope::System => Self::System,
            AuthScope::Domain(id) => Self::Domain(id.uuid()),
            AuthScope::Project(id) => Self::Project(id.uuid()),
            AuthScope::None => Self::None,
        }
    }
}

impl From<ScopeView> for AuthScope {
    fn from(view: ScopeView) -> Self {
        match view {
            ScopeView::System => Self::System,
            ScopeView::Domain(id) => Self::Domain(skyloom_model::Id::from_uuid(id)),
            ScopeView::Project(id) => Self::Project(skyloom_model::Id::from_uuid(id)),
            ScopeView::None => Self::None,
        }
    }
}

/// A bearer token, shown once.
#[derive(Debug, Serialize, ToSchema)]
struct LoggedIn {
    /// To be sent as `Authorization: Bearer …`.
    token: ShownOnce,
    /// When it ends.
    expires_at: Timestamp,
    /// Where its roles count.
    scope: ScopeView,
}

/// Who one is.
#[derive(Debug, Serialize, ToSchema)]
struct Whoami {
    /// The user's id.
    user: Uuid,
    /// The user's name.
    name: String,
    /// The id of the user's domain.
    domain: Uuid,
    /// Where the roles count.
    scope: ScopeView,
    /// The names of the roles that count there.
    roles: Vec<String>,
    /// On what else than the user it rests.
    via: String,
    /// How it was proven.
    methods: Vec<String>,
    /// When it must be proven anew.
    expires_at: Option<Timestamp>,
    /// Where else the user has a role.
    scopes: Vec<ScopeView>,
}

fn domain_ref(text: Option<&str>) -> DomainRef {
    match text {
        None => DomainRef::default(),
        Some(text) => id_of(text).map_or_else(|| DomainRef::Name(text.to_owned()), DomainRef::Id),
    }
}

/// A user by its name or id.
pub(super) fn user_ref(text: &str, domain: Option<&str>) -> UserRef {
    let named = || UserRef::Name {
        domain: domain_ref(domain),
        name: text.to_owned(),
    };
    id_of(text).map_or_else(named, UserRef::Id)
}

impl LoginRequest {
    fn user(&self) -> Result<UserRef> {
        let user = self
            .user
            .as_deref()
            .ok_or_else(|| field("user", "field.missing", "is needed"))?;
        Ok(user_ref(user, self.domain.as_deref()))
    }

    fn scope(&self) -> ScopeAsked {
        let domain = self.domain.as_deref();
        match &self.scope {
            None => ScopeAsked::Default,
            Some(LoginScope::None) => ScopeAsked::Unscoped,
            Some(LoginScope::System) => ScopeAsked::System,
            Some(LoginScope::Domain(name)) => ScopeAsked::Domain(domain_ref(Some(name))),
            Some(LoginScope::Project(name)) => ScopeAsked::Project(match id_of(name) {
                Some(id) => ProjectRef::Id(id),
                None => ProjectRef::Name {
                    domain: domain_ref(domain),
                    name: name.clone(),
                },
            }),
            Some(LoginScope::Trust(id)) => ScopeAsked::Trust(skyloom_model::Id::from_uuid(*id)),
        }
    }

    fn proofs(&self) -> Result<Vec<Proof>> {
        let mut proofs = Vec::new();
        if let Some(password) = &self.password {
            proofs.push(Proof::Password {
                user: self.user()?,
                password: password.clone(),
            });
        }
        if let Some(token) = &self.token {
            proofs.push(Proof::Token(token.clone()));
        }
        if let Some(secret) = &self.secret {
            let name = self.credential.as_deref();
            let name = name.ok_or_else(|| field("credential", "field.missing", "is needed with a secret"))?;
            let credential = match id_of(name) {
                Some(id) => CredentialRef::Id(id),
                None => CredentialRef::Name {
                    user: self.user()?,
                    name: name.to_owned(),
                },
            };
            proofs.push(Proof::ApplicationCredential {
                credential,
                secret: secret.clone(),
            });
        }
        if let Some(code) = &self.code {
            proofs.push(Proof::Totp {
                user: self.user()?,
                code: code.clone(),
            });
        }
        if let Some(code) = &self.recovery_code {
            proofs.push(Proof::RecoveryCode {
                user: self.user()?,
                code: code.clone(),
            });
        }
        Ok(proofs)
    }

    /// What an identity provider says, if its word is brought.
    async fn external(&self, providers: &[Oidc]) -> Result<Option<Proof>> {
        let Some(token) = &self.id_token else {
            return Ok(None);
        };
        let nonce = self.nonce.as_ref();
        let nonce = nonce.ok_or_else(|| field("nonce", "field.missing", "is needed with an ID token"))?;
        let provider = match &self.issuer {
            Some(issuer) => providers.iter().find(|one| one.config().issuer == *issuer),
            None => providers.first().filter(|_| providers.len() == 1),
        };
        let provider = provider.ok_or_else(|| {
            field(
                "issuer",
                "provider.not_found",
                "names no identity provider of this cloud",
            )
        })?;
        let said = provider.verify(token.expose(), nonce.expose()).await?;
        Ok(Some(Proof::External {
            said: Box::new(said),
            provider: Arc::new(provider.config().clone()),
        }))
    }
}

/// Log in
///
/// Gives a bearer token for a password (with a code of the second factor, where there is one), for a token, or for an application
/// credential, or on the word of an identity provider. What was wrong is not said. Too many wrong ones are held back, by user and by where they come from. A token made
/// from a token ends with it.
#[utoipa::path(post, path = "/v1/auth/login", operation_id = "login", tag = "auth", security(()),
    request_body = LoginRequest,
    responses((status = 200, description = "The token, shown this once.", body = LoggedIn)))]
async fn login(
    State(state): State<AppState>,
    origin: Origin,
    Json(request): Json<LoginRequest>,
) -> Result<Answer<LoggedIn>> {
    let identity = service(&state)?;
    let life = request
        .life_seconds
        .map(|seconds| std::time::Duration::from_secs(u64::from(seconds)));
    let mut proofs = request.proofs()?;
    proofs.extend(request.external(&state.parts.providers).await?);
    if proofs.is_empty() {
        return Err(field(
            "password",
            "field.missing",
            "a password, a token, a secret or an ID token is needed",
        ));
    }
    let asked = LogIn {
        life,
        ..LogIn::new(proofs, request.scope()).in_request(origin.request_id)
    };
    let session = identity.log_in(asked, &origin.source).await?;
    Ok(Answer(LoggedIn {
        token: ShownOnce::new(session.token.expose().clone()),
        expires_at: session.expires_at,
        scope: session.claims.scope.into(),
    }))
}

/// Log out
///
/// Takes back the bearer token in hand and all that were made from it. With an API token or a certificate there is nothing to
/// log out of.
#[utoipa::path(post, path = "/v1/auth/logout", operation_id = "logout", tag = "auth",
    responses((status = 204, description = "The token works no more.")))]
async fn logout(asker: Asker) -> Result<StatusCode> {
    let principal = &asker.caller.rights.principal;
    if let (Some(id), Some(until)) = (principal.audit_ids.first().copied(), principal.until) {
        let domain = principal.domain;
        asker
            .identity
            .change(
                &asker.call(),
                |edit| edit.revoke_token(id, until),
                |()| Deed::new("auth:logout").on(id).in_domain(domain),
            )
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Show who one is
///
/// The user, the scope, the roles that count there, on what that rests, and in which other scopes the user has a role.
#[utoipa::path(get, path = "/v1/auth/whoami", operation_id = "whoami", tag = "auth",
    responses((status = 200, description = "Who calls.", body = Whoami)))]
async fn whoami(asker: Asker) -> Result<Answer<Whoami>> {
    let (at, principal) = (asker.at(), &asker.caller.rights.principal);
    let name = at.user(principal.user).map(|user| user.value.name.clone());
    let role = |id: &skyloom_identity::RoleId| at.role(*id).map(|role| role.value.name.clone());
    let via = match principal.via {
        Via::User => "user",
        Via::ApplicationCredential { .. } => "application_credential",
        Via::ApiToken { .. } => "api_token",
        Via::Trust { .. } => "trust",
        Via::Host { .. } => "host",
    };
    Ok(Answer(Whoami {
        user: principal.user.uuid(),
        name: name.unwrap_or_default(),
        domain: principal.domain.uuid(),
        scope: principal.scope.into(),
        roles: principal.roles.iter().filter_map(role).collect(),
        via: via.to_owned(),
        methods: principal
            .methods
            .iter()
            .map(|method| method_name(*method).to_owned())
            .collect(),
        expires_at: principal.until,
        scopes: at.scopes_of(principal.user).into_iter().map(Into::into).collect(),
    }))
}

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Password => "password",
        Method::Totp => "totp",
        Method::ApplicationCredential => "application_credential",
        Method::Token => "token",
        Method::ApiToken => "api_token",
        Method::Ec2 => "ec2",
        Method::External => "external",
        Method::Certificate => "certificate",
    }
}
