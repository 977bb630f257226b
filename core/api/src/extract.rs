//! What handlers take out of a request, with every refusal a problem document.
//!
//! A JSON body passes these gates, in this order: is there one (400), is it JSON by its own word (415), is it short
//! (413) and quick (408) enough, is it JSON (400), not too deep (400), and of the right form (422, naming the field).

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use skyloom_cloud::FieldError;
use skyloom_identity::Identified;
use skyloom_model::Id;

use crate::auth::Identity;
use crate::edge::depth;
use crate::held::Held;
use crate::parts::AppState;
use crate::problem::ApiError;

/// Deepest nesting of a JSON body.
const MAX_DEPTH: usize = 25;
/// Deepest nesting of a body of the store protocol: of a document as deep as parsers go, in its envelope.
const MAX_STORE_DEPTH: usize = 128 + 4;
/// The same from an agent: its reports are as flat as anybody's, and its host may be in a stranger's hands.
const MAX_AGENT_DEPTH: usize = MAX_DEPTH + 4;
/// Longest text of a parser's complaint that is repeated.
const MAX_COMPLAINT: usize = 300;

/// A JSON body that must be there.
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body, or the default when there is none.
pub(crate) struct OptionalJson<T>(pub(crate) T);

/// A JSON body of the store protocol, which has a limit of its own.
pub(crate) struct StoreJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.parts.limits.max_body;
        let body = json_body(request, state, limit).await?.ok_or_else(missing)?;
        parse(&body, MAX_DEPTH).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<AppState> for OptionalJson<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.parts.limits.max_body;
        match json_body(request, state, limit).await? {
            None => Ok(Self(T::default())),
            Some(body) => parse(&body, MAX_DEPTH).map(Self),
        }
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for StoreJson<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = skyloom_store::wire::MAX_REQUEST_BYTES;
        let who = request
            .extensions()
            .get::<Identity>()
            .map(|identity| &identity.who);
        let depth = match who {
            Some(Identified::Agent { .. }) => MAX_AGENT_DEPTH,
            _ => MAX_STORE_DEPTH,
        };
        let body = json_body(request, state, limit).await?.ok_or_else(missing)?;
        parse(&body, depth).map(Self)
    }
}

fn missing() -> ApiError {
    ApiError::bad_request("body.missing", "this request needs a JSON body")
}

/// The bytes of a JSON body; `None` when there is no body.
async fn json_body(request: Request, state: &AppState, limit: usize) -> Result<Option<Bytes>, ApiError> {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(None);
    }
    if !media_type(&parts.headers, "application/json") {
        return Err(ApiError::media_type("application/json"));
    }
    let held = parts.extensions.get::<Held>();
    let bytes = read(body, limit, held, state).await?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

/// Whether the body is, by its own word, of type `want`, and not compressed.
pub(crate) fn media_type(headers: &HeaderMap, want: &str) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let plain = text(CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    plain && kind.eq_ignore_ascii_case(want)
}

async fn read(
    mut body: Body,
    limit: usize,
    held: Option<&Held>,
    state: &AppState,
) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::body_too_large(limit));
    }
    let reading = async {
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| ApiError::bad_request("body.broken", "the body did not arrive whole");
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if whole.len() + data.len() > limit {
                return Err(ApiError::body_too_large(limit));
            }
            held.map_or(Ok(()), |held| held.take(data.len()))?;
            whole.extend_from_slice(&data);
        }
        Ok(Bytes::from(whole))
    };
    match tokio::time::timeout(state.parts.limits.body_timeout, reading).await {
        Err(_) => Err(ApiError::body_too_slow()),
        Ok(read) => read,
    }
}

fn parse<T: DeserializeOwned>(body: &[u8], max_depth: usize) -> Result<T, ApiError> {
    if depth(body) > max_depth {
        let message = format!("the body is nested deeper than {max_depth}");
        return Err(ApiError::bad_request("body.too_deep", message));
    }
    // First the whole text, so that what is no JSON is called so however it begins.
    let text: &RawValue = serde_json::from_slice(body).map_err(|e| complaint(".", &e))?;
    if !text.get().starts_with('{') {
        // Serde would take a list for a struct.
        return Err(ApiError::field(FieldError::new(
            "body",
            "field.invalid",
            "must be a JSON object",
        )));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        complaint(&path, e.inner())
    })?;
    Ok(value)
}

/// A parser's error as ours: of the form (422, with the field) or of the text itself (400).
fn complaint(path: &str, error: &serde_json::Error) -> ApiError {
    let mut message = error.to_string();
    if let Some((end, _)) = message.char_indices().nth(MAX_COMPLAINT) {
        message.truncate(end);
        message.push('…');
    }
    if error.classify() != serde_json::error::Category::Data {
        return ApiError::bad_request("body.malformed", format!("the body is no JSON: {message}"));
    }
    let named = |start: &str| {
        let rest = message.strip_prefix(start)?;
        rest.split('`').next().map(str::to_owned)
    };
    let (code, name) = if let Some(name) = named("missing field `") {
        ("field.missing", Some(name))
    } else if let Some(name) = named("unknown field `") {
        ("field.unknown", Some(name))
    } else {
        ("field.invalid", None)
    };
    let field = match (path, name) {
        (".", None) => "body".to_owned(),
        (".", Some(name)) => name,
        (path, Some(name)) if !path.ends_with(&name) => format!("{path}.{name}"),
        (path, _) => path.to_owned(),
    };
    ApiError::field(FieldError::new(field, code, message))
}

/// The query, checked.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(e) => Err(ApiError::bad_request("query.invalid", e.body_text())),
        }
    }
}

/// The `{id}` of the path, as it was written.
pub(crate) struct RawId(String);

impl FromRequestParts<AppState> for RawId {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // What cannot be decoded is no id either; the handler's 404 names the kind.
        let path = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(path.map(|Path(id)| id).unwrap_or_default()))
    }
}

impl RawId {
    /// The text itself.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The id of a `what`. Text that is no id gets the answer of an id that is not there.
    pub(crate) fn of<K: ?Sized>(&self, what: &str) -> Result<Id<K>, ApiError> {
        let id: uuid::Uuid = self.0.parse().map_err(|_| ApiError::not_found(what))?;
        if id.to_string() == self.0 {
            Ok(Id::from_uuid(id))
        } else {
            Err(ApiError::not_found(what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "count")]
        _count: u8,
    }

    fn refusal(body: &str) -> String {
        format!("{:?}", parse::<Outer>(body.as_bytes(), MAX_DEPTH).err())
    }

    #[test]
    fn a_wrong_field_is_named_with_its_path() {
        for (body, field, code) in [
            (
                r#"{"inner":[{"count":1},{"count":-1}]}"#,
                "inner[1].count",
                "field.invalid",
            ),
            (r#"{"inner":[{"count":1,"x":2}]}"#, "inner[0].x", "field.unknown"),
            (r#"{"inner":[{}]}"#, "inner[0].count", "field.missing"),
            (r#"{}"#, "inner", "field.missing"),
            (r#"{"inner":[],"owner":1}"#, "owner", "field.unknown"),
            (r#"{"inner":null}"#, "inner", "field.invalid"),
            (r#"[1]"#, "body", "field.invalid"),
            (r#"{"inner":[],"inner":[]}"#, "body", "field.invalid"),
        ] {
            let refusal = refusal(body);
            assert!(
                refusal.contains(&format!("field: {field:?}, code: {code:?}")),
                "{body}: {refusal}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in [
            "{",
            "nul",
            "{\"inner\":[NaN]}",
            "{\"inner\":[{\"count\":1e999}]}",
            "{} {}",
            "\u{feff}{}",
            "{\"inner\":[{\"count\":\"\\ud800\"}]}",
            "{\"inner\":[]}x",
        ] {
            assert!(
                refusal(body).contains("body.malformed"),
                "{body}: {}",
                refusal(body)
            );
        }
        assert!(format!("{:?}", parse::<Outer>(b"{\"inner\xff\":[]}", MAX_DEPTH).err()).contains("400"));
    }

    #[test]
    fn what_is_too_deep_is_refused_before_it_is_parsed() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(!refusal(&nested(MAX_DEPTH)).contains("body.too_deep"));
        assert!(refusal(&nested(MAX_DEPTH + 1)).contains("body.too_deep"));
        assert!(refusal(&"[".repeat(100_000)).contains("body.too_deep"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse::<Outer>(&body, MAX_DEPTH);
        }
    }
}
