//! A body is there, is JSON, and is what was asked for.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use skyloom_model::Reason;

use crate::{CloudError, Result};

/// Reads a JSON body.
///
/// # Errors
/// `body.missing` (400) when there is none, `body.malformed` (400) when it is no JSON, `body.invalid` (422) when it is
/// JSON of another form: a field that is unknown, missing or of a wrong type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(CloudError::bad_request(
            Reason::new("body.missing", "this request needs a JSON body").hint("send a JSON object"),
        ));
    }
    serde_json::from_slice(body).map_err(|e| match e.classify() {
        Category::Data => CloudError::invalid(Reason::new("body.invalid", e.to_string())),
        Category::Syntax | Category::Eof | Category::Io => {
            CloudError::bad_request(Reason::new("body.malformed", format!("the body is no JSON: {e}")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::{CreateKeypair, ErrorKind};

    #[test]
    fn each_sort_of_bad_body_has_its_code() {
        let cases: [(&str, &str, ErrorKind); 6] = [
            ("", "body.missing", ErrorKind::BadRequest),
            (" \n", "body.missing", ErrorKind::BadRequest),
            ("{", "body.malformed", ErrorKind::BadRequest),
            ("nonsense", "body.malformed", ErrorKind::BadRequest),
            (
                r#"{"name":"a","public_key":"b","more":1}"#,
                "body.invalid",
                ErrorKind::Invalid,
            ),
            (r#"{"name":"a"}"#, "body.invalid", ErrorKind::Invalid),
        ];
        for (body, code, kind) in cases {
            let error = parse::<CreateKeypair>(body.as_bytes()).unwrap_err();
            assert_eq!((error.code(), error.kind()), (code, kind), "{body}");
        }
        assert!(parse::<CreateKeypair>(br#"{"name":"a","public_key":"b"}"#).is_ok());
    }
}
