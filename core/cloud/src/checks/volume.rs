//! What a volume or a snapshot may be asked to be.

use skyloom_model::{DiskFormat, IoLimits, Name};

use crate::{CloudError, FieldError, Result, ServerVolume};

/// Largest volume, in GiB.
pub(crate) const MAX_GIB: u64 = 65_536;

/// `size.invalid` beyond 1 to 65536 GiB.
pub(crate) fn size(gib: u64) -> Result<u64> {
    if (1..=MAX_GIB).contains(&gib) {
        return Ok(gib);
    }
    let message = format!("{gib} GiB; 1 to {MAX_GIB} are allowed");
    Err(CloudError::field(FieldError::new(
        "size_gib",
        "size.invalid",
        message,
    )))
}

/// `description.too_long` beyond 1024 bytes.
pub(crate) fn description(text: &str) -> Result<()> {
    if text.len() <= 1024 {
        return Ok(());
    }
    let message = format!("{} bytes; at most 1024 are allowed", text.len());
    Err(CloudError::field(FieldError::new(
        "description",
        "description.too_long",
        message,
    )))
}

/// `pool.invalid`: a pool's name is 1 to 32 of a-z, 0-9 and `-`.
pub(crate) fn pool(name: &str) -> Result<Name> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let wrong = || {
        let what = "a pool's name is 1 to 32 of a-z, 0-9 and -";
        CloudError::field(FieldError::new("pool", "pool.invalid", what))
    };
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        return Err(wrong());
    }
    Name::new(name).map_err(|_| wrong())
}

/// `limits.invalid`: a disk that may do nothing is of no use.
pub(crate) fn limits(limits: Option<IoLimits>) -> Result<Option<IoLimits>> {
    let zero = |limit: Option<u64>| limit == Some(0);
    if limits.is_some_and(|l| zero(l.operations) || zero(l.bytes)) {
        let what = "at least 1; leave it out where there is no limit";
        return Err(CloudError::field(FieldError::new(
            "limits",
            "limits.invalid",
            what,
        )));
    }
    Ok(limits.filter(|l| *l != IoLimits::default()))
}

/// Most volumes of one server.
pub(crate) const MAX_VOLUMES: usize = 16;

/// Volumes of a new server that are wrong by themselves.
pub(crate) fn of_server(volumes: &[ServerVolume]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if volumes.len() > MAX_VOLUMES {
        let what = format!("a server has at most {MAX_VOLUMES} volumes");
        errors.push(FieldError::new("volumes", "server.too_many_volumes", what));
    }
    if volumes.iter().filter(|volume| volume.boot).count() > 1 {
        let what = "a server boots from one volume";
        errors.push(FieldError::new("volumes", "boot.ambiguous", what));
    }
    for (i, volume) in volumes.iter().enumerate() {
        let made_of = [volume.image.is_some(), volume.snapshot.is_some()];
        let sources = made_of.into_iter().filter(|given| *given).count();
        let told = ServerVolume {
            volume: volume.volume,
            delete_with_server: volume.delete_with_server,
            boot: volume.boot,
            ..ServerVolume::default()
        };
        let twice = volumes[..i]
            .iter()
            .any(|v| v.volume.is_some() && v.volume == volume.volume);
        let (code, what) = match volume.volume {
            Some(_) if told != *volume => (
                "source.ambiguous",
                "of a volume that is there nothing more is said",
            ),
            Some(_) if twice => ("volume.in_use", "the volume is named twice"),
            None if sources > 1 => ("source.ambiguous", "give one of image and snapshot"),
            None if sources == 0 && volume.size_gib.is_none() => (
                "size.missing",
                "say how large it is to be, or what it is a copy of",
            ),
            None if !matches!(volume.format, None | Some(DiskFormat::Qcow2 | DiskFormat::Raw)) => {
                ("format.invalid", "a volume is qcow2 or raw")
            }
            _ => continue,
        };
        errors.push(FieldError::new(format!("volumes[{i}]"), code, what));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_names_and_limits_are_bounded() {
        assert!(size(1).is_ok() && size(MAX_GIB).is_ok());
        assert_eq!(size(0).unwrap_err().code(), "size.invalid");
        assert_eq!(size(MAX_GIB + 1).unwrap_err().code(), "size.invalid");
        assert!(description(&"x".repeat(1024)).is_ok());
        assert_eq!(
            description(&"x".repeat(1025)).unwrap_err().code(),
            "description.too_long"
        );
        assert_eq!(pool("fast-1").unwrap().as_str(), "fast-1");
        for bad in ["", "Fast", "a/b", "..", &"x".repeat(33)] {
            assert_eq!(pool(bad).unwrap_err().code(), "pool.invalid", "{bad}");
        }
        let some = |operations| {
            Some(IoLimits {
                operations,
                bytes: None,
            })
        };
        assert_eq!(limits(some(Some(0))).unwrap_err().code(), "limits.invalid");
        assert_eq!(limits(some(None)).unwrap(), None);
        assert_eq!(limits(some(Some(5))).unwrap(), some(Some(5)));
    }
}
