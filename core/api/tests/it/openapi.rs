//! The document says everything about every operation, and the committed copy is the same.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::harness::{DOCUMENT, operations, statuses};

#[test]
fn the_committed_copy_is_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let committed = std::fs::read_to_string(path).expect("docs/openapi.json is there");
    let made = skyloom_api::openapi().to_pretty_json().expect("a document");
    assert!(
        committed.trim_end() == made,
        "docs/openapi.json is out of date: cargo run -p skyloom-api --example openapi > docs/openapi.json"
    );
}

fn text<'a>(operation: &'a Json, field: &str) -> &'a str {
    operation[field].as_str().unwrap_or_default()
}

#[test]
fn every_operation_is_explained_exemplified_and_its_errors_are_named() {
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations() {
        let name = format!("{method} {path}");
        assert!(
            ids.insert(text(operation, "operationId")),
            "{name}: an operationId twice or missing"
        );
        let (summary, description) = (text(operation, "summary"), text(operation, "description"));
        assert!(
            summary.len() > 5 && !summary.ends_with('.'),
            "{name}: summary {summary:?}"
        );
        assert!(
            description.len() > 20 && description.ends_with('.'),
            "{name}: description {description:?}"
        );
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name}");

        let body = &operation["requestBody"]["content"];
        for content in body.as_object().into_iter().flatten() {
            assert!(!content.1["example"].is_null(), "{name}: no example of its body");
        }
        let mut good = 0;
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with('2') {
                good += 1;
                assert!(
                    !response["description"].as_str().unwrap_or_default().is_empty(),
                    "{name} {status}"
                );
                let content = response["content"].as_object();
                assert_eq!(content.is_none(), status == "204", "{name} {status}: content");
                for content in content.into_iter().flatten() {
                    assert!(
                        !content.1["example"].is_null(),
                        "{name} {status}: no example of its answer"
                    );
                }
            } else if status != "503" || path != "/readyz" {
                let shared = format!("#/components/responses/Problem{status}");
                assert_eq!(response["$ref"], shared, "{name} {status}");
            }
        }
        assert!(good > 0, "{name}: no good answer");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(!text(parameter, "description").is_empty(), "{name}: {parameter}");
        }

        let known = statuses(operation);
        let public = operation["security"]
            .as_array()
            .is_some_and(|s| s.iter().any(|r| r == &serde_json::json!({})));
        let mut needed = BTreeSet::from([500, 504]);
        if !public {
            needed.extend([401, 403, 429, 503]);
        }
        if !body.is_null() {
            needed.extend([400, 408, 413, 415]);
        }
        if path.contains("{id}") {
            needed.insert(404);
        }
        let store = path.starts_with("/v1/store/");
        if method != "GET" && !store {
            needed.extend([400, 409, 422]);
        }
        if method != "GET" && path.contains("{id}") {
            needed.insert(412);
        }
        assert!(
            needed.is_subset(&known),
            "{name}: {needed:?} are not all in {known:?}"
        );
    }
    assert!(ids.len() > 45, "only {} operations", ids.len());
}

#[test]
fn the_document_itself_is_whole() {
    let document = &*DOCUMENT;
    assert!(text(document, "openapi").starts_with("3.1"));
    assert_eq!(document["info"]["license"]["name"], "Apache-2.0");
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
    let tags: BTreeSet<&str> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| text(t, "name"))
        .collect();
    for (_, path, operation) in operations() {
        assert!(
            tags.contains(operation["tags"][0].as_str().unwrap()),
            "{path} has a tag that is not explained"
        );
    }
    let mut missing = BTreeSet::new();
    references(document, document, &mut missing);
    assert!(missing.is_empty(), "references to nothing: {missing:?}");
    for (status, response) in document["components"]["responses"].as_object().unwrap() {
        let problem = &response["content"]["application/problem+json"];
        assert_eq!(
            problem["schema"]["$ref"], "#/components/schemas/Problem",
            "{status}"
        );
        assert!(problem["example"]["code"].is_string(), "{status}");
    }
}

fn references(node: &Json, document: &Json, missing: &mut BTreeSet<String>) {
    match node {
        Json::Object(fields) => {
            if let Some(Json::String(target)) = fields.get("$ref")
                && document.pointer(target.trim_start_matches('#')).is_none()
            {
                missing.insert(target.clone());
            }
            fields
                .values()
                .for_each(|value| references(value, document, missing));
        }
        Json::Array(items) => items.iter().for_each(|item| references(item, document, missing)),
        _ => {}
    }
}
