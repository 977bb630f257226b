//! What must go before a record can: everything that refers to it, in an order in which nothing ever refers to what is gone.

use std::collections::BTreeSet;

use skyloom_model::{Project, ProjectId};
use skyloom_store::{Document, Txn, Versioned, Write};
use uuid::Uuid;

use super::{ChangeResult, Edit};
use crate::directory::Link;
use crate::{
    Actor, Credential, CredentialId, CredentialKind, DomainId, GroupId, NameKind, RoleId, Target, Trust,
    TrustId, UserId,
};

/// Writes that are collected up to a number of operations.
pub(super) struct Page {
    txn: Txn,
    room: usize,
    touched: BTreeSet<skyloom_store::Key>,
    entered: BTreeSet<Uuid>,
    full: bool,
}

impl Page {
    pub(super) fn new(room: usize) -> Self {
        Self {
            txn: Txn::new(),
            room,
            touched: BTreeSet::new(),
            entered: BTreeSet::new(),
            full: false,
        }
    }

    /// Whether this is the first time here; damaged records may lead in a circle.
    fn enter(&mut self, id: Uuid) -> bool {
        !self.full && self.entered.insert(id)
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn is_empty(&self) -> bool {
        self.txn.writes.is_empty()
    }

    pub(super) fn into_txn(self) -> Txn {
        self.txn
    }

    /// Adds all of `part`, or nothing from here on.
    fn add(&mut self, part: Txn) {
        if self.full {
            return;
        }
        let again = |write: &&Write| self.touched.contains(write.key());
        match part.writes.iter().filter(again).count() {
            0 => {}
            // The same end by another way.
            n if n == part.writes.len()
                && part.writes.iter().all(|write| self.txn.writes.contains(write)) =>
            {
                return;
            }
            // It depends on how a write of this page ends: the next page sees that.
            _ => {
                self.full = true;
                return;
            }
        }
        let ops = |txn: &Txn| txn.guards.len() + txn.writes.len();
        if ops(&self.txn) + ops(&part) > self.room && !self.is_empty() {
            self.full = true;
            return;
        }
        self.touched
            .extend(part.writes.iter().map(|write| write.key().clone()));
        self.txn = std::mem::take(&mut self.txn).and(part);
    }

    pub(super) fn delete<T>(&mut self, record: &Versioned<T>, claim: Txn) {
        self.add(record.delete().and(claim));
    }

    fn rewrite<T: Document>(&mut self, record: &Versioned<T>, new: &T) -> ChangeResult<()> {
        self.add(record.replace(new)?);
        Ok(())
    }
}

impl Edit<'_> {
    pub(super) fn drop_trust(&self, id: TrustId, page: &mut Page) {
        if !page.enter(id.uuid()) {
            return;
        }
        for next in self.at.trusts_at(Link::TrustFrom(id)) {
            self.drop_trust(next.value.id, page);
        }
        if let Some(trust) = self.at.trust(id) {
            page.delete(trust, Txn::new());
        }
    }

    pub(super) fn drop_credential(&self, id: CredentialId, page: &mut Page) {
        if !page.enter(id.uuid()) {
            return;
        }
        for child in self.at.credentials_at(Link::CredentialFrom(id)) {
            self.drop_credential(child.value.id, page);
        }
        for trust in self.at.trusts_at(Link::TrustBy(id)) {
            self.drop_trust(trust.value.id, page);
        }
        if let Some(credential) = self.at.credential(id) {
            page.delete(credential, self.unclaim_credential(&credential.value));
        }
    }

    fn unclaim_credential(&self, credential: &Credential) -> Txn {
        let id = credential.id.uuid();
        match &credential.kind {
            CredentialKind::Totp(_) => Txn::new(),
            CredentialKind::Ec2(key) => self.unclaim(NameKind::Ec2, None, &key.access, id),
            CredentialKind::Application(own) => {
                self.unclaim(NameKind::Credential, Some(credential.user.uuid()), &own.name, id)
            }
        }
    }

    pub(super) fn references_of_user(&self, id: UserId, page: &mut Page) {
        for trust in self.at.trusts_of(id) {
            self.drop_trust(trust.value.id, page);
        }
        for credential in self.at.credentials_of(id) {
            self.drop_credential(credential.value.id, page);
        }
        for token in self.at.tokens_of(id) {
            page.delete(token, Txn::new());
        }
        for group in self.at.index.linked(Link::GroupOf(id)).map(GroupId::from_uuid) {
            if let Some(member) = self.at.member(group, id) {
                page.delete(member, Txn::new());
            }
        }
        for grant in self.at.grants_to(Actor::User(id)) {
            page.delete(grant, Txn::new());
        }
        if let Some(password) = self.at.password(id) {
            page.delete(password, Txn::new());
        }
    }

    pub(super) fn references_of_group(&self, id: GroupId, page: &mut Page) {
        let first = (id, UserId::from_uuid(Uuid::nil()));
        let members = self.at.index.members.from(&first);
        for (_, member) in members.take_while(|((group, _), _)| *group == id) {
            if page.is_full() {
                return;
            }
            page.delete(member, Txn::new());
        }
        for grant in self.at.grants_to(Actor::Group(id)) {
            page.delete(grant, Txn::new());
        }
    }

    pub(super) fn references_of_role(&self, id: RoleId, page: &mut Page) -> ChangeResult<()> {
        for grant in self.at.grants_of(id) {
            if page.is_full() {
                return Ok(());
            }
            page.delete(grant, Txn::new());
        }
        for pair in self
            .at
            .implications()
            .filter(|pair| [pair.value.prior, pair.value.implied].contains(&id))
        {
            page.delete(pair, Txn::new());
        }
        for trust in self.at.trusts_at(Link::TrustWith(id)) {
            let rest: BTreeSet<RoleId> = trust
                .value
                .roles
                .iter()
                .copied()
                .filter(|role| *role != id)
                .collect();
            if rest.is_empty() {
                self.drop_trust(trust.value.id, page);
            } else {
                page.rewrite(
                    trust,
                    &Trust {
                        roles: rest,
                        ..trust.value.clone()
                    },
                )?;
            }
        }
        for credential in self.at.credentials_at(Link::CredentialWith(id)) {
            let mut without = credential.value.clone();
            let CredentialKind::Application(own) = &mut without.kind else {
                continue;
            };
            own.roles.remove(&id);
            if own.roles.is_empty() {
                self.drop_credential(without.id, page);
            } else {
                page.rewrite(credential, &without)?;
            }
        }
        Ok(())
    }

    pub(super) fn references_of_project(&self, id: ProjectId, page: &mut Page) -> ChangeResult<()> {
        for trust in self.at.trusts_at(Link::TrustIn(id)) {
            self.drop_trust(trust.value.id, page);
        }
        for credential in self.at.credentials_at(Link::CredentialIn(id)) {
            self.drop_credential(credential.value.id, page);
        }
        for token in self.at.tokens_at(Link::TokenIn(id)) {
            page.delete(token, Txn::new());
        }
        for grant in self.at.grants_on(Target::Project(id)) {
            if page.is_full() {
                return Ok(());
            }
            page.delete(grant, Txn::new());
        }
        for user in self
            .at
            .index
            .linked(Link::DefaultProject(id))
            .map(UserId::from_uuid)
        {
            let Some(user) = self.at.user(user) else { continue };
            let mut without = user.value.clone();
            without.default_project = None;
            page.rewrite(user, &without)?;
        }
        Ok(())
    }

    pub(super) fn references_of_domain(&self, id: DomainId, page: &mut Page) -> ChangeResult<()> {
        let owner = Some(id.uuid());
        // The deepest first.
        let mut projects: Vec<_> = self.at.projects_in(id).collect();
        projects.sort_by_key(|project| std::cmp::Reverse(self.at.depth(of(project)).unwrap_or(0)));
        for project in projects {
            if page.is_full() {
                return Ok(());
            }
            self.references_of_project(of(project), page)?;
            page.delete(
                project,
                self.unclaim_project(id, &project.value.meta.name, of(project)),
            );
        }
        for user in self.at.users_in(id) {
            if page.is_full() {
                return Ok(());
            }
            self.references_of_user(user.value.id, page);
            page.delete(
                user,
                self.unclaim(NameKind::User, owner, &user.value.name, user.value.id.uuid()),
            );
        }
        for group in self.at.groups_in(id) {
            self.references_of_group(group.value.id, page);
            page.delete(
                group,
                self.unclaim(NameKind::Group, owner, &group.value.name, group.value.id.uuid()),
            );
        }
        for role in self.at.roles_in(id) {
            self.references_of_role(role.value.id, page)?;
            page.delete(
                role,
                self.unclaim(NameKind::Role, owner, &role.value.name, role.value.id.uuid()),
            );
        }
        for token in self.at.tokens_at(Link::TokenInDomain(id)) {
            page.delete(token, Txn::new());
        }
        for grant in self.at.grants_on(Target::Domain(id)) {
            page.delete(grant, Txn::new());
        }
        Ok(())
    }
}

fn of(project: &Versioned<Project>) -> ProjectId {
    ProjectId::from_uuid(project.value.meta.id)
}
