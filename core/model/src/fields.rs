//! Fields that not everybody sees who sees the record: one table, read by whoever shows records.
//!
//! ```text
//! FIELD_RULES ──┬── the API leaves them out of answers and streams
//!               ├── its document marks them
//!               └── an explained decision names them
//! ```

/// What stands in place of a field that is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// Nothing: it is left out.
    Absent,
    /// `null`, where readers count on the field.
    Null,
    /// An id of zeroes, where readers count on an id.
    NoId,
}

/// A field that takes a permission of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRule {
    /// The kind of thing that is read, as in its permissions.
    pub kind: &'static str,
    /// Where it is, from the whole answer about one such thing.
    pub path: &'static str,
    /// The type that it is a field of.
    pub of: &'static str,
    /// Its name there.
    pub field: &'static str,
    /// What seeing it takes, in the cloud itself.
    pub permission: &'static str,
    /// What others see.
    pub unseen: Unseen,
}

const fn of_hosts(
    kind: &'static str,
    path: &'static str,
    of: &'static str,
    field: &'static str,
    unseen: Unseen,
) -> FieldRule {
    FieldRule {
        kind,
        path,
        of,
        field,
        permission: "host:read",
        unseen,
    }
}

/// All fields that take more than the record.
pub const FIELD_RULES: &[FieldRule] = &[
    of_hosts(
        "server",
        "status.placement",
        "ServerStatus",
        "placement",
        Unseen::Absent,
    ),
    of_hosts(
        "server",
        "status.migration",
        "ServerStatus",
        "migration",
        Unseen::Absent,
    ),
    of_hosts("volume", "status.host", "VolumeStatus", "host", Unseen::Absent),
    // What a flow knows beyond its subject: which host somebody wanted, which one has its volumes.
    of_hosts("task", "task.params", "Task", "params", Unseen::Null),
    // That a step is a host's is shown, but not which host's.
    of_hosts("task", "plan.jobs.place.host", "Place", "host", Unseen::NoId),
    // What a job needs and gives are words between engines and hosts: names, paths, ids.
    of_hosts("task", "plan.jobs.input", "JobSpec", "input", Unseen::Null),
    of_hosts("task", "jobs.output", "JobRecord", "output", Unseen::Absent),
    of_hosts("task", "jobs.worker", "JobRecord", "worker", Unseen::Absent),
    of_hosts("task", "reason.detail", "Reason", "detail", Unseen::Absent),
];

/// The rules for what is read of a kind of thing.
pub fn field_rules(kind: &str) -> impl Iterator<Item = &'static FieldRule> {
    FIELD_RULES.iter().filter(move |rule| rule.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_stands_there_once_and_its_path_ends_in_its_field() {
        for (n, rule) in FIELD_RULES.iter().enumerate() {
            assert_eq!(rule.path.rsplit('.').next(), Some(rule.field));
            let same = |other: &FieldRule| (other.of, other.field) == (rule.of, rule.field);
            assert!(!FIELD_RULES[..n].iter().any(same), "{rule:?}");
        }
    }
}
