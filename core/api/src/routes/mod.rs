//! All routes, a file for each kind of thing. Handlers are thin: take apart, call the facade, put together.

mod events;
mod flavors;
mod health;
mod hold;
mod hosts;
mod hosts_join;
mod identity;
mod images;
mod keypairs;
pub(crate) mod kinds;
mod networks;
mod placement;
mod plans;
mod ports;
mod projects;
mod rescue;
mod security_groups;
mod server_access;
mod server_actions;
mod server_changes;
mod servers;
mod snapshots;
mod store;
mod subnets;
mod tasks;
mod volumes;
mod watch;

use utoipa_axum::router::OpenApiRouter;

use crate::parts::AppState;

/// Routes without a token.
pub(crate) fn public() -> OpenApiRouter<AppState> {
    health::router()
        .merge(hosts_join::public())
        .merge(identity::public())
}

/// Routes with a token whose answers begin in bounded time.
pub(crate) fn timed() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(servers::router())
        .merge(server_access::router())
        .merge(server_actions::router())
        .merge(server_changes::router())
        .merge(rescue::router())
        .merge(placement::router())
        .merge(flavors::router())
        .merge(images::router())
        .merge(keypairs::router())
        .merge(ports::router())
        .merge(networks::router())
        .merge(subnets::router())
        .merge(security_groups::router())
        .merge(volumes::router())
        .merge(snapshots::router())
        .merge(hosts::router())
        .merge(hosts_join::router())
        .merge(hold::router())
        .merge(tasks::router())
        .merge(events::router())
        .merge(plans::router())
        .merge(kinds::router())
        .merge(projects::router())
        .merge(identity::router())
        .merge(watch::router())
        .merge(store::router())
}

/// Routes with a token that last as long as what the client sends.
pub(crate) fn untimed() -> OpenApiRouter<AppState> {
    images::content_router()
}
