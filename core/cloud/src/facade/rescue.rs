//! Rescue: into it, out of it, and what it has found.

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{
    Activity, BootFile, DiskFormat, Image, ImageRef, Port, PowerState, Reason, Rescue, RescueMedia,
    Resource as _, Secret, Server, ServerAction, ServerId, ServerSecrets, paths,
};
use skyloom_store::{Guard as StoreGuard, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::create;
use super::server_actions::Ask;
use super::servers::base_image;
use super::timers::timer;
use crate::flows::{PortPlan, RescueParams, StopParams};
use crate::query::MAX_CONSOLE_BYTES;
use crate::rescue::RescueReport;
use crate::{
    Caller, CloudError, FieldError, Result, ServerAccepted, ServerTask, ShownOnce, StartRescue, StopOptions,
    checks, hash,
};

/// The public image that is booted when a request names none.
const USUAL_IMAGE: &str = "rescue";
/// The command line of a kernel when a request names none: the console that is kept, and an end of a panic.
const USUAL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=5 random.trust_cpu=on";
/// Longest command line: what kernels of x86 take.
const MAX_COMMAND_LINE: usize = 2047;
/// Shortest and longest time until a rescue ends by itself, in seconds.
const LASTS: std::ops::RangeInclusive<u32> = 60..=7 * 24 * 3600;

/// What a request names, as it is now.
struct Found {
    media: RescueMedia,
    images: Vec<Versioned<Image>>,
}

impl Cloud {
    /// Boots a server's rescue system: its own disks are data there, its ports and addresses are the same. The password is
    /// root's in the rescue system, shown once.
    ///
    /// # Errors
    /// Those of [`ServerAction::allowed`]; `rescue.no_image`, `rescue.media_unclear`, `command_line.invalid`,
    /// `leave_after_seconds.invalid`, `image.…`, `host.cannot`; `precondition.failed`, `auth.forbidden`.
    pub async fn start_rescue(
        &self,
        caller: &Caller,
        id: ServerId,
        request: StartRescue,
    ) -> Result<ServerAccepted> {
        let action = ServerAction::StartRescue;
        let stop = StopParams {
            force: request.force,
            timeout_seconds: checks::server::stop_timeout(request.timeout_seconds)?,
        };
        check(&request)?;
        if let Some(password) = &request.password {
            checks::password::given(password.expose())?;
        }
        let (password, generated) = match &request.password {
            Some(given) => (given.clone(), None),
            None => {
                let made = checks::password::generate(&*self.parts.ids);
                (Secret::new(made.clone()), Some(made))
            }
        };
        let maker = match generated {
            Some(_) => hash::Maker::Chance,
            None => hash::Maker::Person,
        };
        let hashed = hash::crypt(password, maker, &*self.parts.ids).await?;
        let digest = json!([id, request.told()]);
        let (request, hashed) = (&request, &hashed);
        let done = self
            .once(caller, action.def().name, digest, || {
                async move { self.make_rescue(caller, id, request, stop, hashed.clone()).await }.boxed()
            })
            .await?;
        Ok(ServerAccepted {
            password: generated.filter(|_| done.fresh).map(ShownOnce::new),
            ..done.answer
        })
    }

    async fn make_rescue(
        &self,
        caller: &Caller,
        id: ServerId,
        request: &StartRescue,
        stop: StopParams,
        hashed: String,
    ) -> Result<Change<ServerAccepted>> {
        let def = ServerAction::StartRescue.def();
        let found = self.askable(caller, id, def.action).await?;
        let booted = self.rescue_media(caller, request, &found.value).await?;
        if matches!(booted.media, RescueMedia::Kernel { .. }) {
            self.able(&found.value, "kernel-boot").await?;
        }
        let mut ports = Vec::with_capacity(found.value.spec.ports.len());
        for port in &found.value.spec.ports {
            let port = self.resource::<Port>(found.value.meta.scope, port.uuid()).await?;
            let port = port.ok_or_else(|| CloudError::internal("a port of the server is gone"))?;
            ports.push(PortPlan::of(&port.value));
        }
        let images: Result<Vec<_>> = booted
            .images
            .iter()
            .map(|image| base_image(&image.value))
            .collect();
        let params = json!(RescueParams {
            images: images?,
            ports,
            stop,
        });
        let task = self.task(caller, def.name, &found.value, params);
        let (mut server, now) = (found.value.clone(), self.now());
        server.status.activity = Some(Activity {
            task: task.id,
            flow: task.flow.clone(),
        });
        server.spec.rescue = Some(Rescue {
            media: booted.media,
            former_power: match server.status.power {
                PowerState::Running => PowerState::Running,
                _ => PowerState::Stopped,
            },
            since: now,
            until: request
                .leave_after_seconds
                .map(|seconds| now + Duration::from_secs(u64::from(seconds))),
        });
        server.spec.running = true;
        server.meta.updated_at = now;
        let at = paths::server_secrets(caller.project, id);
        let secrets = match self.read::<ServerSecrets>(&at).await? {
            Some(old) => {
                let rescue_password_hash = Some(hashed);
                old.replace(&ServerSecrets {
                    rescue_password_hash,
                    ..old.value.clone()
                })?
            }
            None => create(
                &at,
                &ServerSecrets {
                    password_hash: String::new(),
                    rescue_password_hash: Some(hashed),
                    user_data: None,
                },
            )?,
        };
        let mut txn = found.replace(&server)?.and(secrets);
        if let Some(until) = server.spec.rescue.as_ref().and_then(|rescue| rescue.until) {
            txn = txn.and(timer(until, server.meta.scope, id)?);
        }
        let made_from: Vec<StoreGuard> = booted.images.iter().map(Versioned::unchanged).collect();
        let answer = ServerAccepted {
            server,
            task: task.clone(),
            password: None,
        };
        Ok(Change::new(txn, answer)
            .task(task)
            .made_from(made_from)
            .told(def.permission, &found.value.meta))
    }

    /// Boots a server from its own disks again: on or off, as it was before the rescue.
    ///
    /// # Errors
    /// Those of [`ServerAction::allowed`]; `timeout.invalid`, `precondition.failed`, `auth.forbidden`.
    pub async fn stop_rescue(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        let ask = Ask {
            action: ServerAction::StopRescue,
            flow: None,
            params: json!(StopParams {
                force: options.force,
                timeout_seconds: checks::server::stop_timeout(options.timeout_seconds)?,
            }),
            request: json!(options),
            want: |server| {
                server.spec.running = server
                    .spec
                    .rescue
                    .as_ref()
                    .is_some_and(|rescue| rescue.former_power == PowerState::Running);
            },
        };
        self.ask(caller, id, ask).await
    }

    /// What the rescue system has found on the server's disks, read from its serial console.
    ///
    /// # Errors
    /// `server.not_rescued`, and those of [`Cloud::console_tail`].
    pub async fn rescue_report(&self, caller: &Caller, id: ServerId) -> Result<RescueReport> {
        let server = self
            .own::<Server>(caller, "server:console", id.uuid())
            .await?
            .value;
        if !server.status.overlays.rescued {
            let reason = Reason::new("server.not_rescued", "the server is not in rescue mode");
            return Err(CloudError::conflict(reason.hint("start its rescue first")));
        }
        let text = self.console_tail(caller, id, MAX_CONSOLE_BYTES).await?;
        Ok(RescueReport::parse(text.as_bytes()))
    }

    /// The images that a request names, as the rescue's medium.
    async fn rescue_media(&self, caller: &Caller, request: &StartRescue, server: &Server) -> Result<Found> {
        let Some(kernel) = &request.kernel else {
            let asked = request.image.as_deref().unwrap_or(USUAL_IMAGE);
            let image = self.rescue_image(caller, "image", asked, server).await?;
            if !image.value.spec.format.is_disk() {
                let message = format!("{} is no disk", image.value.meta.name);
                return Err(CloudError::field(FieldError::new(
                    "image",
                    "rescue.wrong_format",
                    message,
                )));
            }
            let media = RescueMedia::Image {
                image: image_ref(&image.value),
            };
            return Ok(Found {
                media,
                images: vec![image],
            });
        };
        let image = self.rescue_image(caller, "kernel", kernel, server).await?;
        let kernel = boot_file("kernel", &image.value, DiskFormat::Kernel)?;
        let (mut images, mut initrd) = (vec![image], None);
        if let Some(asked) = &request.initrd {
            let image = self.rescue_image(caller, "initrd", asked, server).await?;
            initrd = Some(boot_file("initrd", &image.value, DiskFormat::Initrd)?);
            images.push(image);
        }
        let media = RescueMedia::Kernel {
            kernel,
            initrd,
            command_line: request
                .command_line
                .clone()
                .unwrap_or_else(|| USUAL_COMMAND_LINE.to_owned()),
        };
        Ok(Found { media, images })
    }

    async fn rescue_image(
        &self,
        caller: &Caller,
        field: &'static str,
        asked: &str,
        server: &Server,
    ) -> Result<Versioned<Image>> {
        let found = self.image_by_id_or_name(caller, asked).await?;
        if found.is_none() && field == "image" && asked == USUAL_IMAGE {
            let message = format!("the request names no image, and there is none of the name {USUAL_IMAGE}");
            let reason = Reason::new("rescue.no_image", message);
            return Err(CloudError::invalid(
                reason.hint("name an image, or ask an operator to make that one public"),
            ));
        }
        let image = checks::found(field, "image", asked, found)?;
        checks::image::boots(&image.value, &server.spec.flavor.spec)?;
        Ok(image)
    }
}

/// Fields that are wrong by themselves.
fn check(request: &StartRescue) -> Result<()> {
    let mut errors = Vec::new();
    let of_kernel = request.initrd.is_some() || request.command_line.is_some();
    if (request.kernel.is_some() && request.image.is_some()) || (request.kernel.is_none() && of_kernel) {
        let message = "name an image, or a kernel with what belongs to it";
        errors.push(FieldError::new("kernel", "rescue.media_unclear", message));
    }
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    if request
        .command_line
        .as_ref()
        .is_some_and(|line| line.len() > MAX_COMMAND_LINE || !line.chars().all(plain))
    {
        let message = format!("at most {MAX_COMMAND_LINE} printable characters of ASCII");
        errors.push(FieldError::new("command_line", "command_line.invalid", message));
    }
    if request
        .leave_after_seconds
        .is_some_and(|seconds| !LASTS.contains(&seconds))
    {
        let message = format!("{} to {} seconds", LASTS.start(), LASTS.end());
        errors.push(FieldError::new(
            "leave_after_seconds",
            "leave_after_seconds.invalid",
            message,
        ));
    }
    CloudError::fields(errors).map_or(Ok(()), Err)
}

fn image_ref(image: &Image) -> ImageRef {
    ImageRef {
        id: image.id(),
        name: image.meta.name.clone(),
    }
}

/// A file that is loaded into a guest's memory.
fn boot_file(field: &'static str, image: &Image, format: DiskFormat) -> Result<BootFile> {
    if image.spec.format != format {
        let message = format!(
            "{} is of format {}, not {}",
            image.meta.name,
            image.spec.format.as_str(),
            format.as_str()
        );
        return Err(CloudError::field(FieldError::new(
            field,
            "rescue.wrong_format",
            message,
        )));
    }
    let base = base_image(image)?;
    Ok(BootFile {
        image: image_ref(image),
        sha256: base.sha256,
        size_bytes: base.size_bytes,
    })
}
