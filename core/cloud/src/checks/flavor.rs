//! A flavor's numbers.

use std::ops::RangeInclusive;

use crate::{CreateFlavor, FieldError};

/// Resources within reason, labels well-formed.
pub(crate) fn check(request: &CreateFlavor) -> Vec<FieldError> {
    let mut errors = super::text::labels("host_labels", &request.host_labels);
    let mut within = |field: &str, value: u64, range: RangeInclusive<u64>| {
        if !range.contains(&value) {
            let message = format!("{value} is not within {} to {}", range.start(), range.end());
            errors.push(FieldError::new(field, "flavor.out_of_range", message));
        }
    };
    within("vcpus", u64::from(request.vcpus), 1..=256);
    within("memory_mib", request.memory_mib, 32..=16 << 20);
    within("disk_gib", request.disk_gib, 1..=65_536);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(vcpus: u32, memory_mib: u64, disk_gib: u64) -> CreateFlavor {
        CreateFlavor {
            name: "f".to_owned(),
            vcpus,
            memory_mib,
            disk_gib,
            host_labels: Default::default(),
        }
    }

    #[test]
    fn numbers_are_within_reason() {
        assert!(check(&flavor(1, 32, 1)).is_empty());
        let fields: Vec<_> = check(&flavor(0, 31, 0)).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["vcpus", "memory_mib", "disk_gib"]);
        assert_eq!(check(&flavor(257, u64::MAX, u64::MAX)).len(), 3);
    }
}
