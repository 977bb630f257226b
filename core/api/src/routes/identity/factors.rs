//! `/v1/users/me/second-factors`: a second factor of one's own, from its secret to its recovery codes.

use axum::Json as Answer;
use serde::{Deserialize, Serialize};
use skyloom_cloud::ShownOnce;
use skyloom_identity::{AuthError, CredentialId, Enrolment, SecretError, TotpConfig};
use skyloom_model::Secret;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, field};
use crate::answer::{Result, created};
use crate::extract::{Json, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(enrol))
        .routes(routes!(confirm))
        .routes(routes!(renew))
}

/// A second factor that does nothing yet.
#[derive(Debug, Serialize, ToSchema)]
struct Enrolled {
    /// Which.
    id: Uuid,
    /// The secret, to be typed into the device. Shown this once.
    secret: ShownOnce,
    /// The address that authenticators read from a picture. Holds the secret.
    uri: ShownOnce,
}

/// A code of the second factor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Code {
    /// The code that the device shows.
    #[schema(value_type = String)]
    code: Secret<String>,
}

/// Codes for the day when the device is lost, each for one login.
#[derive(Debug, Serialize, ToSchema)]
struct Recovery {
    /// The codes. Shown this once.
    recovery_codes: Vec<ShownOnce>,
}

fn shown(codes: Vec<Secret<String>>) -> Recovery {
    let codes = codes
        .into_iter()
        .map(|code| ShownOnce::new(code.expose().clone()));
    Recovery {
        recovery_codes: codes.collect(),
    }
}

/// The bearer is good: it is the code in the body that is not.
fn wrong(error: SecretError) -> ApiError {
    match error {
        SecretError::Auth(AuthError::Denied(_)) => {
            field("code", "code.wrong", "is not the code of now, or was used")
        }
        error => error.into(),
    }
}

/// Begin a second factor
///
/// Makes a secret for a device that shows codes. It does nothing until a first code of it confirms it. Only users themselves do so.
#[utoipa::path(post, path = "/v1/users/me/second-factors", operation_id = "enrol_second_factor", tag = "users",
    responses((status = 201, description = "The secret, shown this once.", body = Enrolled)))]
async fn enrol(asker: Asker) -> Result {
    let user = asker.user();
    asker.may_of_user("credential:create", user)?;
    let Enrolment { id, secret, uri } = asker
        .identity
        .enrol(&asker.call(), user, TotpConfig::default())
        .await?;
    let enrolled = Enrolled {
        id: id.uuid(),
        secret: ShownOnce::new(secret.expose().clone()),
        uri: ShownOnce::new(uri.expose().clone()),
    };
    Ok(created(&format!("/v1/users/{user}/credentials/{id}"), enrolled))
}

/// Confirm a second factor
///
/// A first code proves that the device has the secret. From now on a code is asked for at each login, and all tokens of the user
/// end, the one in hand too.
#[utoipa::path(post, path = "/v1/users/me/second-factors/{id}/actions/confirm", operation_id = "confirm_second_factor",
    tag = "users", request_body = Code,
    responses((status = 200, description = "Codes for the day when the device is lost, shown this once.", body = Recovery)))]
async fn confirm(asker: Asker, id: RawId, Json(request): Json<Code>) -> Result<Answer<Recovery>> {
    let id: CredentialId = id.of("second_factor")?;
    let user = asker.user();
    asker.may_of_user("credential:create", user)?;
    let confirmed = asker
        .identity
        .confirm(&asker.call(), user, id, request.code.expose())
        .await;
    Ok(Answer(shown(confirmed.map_err(wrong)?)))
}

/// Renew recovery codes
///
/// New codes for the day when the device is lost, in place of all former ones, for a code of now.
#[utoipa::path(post, path = "/v1/users/me/second-factors/{id}/actions/renew-recovery-codes",
    operation_id = "renew_recovery_codes", tag = "users", request_body = Code,
    responses((status = 200, description = "The new codes, shown this once.", body = Recovery)))]
async fn renew(asker: Asker, id: RawId, Json(request): Json<Code>) -> Result<Answer<Recovery>> {
    let id: CredentialId = id.of("second_factor")?;
    let user = asker.user();
    asker.may_of_user("credential:create", user)?;
    let renewed = asker
        .identity
        .renew_recovery_codes(&asker.call(), user, id, request.code.expose())
        .await;
    Ok(Answer(shown(renewed.map_err(wrong)?)))
}
