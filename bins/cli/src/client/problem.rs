//! From an answer that is no success to an error for people.

use serde::Deserialize;

use crate::error::CliError;
use crate::exit::Exit;

/// RFC 9457 with the cloud's own members. Everything may be missing: the answer may come from a proxy.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    code: String,
    hint: Option<String>,
    request_id: Option<String>,
    errors: Vec<FieldError>,
}

/// What is wrong with one field of the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldError {
    field: String,
    message: String,
}

/// Reads a refusal. `request_id` is the one that was sent.
pub(crate) fn read(status: u16, reason: &str, body: &[u8], request_id: &str) -> CliError {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let message = [&problem.detail, &problem.title]
        .into_iter()
        .find(|text| !text.is_empty())
        .cloned()
        .unwrap_or_else(|| format!("the server answered {status} {reason}"));
    let exit = Exit::of_problem(status, &problem.code);
    let mut error = CliError::new(exit, message.clone());
    for field in problem.errors {
        let line = format!("{}: {}", field.field, field.message);
        // One mistake alone is the message already.
        if line != message {
            error = error.detail(line);
        }
    }
    if problem.title.is_empty() && problem.detail.is_empty() {
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        if !text.trim().is_empty() {
            error = error.detail(text.trim().to_owned());
        }
    }
    if let Some(hint) = problem.hint.or_else(|| default_hint(exit)) {
        error = error.hint(hint);
    }
    if !problem.code.is_empty() {
        error = error.note("code", problem.code);
    }
    error.note(
        "request",
        problem.request_id.unwrap_or_else(|| request_id.to_owned()),
    )
}

fn default_hint(exit: Exit) -> Option<String> {
    match exit {
        Exit::NotLoggedIn => Some("set SKYLOOM_TOKEN to a token of this cloud".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_problem_keeps_its_fields_hint_and_ids() {
        let body =
            br#"{"title":"Unprocessable","status":422,"detail":"the request has 1 mistake","code":"format",
            "hint":"see the schema","request_id":"req-9","retryable":false,
            "errors":[{"field":"metadata.a","code":"x","message":"is too long"}]}"#;
        let error = read(422, "Unprocessable Entity", body, "req-mine");
        assert_eq!(error.exit, Exit::Usage);
        assert_eq!(
            error.render(false),
            "error: the request has 1 mistake\n  metadata.a: is too long\n  hint: see the schema\n  \
             code format · request req-9\n"
        );
    }

    #[test]
    fn a_single_mistake_is_said_once() {
        let body =
            br#"{"detail":"name: is empty","errors":[{"field":"name","code":"x","message":"is empty"}]}"#;
        assert_eq!(
            read(422, "", body, "req-1").render(false),
            "error: name: is empty\n  request req-1\n"
        );
    }

    #[test]
    fn an_answer_of_a_proxy_is_shown_as_it_is() {
        let text = read(502, "Bad Gateway", b"<html>upstream gone</html>", "req-1").render(false);
        assert_eq!(
            text,
            "error: the server answered 502 Bad Gateway\n  <html>upstream gone</html>\n  request req-1\n"
        );
    }

    proptest! {
        #[test]
        fn any_body_gives_an_error(status in 300u16..600, body in prop::collection::vec(any::<u8>(), 0..400)) {
            let error = read(status, "", &body, "r");
            prop_assert_ne!(error.exit, Exit::Done);
            prop_assert!(error.render(false).starts_with("error: "));
        }
    }
}
