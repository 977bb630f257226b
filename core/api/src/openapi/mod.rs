//! The OpenAPI 3.1 document: from the handlers and their types, completed by rules and checked examples.

mod examples;
mod fields;
mod permissions;
mod rules;

use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::problem::Problem;
use crate::routes;
use skyloom_cloud::Preview;

/// What stands in no handler.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Skyloom",
        description = "Private clouds: servers, images, and the tasks that change them. Errors are RFC 9457 problem \
                       documents. Changes that take time answer 202 with a task to follow. Every change can be \
                       asked for with `?dry_run=plan`: then nothing is done, and the answer is 200 with what would be \
                       done. Every answer has an \
                       `X-Request-Id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem, Preview)),
    tags(
        (name = "servers", description = "Virtual machines."),
        (name = "placement", description = "Whether servers that are not made would fit, why, and how many."),
        (name = "flavors", description = "Sizes of servers."),
        (name = "images", description = "What root disks are made from."),
        (name = "keypairs", description = "Public SSH keys."),
        (name = "volumes", description = "Disks that outlive servers."),
        (name = "snapshots", description = "What disks were at one moment."),
        (name = "networks", description = "Ethernet segments of projects."),
        (name = "subnets", description = "Ranges of addresses of networks."),
        (name = "ports", description = "The NICs of servers, and those that are to be."),
        (name = "security-groups", description = "What may reach ports, and what they may reach."),
        (name = "tasks", description = "What was asked for and how far it is."),
        (name = "plans", description = "What dry runs have shown, and can be applied."),
        (name = "events", description = "What happened."),
        (name = "watch", description = "Changes as they happen."),
        (name = "kinds", description = "States, and what can be asked in each."),
        (name = "hosts", description = "The machines that run servers."),
        (name = "hold", description = "Whether the fleet is held."),
        (name = "projects", description = "The units of tenancy."),
        (name = "auth", description = "Logging in and out, and who one is."),
        (name = "domains", description = "Organisations, each with users, groups and projects of its own."),
        (name = "users", description = "People and programs, and what they prove themselves with."),
        (name = "groups", description = "Users who are given roles together."),
        (name = "roles", description = "Lists of what is allowed."),
        (name = "grants", description = "Who has which role where."),
        (name = "trusts", description = "Delegations of roles from one user to another."),
        (name = "quotas", description = "How much may be used, and how much is."),
        (name = "audit", description = "What was done, by whom, to what, and how it ended. For auditors."),
        (name = "policy", description = "What permissions there are, and why something is allowed or not."),
        (name = "tokens", description = "Who may call."),
        (name = "store", description = "The store protocol, for engines and agents."),
        (name = "health", description = "Health, metrics, versions."),
    )
)]
struct Base;

/// The OpenAPI 3.1 document of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let routes = OpenApiRouter::with_openapi(Base::openapi())
        .merge(routes::timed())
        .merge(routes::untimed())
        .merge(routes::public());
    let mut document = routes.into_openapi();
    rules::complete(&mut document);
    document
}
