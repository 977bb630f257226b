//! Another size of a server, and the way back.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{
    Activity, Flavor, FlavorRef, Host, Reason, Resize, Resource as _, Scope, Server, ServerAction, ServerId,
};

use super::Cloud;
use super::once::Change;
use super::server_actions::Ask;
use crate::flows::{ResizeParams, StopParams};
use crate::{Caller, CloudError, FieldError, ResizeServer, Result, ServerTask, StopOptions, amounts, checks};

/// After how many seconds a resize confirms itself when the request does not say.
const CONFIRMED_AFTER: u32 = 24 * 3600;
/// Longest and shortest such time.
const CONFIRMS: std::ops::RangeInclusive<u32> = 60..=30 * 24 * 3600;

impl Cloud {
    /// Gives a server another flavor on its host. It waits then to be confirmed or taken back; what both sizes take at most is charged
    /// until then.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `flavor.not_found`, `flavor.same`, `flavor.disk_smaller`, `quota.exceeded`, `server.has_snapshots`,
    /// `confirm_after_seconds.invalid`, `timeout.invalid`.
    pub async fn resize_server(
        &self,
        caller: &Caller,
        id: ServerId,
        request: ResizeServer,
    ) -> Result<ServerTask> {
        let stop = StopParams {
            force: request.force,
            timeout_seconds: checks::server::stop_timeout(request.timeout_seconds)?,
        };
        let confirm_after_seconds = request.confirm_after_seconds.unwrap_or(CONFIRMED_AFTER);
        if confirm_after_seconds != 0 && !CONFIRMS.contains(&confirm_after_seconds) {
            let message = format!("0, or {} to {} seconds", CONFIRMS.start(), CONFIRMS.end());
            let code = "confirm_after_seconds.invalid";
            return Err(CloudError::field(FieldError::new(
                "confirm_after_seconds",
                code,
                message,
            )));
        }
        let def = ServerAction::Resize.def();
        let request = &request;
        let done = self
            .once(caller, def.name, json!([id, request]), || {
                async move {
                    let found = self.askable(caller, id, def.action).await?;
                    self.no_snapshots(caller, &found.value).await?;
                    let mut server = found.value.clone();
                    let flavor = self
                        .by_id_or_name::<Flavor>(Scope::System, &request.flavor)
                        .await?
                        .filter(|f| caller.may_to("flavor:read", &f.value.meta).is_ok());
                    let flavor = checks::found("flavor", "flavor", &request.flavor, flavor)?;
                    let wanted = FlavorRef {
                        id: flavor.value.id(),
                        name: flavor.value.meta.name.clone(),
                        spec: flavor.value.spec.clone(),
                    };
                    let own_disk = server.spec.boot_volume.is_none();
                    fits(&server.spec.flavor, &wanted, own_disk)?;
                    if own_disk && wanted.spec.resources.disk_gib > server.spec.flavor.spec.resources.disk_gib
                    {
                        self.able(&server, "hotplug").await?;
                    }
                    let params = ResizeParams {
                        stop,
                        architecture: self.architecture_of(&server).await?,
                        confirm_after_seconds,
                    };
                    let task = self.task(caller, def.name, &server, json!(params));
                    server.status.activity = Some(Activity {
                        task: task.id,
                        flow: task.flow.clone(),
                    });
                    server.status.resize = Some(Resize {
                        former: std::mem::replace(&mut server.spec.flavor, wanted),
                        since: self.now(),
                        confirm_at: None,
                    });
                    server.meta.updated_at = self.now();
                    let more = amounts::of_size(server.reserved().minus(found.value.reserved()));
                    let txn = found.replace(&server)?;
                    let answer = ServerTask {
                        server,
                        task: task.clone(),
                    };
                    let change = Change::new(txn, answer)
                        .task(task)
                        // The flavor must not be deleted between the check and the commit.
                        .made_from(vec![flavor.unchanged()])
                        .told(def.permission, &found.value.meta);
                    Ok(if more.is_empty() {
                        change
                    } else {
                        change.charge(more)
                    })
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Takes a resize back that was not confirmed yet.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `server.not_resized`, `server.has_snapshots`, `timeout.invalid`.
    pub async fn revert_resize(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        let ask = Ask {
            action: ServerAction::RevertResize,
            flow: None,
            params: json!(StopParams {
                force: options.force,
                timeout_seconds: checks::server::stop_timeout(options.timeout_seconds)?,
            }),
            request: json!(options),
            want: |_| {},
        };
        self.ask(caller, id, ask).await
    }

    /// The CPU architecture of a server's host.
    pub(super) async fn architecture_of(&self, server: &Server) -> Result<String> {
        let host = match &server.status.placement {
            Some(placement) => {
                self.resource::<Host>(Scope::System, placement.host.uuid())
                    .await?
            }
            None => None,
        };
        let facts = host.and_then(|host| host.value.status.facts);
        facts.map(|facts| facts.architecture).ok_or_else(|| {
            let reason = Reason::new("host.unknown", "the server's host has never reported");
            CloudError::conflict(reason)
        })
    }
}

/// Whether a server of one flavor can be made of another; of `own_disk`, its root disk is not a volume.
fn fits(now: &FlavorRef, wanted: &FlavorRef, own_disk: bool) -> Result<()> {
    let refuse =
        |code: &str, message: String| Err(CloudError::field(FieldError::new("flavor", code, message)));
    if now.spec == wanted.spec {
        return refuse("flavor.same", format!("the server is of this size: {}", now.name));
    }
    let (has, gets) = (now.spec.resources.disk_gib, wanted.spec.resources.disk_gib);
    if own_disk && gets < has {
        return refuse(
            "flavor.disk_smaller",
            format!("the root disk has {has} GiB, the flavor {gets}: disks never shrink"),
        );
    }
    Ok(())
}
