//! Images: registering, sending content, reading it, deleting. Public ones lie in the cloud's own scope, so that a list
//! is the project's own and those, and nothing else is looked at.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::{Object, Place};
use skyloom_model::{
    HostId, Image, ImageId, ImageSource, ImageSpec, ImageState, ImageStatus, JobRecord, JobState, JobWant,
    Meta, Name, Reason, Resource as _, Scope, Server, Task, paths,
};
use skyloom_store::{ListOptions, Prefix, Table, Versioned};
use uuid::Uuid;

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, precondition, prefix};
use crate::flows::ImportParams;
use crate::images::{ByteStream, Measured, PublishedContent, RepoError};
use crate::jobs::{CacheInput, SendInput};
use crate::{
    Caller, CloudError, CreateImage, ErrorKind, ImageAccepted, ListQuery, Listed, Result, amounts, checks,
};

/// Images that a look-up by name looks at.
const MAX_NAME_SCAN: usize = 5000;

impl Cloud {
    /// Registers an image. With a URL its import begins at once, with a server, volume or snapshot the copy of that disk; without
    /// any it waits for [`Cloud::upload_image`].
    ///
    /// # Errors
    /// `source.ambiguous`, `format.invalid`, `image.not_shared`, those of [`Cloud::create_volume`] about sources and of
    /// [`Cloud::attach_volume`] about states; `name.invalid`, `image.sha256_invalid`, `image.url_invalid`, `image.architecture_unsupported`, `auth.forbidden`.
    pub async fn create_image(&self, caller: &Caller, request: CreateImage) -> Result<ImageAccepted> {
        let place = if request.public {
            Place::Shared
        } else {
            caller.here()?
        };
        let wanted = Object::all("image", place).labelled(&request.labels);
        caller.may("image:create", &wanted)?;
        if request.public {
            caller.may("image:publish", &wanted)?;
        }
        let mut errors = checks::image::registration(&request);
        let name = checks::text::name("name", &request.name)
            .map_err(|e| errors.push(e))
            .ok();
        if let Some(error) = CloudError::fields(errors) {
            return Err(error);
        }
        let name = name.ok_or_else(|| CloudError::internal("a name without an error"))?;
        let done = self
            .once(caller, "images.create", json!(request), || {
                let (request, name) = (&request, &name);
                async move {
                    if [
                        request.server.is_some(),
                        request.volume.is_some(),
                        request.snapshot.is_some(),
                    ]
                    .contains(&true)
                    {
                        return self.save_image(caller, request, name).await;
                    }
                    self.make_image(caller, request, name)
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    fn make_image(
        &self,
        caller: &Caller,
        request: &CreateImage,
        name: &Name,
    ) -> Result<Change<ImageAccepted>> {
        let scope = if request.public {
            Scope::System
        } else {
            caller.scope()
        };
        let mut meta = Meta::new(self.subject_id(), name.clone(), scope, self.now());
        meta.labels = request.labels.clone();
        let source = match &request.url {
            Some(url) => ImageSource::Url { url: url.clone() },
            None => ImageSource::Upload,
        };
        let state = if request.url.is_some() {
            ImageState::Importing
        } else {
            ImageState::Queued
        };
        let image = Image {
            meta,
            spec: ImageSpec {
                format: request.format,
                source,
                sha256: request.sha256.as_ref().map(|s| s.to_ascii_lowercase()),
                architecture: request
                    .architecture
                    .clone()
                    .unwrap_or_else(|| "x86_64".to_owned()),
                min_disk_gib: request.min_disk_gib,
                min_memory_mib: request.min_memory_mib,
                public: request.public,
            },
            status: ImageStatus {
                state,
                size_bytes: 0,
                virtual_size_bytes: 0,
                sha256: None,
                fault: None,
            },
        };
        let txn = create_resource(&image)?;
        let task = match &request.url {
            Some(url) => Some(self.import_task(caller, &image, self.parts.ids.uuid(), Some(url.clone()))?),
            None => None,
        };
        let answer = ImageAccepted {
            image,
            task: task.clone(),
        };
        let told = answer.image.meta.clone();
        let change = Change::new(txn, answer).task(task).told("image:create", &told);
        // What is everybody's is no project's to pay for.
        Ok(match told.scope {
            Scope::Project(_) => change.charge(amounts::of_image()),
            Scope::System => change,
        })
    }

    fn import_task(&self, caller: &Caller, image: &Image, upload: Uuid, url: Option<String>) -> Result<Task> {
        let params = ImportParams {
            upload,
            url,
            format: image.spec.format,
            sha256: image.spec.sha256.clone(),
        };
        let params = serde_json::to_value(params).map_err(|e| CloudError::internal(e.to_string()))?;
        Ok(self.task(caller, "image.import", image, params))
    }

    /// Takes an image's content in and begins its import. `length` is what the sender announced.
    ///
    /// # Errors
    /// `image.not_found`, `image.not_waiting`, `image.too_large`, `image.content_broke_off`, `image.truncated`,
    /// `auth.forbidden`. Nothing of the content is kept then.
    pub async fn upload_image(
        &self,
        caller: &Caller,
        id: ImageId,
        content: ByteStream,
        length: Option<u64>,
    ) -> Result<ImageAccepted> {
        let image = self.image_for(caller, "image:upload", id).await?.value;
        // A repeated request is answered as before, and that can only be told from the content.
        if caller.idempotency_key.is_none() {
            waits(&image)?;
        }
        let upload = self.parts.ids.uuid();
        let measured = self
            .parts
            .images
            .stage(upload, content)
            .await
            .map_err(repo_error)?;
        let taken = match whole(&measured, length) {
            Ok(()) => self.take_upload(caller, id, upload, &measured.sha256).await,
            Err(error) => Err(error),
        };
        // Kept only if this very upload is what the task imports.
        let kept = taken.as_ref().is_ok_and(|(_, fresh)| *fresh);
        let unsure = taken.as_ref().is_err_and(|e| e.code() == "store.outcome_unknown");
        if !kept
            && !unsure
            && let Err(error) = self.parts.images.discard(upload).await
        {
            tracing::warn!(%upload, %error, "refused content stays behind");
        }
        taken.map(|(answer, _)| answer)
    }

    async fn take_upload(
        &self,
        caller: &Caller,
        id: ImageId,
        upload: Uuid,
        sha256: &str,
    ) -> Result<(ImageAccepted, bool)> {
        let done = self
            .once(caller, "images.upload", json!([id, sha256]), || {
                async move {
                    let found = self.image_for(caller, "image:upload", id).await?;
                    precondition(caller, found.modified)?;
                    waits(&found.value)?;
                    let mut image = found.value.clone();
                    image.status.state = ImageState::Importing;
                    image.status.fault = None;
                    image.meta.updated_at = self.now();
                    let task = self.import_task(caller, &image, upload, None)?;
                    let txn = found.replace(&image)?;
                    let answer = ImageAccepted {
                        image,
                        task: Some(task.clone()),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told("image:upload", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok((done.answer, done.fresh))
    }

    /// The content of an active image.
    ///
    /// # Errors
    /// `image.not_found`, `image.not_active`, `auth.forbidden`.
    pub async fn open_image(&self, caller: &Caller, id: ImageId) -> Result<PublishedContent> {
        let image = self.image_for(caller, "image:download", id).await?.value;
        if image.status.state != ImageState::Active {
            let reason = Reason::new(
                "image.not_active",
                "the image has no content yet, or it was refused",
            );
            return Err(CloudError::conflict(reason));
        }
        self.content_of(id).await
    }

    /// The content of an image for the cloud's own machines: an engine gets any, the agent of `host` what that host is told to
    /// cache.
    ///
    /// # Errors
    /// `image.not_found`.
    pub async fn open_image_for_host(&self, host: Option<HostId>, id: ImageId) -> Result<PublishedContent> {
        match host {
            Some(host) if !self.host_needs(host, id).await? => Err(CloudError::not_found("image")),
            _ => self.content_of(id).await,
        }
    }

    /// Takes in what the agent of `host` sends of an image that a job of its own, which it has started, is to send: nothing else of
    /// any image can be written by a host.
    ///
    /// # Errors
    /// `image.not_found`, `image.too_large`, `image.content_broke_off`, `image.truncated`. Nothing of the content is kept then.
    pub async fn receive_image(
        &self,
        host: HostId,
        id: ImageId,
        content: ByteStream,
        length: Option<u64>,
    ) -> Result<Measured> {
        let missing = || CloudError::not_found("image");
        let upload = self.host_sends(host, id).await?.ok_or_else(missing)?;
        let measured = self
            .parts
            .images
            .stage(upload, content)
            .await
            .map_err(repo_error)?;
        let whole = whole(&measured, length);
        // Given up meanwhile: what was to drop it may have been there already.
        let wanted = self.host_sends(host, id).await? == Some(upload);
        if !wanted || whole.is_err() {
            self.parts.images.discard(upload).await.map_err(repo_error)?;
        }
        whole?;
        if wanted { Ok(measured) } else { Err(missing()) }
    }

    /// Under which id the content of the image is staged that a started job of the host is to send.
    async fn host_sends(&self, host: HostId, id: ImageId) -> Result<Option<Uuid>> {
        let jobs = Table::<JobRecord>::new(self.parts.backend.clone(), prefix(&paths::jobs(host))?);
        let upload = |job: &JobRecord| {
            let sends = job.spec.kind == SendInput::KIND
                && job.want == JobWant::Run
                && job.state == JobState::Started;
            let input = serde_json::from_value::<SendInput>(job.spec.input.clone());
            input
                .ok()
                .filter(|input| sends && input.image == id)
                .map(|input| input.upload)
        };
        Ok(jobs
            .list_all()
            .await?
            .items
            .iter()
            .find_map(|job| upload(&job.value)))
    }

    async fn content_of(&self, id: ImageId) -> Result<PublishedContent> {
        self.parts.images.open(id).await.map_err(|e| match e {
            RepoError::NotFound => CloudError::not_found("image"),
            other => repo_error(other),
        })
    }

    /// Whether an open job of the host is to cache the image: a host sees what it is told to use and nothing else.
    async fn host_needs(&self, host: HostId, id: ImageId) -> Result<bool> {
        let jobs = Table::<JobRecord>::new(self.parts.backend.clone(), prefix(&paths::jobs(host))?);
        let wanted = |job: &JobRecord| {
            let input = serde_json::from_value::<CacheInput>(job.spec.input.clone());
            input.is_ok_and(|input| input.image.id == id)
        };
        Ok(jobs.list_all().await?.items.iter().any(|job| wanted(&job.value)))
    }

    /// A page of the project's images, then the public ones.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_images(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Image>> {
        let scopes = [caller.scope(), Scope::System];
        self.list_resources(caller, "image:read", &scopes, query).await
    }

    /// One image, the project's own or public.
    ///
    /// # Errors
    /// `image.not_found`.
    pub async fn get_image(&self, caller: &Caller, id: ImageId) -> Result<Versioned<Image>> {
        self.image_for(caller, "image:read", id).await
    }

    /// Removes an image; servers made from it keep their disks.
    ///
    /// # Errors
    /// `image.not_found`, `image.busy`, `image.in_use`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_image(&self, caller: &Caller, id: ImageId) -> Result<ImageAccepted> {
        let done = self
            .once(caller, "images.delete", json!(id), || {
                async move {
                    let found = self.image_for(caller, "image:delete", id).await?;
                    precondition(caller, found.modified)?;
                    if matches!(
                        found.value.status.state,
                        ImageState::Importing | ImageState::Saving | ImageState::Deleting
                    ) {
                        let reason = Reason::new("image.busy", "the image is being made or deleted");
                        return Err(CloudError::conflict(
                            reason.hint("wait for its task, or cancel it").retryable(),
                        ));
                    }
                    self.nobodys_own(&found.value).await?;
                    let mut image = found.value.clone();
                    image.status.state = ImageState::Deleting;
                    image.meta.updated_at = self.now();
                    let task = self.task(caller, "image.delete", &image, json!({}));
                    let txn = found.replace(&image)?;
                    let answer = ImageAccepted {
                        image,
                        task: Some(task.clone()),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told("image:delete", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Refuses an image that a server is kept as.
    async fn nobodys_own(&self, image: &Image) -> Result<()> {
        let ImageSource::Server { server } = image.spec.source else {
            return Ok(());
        };
        let server = self.resource::<Server>(image.meta.scope, server.uuid()).await?;
        let Some(server) = server.filter(|s| s.value.status.own_image == Some(image.id())) else {
            return Ok(());
        };
        let message = format!("the server {} is shelved as this image", server.value.meta.name);
        let reason = Reason::new("image.in_use", message);
        let hint = "unshelve or delete the server: the image goes with that";
        Err(CloudError::conflict(reason.hint(hint)))
    }

    /// An image, the project's own or public, if the caller may do that to it.
    async fn image_for(
        &self,
        caller: &Caller,
        permission: &'static str,
        id: ImageId,
    ) -> Result<Versioned<Image>> {
        let mut found = self.resource::<Image>(caller.scope(), id.uuid()).await?;
        if found.is_none() {
            found = self.resource(Scope::System, id.uuid()).await?;
        }
        let found = found.ok_or_else(|| CloudError::not_found("image"))?;
        caller.may_to(permission, &found.value.meta)?;
        Ok(found)
    }

    /// The image with that id, or else the only one with that name.
    pub(crate) async fn image_by_id_or_name(
        &self,
        caller: &Caller,
        asked: &str,
    ) -> Result<Option<Versioned<Image>>> {
        if let Ok(id) = asked.parse() {
            match self.get_image(caller, id).await {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => return other.map(Some),
            }
        }
        let mut found: Vec<Versioned<Image>> = Vec::new();
        let mut scanned = 0;
        for prefix in image_prefixes(caller)? {
            let mut options = ListOptions::default();
            loop {
                let page = self.parts.backend.list(&prefix, options).await?;
                let images = page
                    .items
                    .iter()
                    .filter_map(|kv| Versioned::<Image>::decode(kv).ok());
                found.extend(images.filter(|i| {
                    i.value.meta.name.as_str() == asked && caller.may_to("image:read", &i.value.meta).is_ok()
                }));
                scanned += page.items.len();
                let Some(last) = page.items.last().filter(|_| page.more) else {
                    break;
                };
                if scanned >= MAX_NAME_SCAN {
                    let reason = Reason::new(
                        "image.too_many_names",
                        "there are too many images to look for a name",
                    );
                    return Err(CloudError::conflict(reason.hint("name the image by its id")));
                }
                options = ListOptions::default().with_after(last.key.clone());
            }
        }
        if found.len() > 1 {
            let ids: Vec<String> = found
                .iter()
                .take(5)
                .map(|i| i.value.meta.id.to_string())
                .collect();
            let message = format!(
                "{} images have the name {asked:?}: {}",
                found.len(),
                ids.join(", ")
            );
            let reason = Reason::new("image.name_ambiguous", message).hint("name the image by its id");
            return Err(CloudError::conflict(reason));
        }
        Ok(found.pop())
    }
}

fn image_prefixes(caller: &Caller) -> Result<[Prefix; 2]> {
    let of = |scope| prefix(&paths::scoped(Image::KIND, scope));
    Ok([of(caller.scope())?, of(Scope::System)?])
}

/// Whether content may be sent now: the first time, or again after a refusal.
fn waits(image: &Image) -> Result<()> {
    let upload = matches!(image.spec.source, ImageSource::Upload);
    if upload && matches!(image.status.state, ImageState::Queued | ImageState::Error) {
        return Ok(());
    }
    let reason = Reason::new("image.not_waiting", "the image does not wait for content");
    Err(CloudError::conflict(
        reason.hint("register a new image and send the content there"),
    ))
}

/// Whether as many bytes came as were announced.
fn whole(measured: &Measured, length: Option<u64>) -> Result<()> {
    match length {
        Some(length) if length != measured.size => {
            let message = format!("{} bytes came, not the announced {length}", measured.size);
            Err(CloudError::bad_request(Reason::new("image.truncated", message)))
        }
        _ => Ok(()),
    }
}

fn repo_error(error: RepoError) -> CloudError {
    let kind = match &error {
        RepoError::TooLarge(_) => ErrorKind::TooLarge,
        RepoError::Source(_) => ErrorKind::BadRequest,
        RepoError::NotFound => ErrorKind::NotFound,
        RepoError::Io(..) => ErrorKind::Unavailable,
    };
    CloudError::new(kind, error.reason())
}
