//! Why a call was refused or failed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom_model::Reason;

use crate::Preview;

/// A result of this crate.
pub type Result<T, E = CloudError> = std::result::Result<T, E>;

/// The sort of a refusal; HTTP statuses follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: cannot be understood.
    BadRequest,
    /// 403: not with this role.
    Denied,
    /// 404: not there, or not yours.
    NotFound,
    /// 409: does not fit what is.
    Conflict,
    /// 412: has changed since it was read.
    PreconditionFailed,
    /// 413: over a limit.
    TooLarge,
    /// 422: understood, and wrong.
    Invalid,
    /// 429: too much is under way already.
    TooManyRequests,
    /// 500: a bug or damaged data.
    Internal,
    /// 503: try again later.
    Unavailable,
    /// 200: nothing is wrong. The mutation was asked for as a dry run and has not happened; the error carries its
    /// [`Preview`]. It travels as an error so that mutations have one way, whose last step is the commit, and no caller
    /// can take what was only shown for what was done.
    Previewed,
    /// 504: a host did not answer in time.
    Timeout,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Where in the body, such as `networks[1].vnic_type`.
    pub field: String,
    /// Stable code, such as `network.unsupported`.
    pub code: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    /// A wrong field.
    #[must_use]
    pub fn new(field: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// A refusal or failure of a facade call. Boxed: it is rare, results are many.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .0.reason)]
pub struct CloudError(Box<Inner>);

#[derive(Debug, Clone, PartialEq)]
struct Inner {
    kind: ErrorKind,
    reason: Reason,
    fields: Vec<FieldError>,
    retry_after: Option<Duration>,
    preview: Option<Preview>,
    missing: Option<&'static str>,
}

impl CloudError {
    /// An error of `kind`.
    #[must_use]
    pub fn new(kind: ErrorKind, reason: Reason) -> Self {
        Self(Box::new(Inner {
            kind,
            reason,
            fields: Vec::new(),
            retry_after: None,
            preview: None,
            missing: None,
        }))
    }
    /// [`ErrorKind::BadRequest`].
    #[must_use]
    pub fn bad_request(reason: Reason) -> Self {
        Self::new(ErrorKind::BadRequest, reason)
    }
    /// [`ErrorKind::Denied`].
    #[must_use]
    pub fn denied(reason: Reason) -> Self {
        Self::new(ErrorKind::Denied, reason)
    }
    /// [`ErrorKind::NotFound`]. The same words whether it never was or belongs to somebody else.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            Reason::new(format!("{what}.not_found"), format!("there is no such {what}")),
        )
    }
    /// [`ErrorKind::Conflict`].
    #[must_use]
    pub fn conflict(reason: Reason) -> Self {
        Self::new(ErrorKind::Conflict, reason)
    }
    /// [`ErrorKind::Invalid`] without a field to blame.
    #[must_use]
    pub fn invalid(reason: Reason) -> Self {
        Self::new(ErrorKind::Invalid, reason)
    }
    /// [`ErrorKind::Invalid`] because of one field; the reason takes its code and message.
    #[must_use]
    pub fn field(field: FieldError) -> Self {
        let reason = Reason::new(field.code.clone(), format!("{}: {}", field.field, field.message));
        let mut this = Self::invalid(reason);
        this.0.fields = vec![field];
        this
    }
    /// [`ErrorKind::Invalid`] because of several fields; `None` when there are none.
    #[must_use]
    pub fn fields(mut fields: Vec<FieldError>) -> Option<Self> {
        match fields.len() {
            0 => None,
            1 => fields.pop().map(Self::field),
            n => {
                let reason = Reason::new("request.invalid", format!("{n} fields are wrong"));
                let mut this = Self::invalid(reason);
                this.0.fields = fields;
                Some(this)
            }
        }
    }
    /// [`ErrorKind::Conflict`]: others were faster every time.
    pub(crate) fn contended() -> Self {
        let what = "others changed the same records again and again";
        Self::conflict(
            Reason::new("conflict.contended", what)
                .hint("try again")
                .retryable(),
        )
    }
    /// [`ErrorKind::Internal`].
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, Reason::new("internal", message))
    }
    /// [`ErrorKind::Previewed`].
    pub(crate) fn previewed(preview: Preview) -> Self {
        let reason = Reason::new("preview", "nothing was done: this is what would be done");
        let mut this = Self::new(ErrorKind::Previewed, reason);
        this.0.preview = Some(preview);
        this
    }
    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.reason.hint = Some(hint.into());
        self
    }
    /// Adds when to ask again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// For want of this permission.
    pub(crate) fn for_want_of(mut self, permission: &'static str) -> Self {
        self.0.missing = Some(permission);
        self
    }
    /// The permission that the caller would have needed, if that is why.
    #[must_use]
    pub fn missing_permission(&self) -> Option<&'static str> {
        self.0.missing
    }

    /// The sort.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// Why, as data.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.reason.code
    }
    /// How long to wait before asking again, where that is known.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }
    /// What would have been done, of a dry run.
    #[must_use]
    pub fn preview(&self) -> Option<&Preview> {
        self.0.preview.as_ref()
    }
    /// The wrong fields, if that is why.
    #[must_use]
    pub fn wrong_fields(&self) -> &[FieldError] {
        &self.0.fields
    }
}

impl From<skyloom_store::Error> for CloudError {
    fn from(error: skyloom_store::Error) -> Self {
        use skyloom_store::ErrorKind as Store;
        let text = skyloom_model::report(&error);
        match error.kind() {
            Store::Unavailable | Store::Timeout | Store::Overloaded | Store::Full => {
                Self::new(ErrorKind::Unavailable, Reason::new("store.unavailable", text).retryable())
            }
            Store::Unknown => Self::new(
                ErrorKind::Unavailable,
                Reason::new("store.outcome_unknown", text)
                    .hint("nobody can tell whether it happened: look, or repeat it with the same Idempotency-Key")
                    .retryable(),
            ),
            Store::TooLarge => Self::new(ErrorKind::TooLarge, Reason::new("request.too_large", text)),
            Store::Denied => Self::denied(Reason::new("store.denied", text)),
            _ => Self::internal(text),
        }
    }
}

impl From<skyloom_store::KeyError> for CloudError {
    fn from(error: skyloom_store::KeyError) -> Self {
        Self::internal(error.to_string())
    }
}
