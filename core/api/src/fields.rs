//! Fields that not everybody sees: taken out of every answer in which the document says that they can be.
//!
//! ```text
//! document ──Fields::of──> operation -> paths of guarded fields ─┐
//! handler ──> JSON answer ───────────────────────────── hide ────┴──> client
//!             record of a stream ───── hide ──> client
//! ```
//!
//! Where they are is read off the types in the document, so a new route that answers with such a type hides them too.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skyloom_identity::{Effect, Identified, Object, Place, Rights};
use skyloom_model::{FIELD_RULES, FieldRule, Unseen};
use uuid::Uuid;

use crate::auth::Identity;
use crate::parts::AppState;
use crate::problem::ApiError;

/// One guarded field of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guarded {
    /// From the whole answer.
    path: Vec<Step>,
    rule: &'static FieldRule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Each,
}

/// Where guarded fields are: by operation, and by type.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    operations: BTreeMap<(String, String), Vec<Guarded>>,
    types: BTreeMap<String, Vec<Guarded>>,
}

impl Fields {
    /// Of all answers in a document.
    pub(crate) fn of(document: &Value) -> Self {
        let mut fields = Self::default();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let mut found = Vec::new();
                for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    if status.starts_with('2') {
                        let schema = &response["content"]["application/json"]["schema"];
                        Walk::new(document, &mut found).schema(schema, "");
                    }
                }
                if !found.is_empty() {
                    let operation = (method.to_uppercase(), path.clone());
                    fields.operations.insert(operation, found);
                }
            }
        }
        let schemas = document["components"]["schemas"].as_object();
        for (name, schema) in schemas.into_iter().flatten() {
            let mut found = Vec::new();
            Walk::new(document, &mut found).schema(schema, name);
            if !found.is_empty() {
                fields.types.insert(name.clone(), found);
            }
        }
        fields
    }

    /// A record of that type as its reader may see it.
    pub(crate) fn hide(&self, rights: &Rights, name: &str, record: &mut Value) {
        hide(self.types.get(name).map_or(&[], Vec::as_slice), rights, record);
    }
}

/// Finds guarded fields below a schema.
struct Walk<'a> {
    document: &'a Value,
    path: Vec<Step>,
    /// Types on the way here: one that holds itself is looked at once.
    within: Vec<String>,
    found: &'a mut Vec<Guarded>,
}

impl<'a> Walk<'a> {
    fn new(document: &'a Value, found: &'a mut Vec<Guarded>) -> Self {
        Self {
            document,
            path: Vec::new(),
            within: Vec::new(),
            found,
        }
    }

    /// `of` is the type whose schema, or part of it, this is.
    fn schema(&mut self, schema: &'a Value, of: &str) {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
            if !self.within.iter().any(|known| known == name) {
                self.within.push(name.to_owned());
                self.schema(&self.document["components"]["schemas"][name], name);
                self.within.pop();
            }
            return;
        }
        for several in ["oneOf", "anyOf", "allOf"] {
            for one in schema[several].as_array().into_iter().flatten() {
                self.schema(one, of);
            }
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.path.push(Step::Field(name.clone()));
            match FIELD_RULES.iter().find(|r| r.of == of && r.field == name) {
                Some(rule) => {
                    let path = self.path.clone();
                    let guarded = Guarded { path, rule };
                    if !self.found.contains(&guarded) {
                        self.found.push(guarded);
                    }
                }
                None => self.schema(property, ""),
            }
            self.path.pop();
        }
        for each in ["items", "additionalProperties"] {
            if schema[each].is_object() {
                self.path.push(Step::Each);
                self.schema(&schema[each], "");
                self.path.pop();
            }
        }
    }
}

/// Whether who has these rights sees fields of that rule.
pub(crate) fn sees(rights: &Rights, rule: &FieldRule) -> bool {
    let kind = rule.permission.split(':').next().unwrap_or_default();
    let permission = rights.permission(rule.permission);
    permission.is_some_and(|permission| {
        let object = Object::all(kind, Place::System);
        rights.decide(permission, &object).effect == Effect::Allow
    })
}

fn hide(guarded: &[Guarded], rights: &Rights, value: &mut Value) {
    for one in guarded.iter().filter(|one| !sees(rights, one.rule)) {
        cover(value, &one.path, one.rule.unseen);
    }
}

fn cover(value: &mut Value, path: &[Step], unseen: Unseen) {
    match path {
        [] => {}
        [Step::Field(last)] => {
            let Some(object) = value.as_object_mut() else {
                return;
            };
            match (unseen, object.get_mut(last)) {
                (_, None) => {}
                (Unseen::Absent, Some(_)) => drop(object.remove(last)),
                (Unseen::Null, Some(field)) => *field = Value::Null,
                (Unseen::NoId, Some(field)) => *field = json!(Uuid::nil()),
            }
        }
        [Step::Field(name), rest @ ..] => {
            if let Some(below) = value.get_mut(name) {
                cover(below, rest, unseen);
            }
        }
        [Step::Each, rest @ ..] => match value {
            Value::Array(items) => items.iter_mut().for_each(|item| cover(item, rest, unseen)),
            Value::Object(fields) => fields.values_mut().for_each(|field| cover(field, rest, unseen)),
            _ => {}
        },
    }
}

/// Takes out of a handler's answer what its caller may not see.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let rights = match extensions.get::<Identity>().map(|identity| &identity.who) {
        Some(Identified::Person(rights)) => rights.clone(),
        _ => return next.run(request).await,
    };
    let path = extensions.get::<MatchedPath>();
    let path = path.map_or_else(String::new, |path| path.as_str().to_owned());
    let operation = (request.method().as_str().to_owned(), path);
    let response = next.run(request).await;
    let Some(guarded) = state.fields.operations.get(&operation) else {
        return response;
    };
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if !json || !response.status().is_success() || guarded.iter().all(|one| sees(&rights, one.rule)) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let hidden = body.collect().await.ok().and_then(|whole| {
        let mut value: Value = serde_json::from_slice(&whole.to_bytes()).ok()?;
        hide(guarded, &rights, &mut value);
        serde_json::to_vec(&value).ok()
    });
    // What cannot be read is not shown.
    let Some(hidden) = hidden else {
        return ApiError::internal().into_response();
    };
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(hidden))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn document() -> Value {
        serde_json::to_value(crate::openapi()).unwrap()
    }

    /// How many guarded fields with something in them are there, found by type and not by path.
    fn seen(guarded: &[Guarded], value: &Value) -> usize {
        let reaches = |one: &&Guarded| {
            let mut hidden = value.clone();
            cover(&mut hidden, &one.path, one.rule.unseen);
            hidden != *value
        };
        guarded.iter().filter(reaches).count()
    }

    #[test]
    fn every_answer_with_a_guarded_type_is_covered() {
        let fields = Fields::of(&document());
        let of = |method: &str, path: &str| -> BTreeSet<String> {
            let found = fields.operations.get(&(method.to_owned(), path.to_owned()));
            let text = |one: &Guarded| {
                let names = one.path.iter().map(|step| match step {
                    Step::Field(name) => name.as_str(),
                    Step::Each => "*",
                });
                names.collect::<Vec<_>>().join(".")
            };
            found.into_iter().flatten().map(text).collect()
        };
        let set = |all: &[&str]| all.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let below = |whole: &str, fields: &[&str]| -> BTreeSet<String> {
            fields.iter().map(|field| format!("{whole}.{field}")).collect()
        };
        let server = ["status.fault.detail", "status.migration", "status.placement"];
        assert_eq!(of("GET", "/v1/servers/{id}"), set(&server));
        assert_eq!(of("GET", "/v1/servers"), below("items.*", &server));
        let mut made = below("server", &server);
        made.extend(below("task", &["params", "reason.detail"]));
        assert_eq!(of("POST", "/v1/servers"), made);
        let volume = ["status.fault.detail", "status.host"];
        assert_eq!(of("GET", "/v1/volumes"), below("items.*", &volume));
        assert_eq!(of("GET", "/v1/keypairs"), set(&[]));
        let task = [
            "plan.jobs.*.place.host",
            "plan.jobs.*.input",
            "jobs.*.spec.place.host",
            "jobs.*.spec.input",
            "jobs.*.output",
            "jobs.*.worker",
            "jobs.*.error.detail",
            "plan.stages.*.outcome.undone.detail",
            "task.params",
            "task.reason.detail",
        ];
        assert_eq!(of("GET", "/v1/tasks/{id}"), set(&task));
        // All rules are of use, in answers and for what streams show.
        for rule in FIELD_RULES {
            let used = |all: &[Guarded]| all.iter().any(|one| one.rule == rule);
            assert!(fields.operations.values().any(|all| used(all)), "{rule:?}");
            assert!(fields.types.values().any(|all| used(all)), "{rule:?}");
        }
        for name in ["Server", "Volume", "TaskDetail"] {
            assert!(fields.types.contains_key(name), "{name}");
        }
    }

    #[test]
    fn the_document_marks_what_takes_more() {
        fn marked<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
            let own = schema["properties"]
                .get(field)
                .map(|p| &p["x-skyloom-permission"]);
            let below = || {
                let parts = schema["oneOf"].as_array().into_iter().flatten();
                parts.into_iter().find_map(|part| marked(part, field))
            };
            own.or_else(below)
        }
        let document = document();
        for rule in FIELD_RULES {
            let schema = &document["components"]["schemas"][rule.of];
            assert_eq!(
                marked(schema, rule.field),
                Some(&json!(rule.permission)),
                "{rule:?}"
            );
        }
    }

    #[test]
    fn the_examples_show_and_hide_each_rule() {
        let document = document();
        let fields = Fields::of(&document);
        let mut shown = BTreeSet::new();
        for ((method, path), guarded) in &fields.operations {
            let operation = &document["paths"][path][method.to_lowercase()];
            for response in operation["responses"].as_object().unwrap().values() {
                let content = &response["content"]["application/json"];
                let mut example = content["example"].clone();
                if seen(guarded, &example) == 0 {
                    continue;
                }
                let there = guarded
                    .iter()
                    .filter(|one| seen(std::slice::from_ref(*one), &example) > 0);
                shown.extend(there.map(|one| one.rule.path));
                for one in guarded {
                    cover(&mut example, &one.path, one.rule.unseen);
                }
                assert_eq!(seen(guarded, &example), 0, "{method} {path}");
            }
        }
        // The document's servers are not on their way, and its tasks have no steps yet: those are looked at where there are some.
        assert_eq!(
            shown,
            BTreeSet::from(["status.host", "status.placement", "task.params"])
        );
    }
}
