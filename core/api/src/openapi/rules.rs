//! What holds for operations by their form: path parameters, headers, errors. Written once instead of at each handler.

use serde_json::json;
use utoipa::openapi::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, KnownFormat, Object, ObjectBuilder, OpenApi, PathItem, Ref, RefOr, Required, Response,
    ResponseBuilder, SchemaFormat, Type,
};

use super::{examples, fields, permissions};

const BEARER: &str = "bearer";

pub(super) fn complete(document: &mut OpenApi) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("sky_ and 43 characters")
        .description(Some("An API token."))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    components
        .responses
        .extend(ERRORS.map(|(status, about)| (name(status), shared(status, about))));
    document.security = Some(vec![SecurityRequirement::new(BEARER, [""; 0])]);
    fields::mark(components);
    // Examples that are made of schemas need all of them.
    let known = document.components.clone().unwrap_or_default();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let form = Form::of(path, method, operation);
            parameters(path, &form, operation);
            errors(&form, operation);
            examples::fill(operation, &known);
            permissions::declare(operation);
            if form.change && !form.immediate && !form.several {
                preview(operation);
            }
            if path == "/metrics" {
                let token = SecurityRequirement::new(BEARER, [""; 0]);
                operation.security = Some(vec![SecurityRequirement::default(), token]);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|o| (method, o)))
}

/// What an operation is like.
struct Form {
    /// Needs no token.
    public: bool,
    /// Is of the store protocol.
    store: bool,
    /// A machine asks for its certificate: no token, no second time under a key, no dry run.
    joins: bool,
    /// Reads the project's or cloud's records.
    user: bool,
    /// Changes something.
    change: bool,
    /// Honours `If-Match`.
    guarded: bool,
    /// Is a change of identity: done at once, without a plan to be shown.
    immediate: bool,
    /// Is made of several changes, each with an answer of its own.
    several: bool,
    /// Has a body.
    body: bool,
    /// Has something in the path.
    id: bool,
    /// Asks something of what is in the path.
    below: bool,
    /// Has a query.
    query: bool,
}

impl Form {
    fn of(path: &str, method: &'static str, operation: &Operation) -> Self {
        let public = operation.security.is_some() || path == "/metrics";
        let store = path.starts_with("/v1/store/");
        let joins = path.starts_with("/v1/join");
        let change = method != "get" && !store && !joins;
        let query = operation
            .parameters
            .iter()
            .flatten()
            .any(|p| matches!(p, RefOr::T(p) if p.parameter_in == ParameterIn::Query));
        Self {
            public,
            store,
            joins,
            user: !public && !store && !path.starts_with("/v1/kinds"),
            change,
            guarded: change && path.contains("{id}"),
            immediate: immediate(path, method, operation),
            several: path.starts_with("/v1/servers/actions/"),
            body: operation.request_body.is_some(),
            id: path.contains('{'),
            below: path.contains("}/"),
            query,
        }
    }
}

/// Whether a change is made at once. Projects are made by the facade, all else of identity is not.
fn immediate(path: &str, method: &str, operation: &Operation) -> bool {
    let tag = operation.tags.iter().flatten().next().map(String::as_str);
    match tag {
        Some(
            "auth" | "domains" | "users" | "groups" | "roles" | "grants" | "trusts" | "tokens" | "quotas"
            | "audit" | "policy",
        ) => true,
        Some("projects") => !(method == "post" && path == "/v1/projects"),
        _ => false,
    }
}

fn text() -> Object {
    ObjectBuilder::new().schema_type(Type::String).build()
}

fn header(name: &str, description: &str, schema: Object) -> RefOr<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema));
    RefOr::T(parameter.build())
}

fn parameters(path: &str, form: &Form, operation: &mut Operation) {
    let mut added = Vec::new();
    for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let (description, schema) = if name != "name" {
            let uuid = Some(SchemaFormat::KnownFormat(KnownFormat::Uuid));
            (
                "Its id.",
                ObjectBuilder::from(text())
                    .format(uuid)
                    .examples([json!(examples::ID)])
                    .build(),
            )
        } else {
            (
                "Its name.",
                ObjectBuilder::from(text()).examples([json!("server")]).build(),
            )
        };
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(schema));
        added.push(RefOr::T(parameter.build()));
    }
    if form.user {
        added.push(header(
            "X-Skyloom-Project",
            "Id or name of the project to work in. For callers of the whole system; others may name only their own.",
            text(),
        ));
    }
    if form.change && !form.immediate {
        let key = ObjectBuilder::from(text())
            .min_length(Some(1))
            .max_length(Some(128))
            .build();
        let about =
            "Do this once: the same key with the same request gets the same answer, without its secrets.";
        added.push(header("Idempotency-Key", about, key));
    }
    if form.change && !form.immediate {
        let plan = ObjectBuilder::from(text()).enum_values(Some(["plan"])).build();
        let parameter = ParameterBuilder::new()
            .name("dry_run")
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(
                "With `plan` nothing is done: the answer is 200 with what would be done.",
            ))
            .schema(Some(plan));
        added.push(RefOr::T(parameter.build()));
    }
    if form.guarded {
        let tag = ObjectBuilder::from(text())
            .pattern(Some("^(\\*|\"[0-9]{1,19}\")$"))
            .examples([json!("\"42\"")]);
        let about = "Only if the thing still has this `ETag`.";
        added.push(header("If-Match", about, tag.build()));
    }
    if operation.operation_id.as_deref() == Some("watch") {
        let about = "Go on after this event.";
        let id = ObjectBuilder::from(text())
            .pattern(Some("^([0-9]{1,19}(-[0-9a-f]{8})?)?$"))
            .build();
        added.push(header("Last-Event-ID", about, id));
    }
    if !added.is_empty() {
        operation.parameters.get_or_insert_default().extend(added);
    }
}

/// Every change can be asked for as a dry run.
fn preview(operation: &mut Operation) {
    let shown = Ref::from_schema_name("Preview");
    let responses = &mut operation.responses.responses;
    if let Some(RefOr::T(answer)) = responses.get_mut("200") {
        answer
            .description
            .push_str(" With `dry_run=plan`: what would be done.");
        for content in answer.content.values_mut() {
            if let RefOr::T(content) = content
                && let Some(schema) = content.schema.take()
            {
                content.schema = Some(AnyOfBuilder::new().item(schema).item(shown.clone()).into());
            }
        }
        return;
    }
    let content = ContentBuilder::new()
        .schema(Some(shown))
        .example(Some(examples::preview()))
        .build();
    let answer = ResponseBuilder::new()
        .description("Only with `dry_run=plan`: what would be done. Nothing was.")
        .content("application/json", content)
        .build();
    responses.insert("200".to_owned(), RefOr::T(answer));
}

/// What error statuses mean.
const ERRORS: [(u16, &str); 16] = [
    (
        400,
        "A body, query, header or host that cannot be understood, or in two ways.",
    ),
    (401, "No token, or none that works."),
    (403, "Not with this token's role."),
    (404, "Not there, or not yours."),
    (408, "The body did not arrive in time."),
    (409, "It does not fit what is."),
    (412, "It has changed since it was read."),
    (413, "The body is too long."),
    (414, "Path and query are too long."),
    (415, "The body is of another type."),
    (422, "Understood, and wrong; `errors` names the fields."),
    (
        429,
        "Too many requests of this token are under way, too many came in too short a time (`rate.exceeded`), or too many \
         tasks are unfinished: `tasks.too_many` says whose. `Retry-After` says in how many seconds to ask again.",
    ),
    (431, "Too many headers, or too long ones."),
    (500, "A mistake of the server."),
    (
        503,
        "The store cannot be reached, or too many requests are under way.",
    ),
    (504, "It took too long; it may have happened."),
];

fn errors(form: &Form, operation: &mut Operation) {
    let Form {
        public,
        store,
        joins,
        user,
        change,
        guarded,
        body,
        id,
        below,
        query,
        ..
    } = *form;
    let metrics = operation.operation_id.as_deref() == Some("metrics");
    let login = operation.operation_id.as_deref() == Some("login");
    let limited = !public || metrics || joins || login;
    for (status, _) in ERRORS {
        let can_happen = match status {
            401 | 403 | 503 => limited,
            404 => user || id || login,
            408 | 413 | 415 => body,
            409 => change || joins || (user && below),
            412 => guarded,
            422 => change || joins || store || query,
            _ => true,
        };
        let key = status.to_string();
        if !can_happen || operation.responses.responses.contains_key(&key) {
            continue;
        }
        let response = RefOr::Ref(Ref::from_response_name(name(status)));
        operation.responses.responses.insert(key, response);
    }
}

/// The name of the shared error answer of a status.
fn name(status: u16) -> String {
    format!("Problem{status}")
}

fn shared(status: u16, about: &str) -> RefOr<Response> {
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(Some(examples::problem(status, about)))
        .build();
    let mut response = ResponseBuilder::new()
        .description(about)
        .content("application/problem+json", problem);
    if matches!(status, 429 | 503) {
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .build();
        let wait = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("In how many seconds to ask again."));
        response = response.header("Retry-After", wait.build());
    }
    RefOr::T(response.build())
}
