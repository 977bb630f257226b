//! `--debug`: each request as a curl command that can be pasted. The token and other secrets are left out.

use reqwest::Method;
use serde_json::Value;

/// Members of request bodies that are never shown.
const SECRETS: [&str; 2] = ["password", "user_data"];

/// One argument, quoted for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The command for one request.
pub(crate) fn command(method: &Method, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> String {
    let mut parts = vec![
        "curl".to_owned(),
        "-X".to_owned(),
        method.to_string(),
        quote(url),
        "-H".to_owned(),
        // Double quotes: the shell that runs it puts its own token in.
        "\"Authorization: Bearer $SKYLOOM_TOKEN\"".to_owned(),
    ];
    for (name, value) in headers {
        parts.push("-H".into());
        parts.push(quote(&format!("{name}: {value}")));
    }
    if let Some(body) = body {
        let mut shown = body.clone();
        if let Value::Object(members) = &mut shown {
            for secret in SECRETS {
                if let Some(value) = members.get_mut(secret) {
                    *value = Value::String("***".into());
                }
            }
        }
        parts.push("-H".into());
        parts.push(quote("Content-Type: application/json"));
        parts.push("--data".into());
        parts.push(quote(&shown.to_string()));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quoted_and_without_secrets() {
        let body = serde_json::json!({"name": "it's", "password": "hunter22", "user_data": "#cloud-config"});
        let text = command(
            &Method::POST,
            "http://h/v1/servers?a=b&c=d",
            &[("Idempotency-Key", "k1")],
            Some(&body),
        );
        assert_eq!(
            text,
            "curl -X POST 'http://h/v1/servers?a=b&c=d' -H \"Authorization: Bearer $SKYLOOM_TOKEN\" \
             -H 'Idempotency-Key: k1' -H 'Content-Type: application/json' \
             --data '{\"name\":\"it'\\''s\",\"password\":\"***\",\"user_data\":\"***\"}'"
        );
    }
}
