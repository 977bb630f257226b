//! Why something did not work, as data.

use serde::{Deserialize, Serialize};

/// A refusal or failure that a person or a program can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// Stable, dotted, lower-case: `image.has_backing_file`.
    pub code: String,
    /// What happened, on what, in one sentence.
    pub message: String,
    /// What only those need who run the cloud: paths on a host, the words of its programs. Others are not shown it
    /// ([`FIELD_RULES`](crate::FIELD_RULES)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same request may work later without a change.
    #[serde(default)]
    pub retryable: bool,
}

impl Reason {
    /// A permanent reason without a hint.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            detail: None,
            hint: None,
            retryable: false,
        }
    }
    /// Adds what only those need who run the cloud.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// All of it, with the detail: for who runs the cloud.
    #[must_use]
    pub fn whole(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{self} ({detail})"),
            None => self.to_string(),
        }
    }
    /// Marks that it may work later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}
impl std::error::Error for Reason {}
