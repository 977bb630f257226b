//! Changes of identity: each is a [`Txn`] with guards, built from a [`Snapshot`] and committed by whoever has more to say in the same commit.
//!
//! ```text
//! Snapshot ──Edit::create_user, grant, …──> Draft { record, txn } ──(+ audit, by the caller)──> commit ──> Directory sees it
//!    ^                                                                                            │
//!    └───────────────── a guard did not hold: others were faster, look again ─────────────────────┘   Editor::change
//! ```
//!
//! An [`Edit`] reads only its snapshot, so what it builds is as old as that. This is safe: every record on which the change rests is guarded by the
//! revision that was read. A change from an old snapshot does not pass; nothing is ever written blindly.
//!
//! **References.** Who makes a reference (a grant, a membership, a credential …) guards the records that it names and their domains. Who removes a
//! record that others may refer to marks it first (`deleting`; it counts for nothing from then on, and nothing new refers to it), then removes the
//! references in as many commits as it takes, and the record with the last one ([`Edit::removal`]). A crash between leaves a marked record, never a
//! dangling reference; removing it again goes on where it stopped.
//!
//! **Epochs** grow exactly when tokens must end: when a user, project or domain is disabled or goes, and with a new password. A credential
//! that goes is not found any more. Roles are in no token, so giving and taking them raises nothing.

mod bootstrap;
mod catalog;
mod credential;
mod editor;
mod error;
mod external;
mod grant;
mod keys;
mod people;
mod project;
mod references;
mod removal;
mod token;
mod trust;

use serde::Serialize;
use skyloom_model::{Ids, ProjectId, Timestamp};
use skyloom_store::{Document, Error, ErrorKind, Guard, Key, Txn, Value, Versioned};
use uuid::Uuid;

use crate::directory::Stored;
use crate::{
    Domain, DomainId, Group, GroupId, MAX_TEXT_LEN, NameKind, Role, RoleId, Snapshot, User, UserId,
    check_name, fold_name, paths,
};

pub use bootstrap::{Bootstrapped, FIRST_ADMIN, bootstrap_secret};
pub use credential::NewApplicationCredential;
pub use editor::Editor;
pub use error::{ChangeError, ChangeResult};
pub use removal::Doomed;
pub(crate) use token::MAX_USES;
pub use token::NewApiToken;
pub use trust::NewTrust;

/// A change that is ready to be committed, and the record as it will be.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft<T> {
    /// The record as it will be.
    pub record: T,
    /// What makes it so. Without writes: it is so already.
    pub txn: Txn,
}

impl<T> Draft<T> {
    fn new(record: T, txn: Txn) -> Self {
        Self { record, txn }
    }

    /// With more in the same commit, such as the audit's entry.
    #[must_use]
    pub fn and(mut self, more: Txn) -> Self {
        self.txn = self.txn.and(more);
        self
    }

    /// The same commit for another record.
    #[must_use]
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Draft<U> {
        Draft {
            record: f(self.record),
            txn: self.txn,
        }
    }
}

/// Builds changes from one snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Edit<'a> {
    at: &'a Snapshot,
    ids: &'a dyn Ids,
    now: Timestamp,
}

impl<'a> Edit<'a> {
    /// Changes of what `snapshot` shows.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, ids: &'a dyn Ids, now: Timestamp) -> Self {
        Self {
            at: snapshot,
            ids,
            now,
        }
    }

    /// What it shows.
    #[must_use]
    pub fn snapshot(&self) -> &'a Snapshot {
        self.at
    }

    /// A record that is there.
    fn found<T>(
        record: Option<&'a Stored<T>>,
        what: &'static str,
        id: impl std::fmt::Display,
        path: String,
    ) -> ChangeResult<&'a Stored<T>> {
        record.ok_or_else(|| ChangeError::not_found(what, id, path))
    }

    /// A domain that is not going.
    fn domain(&self, id: DomainId) -> ChangeResult<&'a Stored<Domain>> {
        let found = self.at.domain(id).filter(|domain| !domain.value.deleting);
        Self::found(found, "domain", id, paths::domain(id))
    }
    /// A user that is not going, nor its domain.
    fn user(&self, id: UserId) -> ChangeResult<&'a Stored<User>> {
        let found = self.at.user(id).filter(|user| !user.value.deleting);
        let found = Self::found(found, "user", id, paths::user(id))?;
        self.domain(found.value.domain).map(|_| found)
    }
    /// A group that is not going, nor its domain.
    fn group(&self, id: GroupId) -> ChangeResult<&'a Stored<Group>> {
        let found = self.at.group(id).filter(|group| !group.value.deleting);
        let found = Self::found(found, "group", id, paths::group(id))?;
        self.domain(found.value.domain).map(|_| found)
    }
    /// A role that is not going, nor its domain.
    fn role(&self, id: RoleId) -> ChangeResult<&'a Stored<Role>> {
        let found = self.at.role(id).filter(|role| !role.value.deleting);
        let found = Self::found(found, "role", id, paths::role(id))?;
        match found.value.domain {
            Some(domain) => self.domain(domain).map(|_| found),
            None => Ok(found),
        }
    }
    /// A project that is not going, nor its domain.
    fn project(&self, id: ProjectId) -> ChangeResult<&'a Stored<skyloom_model::Project>> {
        let found = self.at.project(id).filter(|project| !project.value.spec.deleting);
        let found = Self::found(found, "project", id, paths::project(id))?;
        self.domain(DomainId::from_uuid(found.value.spec.domain))
            .map(|_| found)
    }

    // What a new reference rests on: the record as it was read, and its domain.

    fn on_domain(&self, id: DomainId) -> ChangeResult<Txn> {
        Ok(rest_on(self.domain(id)?))
    }
    fn on_user(&self, id: UserId) -> ChangeResult<Txn> {
        let user = self.user(id)?;
        Ok(rest_on(user).and(self.on_domain(user.value.domain)?))
    }
    fn on_group(&self, id: GroupId) -> ChangeResult<Txn> {
        let group = self.group(id)?;
        Ok(rest_on(group).and(self.on_domain(group.value.domain)?))
    }
    fn on_role(&self, id: RoleId) -> ChangeResult<Txn> {
        let role = self.role(id)?;
        match role.value.domain {
            Some(domain) => Ok(rest_on(role).and(self.on_domain(domain)?)),
            None => Ok(rest_on(role)),
        }
    }
    fn on_project(&self, id: ProjectId) -> ChangeResult<Txn> {
        let project = self.project(id)?;
        Ok(rest_on(project).and(self.on_domain(DomainId::from_uuid(project.value.spec.domain))?))
    }

    /// Claims a name that nobody has.
    fn claim(&self, kind: NameKind, owner: Option<Uuid>, name: &str, id: Uuid) -> ChangeResult<Txn> {
        let path = paths::name(kind, owner, name);
        if self.at.claim(&path).is_some() {
            let name = name.to_owned();
            return Err(ChangeError::NameTaken { kind, name, path });
        }
        create(&path, &id)
    }

    /// Gives up the claim at `path`, if it is `id`'s.
    fn unclaim_at(&self, path: &str, id: Uuid) -> Txn {
        let own = self.at.claim(path).filter(|claim| claim.value == id);
        own.map(|claim| claim.delete()).unwrap_or_default()
    }

    fn unclaim(&self, kind: NameKind, owner: Option<Uuid>, name: &str, id: Uuid) -> Txn {
        self.unclaim_at(&paths::name(kind, owner, name), id)
    }

    /// Changes the claim from one name to another.
    fn rename(
        &self,
        kind: NameKind,
        owner: Option<Uuid>,
        names: (&str, &str),
        id: Uuid,
    ) -> ChangeResult<Txn> {
        let (old, new) = names;
        if fold_name(old) == fold_name(new) {
            return Ok(Txn::new());
        }
        Ok(self
            .unclaim(kind, owner, old, id)
            .and(self.claim(kind, owner, new, id)?))
    }
}

/// The key of a path made of ids and fixed words.
fn key(path: &str) -> ChangeResult<Key> {
    let made = Key::parse(path).map_err(|e| Error::new(ErrorKind::Invalid, "make key").because(e));
    Ok(made?)
}

/// Creates a record.
fn create<T: Serialize>(path: &str, record: &T) -> ChangeResult<Txn> {
    Ok(Txn::new().create(key(path)?, Value::json(record)?))
}

/// Passes only if the record is as it was read.
fn rest_on<T>(record: &Versioned<T>) -> Txn {
    Txn::new().guard(record.unchanged())
}

/// Writes a record as it is: whoever has read it before and wants it to go, or to rest on what it sees around it, does not pass.
fn touch<T: Document>(record: &Versioned<T>) -> ChangeResult<Txn> {
    Ok(record.replace(&record.value)?)
}

/// The parts as one transaction, each guard once.
fn together(parts: impl IntoIterator<Item = Txn>) -> Txn {
    let mut all = Txn::new();
    for part in parts {
        for guard in part.guards {
            if !all.guards.contains(&guard) {
                all.guards.push(guard);
            }
        }
        all.writes.extend(part.writes);
    }
    all
}

fn checked_name(name: &str) -> ChangeResult<()> {
    check_name(name).map_err(|e| ChangeError::invalid("name", e))
}

fn checked_text(field: &'static str, text: &str) -> ChangeResult<()> {
    if text.chars().nth(MAX_TEXT_LEN).is_some() {
        return Err(ChangeError::invalid(
            field,
            format!("is longer than {MAX_TEXT_LEN} characters"),
        ));
    }
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        return Err(ChangeError::invalid(field, "has control characters"));
    }
    Ok(())
}

/// Most bytes of a record's extra attributes, as JSON.
const MAX_EXTRA: usize = 16 * 1024;

fn checked_extra(extra: &serde_json::Map<String, serde_json::Value>) -> ChangeResult<()> {
    let long = serde_json::to_vec(extra).map_or(true, |text| text.len() > MAX_EXTRA);
    if long {
        return Err(ChangeError::invalid(
            "extra",
            format!("is longer than {MAX_EXTRA} bytes"),
        ));
    }
    Ok(())
}

/// Refuses a change of a field that never changes.
fn unchanged<T: PartialEq>(field: &'static str, old: &T, new: &T) -> ChangeResult<()> {
    if old == new {
        return Ok(());
    }
    Err(ChangeError::invalid(field, "cannot be changed"))
}

/// The guards of a transaction that the store has refused, for waiting until they have been seen.
fn guarded(guard: &Guard) -> Option<&Key> {
    match guard {
        Guard::Absent(key) | Guard::Revision(key, _) => Some(key),
        Guard::Lease(..) => None,
    }
}
