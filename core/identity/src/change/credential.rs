//! Application credentials, second factors and EC2 keys.

use std::collections::BTreeSet;

use skyloom_model::{ProjectId, Timestamp};
use skyloom_store::Txn;

use super::{
    ChangeError, ChangeResult, Draft, Edit, checked_name, checked_text, create, rest_on, together, touch,
};
use crate::directory::MAX_CHAIN;
use crate::{
    AccessRule, ApplicationCredential, AuthScope, Credential, CredentialId, CredentialKind, Ec2Key, NameKind,
    Principal, RoleId, SecondFactor, SecretHash, Snapshot, UserId, Via, paths,
};

/// Most roles that a credential or trust names: each is guarded in the commit that makes it.
const MAX_ROLES: usize = 48;
/// Most access rules of a credential.
const MAX_RULES: usize = 100;

/// What is asked for in a new application credential.
#[derive(Debug, Clone)]
pub struct NewApplicationCredential {
    /// Its name, unique for the user.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Which roles; `None`: all that count for the caller.
    pub roles: Option<BTreeSet<RoleId>>,
    /// The secret's hash.
    pub secret_hash: SecretHash,
    /// When it ends; with another credential's end at the latest, when it is made with that.
    pub expires_at: Option<Timestamp>,
    /// Whether it may make and delete credentials and trusts itself.
    pub unrestricted: bool,
    /// If there are any: what alone may be called with it.
    pub access_rules: Vec<AccessRule>,
    /// If there are any: the patterns of permissions to which alone it reaches in the cloud's own API.
    pub permissions: Vec<String>,
}

fn checked_rules(rules: &[AccessRule]) -> ChangeResult<()> {
    if rules.len() > MAX_RULES {
        return Err(ChangeError::invalid(
            "access_rules",
            format!("at most {MAX_RULES} are allowed"),
        ));
    }
    let short = |text: &str| !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
    let method =
        |text: &str| !text.is_empty() && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_uppercase());
    let good = |rule: &AccessRule| short(&rule.service) && method(&rule.method) && short(&rule.path);
    if !rules.iter().all(|rule| good(rule) && rule.path.starts_with('/')) {
        let why = "a rule has a service, a method in capitals and a path that begins with '/'";
        return Err(ChangeError::invalid("access_rules", why));
    }
    Ok(())
}

impl<'a> Edit<'a> {
    /// Whether whoever calls may make and delete credentials and trusts, and with which credential it then does so.
    pub(super) fn may_hand_on(&self, by: &Principal) -> ChangeResult<Option<CredentialId>> {
        match by.via {
            Via::User => Ok(None),
            Via::ApplicationCredential { id } => {
                let found = Self::found(
                    self.at.credential(id),
                    "credential",
                    id,
                    paths::credential(by.user, id),
                )?;
                let own = found.value.application().filter(|own| own.unrestricted);
                match own {
                    Some(_) if found.value.user == by.user => Ok(Some(id)),
                    _ => Err(ChangeError::Forbidden(
                        "a restricted credential makes and deletes no credentials",
                    )),
                }
            }
            Via::ApiToken { .. } | Via::Trust { .. } | Via::Host { .. } => Err(ChangeError::Forbidden(
                "only the user itself makes and deletes credentials",
            )),
        }
    }

    /// The roles that are asked for, if whoever calls has them all at this moment; and what they rest on.
    pub(super) fn roles_of(
        &self,
        by: &Principal,
        project: ProjectId,
        asked: Option<&BTreeSet<RoleId>>,
    ) -> ChangeResult<(BTreeSet<RoleId>, Txn)> {
        let now = match by.via {
            Via::ApplicationCredential { id } => self.at.credential_roles(id, self.now),
            Via::Trust { id, .. } => self.at.trust_roles(id, self.now),
            _ => self
                .at
                .effective_roles(by.user, AuthScope::Project(project))
                .as_ref()
                .clone(),
        };
        let most = by.roles.as_ref() & &now;
        let roles = asked.unwrap_or(&most).clone();
        if !roles.is_subset(&most) {
            return Err(ChangeError::Forbidden(
                "nobody hands on roles that they do not have",
            ));
        }
        if roles.is_empty() || roles.len() > MAX_ROLES {
            return Err(ChangeError::invalid(
                "roles",
                format!("1 to {MAX_ROLES} are allowed"),
            ));
        }
        let on: Vec<Txn> = roles
            .iter()
            .map(|role| self.on_role(*role))
            .collect::<ChangeResult<_>>()?;
        Ok((roles, together(on)))
    }

    /// Makes an application credential of the caller in the project of its scope: with no more roles, no longer and to no more calls than
    /// what it is made with.
    ///
    /// # Errors
    /// `Forbidden` (made with a restricted credential, roles that the caller does not have), `Invalid`, `NameTaken`, `NotFound`.
    pub fn create_application_credential(
        &self,
        by: &Principal,
        asked: NewApplicationCredential,
    ) -> ChangeResult<Draft<Credential>> {
        let parent = self.may_hand_on(by)?;
        let AuthScope::Project(project) = by.scope else {
            return Err(ChangeError::Forbidden(
                "a credential is made in the scope of a project",
            ));
        };
        checked_name(&asked.name)?;
        checked_text("description", &asked.description)?;
        checked_rules(&asked.access_rules)?;
        super::token::check_patterns("permissions", &asked.permissions)?;
        if Snapshot::ended(asked.expires_at, self.now) {
            return Err(ChangeError::invalid("expires_at", "has passed"));
        }
        let on = [self.on_user(by.user)?, self.on_project(project)?];
        let (roles, on_roles) = self.roles_of(by, project, asked.roles.as_ref())?;
        let on_parent = parent.map(|id| self.within(id, &asked)).transpose()?;
        let id = CredentialId::fresh(self.ids);
        let claim = self.claim(NameKind::Credential, Some(by.user.uuid()), &asked.name, id.uuid())?;
        let credential = Credential {
            id,
            user: by.user,
            kind: CredentialKind::Application(ApplicationCredential {
                name: asked.name,
                description: asked.description,
                project,
                roles,
                secret_hash: asked.secret_hash,
                expires_at: asked.expires_at,
                unrestricted: asked.unrestricted,
                access_rules: asked.access_rules,
                permissions: asked.permissions,
                parent,
            }),
            epoch: 0,
            created_at: self.now,
        };
        let made = create(&paths::credential(by.user, id), &credential)?;
        let txn = together(on.into_iter().chain(on_parent).chain([on_roles, made, claim]));
        Ok(Draft::new(credential, txn))
    }

    /// That what is asked for is no more than the credential `id` has.
    fn within(&self, id: CredentialId, asked: &NewApplicationCredential) -> ChangeResult<Txn> {
        let found = self.at.credential(id);
        let found = Self::found(found, "credential", id, String::new())?;
        let Some(own) = found.value.application() else {
            return Err(ChangeError::Forbidden(
                "only an application credential makes another",
            ));
        };
        if own
            .expires_at
            .is_some_and(|end| asked.expires_at.is_none_or(|asked| asked > end))
        {
            return Err(ChangeError::Forbidden(
                "what a credential makes ends no later than itself",
            ));
        }
        let allowed = |rule: &AccessRule| own.access_rules.iter().any(|own| own.same(rule));
        if !own.access_rules.is_empty()
            && (asked.access_rules.is_empty() || !asked.access_rules.iter().all(allowed))
        {
            return Err(ChangeError::Forbidden(
                "what a credential makes may call nothing but what itself may",
            ));
        }
        let named = |pattern: &String| own.permissions.contains(pattern);
        if !own.permissions.is_empty()
            && (asked.permissions.is_empty() || !asked.permissions.iter().all(named))
        {
            return Err(ChangeError::Forbidden(
                "what a credential makes reaches no more permissions than itself",
            ));
        }
        // With access rules alone it reaches nothing here; so nothing that it makes does.
        if own.permissions.is_empty() && !own.access_rules.is_empty() && !asked.permissions.is_empty() {
            return Err(ChangeError::Forbidden(
                "what a credential makes reaches no more permissions than itself",
            ));
        }
        let (mut steps, mut next) = (1, own.parent);
        while let Some(id) = next {
            steps += 1;
            next = self
                .at
                .credential(id)
                .and_then(|found| found.value.application()?.parent);
            if steps >= MAX_CHAIN {
                return Err(ChangeError::Forbidden(
                    "credentials have been made with one another too many times",
                ));
            }
        }
        touch(found)
    }

    /// Files a second factor for a user. It does nothing before it is confirmed.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn create_second_factor(
        &self,
        user: UserId,
        factor: SecondFactor,
    ) -> ChangeResult<Draft<Credential>> {
        self.create_second_factor_as(CredentialId::fresh(self.ids), user, factor)
    }

    /// The same with an id that was chosen before: a sealed secret is bound to the place where it lies ([`paths::credential`]).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn create_second_factor_as(
        &self,
        id: CredentialId,
        user: UserId,
        factor: SecondFactor,
    ) -> ChangeResult<Draft<Credential>> {
        let on = self.on_user(user)?;
        let credential = self.credential_of(id, user, CredentialKind::Totp(factor));
        let made = create(&paths::credential(user, id), &credential)?;
        Ok(Draft::new(credential, together([on, made])))
    }

    /// Files an EC2 key for a user, with an id that was chosen before as its sealed half is bound to it.
    ///
    /// # Errors
    /// `NotFound` (user, project), `Invalid`, `NameTaken` (somebody has the same public half).
    pub fn create_ec2_key(
        &self,
        id: CredentialId,
        user: UserId,
        key: Ec2Key,
    ) -> ChangeResult<Draft<Credential>> {
        crate::check_name(&key.access).map_err(|e| ChangeError::invalid("access", e))?;
        let on_project = key.project.map(|project| self.on_project(project)).transpose()?;
        let on = [self.on_user(user)?, on_project.unwrap_or_default()];
        let claim = self.claim(NameKind::Ec2, None, &key.access, id.uuid())?;
        let credential = self.credential_of(id, user, CredentialKind::Ec2(key));
        let made = create(&paths::credential(user, id), &credential)?;
        Ok(Draft::new(
            credential,
            together(on.into_iter().chain([made, claim])),
        ))
    }

    /// Changes an EC2 key: its public half, its secret. What it is for stays.
    ///
    /// # Errors
    /// `NotFound`, `NameTaken`, `Invalid`.
    pub fn update_ec2_key(
        &self,
        id: CredentialId,
        change: impl FnOnce(&mut Ec2Key),
    ) -> ChangeResult<Draft<Credential>> {
        let old = self.at.credential(id);
        let own = old.and_then(|old| match &old.value.kind {
            CredentialKind::Ec2(key) => Some((old, key)),
            _ => None,
        });
        let Some((old, before)) = own else {
            return Err(ChangeError::not_found("EC2 key", id, String::new()));
        };
        let mut key = before.clone();
        change(&mut key);
        super::unchanged("project", &before.project, &key.project)?;
        crate::check_name(&key.access).map_err(|e| ChangeError::invalid("access", e))?;
        let names = (before.access.as_str(), key.access.as_str());
        let claim = self.rename(NameKind::Ec2, None, names, id.uuid())?;
        let mut credential = old.value.clone();
        credential.kind = CredentialKind::Ec2(key);
        let txn = together([old.replace(&credential)?, self.on_user(credential.user)?, claim]);
        Ok(Draft::new(credential, txn))
    }

    fn credential_of(&self, id: CredentialId, user: UserId, kind: CredentialKind) -> Credential {
        Credential {
            id,
            user,
            kind,
            epoch: 0,
            created_at: self.now,
        }
    }

    /// Changes a second factor: confirms it, or records that a code was taken. Of two who take one code at the same moment one loses.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn update_second_factor(
        &self,
        id: CredentialId,
        change: impl FnOnce(&mut SecondFactor),
    ) -> ChangeResult<Draft<Credential>> {
        let old = self.at.credential(id);
        let old = old.filter(|old| matches!(old.value.kind, CredentialKind::Totp(_)));
        let old = Self::found(old, "second factor", id, String::new())?;
        let on = self.on_user(old.value.user)?;
        let mut credential = old.value.clone();
        if let CredentialKind::Totp(factor) = &mut credential.kind {
            change(factor);
        }
        let txn = together([old.replace(&credential)?, on]);
        Ok(Draft::new(credential, txn))
    }

    /// Confirms a second factor: from now on it is asked for, and all tokens that the user got without it end.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn confirm_second_factor(
        &self,
        id: CredentialId,
        change: impl FnOnce(&mut SecondFactor),
    ) -> ChangeResult<Draft<Credential>> {
        let draft = self.update_second_factor(id, |factor| {
            change(factor);
            factor.confirmed = true;
        })?;
        let old = self.user(draft.record.user)?;
        let mut user = old.value.clone();
        user.epoch += 1;
        let ended = old.replace(&user)?;
        Ok(Draft::new(draft.record, together([draft.txn, ended])))
    }

    /// Whether whoever calls may delete the credential: its own, and not with a restricted one.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`.
    pub fn may_delete_credential(&self, by: &Principal, id: CredentialId) -> ChangeResult<Txn> {
        self.may_hand_on(by)?;
        let found = self.at.credential(id).filter(|found| found.value.user == by.user);
        Ok(rest_on(Self::found(
            found,
            "credential",
            id,
            paths::credential(by.user, id),
        )?))
    }
}
