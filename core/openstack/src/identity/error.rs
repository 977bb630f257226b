//! Refusals in the form that Keystone's clients read.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use skyloom_identity::{AuthError, ChangeError, NameKind, PasswordError, SecretError, VaultError};
use skyloom_store::ErrorKind;

/// What is answered in place of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Seconds after which it may be tried again.
    pub(crate) retry_after: Option<u64>,
}

/// What handlers give.
pub(crate) type Answer<T = Response> = Result<T, Refusal>;

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    /// One answer to everybody whose credential was not taken.
    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "The request you have made requires authentication.",
        )
    }
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }
    /// `action` as Keystone names it, such as `identity:create_user`.
    pub(crate) fn not_allowed(action: &str) -> Self {
        Self::forbidden(format!(
            "You are not authorized to perform the requested action: {action}."
        ))
    }
    pub(crate) fn missing(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Could not find {what}: {id}."))
    }
    /// With what the status itself says.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let reason = status
            .canonical_reason()
            .unwrap_or("The request cannot be served");
        Self::new(status, format!("{reason}."))
    }
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "The resource could not be found.")
    }
    pub(crate) fn no_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "The method is not allowed for the requested URL.",
        )
    }
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
    pub(crate) fn throttled(seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "There have been too many failed attempts. Try again later.",
            )
        }
    }
    /// What is wrong is in the log; the caller learns that it is ours.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %skyloom_model::report(error), "a request of the Keystone API failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error prevented the server from fulfilling your request.",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let error = json!({"error": {
            "code": self.status.as_u16(),
            "message": self.message,
            "title": title,
        }});
        let mut response = (self.status, Json(error)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(axum::http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<skyloom_store::Error> for Refusal {
    fn from(error: skyloom_store::Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Unknown => {
                tracing::warn!(error = %skyloom_model::report(&error), "the store did not answer");
                Self::unavailable("The store does not answer. Try again later.")
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound { what, id, .. } => Self::missing(what, &super::ids::simple(&id)),
            ChangeError::NameTaken { kind, name, .. } => {
                let kind = match kind {
                    NameKind::Credential => "application_credential".to_owned(),
                    kind => kind.to_string(),
                };
                Self::conflict(format!(
                    "Conflict occurred attempting to store {kind} - Duplicate entry found with name {name}."
                ))
            }
            ChangeError::Conflict(why) => Self::conflict(format!("Conflict occurred: {why}.")),
            ChangeError::InUse { what, by } => {
                Self::forbidden(format!("Unable to delete the {what}, it is in use: {by}."))
            }
            ChangeError::Invalid { field, why } => {
                Self::bad(format!("Invalid input for field '{field}': it {why}."))
            }
            ChangeError::Forbidden(why) => Self::forbidden(format!("Not allowed: {why}.")),
            ChangeError::Store(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Denied(_) => Self::unauthorized(),
            AuthError::Throttled(throttled) => Self::throttled(throttled.retry_after.as_secs().max(1)),
            AuthError::Unavailable(why) => {
                Self::unavailable(format!("Credentials cannot be checked: {why}."))
            }
        }
    }
}

impl From<VaultError> for Refusal {
    fn from(error: VaultError) -> Self {
        Self::internal(&error)
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Rules(_) | PasswordError::TooLong(_) => Self::bad(format!(
                "Invalid input for field 'password': {}.",
                skyloom_model::report(&error)
            )),
            error => Self::unavailable(format!("Passwords cannot be hashed now: {error}.")),
        }
    }
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Auth(error) => error.into(),
            SecretError::Password(error) => error.into(),
            SecretError::Change(error) => error.into(),
            SecretError::Vault(error) => error.into(),
            SecretError::Totp(error) => Self::bad(format!("Invalid input for field 'blob': {error}.")),
        }
    }
}
