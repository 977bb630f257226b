//! Domains, users, groups and memberships.

use serde_json::Map;
use skyloom_store::{Txn, Value};

use super::{
    ChangeError, ChangeResult, Draft, Edit, checked_extra, checked_name, checked_text, create, key, together,
    unchanged,
};
use crate::{
    Domain, DomainId, Group, GroupId, Membership, NameKind, Password, User, UserId, UserKind, UserOptions,
    paths,
};

fn checked_user(user: &User) -> ChangeResult<()> {
    checked_name(&user.name)?;
    checked_text("description", &user.description)?;
    checked_extra(&user.extra)?;
    user.email
        .as_deref()
        .map_or(Ok(()), |email| checked_text("email", email))?;
    let rules = &user.options.multi_factor_auth_rules;
    if rules.len() > 16 || rules.iter().any(|rule| rule.is_empty() || rule.len() > 8) {
        return Err(ChangeError::invalid(
            "options",
            "at most 16 rules of 1 to 8 methods are allowed",
        ));
    }
    Ok(())
}

impl Edit<'_> {
    /// Makes a domain; `fill` may set what its name and id do not say.
    ///
    /// # Errors
    /// `Invalid`, `NameTaken`.
    pub fn create_domain(&self, name: &str, fill: impl FnOnce(&mut Domain)) -> ChangeResult<Draft<Domain>> {
        let first = Domain {
            id: DomainId::fresh(self.ids),
            name: name.to_owned(),
            description: String::new(),
            enabled: true,
            deleting: false,
            epoch: 0,
            extra: Map::new(),
            created_at: self.now,
        };
        let mut domain = first.clone();
        fill(&mut domain);
        fixed_domain(&first, &domain)?;
        let claim = self.claim(NameKind::Domain, None, &domain.name, domain.id.uuid())?;
        let txn = create(&paths::domain(domain.id), &domain)?.and(claim);
        Ok(Draft::new(domain, txn))
    }

    /// Changes a domain. Disabling it ends all tokens of its users and for its projects.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `NameTaken`.
    pub fn update_domain(
        &self,
        id: DomainId,
        change: impl FnOnce(&mut Domain),
    ) -> ChangeResult<Draft<Domain>> {
        let old = self.domain(id)?;
        let mut domain = old.value.clone();
        change(&mut domain);
        fixed_domain(&old.value, &domain)?;
        if old.value.enabled && !domain.enabled {
            domain.epoch += 1;
        }
        let names = (old.value.name.as_str(), domain.name.as_str());
        let claim = self.rename(NameKind::Domain, None, names, id.uuid())?;
        let txn = old.replace(&domain)?.and(claim);
        Ok(Draft::new(domain, txn))
    }

    /// Makes a user.
    ///
    /// # Errors
    /// `NotFound` (domain, default project), `Invalid`, `NameTaken`.
    pub fn create_user(
        &self,
        domain: DomainId,
        name: &str,
        fill: impl FnOnce(&mut User),
    ) -> ChangeResult<Draft<User>> {
        self.create_user_as(UserId::fresh(self.ids), domain, name, fill)
    }

    pub(super) fn create_user_as(
        &self,
        id: UserId,
        domain: DomainId,
        name: &str,
        fill: impl FnOnce(&mut User),
    ) -> ChangeResult<Draft<User>> {
        let on_domain = self.on_domain(domain)?;
        let (user, txn) = self.new_user(id, domain, name, fill)?;
        Ok(Draft::new(user, together([on_domain, txn])))
    }

    /// A user of a domain that the caller has made sure of.
    pub(super) fn new_user(
        &self,
        id: UserId,
        domain: DomainId,
        name: &str,
        fill: impl FnOnce(&mut User),
    ) -> ChangeResult<(User, Txn)> {
        let first = User {
            id,
            domain,
            name: name.to_owned(),
            kind: UserKind::Person,
            email: None,
            description: String::new(),
            enabled: true,
            deleting: false,
            default_project: None,
            options: UserOptions::default(),
            password_expires_at: None,
            needs_second_factor: false,
            epoch: 0,
            extra: Map::new(),
            created_at: self.now,
        };
        let mut user = first.clone();
        fill(&mut user);
        fixed_user(&first, &user)?;
        let project = user.default_project.map(|project| self.on_project(project));
        let claim = self.claim(NameKind::User, Some(domain.uuid()), &user.name, user.id.uuid())?;
        let made = create(&paths::user(user.id), &user)?;
        let txn = together([made, claim, project.transpose()?.unwrap_or_default()]);
        Ok((user, txn))
    }

    /// Changes a user. Disabling it ends all its tokens.
    ///
    /// # Errors
    /// `NotFound` (user, default project), `Invalid`, `NameTaken`.
    pub fn update_user(&self, id: UserId, change: impl FnOnce(&mut User)) -> ChangeResult<Draft<User>> {
        let old = self.user(id)?;
        let mut user = old.value.clone();
        change(&mut user);
        fixed_user(&old.value, &user)?;
        if old.value.enabled && !user.enabled {
            user.epoch += 1;
        }
        let project = user
            .default_project
            .filter(|_| user.default_project != old.value.default_project);
        let project = project.map(|project| self.on_project(project)).transpose()?;
        let names = (old.value.name.as_str(), user.name.as_str());
        let claim = self.rename(NameKind::User, Some(user.domain.uuid()), names, id.uuid())?;
        let txn = together([old.replace(&user)?, claim, project.unwrap_or_default()]);
        Ok(Draft::new(user, txn))
    }

    /// Gives a user a new password, keeping at most `keep` hashes in all, and ends all its tokens. Whether the password may be chosen (rules,
    /// history) has been decided before.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_password(
        &self,
        id: UserId,
        hash: String,
        keep: usize,
        expires_at: Option<skyloom_model::Timestamp>,
    ) -> ChangeResult<Draft<User>> {
        let old = self.user(id)?;
        let mut user = old.value.clone();
        user.epoch += 1;
        user.password_expires_at = expires_at;
        let before = self.at.password(id);
        let mut hashes = vec![hash];
        hashes.extend(
            before
                .iter()
                .flat_map(|password| password.value.hashes.iter().cloned()),
        );
        hashes.truncate(keep.max(1));
        let password = Password {
            user: id,
            hashes,
            changed_at: self.now,
        };
        let written = match before {
            Some(before) => before.replace(&password)?,
            None => create(&paths::password(id), &password)?,
        };
        let txn = together([old.replace(&user)?, self.on_domain(user.domain)?, written]);
        Ok(Draft::new(user, txn))
    }

    /// Makes a user, with the hash of a first password if there is one.
    ///
    /// # Errors
    /// As [`Edit::create_user`].
    pub fn create_user_with(
        &self,
        domain: DomainId,
        name: &str,
        hash: Option<String>,
        fill: impl FnOnce(&mut User),
    ) -> ChangeResult<Draft<User>> {
        let draft = self.create_user(domain, name, fill)?;
        let Some(hash) = hash else {
            return Ok(draft);
        };
        let password = Password {
            user: draft.record.id,
            hashes: vec![hash],
            changed_at: self.now,
        };
        let made = create(&paths::password(draft.record.id), &password)?;
        Ok(draft.and(made))
    }

    /// Puts a hash that is dearer to guess in the place of the one in force, of the same password. Ends nothing; nothing is written when
    /// there is another by now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn renew_hash(&self, id: UserId, old: &str, new: &str) -> ChangeResult<Draft<()>> {
        let path = paths::password(id);
        let kept = Self::found(self.at.password(id), "password", id, path)?;
        if kept.value.current() != Some(old) {
            return Ok(Draft::new((), Txn::new()));
        }
        let mut password = kept.value.clone();
        if let Some(first) = password.hashes.first_mut() {
            new.clone_into(first);
        }
        Ok(Draft::new((), kept.replace(&password)?))
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `NotFound` (domain), `Invalid`, `NameTaken`.
    pub fn create_group(
        &self,
        domain: DomainId,
        name: &str,
        fill: impl FnOnce(&mut Group),
    ) -> ChangeResult<Draft<Group>> {
        let on_domain = self.on_domain(domain)?;
        let first = Group {
            id: GroupId::fresh(self.ids),
            domain,
            name: name.to_owned(),
            description: String::new(),
            deleting: false,
            extra: Map::new(),
            created_at: self.now,
        };
        let mut group = first.clone();
        fill(&mut group);
        fixed_group(&first, &group)?;
        let claim = self.claim(NameKind::Group, Some(domain.uuid()), &group.name, group.id.uuid())?;
        let txn = together([on_domain, create(&paths::group(group.id), &group)?, claim]);
        Ok(Draft::new(group, txn))
    }

    /// Changes a group.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `NameTaken`.
    pub fn update_group(&self, id: GroupId, change: impl FnOnce(&mut Group)) -> ChangeResult<Draft<Group>> {
        let old = self.group(id)?;
        let mut group = old.value.clone();
        change(&mut group);
        fixed_group(&old.value, &group)?;
        let names = (old.value.name.as_str(), group.name.as_str());
        let claim = self.rename(NameKind::Group, Some(group.domain.uuid()), names, id.uuid())?;
        let txn = old.replace(&group)?.and(claim);
        Ok(Draft::new(group, txn))
    }

    /// Puts a user into a group. Nothing is written when it is in already.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn add_member(&self, group: GroupId, user: UserId) -> ChangeResult<Draft<Membership>> {
        let on = [self.on_group(group)?, self.on_user(user)?];
        if let Some(there) = self.at.member(group, user) {
            return Ok(Draft::new(
                there.value.clone(),
                Txn::new().guard(there.unchanged()),
            ));
        }
        let member = Membership {
            group,
            user,
            created_at: self.now,
        };
        let made = create(&paths::member(group, user), &member)?;
        Ok(Draft::new(member, together(on.into_iter().chain([made]))))
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_member(&self, group: GroupId, user: UserId) -> ChangeResult<Draft<Membership>> {
        let path = paths::member(group, user);
        let there = Self::found(self.at.member(group, user), "membership", user, path)?;
        Ok(Draft::new(there.value.clone(), there.delete()))
    }

    /// Takes a bearer token back before its end at `until`. Nothing is written when that has been done.
    ///
    /// # Errors
    /// None but the store's.
    pub fn revoke_token(
        &self,
        token: uuid::Uuid,
        until: skyloom_model::Timestamp,
    ) -> ChangeResult<Draft<()>> {
        if self.at.is_revoked(token) {
            return Ok(Draft::new((), Txn::new()));
        }
        let txn = create(&paths::revoked(token), &crate::Revoked { until })?;
        Ok(Draft::new((), txn))
    }

    /// Forgets at most `most` tokens that were taken back and would have ended by now; tells how many.
    #[must_use]
    pub fn prune_revoked(&self, most: usize) -> Draft<usize> {
        let past = self
            .at
            .revoked()
            .filter(|(_, record)| record.value.until < self.now);
        let parts: Vec<Txn> = past.take(most).map(|(_, record)| record.delete()).collect();
        Draft::new(parts.len(), together(parts))
    }
}

fn fixed_domain(old: &Domain, new: &Domain) -> ChangeResult<()> {
    unchanged("id", &old.id, &new.id)?;
    unchanged("epoch", &old.epoch, &new.epoch)?;
    unchanged("deleting", &old.deleting, &new.deleting)?;
    unchanged("created_at", &old.created_at, &new.created_at)?;
    checked_name(&new.name)?;
    checked_text("description", &new.description)?;
    checked_extra(&new.extra)
}

fn fixed_user(old: &User, new: &User) -> ChangeResult<()> {
    unchanged("id", &old.id, &new.id)?;
    unchanged("domain", &old.domain, &new.domain)?;
    unchanged("epoch", &old.epoch, &new.epoch)?;
    unchanged("deleting", &old.deleting, &new.deleting)?;
    unchanged("created_at", &old.created_at, &new.created_at)?;
    checked_user(new)
}

fn fixed_group(old: &Group, new: &Group) -> ChangeResult<()> {
    unchanged("id", &old.id, &new.id)?;
    unchanged("domain", &old.domain, &new.domain)?;
    unchanged("deleting", &old.deleting, &new.deleting)?;
    unchanged("created_at", &old.created_at, &new.created_at)?;
    checked_name(&new.name)?;
    checked_text("description", &new.description)?;
    checked_extra(&new.extra)
}

impl Edit<'_> {
    /// Writes a number that is one higher than before at a place where those who must not pass one another take turns.
    pub(super) fn take_turn(&self, path: &str) -> ChangeResult<Txn> {
        let key = key(path)?;
        match self.at.index.turns.get(&key) {
            Some(turn) => Ok(turn.replace(&turn.value.wrapping_add(1))?),
            None => Ok(Txn::new().create(key, Value::json(&1_u64)?)),
        }
    }
}
