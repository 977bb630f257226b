//! Every operation of the document x every built-in role (and none) x an own and a foreign object: what the server answers is what the policy
//! says. An operation without a permission in the document fails the test.
//!
//! The policy is asked with the rights of the very token: allowed is anything but 401, 403 and 404; forbidden is 403; hidden is 404. What it says is
//! narrowed in one place only: application credentials and second factors are made by the user alone.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value as Json, json};
use skyloom_identity::{
    Actor, AuthScope, Authenticator as _, BuiltIn, Covered, DEFAULT_DOMAIN, DomainId, Effect, Identified,
    LogIn, Object, Place, Principal, Proof, Rights, ScopeAsked, Target, UserId, UserRef,
};
use skyloom_model::{ProjectId, Secret};
use uuid::Uuid;

use crate::harness::{Api, operations};
use crate::resources::active_image_in;

/// What lies in one project and its domain.
struct World {
    domain: DomainId,
    project: ProjectId,
    /// By the name of the path's part: `servers`, `users`, …
    ids: BTreeMap<&'static str, String>,
    user: UserId,
}

struct Role {
    name: String,
    bearer: String,
    rights: Rights,
}

const PASSWORD: &str = "correct horse battery";

async fn change<T>(
    api: &Api,
    build: impl Fn(&skyloom_identity::Edit<'_>) -> skyloom_identity::ChangeResult<skyloom_identity::Draft<T>>,
) -> T {
    api.identity.editor().change(build).await.expect("a change")
}

fn root() -> Principal {
    (*Rights::of_the_cloud().expect("rights").principal).clone()
}

async fn user(api: &Api, domain: DomainId, name: &str) -> UserId {
    let by = root();
    let call = skyloom_identity::Call {
        by: &by,
        source: None,
        request_id: "req-test",
    };
    let password = Some(Secret::new(PASSWORD.to_owned()));
    let made = api
        .identity
        .create_user(&call, domain, name, password, |_| {})
        .await;
    made.expect("a user").id
}

/// Logs a user in: what is a user's own can be changed by the user itself alone.
async fn role(api: &Api, name: String, user: UserId, scope: ScopeAsked) -> Role {
    let proof = Proof::Password {
        user: UserRef::Id(user),
        password: Secret::new(PASSWORD.to_owned()),
    };
    let session = api
        .identity
        .log_in(LogIn::new(vec![proof], scope), "192.0.2.1")
        .await
        .expect("a session");
    let bearer = session.token.expose().clone();
    let Ok(Identified::Person(rights)) = api.identity.authenticate(&bearer, "192.0.2.1").await else {
        panic!("{name} is not let in");
    };
    Role { name, bearer, rights }
}

/// One of everything in a project and its domain.
async fn world(api: &Api, domain: DomainId, project: ProjectId, name: &str) -> World {
    let image = active_image_in(api, "tiny", project).await;
    let user = user(api, domain, &format!("somebody-{name}")).await;
    let group = change(api, |edit| edit.create_group(domain, name, |_| {}))
        .await
        .id;
    let role = change(api, |edit| edit.create_role(Some(domain), name, |_| {}))
        .await
        .id;
    let target = Target::Project(project);
    change(api, |edit| {
        edit.grant(target, Actor::User(user), BuiltIn::Member.id(), false)
    })
    .await;
    let at = api.identity.directory().snapshot();
    let by = Principal {
        user,
        domain,
        scope: AuthScope::Project(project),
        roles: at.effective_roles(user, AuthScope::Project(project)),
        ..root()
    };
    let trust = skyloom_identity::NewTrust {
        trustee: skyloom_identity::FIRST_ADMIN,
        project: Some(project),
        roles: None,
        impersonation: false,
        remaining_uses: None,
        redelegation_count: 0,
        expires_at: None,
    };
    let trust = change(api, |edit| edit.create_trust(&by, trust.clone())).await.id;
    let secret = api.identity.new_secret();
    let asked = skyloom_identity::NewApplicationCredential {
        name: name.to_owned(),
        description: String::new(),
        roles: None,
        secret_hash: secret.hash.clone(),
        expires_at: None,
        unrestricted: false,
        access_rules: Vec::new(),
        permissions: Vec::new(),
    };
    let credential = change(api, |edit| edit.create_application_credential(&by, asked.clone()))
        .await
        .id;
    let token = skyloom_identity::NewApiToken {
        name: name.to_owned(),
        holder: skyloom_identity::Holder::User {
            user,
            scope: AuthScope::Project(project),
            permissions: Vec::new(),
        },
        expires_at: None,
    };
    let token = change(api, |edit| {
        edit.create_token(&by, token.clone(), &api.identity.new_secret())
    })
    .await
    .id;
    let mut ids = BTreeMap::from([
        ("users", user.to_string()),
        ("user", user.to_string()),
        ("groups", group.to_string()),
        ("roles", role.to_string()),
        ("role", BuiltIn::Reader.id().to_string()),
        ("trusts", trust.to_string()),
        ("credential", credential.to_string()),
        ("tokens", token.to_string()),
        ("domains", domain.to_string()),
        ("projects", project.to_string()),
        ("quotas", project.to_string()),
        ("images", image.to_string()),
        ("name", "server".to_owned()),
    ]);
    let within = |method: &'static str, path: &'static str, body: Json| {
        let call = api.call(method, path, &api.admin);
        call.header("x-skyloom-project", &project.to_string()).json(body)
    };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna";
    let made = within("POST", "/v1/keypairs", json!({"name": name, "public_key": key}))
        .await
        .ok(201);
    ids.insert(
        "keypairs",
        made.json["meta"]["id"].as_str().expect("an id").to_owned(),
    );
    let server = json!({"name": name, "image": "tiny", "flavor": "m1.tiny"});
    let made = within("POST", "/v1/servers", server.clone()).await.ok(202);
    ids.insert(
        "servers",
        made.json["server"]["meta"]["id"]
            .as_str()
            .expect("an id")
            .to_owned(),
    );
    ids.insert(
        "tasks",
        made.json["task"]["meta"]["id"]
            .as_str()
            .or(made.json["task"]["id"].as_str())
            .expect("an id")
            .to_owned(),
    );
    World {
        domain,
        project,
        ids,
        user,
    }
}

/// The path with the ids of a world; those of things that are not in it are of nobody.
fn filled(path: &str, world: &World) -> (String, bool) {
    let (mut filled, mut before, mut all) = (Vec::new(), "", true);
    for part in path.split('/') {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            None => {
                filled.push(part.to_owned());
                before = part;
            }
            Some(name) => {
                let id = world.ids.get(if name == "id" { before } else { name });
                all &= id.is_some();
                filled.push(id.cloned().unwrap_or_else(|| Uuid::from_u128(7).to_string()));
            }
        }
    }
    (filled.join("/"), all)
}

/// Kinds that the facade keeps by project.
fn in_projects(kind: &str) -> bool {
    matches!(
        kind,
        "server"
            | "keypair"
            | "image"
            | "network"
            | "subnet"
            | "port"
            | "security-group"
            | "volume"
            | "snapshot"
            | "task"
            | "plan"
            | "event"
            | "watch"
    )
}

/// Where what an operation is about lies, and whose it is.
fn effect(
    role: &Role,
    permission: &str,
    world: &World,
    path: &str,
    labels: &BTreeMap<String, String>,
) -> Effect {
    let kind = permission.split(':').next().expect("a kind");
    let known = role
        .rights
        .permission(permission)
        .expect("a permission of the table");
    let lineage = role.rights.projects.lineage(world.project).expect("a project");
    let collection = !path.contains('{');
    let place = match kind {
        kind if in_projects(kind) => lineage.place(world.project),
        "project" if !collection => lineage.place(world.project),
        "quota" if permission != "quota:recount" => lineage.place(world.project),
        "grant" => lineage.place(world.project),
        "flavor" | "kind" | "catalog" | "policy" if permission.ends_with(":read") => Place::Shared,
        "role" if path.ends_with("/roles") && permission == "role:create" => Place::System,
        "domain" if permission == "domain:create" => Place::System,
        "user" | "group" | "role" | "domain" | "credential" | "token" | "trust" | "project" | "policy" => {
            Place::Domain(world.domain)
        }
        _ => Place::System,
    };
    let mut object = if collection {
        Object::all(kind, place)
    } else {
        Object::one(kind, place)
    };
    object = object.labelled(labels);
    if matches!(kind, "user" | "credential" | "token" | "trust" | "grant") && !collection {
        object = object.owned_by(world.user);
    }
    let own = ["/me/", "/v1/policy/actions", "/v1/trusts", "/v1/tokens"];
    if matches!(kind, "user" | "credential" | "token" | "trust" | "policy")
        && (path.contains(own[0]) || (collection && own[1..].iter().any(|own| path.starts_with(own))))
    {
        object = object.owned_by(role.rights.principal.user);
    }
    role.rights.decide(known, &object).effect
}

/// Whether a list by that permission shows anything.
fn lists(role: &Role, permission: &str) -> bool {
    let coverage = role
        .rights
        .coverage(role.rights.permission(permission).expect("a permission"));
    let kind = permission.split(':').next().unwrap_or_default();
    // What only who runs the cloud has lies in no project or domain, and is not for all to see.
    if matches!(kind, "hold" | "host" | "metrics") {
        return coverage.scope == Covered::All;
    }
    coverage.scope != Covered::Nothing || coverage.shared || coverage.own.is_some()
}

/// That the answer is about something which is not there in this world, for whoever may do it.
fn absent(operation: &str, code: &str) -> bool {
    matches!(
        (operation, code),
        ("delete_grant", "grant.not_found")
            | ("remove_member", "membership.not_found")
            | ("unimply_role", "implication.not_found")
            | ("download_image", "image.not_found")
            | ("create_volume" | "create_snapshot", "server.not_found")
    )
}

/// A body that is understood, about what is in the world.
fn body(operation: &str, example: &Json, world: &World) -> Json {
    match operation {
        "create_grant" => json!({
            "role": BuiltIn::Reader.id(), "user": world.user, "project": world.project,
        }),
        "create_trust" => json!({"trustee": world.user}),
        "create_project" => json!({"name": "new", "domain": world.domain}),
        "create_user" | "create_group" => json!({"name": "new", "domain": world.domain}),
        "create_role" => json!({"name": "new"}),
        "create_credential" => json!({"name": "new"}),
        "create_token" => json!({"name": "new"}),
        "explain_policy" => json!({"permission": "server:read", "project": world.project}),
        "set_quota" => json!({"limits": {"servers": 1000}}),
        "verify_audit" => json!({}),
        "update_domain" | "update_project" | "update_user" | "update_group" | "update_role" => json!({}),
        _ => example.clone(),
    }
}

#[tokio::test]
async fn the_server_answers_as_the_policy_says() {
    let api = Api::new().await;
    let other = change(&api, |edit| edit.create_domain("other", |_| {})).await.id;
    let theirs = change(&api, |edit| edit.create_project(other, None, "theirs", |_| {})).await;
    let own = world(&api, DEFAULT_DOMAIN, api.project, "own").await;
    let foreign = world(&api, other, ProjectId::from_uuid(theirs.meta.id), "foreign").await;

    let mut roles = Vec::new();
    for built_in in BuiltIn::ALL {
        let places = [
            ("project", Target::Project(api.project), in_project(api.project)),
            ("system", Target::System, ScopeAsked::System),
        ];
        for (place, target, scope) in places {
            let name = format!("{}-{place}", built_in.name());
            let who = user(&api, DEFAULT_DOMAIN, &name).await;
            change(&api, |edit| {
                edit.grant(target, Actor::User(who), built_in.id(), false)
            })
            .await;
            roles.push(role(&api, name, who, scope).await);
        }
    }
    let nobody = user(&api, DEFAULT_DOMAIN, "nobody").await;
    roles.push(role(&api, "nobody".to_owned(), nobody, ScopeAsked::Unscoped).await);

    let (mut wrong, mut asked) = (Vec::new(), 0);
    for (method, path, operation) in operations() {
        let id = operation["operationId"].as_str().expect("an operation id");
        let Some(permission) = operation["x-skyloom-permission"].as_str() else {
            wrong.push(format!("{method} {path} ({id}) has no permission in the table"));
            continue;
        };
        // Streams without an end, and what ends the session that asks; both have tests of their own.
        if ["public", "watch", "follow_task", "store_watch", "logout"].contains(&id) || permission == "public"
        {
            continue;
        }
        for role in &roles {
            for (world, whose) in [(&own, "own"), (&foreign, "foreign")] {
                let kind = permission.split(':').next().unwrap_or_default();
                let system = role.rights.principal.scope == AuthScope::System;
                if whose == "foreign" && (!path.contains('{') || kind == "kind") && !foreign_matters(id) {
                    continue;
                }
                let (filled, all) = filled(path, world);
                // Of kinds of which there is none here, nothing can be said but that nobody gets at it.
                if !all {
                    continue;
                }
                let expected = match permission {
                    "any" => Effect::Allow,
                    // The store protocol: engines, agents, and who may use the store past all rules.
                    "machine" if path.starts_with("/v1/store/") => {
                        effect(role, "store:use", world, path, &BTreeMap::new())
                    }
                    "machine" => Effect::Forbidden,
                    _ if id == "create_credential" && role.rights.principal.user != world.user => {
                        match effect(role, permission, world, path, &BTreeMap::new()) {
                            Effect::Hidden => Effect::Hidden,
                            Effect::Allow | Effect::Forbidden => Effect::Forbidden,
                        }
                    }
                    _ if !path.contains('{') && method == "GET" && permission.ends_with(":read") => {
                        if lists(role, permission) {
                            Effect::Allow
                        } else {
                            Effect::Forbidden
                        }
                    }
                    _ => {
                        let labels = match kind {
                            "grant" => BTreeMap::from([(
                                skyloom_identity::GRANTED_ROLE.to_owned(),
                                granted(id).name().to_owned(),
                            )]),
                            _ => BTreeMap::new(),
                        };
                        effect(role, permission, world, path, &labels)
                    }
                };
                let identity = operation["tags"][0].as_str().is_some_and(immediate);
                let mut target = filled.clone();
                if id == "delete_grant" {
                    let (role, user) = (granted(id).id(), world.user);
                    target = format!("{target}?role={role}&user={user}&project={}", world.project);
                } else if method != "GET" && !identity && !path.starts_with("/v1/store/") {
                    target.push_str("?dry_run=plan");
                }
                let mut call = api.call(&method, &target, &role.bearer);
                if method != "GET" && path.contains('{') {
                    // It is looked at after it has been allowed, and spares what the next role asks about.
                    call = call.header("if-match", "\"1\"");
                }
                if system && in_projects(kind) {
                    call = call.header("x-skyloom-project", &world.project.to_string());
                }
                let examples = operation["requestBody"]["content"].as_object();
                let example = examples
                    .and_then(|all| all.get("application/json"))
                    .map(|c| c["example"].clone());
                let answer = match example {
                    Some(example) => call.json(body(id, &example, world)).await,
                    None if id == "upload_image" => {
                        let call = call.header("content-type", "application/octet-stream");
                        call.body("content").send().await
                    }
                    None => call.send().await,
                };
                asked += 1;
                let nowhere = role.rights.principal.scope == AuthScope::None && in_projects(kind);
                let fits = match expected {
                    Effect::Allow => {
                        ![401, 403, 404].contains(&answer.status.as_u16()) || absent(id, answer.code())
                    }
                    // Without a scope there is no project to be refused in.
                    Effect::Forbidden | Effect::Hidden if nowhere && answer.code() == "project.missing" => {
                        true
                    }
                    Effect::Forbidden if permission == "machine" && path.starts_with("/v1/join") => {
                        answer.code() == "certificate.required"
                    }
                    Effect::Forbidden => answer.status == StatusCode::FORBIDDEN,
                    Effect::Hidden => answer.status == StatusCode::NOT_FOUND,
                };
                if !fits {
                    let (status, code) = (answer.status.as_u16(), answer.code().to_owned());
                    wrong.push(format!(
                        "{method} {path} ({permission}) as {} on {whose}: {expected:?} by the policy, {status} {code}",
                        role.name
                    ));
                }
            }
        }
    }
    assert!(asked > 1000, "only {asked} requests");
    assert!(
        wrong.is_empty(),
        "{} of {asked}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The role that grants are made and taken back of: nobody has the second one.
fn granted(operation: &str) -> BuiltIn {
    if operation == "delete_grant" {
        BuiltIn::Auditor
    } else {
        BuiltIn::Reader
    }
}

fn in_project(project: ProjectId) -> ScopeAsked {
    ScopeAsked::Project(skyloom_identity::ProjectRef::Id(project))
}

/// Operations without an id in their path that name something in their body or query.
fn foreign_matters(operation: &str) -> bool {
    matches!(
        operation,
        "create_grant" | "delete_grant" | "create_user" | "create_group" | "create_project"
    )
}

/// Tags whose changes happen at once, without a plan to be shown.
fn immediate(tag: &str) -> bool {
    [
        "auth", "domains", "projects", "users", "groups", "roles", "grants", "trusts", "tokens", "quotas",
        "audit", "policy",
    ]
    .contains(&tag)
}
