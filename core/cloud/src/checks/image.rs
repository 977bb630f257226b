//! Images: what may be registered, and what fits a new server.

use skyloom_model::{FlavorSpec, Image, ImageState, Reason};

use crate::{CloudError, CreateImage, FieldError, Result};

/// Architectures that hosts may have, as `uname -m` says them.
const ARCHITECTURES: [&str; 5] = ["x86_64", "aarch64", "riscv64", "ppc64le", "s390x"];

/// What a new image claims.
pub(crate) fn registration(request: &CreateImage) -> Vec<FieldError> {
    let mut errors = super::text::labels("labels", &request.labels);
    if let Some(sha256) = &request.sha256
        && !(sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        errors.push(FieldError::new(
            "sha256",
            "image.sha256_invalid",
            "a SHA-256 is 64 hex digits",
        ));
    }
    if let Some(architecture) = &request.architecture
        && !ARCHITECTURES.contains(&architecture.as_str())
    {
        let message = format!("use one of {}", ARCHITECTURES.join(", "));
        errors.push(FieldError::new(
            "architecture",
            "image.architecture_unsupported",
            message,
        ));
    }
    let sources = [
        request.url.is_some(),
        request.server.is_some(),
        request.volume.is_some(),
        request.snapshot.is_some(),
    ];
    if sources.into_iter().filter(|given| *given).count() > 1 {
        errors.push(FieldError::new(
            "url",
            "source.ambiguous",
            "give one of url, server, volume and snapshot",
        ));
    }
    if sources.into_iter().skip(1).any(|given| given) {
        if !request.format.is_disk() {
            errors.push(FieldError::new(
                "format",
                "format.invalid",
                "a disk becomes qcow2 or raw",
            ));
        }
        if request.sha256.is_some() {
            let why = "nobody knows the SHA-256 of a disk beforehand";
            errors.push(FieldError::new("sha256", "image.sha256_invalid", why));
        }
        if request.public {
            let why = "what is made of a project's disk is the project's own";
            errors.push(FieldError::new("public", "image.not_shared", why));
        }
    }
    if let Some(Err(why)) = request.url.as_deref().map(url) {
        errors.push(FieldError::new("url", "image.url_invalid", why));
    }
    if request.min_disk_gib > 65_536 || request.min_memory_mib > 16 << 20 {
        errors.push(FieldError::new(
            "min_disk_gib",
            "image.minimum_invalid",
            "no flavor can be that large",
        ));
    }
    errors
}

/// A first look at a URL; the fetcher looks closer, at each redirect and at the address that it really connects to.
fn url(url: &str) -> Result<(), &'static str> {
    if url.len() > 2048 || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a URL has at most 2048 printable characters");
    }
    let lower = url.to_ascii_lowercase();
    let rest = lower
        .strip_prefix("https://")
        .or_else(|| lower.strip_prefix("http://"))
        .ok_or("only http and https are fetched")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err("the host is missing");
    }
    if authority.contains('@') {
        return Err("credentials in a URL are refused: they would be stored in clear");
    }
    Ok(())
}

/// Whether a server of this flavor can be made from `image`.
pub(crate) fn usable(image: &Image, flavor: &FlavorSpec) -> Result<()> {
    let name = &image.meta.name;
    let refuse =
        |code: &str, message: String| Err(CloudError::field(FieldError::new("image", code, message)));
    if !image.spec.format.is_disk() {
        let format = image.spec.format.as_str();
        return refuse("image.no_disk", format!("{name} is of format {format}: no disk"));
    }
    boots(image, flavor)?;
    let disk = flavor.resources.disk_gib;
    let needed = image
        .spec
        .min_disk_gib
        .max(image.status.virtual_size_bytes.div_ceil(1 << 30));
    if disk < needed {
        return refuse(
            "image.needs_more_disk",
            format!("{name} needs {needed} GiB of disk, the flavor has {disk}"),
        );
    }
    Ok(())
}

/// Whether a disk can be made from `image`.
pub(crate) fn copyable(image: &Image) -> Result<()> {
    let name = &image.meta.name;
    if image.status.state != ImageState::Active {
        let reason = Reason::new(
            "image.not_active",
            format!("the image {name} is not active yet, or failed"),
        );
        return Err(CloudError::conflict(
            reason.hint("look at its state and wait until it is active"),
        ));
    }
    if !image.spec.format.is_disk() {
        let message = format!("{name} is of format {}: no disk", image.spec.format.as_str());
        return Err(CloudError::field(FieldError::new(
            "image",
            "image.no_disk",
            message,
        )));
    }
    Ok(())
}

/// Whether a server of this flavor can boot what is in `image`, on whatever disk.
pub(crate) fn boots(image: &Image, flavor: &FlavorSpec) -> Result<()> {
    let name = &image.meta.name;
    let refuse =
        |code: &str, message: String| Err(CloudError::field(FieldError::new("image", code, message)));
    if image.status.state != ImageState::Active {
        let reason = Reason::new(
            "image.not_active",
            format!("the image {name} is not active yet, or failed"),
        );
        return Err(CloudError::conflict(
            reason.hint("look at its state and wait until it is active"),
        ));
    }
    if !ARCHITECTURES.contains(&image.spec.architecture.as_str()) {
        return refuse(
            "image.architecture_unsupported",
            format!("no host runs {}", image.spec.architecture),
        );
    }
    let (memory, needed) = (flavor.resources.memory_mib, image.spec.min_memory_mib);
    if memory < needed {
        return refuse(
            "image.needs_more_memory",
            format!("{name} needs {needed} MiB of memory, the flavor has {memory}"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skyloom_model::{
        DiskFormat, ImageSource, ImageSpec, ImageStatus, Meta, Name, Resources, Scope, Timestamp,
    };
    use uuid::Uuid;

    use super::*;

    fn request() -> CreateImage {
        CreateImage::new("i", DiskFormat::Raw)
    }

    #[test]
    fn claims_are_checked() {
        assert!(registration(&request()).is_empty());
        let good = CreateImage {
            url: Some("https://h.example/x.qcow2?a=b@c".to_owned()),
            sha256: Some("aA".repeat(32)),
            architecture: Some("aarch64".to_owned()),
            ..request()
        };
        assert!(registration(&good).is_empty());
        let bad = CreateImage {
            url: Some("file:///etc/passwd".to_owned()),
            sha256: Some("zz".repeat(32)),
            architecture: Some("z80".to_owned()),
            min_disk_gib: u64::MAX,
            ..request()
        };
        let codes: Vec<_> = registration(&bad).into_iter().map(|e| e.code).collect();
        assert_eq!(
            codes,
            [
                "image.sha256_invalid",
                "image.architecture_unsupported",
                "image.url_invalid",
                "image.minimum_invalid"
            ]
        );
    }

    #[test]
    fn urls_carry_no_credentials_and_no_tricks() {
        for bad in [
            "",
            "ftp://a/b",
            "http://",
            "http:///x",
            "https://u:p@h/x",
            "http://h/\nx",
            "gopher://h",
            &format!("http://h/{}", "x".repeat(2048)),
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(url("HTTP://h:8080/x").is_ok());
    }

    fn image(state: ImageState, spec: CreateImage, virtual_size_bytes: u64) -> Image {
        Image {
            meta: Meta::new(
                Uuid::nil(),
                Name::new("i").unwrap(),
                Scope::System,
                Timestamp::UNIX_EPOCH,
            ),
            spec: ImageSpec {
                format: spec.format,
                source: ImageSource::Upload,
                sha256: None,
                architecture: spec.architecture.unwrap_or_else(|| "x86_64".to_owned()),
                min_disk_gib: spec.min_disk_gib,
                min_memory_mib: spec.min_memory_mib,
                public: false,
            },
            status: ImageStatus {
                state,
                size_bytes: 1,
                virtual_size_bytes,
                sha256: None,
                fault: None,
            },
        }
    }

    #[test]
    fn an_image_must_be_active_and_fit() {
        let flavor = FlavorSpec {
            resources: Resources {
                vcpus: 1,
                memory_mib: 256,
                disk_gib: 1,
            },
            host_labels: Default::default(),
        };
        let code = |image: &Image| usable(image, &flavor).err().map(|e| e.code().to_owned());
        let active = |spec, size| image(ImageState::Active, spec, size);
        assert_eq!(code(&active(request(), 1 << 30)), None);
        for state in [ImageState::Queued, ImageState::Importing, ImageState::Error] {
            assert_eq!(
                code(&image(state, request(), 1)).as_deref(),
                Some("image.not_active")
            );
        }
        assert_eq!(
            code(&active(request(), (1 << 30) + 1)).as_deref(),
            Some("image.needs_more_disk")
        );
        let needs = |min_disk_gib, min_memory_mib| CreateImage {
            min_disk_gib,
            min_memory_mib,
            ..request()
        };
        assert_eq!(
            code(&active(needs(2, 0), 1)).as_deref(),
            Some("image.needs_more_disk")
        );
        assert_eq!(
            code(&active(needs(1, 257), 1)).as_deref(),
            Some("image.needs_more_memory")
        );
        let odd = CreateImage {
            architecture: Some("z80".to_owned()),
            ..request()
        };
        assert_eq!(
            code(&active(odd, 1)).as_deref(),
            Some("image.architecture_unsupported")
        );
    }
}
