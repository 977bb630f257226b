//! Rebuilding a server: a new root disk over another image, with id, addresses and volumes as they are.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Activity, Reason, ServerAction, ServerId};

use super::Cloud;
use super::once::Change;
use super::server_actions::Ask;
use super::servers::base_image;
use crate::flows::{RebuildParams, StopParams};
use crate::{Caller, CloudError, RebuildServer, Result, ServerTask, checks};

impl Cloud {
    /// Makes a server's root disk anew over an image: the same as before, where none is named. A guest that runs is asked to turn
    /// itself off first.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `image.not_found`, `image.…`, `server.has_snapshots`, `server.boots_from_volume`, `timeout.invalid`.
    pub async fn rebuild_server(
        &self,
        caller: &Caller,
        id: ServerId,
        request: RebuildServer,
    ) -> Result<ServerTask> {
        let stop = StopParams {
            force: request.force,
            timeout_seconds: checks::server::stop_timeout(request.timeout_seconds)?,
        };
        let def = ServerAction::Rebuild.def();
        let request = &request;
        let done = self
            .once(caller, def.name, json!([id, request]), || {
                async move {
                    let found = self.askable(caller, id, def.action).await?;
                    if found.value.spec.boot_volume.is_some() {
                        let reason =
                            Reason::new("server.boots_from_volume", "it has no root disk of its own");
                        let hint = "make a volume of the image, and a server that boots from it";
                        return Err(CloudError::conflict(reason.hint(hint)));
                    }
                    self.no_snapshots(caller, &found.value).await?;
                    let mut server = found.value.clone();
                    let asked = match &request.image {
                        Some(asked) => asked.clone(),
                        None => server.spec.image.id.to_string(),
                    };
                    let image = self.image_by_id_or_name(caller, &asked).await?;
                    let image = checks::found("image", "image", &asked, image)?;
                    checks::image::usable(&image.value, &server.spec.flavor.spec)?;
                    let params = RebuildParams {
                        image: base_image(&image.value)?,
                        // Orders are numbered, so no two disks of a server ever have one name.
                        disk: format!("root-{}", server.meta.generation + 1),
                        stop,
                    };
                    let task = self.task(caller, def.name, &server, json!(params));
                    server.status.activity = Some(Activity {
                        task: task.id,
                        flow: task.flow.clone(),
                    });
                    server.meta.updated_at = self.now();
                    // The image must not be deleted between the check and the commit.
                    let txn = found.replace(&server)?.guard(image.unchanged());
                    let answer = ServerTask {
                        server,
                        task: task.clone(),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told(def.permission, &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Deletes the disks that a server is no longer made of.
    pub(super) async fn tidy_server(&self, caller: &Caller, id: ServerId) -> Result<ServerTask> {
        let tidy = Ask {
            action: ServerAction::Rebuild,
            flow: Some("server.tidy"),
            params: json!({}),
            request: json!("tidy"),
            want: |_| {},
        };
        self.ask(caller, id, tidy).await
    }
}
