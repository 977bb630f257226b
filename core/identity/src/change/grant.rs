//! Roles, what they imply and to whom they are given.

use serde_json::Map;
use skyloom_store::Txn;

use super::{
    ChangeError, ChangeResult, Draft, Edit, checked_extra, checked_name, checked_text, create, rest_on,
    together, unchanged,
};
use crate::{Actor, BuiltIn, DomainId, Grant, Implication, NameKind, Role, RoleId, Target, paths};

/// Most patterns of a role.
const MAX_PATTERNS: usize = 500;

impl Edit<'_> {
    /// Makes a role: global, or for one domain alone.
    ///
    /// # Errors
    /// `NotFound` (domain), `Invalid`, `NameTaken`.
    pub fn create_role(
        &self,
        domain: Option<DomainId>,
        name: &str,
        fill: impl FnOnce(&mut Role),
    ) -> ChangeResult<Draft<Role>> {
        let on_domain = domain.map(|domain| self.on_domain(domain)).transpose()?;
        let (role, txn) = self.new_role(RoleId::fresh(self.ids), domain, name, fill)?;
        Ok(Draft::new(role, together([on_domain.unwrap_or_default(), txn])))
    }

    pub(super) fn new_role(
        &self,
        id: RoleId,
        domain: Option<DomainId>,
        name: &str,
        fill: impl FnOnce(&mut Role),
    ) -> ChangeResult<(Role, Txn)> {
        let first = Role {
            id,
            name: name.to_owned(),
            domain,
            description: String::new(),
            permissions: Vec::new(),
            deleting: false,
            extra: Map::new(),
            created_at: self.now,
        };
        let mut role = first.clone();
        fill(&mut role);
        fixed_role(&first, &role)?;
        let claim = self.claim(NameKind::Role, domain.map(DomainId::uuid), &role.name, id.uuid())?;
        let txn = create(&paths::role(id), &role)?.and(claim);
        Ok((role, txn))
    }

    /// Changes a role. Of the built-in ones only the description.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `NameTaken`.
    pub fn update_role(&self, id: RoleId, change: impl FnOnce(&mut Role)) -> ChangeResult<Draft<Role>> {
        let old = self.role(id)?;
        let mut role = old.value.clone();
        change(&mut role);
        fixed_role(&old.value, &role)?;
        if BuiltIn::of(id).is_some() {
            unchanged("name", &old.value.name, &role.name)?;
            unchanged("permissions", &old.value.permissions, &role.permissions)?;
        }
        let names = (old.value.name.as_str(), role.name.as_str());
        let claim = self.rename(NameKind::Role, role.domain.map(DomainId::uuid), names, id.uuid())?;
        let txn = old.replace(&role)?.and(claim);
        Ok(Draft::new(role, txn))
    }

    /// Lets one role imply another. What leads to `admin` must be meant: `allow_admin`. Between roles of two domains it is kept and counts
    /// for nothing.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (a circle; a global role that would imply one of a domain), `Forbidden`.
    pub fn imply(
        &self,
        prior: RoleId,
        implied: RoleId,
        allow_admin: bool,
    ) -> ChangeResult<Draft<Implication>> {
        let on = together([self.on_role(prior)?, self.on_role(implied)?]);
        if let Some(there) = self.at.implication(prior, implied) {
            return Ok(Draft::new(there.value.clone(), rest_on(there)));
        }
        let closure = self.at.implied_roles(implied);
        if prior == implied || closure.contains(&prior) {
            return Err(ChangeError::invalid(
                "implied",
                "would lead back to the role itself",
            ));
        }
        let (of, to) = (self.role(prior)?.value.domain, self.role(implied)?.value.domain);
        if to.is_some() && of.is_none() {
            return Err(ChangeError::invalid(
                "implied",
                "is a role of a domain, and the other is global",
            ));
        }
        if !allow_admin && closure.contains(&BuiltIn::Admin.id()) {
            return Err(ChangeError::Forbidden(
                "no role may imply admin unless that is asked for expressly",
            ));
        }
        let pair = Implication {
            prior,
            implied,
            created_at: self.now,
        };
        let made = create(&paths::implication(prior, implied), &pair)?;
        // Two that lie far apart may still close a circle: one after the other.
        let turn = self.take_turn(paths::IMPLICATION_TURN)?;
        Ok(Draft::new(pair, together([on, made, turn])))
    }

    /// Ends an implication.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn unimply(&self, prior: RoleId, implied: RoleId) -> ChangeResult<Draft<Implication>> {
        let path = paths::implication(prior, implied);
        let there = Self::found(self.at.implication(prior, implied), "implication", implied, path)?;
        Ok(Draft::new(there.value.clone(), there.delete()))
    }

    /// Gives a role. Nothing is written when it has been given already.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` (a role of a domain elsewhere, inheritance of the system).
    pub fn grant(
        &self,
        target: Target,
        actor: Actor,
        role: RoleId,
        inherited: bool,
    ) -> ChangeResult<Draft<Grant>> {
        let place = match target {
            Target::System if inherited => {
                return Err(ChangeError::invalid("inherited", "nothing is below the system"));
            }
            Target::System => None,
            Target::Domain(domain) => Some(domain),
            Target::Project(project) => Some(DomainId::from_uuid(self.project(project)?.value.spec.domain)),
        };
        let own = self.role(role)?.value.domain;
        if own.is_some() && own != place {
            return Err(ChangeError::invalid(
                "role",
                "can be given in its own domain only",
            ));
        }
        let on_target = match target {
            Target::System => Txn::new(),
            Target::Domain(domain) => self.on_domain(domain)?,
            Target::Project(project) => self.on_project(project)?,
        };
        let on_actor = match actor {
            Actor::User(user) => self.on_user(user)?,
            Actor::Group(group) => self.on_group(group)?,
        };
        if let Some(there) = self.at.grant(target, actor, role, inherited) {
            return Ok(Draft::new(there.value.clone(), rest_on(there)));
        }
        let grant = Grant {
            target,
            actor,
            role,
            inherited,
            created_at: self.now,
        };
        let made = create(&paths::grant(target, actor, role, inherited), &grant)?;
        Ok(Draft::new(
            grant,
            together([on_target, on_actor, self.on_role(role)?, made]),
        ))
    }

    /// Takes a role back.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn revoke(
        &self,
        target: Target,
        actor: Actor,
        role: RoleId,
        inherited: bool,
    ) -> ChangeResult<Draft<Grant>> {
        let path = paths::grant(target, actor, role, inherited);
        let there = Self::found(self.at.grant(target, actor, role, inherited), "grant", role, path)?;
        Ok(Draft::new(there.value.clone(), there.delete()))
    }
}

fn fixed_role(old: &Role, new: &Role) -> ChangeResult<()> {
    unchanged("id", &old.id, &new.id)?;
    unchanged("domain", &old.domain, &new.domain)?;
    unchanged("deleting", &old.deleting, &new.deleting)?;
    unchanged("created_at", &old.created_at, &new.created_at)?;
    checked_name(&new.name)?;
    checked_text("description", &new.description)?;
    checked_extra(&new.extra)?;
    if new.permissions.len() > MAX_PATTERNS {
        return Err(ChangeError::invalid(
            "permissions",
            format!("at most {MAX_PATTERNS} patterns are allowed"),
        ));
    }
    let bad = |pattern: &&String| {
        pattern.is_empty() || pattern.len() > 255 || pattern.chars().any(char::is_control)
    };
    match new.permissions.iter().find(bad) {
        Some(_) => Err(ChangeError::invalid(
            "permissions",
            "a pattern has 1 to 255 printable characters",
        )),
        None => Ok(()),
    }
}
