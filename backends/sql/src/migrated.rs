//! What a migration did, whatever the database.

/// What a `migrate` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migrated {
    /// The schema version found; 0 is none.
    pub from: u32,
    /// The schema version now.
    pub to: u32,
}
