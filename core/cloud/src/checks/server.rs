//! What else a new server and its actions ask for.

use crate::{CloudError, FieldError, Result};

/// A config drive is attached unless it was declined.
pub(crate) fn config_drive(asked: Option<bool>) -> bool {
    asked.unwrap_or(true)
}

/// A create waits for room 1 second to 23 hours, less than its task has: `wait_for_room.invalid`.
pub(crate) fn wait_for_room(seconds: Option<u32>) -> Vec<FieldError> {
    match seconds {
        Some(seconds) if !(1..=82_800).contains(&seconds) => vec![FieldError::new(
            "wait_for_room_seconds",
            "wait_for_room.invalid",
            "it waits 1 second to 23 hours (82800)",
        )],
        _ => Vec::new(),
    }
}

/// An anti-affinity group is a short key: `group.invalid`.
pub(crate) fn group(group: Option<&str>) -> Vec<FieldError> {
    match group {
        Some(g) if g.len() > 64 || !super::text::is_key(g, false) => vec![FieldError::new(
            "anti_affinity_group",
            "group.invalid",
            "a group is 1 to 64 of A-Z a-z 0-9 . _ : -",
        )],
        _ => Vec::new(),
    }
}

/// cloud-init user-data of at most 64 KiB: `user_data.too_long`.
pub(crate) fn user_data(data: Option<&str>) -> Vec<FieldError> {
    match data {
        Some(d) if d.len() > 64 << 10 => {
            let message = format!("{} bytes; at most 65536 are allowed", d.len());
            vec![FieldError::new("user_data", "user_data.too_long", message)]
        }
        _ => Vec::new(),
    }
}

/// What only a config drive can carry needs one: `config_drive.needed`.
pub(crate) fn disk_needs_seed(
    config_drive: bool,
    user_data: bool,
    keypairs: bool,
    password: bool,
) -> Vec<FieldError> {
    if config_drive {
        return Vec::new();
    }
    let asked = [
        ("user_data", user_data),
        ("keypairs", keypairs),
        ("password", password),
    ];
    asked
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(field, _)| {
            FieldError::new(
                field,
                "config_drive.needed",
                "it reaches the guest only by a config drive",
            )
        })
        .collect()
}

/// The time that a guest gets to shut down: `timeout.invalid` beyond an hour.
pub(crate) fn stop_timeout(asked: Option<u32>) -> Result<u32> {
    match asked.unwrap_or(60) {
        seconds @ 0..=3600 => Ok(seconds),
        _ => Err(CloudError::field(FieldError::new(
            "timeout_seconds",
            "timeout.invalid",
            "at most 3600 seconds",
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_drive_is_the_default() {
        assert!(config_drive(None));
        assert!(config_drive(Some(true)));
        assert!(!config_drive(Some(false)));
    }

    #[test]
    fn groups_and_user_data_are_bounded() {
        assert!(group(None).is_empty());
        assert!(group(Some("web:1")).is_empty());
        assert_eq!(group(Some("a b"))[0].code, "group.invalid");
        assert_eq!(group(Some(&"x".repeat(65)))[0].code, "group.invalid");
        assert!(user_data(Some(&"x".repeat(65536))).is_empty());
        assert_eq!(user_data(Some(&"x".repeat(65537)))[0].code, "user_data.too_long");
    }

    #[test]
    fn without_a_config_drive_nothing_can_be_handed_to_the_guest() {
        assert!(disk_needs_seed(true, true, true, true).is_empty());
        assert!(disk_needs_seed(false, false, false, false).is_empty());
        let fields: Vec<_> = disk_needs_seed(false, true, true, true)
            .into_iter()
            .map(|e| e.field)
            .collect();
        assert_eq!(fields, ["user_data", "keypairs", "password"]);
    }

    #[test]
    fn stop_timeouts_are_bounded() {
        assert_eq!(stop_timeout(None).unwrap(), 60);
        assert_eq!(stop_timeout(Some(0)).unwrap(), 0);
        assert_eq!(stop_timeout(Some(3601)).unwrap_err().code(), "timeout.invalid");
    }
}
