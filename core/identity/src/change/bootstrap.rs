//! What a new cloud needs before anybody can log in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Map;
use skyloom_model::{Id, Ids, ProjectId, Secret, TokenId};
use uuid::Uuid;

use super::{ChangeError, ChangeResult, Draft, Edit, NewApiToken, create, together};
use crate::{
    Actor, ApiToken, AuthScope, BuiltIn, DEFAULT_DOMAIN, Domain, Grant, Holder, Implication, NameKind,
    NewSecret, Password, RoleId, Target, UserId, paths,
};

/// The first administrator. Its id is fixed, so that it is found again whatever it is called.
pub const FIRST_ADMIN: UserId = Id::from_uuid(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0200));
/// What it is called at first.
const ADMIN_NAME: &str = "admin";
/// The name of the domain that is always there.
const DOMAIN_NAME: &str = "Default";

/// What a bootstrap has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrapped {
    /// Whether the first administrator has been made (again): then its secret is to be shown, once.
    pub made_admin: bool,
    /// Whether its roles have been given (again).
    pub granted: bool,
}

/// A secret for the first administrator: 32 characters over 24 random bytes.
#[must_use]
pub fn bootstrap_secret(ids: &dyn Ids) -> Secret<String> {
    let mut bytes = [0; 24];
    ids.random(&mut bytes);
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

impl Edit<'_> {
    /// Whether [`Edit::bootstrap`] would make the first administrator, and so needs the hash of a secret.
    #[must_use]
    pub fn bootstrap_needs_secret(&self, repair: bool) -> bool {
        let new = self.at.domain(DEFAULT_DOMAIN).is_none();
        (new || repair) && self.at.user(FIRST_ADMIN).is_none()
    }

    /// Makes the default domain, the built-in roles with what they imply, and one administrator (`admin` on the system and the default domain,
    /// and on `project` if one is named). Any number of processes may call it, at each start: what is there stays as it is.
    ///
    /// A cloud that has been set up before gets the built-in roles that its version did not have, and no more: an administrator who was removed or lost
    /// the role stays so, unless `repair` asks for it back. Repair also enables them; it never changes an existing password.
    ///
    /// # Errors
    /// `NameTaken` (repair: somebody else is called `admin` now), `Invalid` (no `admin_hash` where one is needed), `NotFound` (project).
    pub fn bootstrap(
        &self,
        admin_hash: Option<String>,
        project: Option<ProjectId>,
        repair: bool,
    ) -> ChangeResult<Draft<Bootstrapped>> {
        let mut parts = Vec::new();
        let new = self.at.domain(DEFAULT_DOMAIN).is_none();
        if new {
            let domain = Domain {
                id: DEFAULT_DOMAIN,
                name: DOMAIN_NAME.to_owned(),
                description: "The first domain.".to_owned(),
                enabled: true,
                deleting: false,
                epoch: 0,
                extra: Map::new(),
                created_at: self.now,
            };
            parts.push(create(&paths::domain(domain.id), &domain)?);
            parts.push(self.claim(NameKind::Domain, None, DOMAIN_NAME, domain.id.uuid())?);
        }
        for role in BuiltIn::ALL
            .into_iter()
            .filter(|role| self.at.role(role.id()).is_none())
        {
            parts.push(self.new_role(role.id(), None, role.name(), |_| {})?.1);
        }
        for (prior, implied) in BuiltIn::IMPLICATIONS.map(|(prior, implied)| (prior.id(), implied.id())) {
            // Who has taken one away has meant it; one of a role that is made only now is missing.
            if self.at.role(prior).is_none() || self.at.role(implied).is_none() {
                let pair = Implication {
                    prior,
                    implied,
                    created_at: self.now,
                };
                parts.push(create(&paths::implication(prior, implied), &pair)?);
            }
        }
        let mut done = Bootstrapped {
            made_admin: false,
            granted: false,
        };
        if new || repair {
            done.made_admin = self.first_admin(new, admin_hash, &mut parts)?;
            for target in [Target::System, Target::Domain(DEFAULT_DOMAIN)]
                .into_iter()
                .chain(project.map(Target::Project))
            {
                if let Target::Project(project) = target {
                    // In a new cloud its domain is made in this very commit.
                    let found = Self::found(
                        self.at.project(project),
                        "project",
                        project,
                        paths::project(project),
                    )?;
                    parts.push(super::rest_on(found));
                }
                done.granted |= self.grant_first(target, BuiltIn::Admin.id(), &mut parts)?;
            }
        }
        Ok(Draft::new(done, together(parts)))
    }

    /// Makes the first administrator if it is missing, enables it if not; tells whether it was made.
    fn first_admin(
        &self,
        new: bool,
        hash: Option<String>,
        parts: &mut Vec<skyloom_store::Txn>,
    ) -> ChangeResult<bool> {
        if let Some(old) = self.at.user(FIRST_ADMIN) {
            if old.value.deleting {
                return Err(ChangeError::Conflict(
                    "the first administrator is being removed".to_owned(),
                ));
            }
            if !old.value.enabled {
                let mut user = old.value.clone();
                user.enabled = true;
                parts.push(old.replace(&user)?);
            }
            return Ok(false);
        }
        let Some(hash) = hash else {
            return Err(ChangeError::invalid(
                "admin_hash",
                "is needed to make the first administrator",
            ));
        };
        let describe = |user: &mut crate::User| "The first administrator.".clone_into(&mut user.description);
        if new {
            parts.push(
                self.new_user(FIRST_ADMIN, DEFAULT_DOMAIN, ADMIN_NAME, describe)?
                    .1,
            );
        } else {
            let made = self.create_user_as(FIRST_ADMIN, DEFAULT_DOMAIN, ADMIN_NAME, describe)?;
            parts.push(made.txn);
        }
        let password = Password {
            user: FIRST_ADMIN,
            hashes: vec![hash],
            changed_at: self.now,
        };
        parts.push(create(&paths::password(FIRST_ADMIN), &password)?);
        Ok(true)
    }

    /// A token of the first administrator in the scope of the system, for the commit that makes them both.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn bootstrap_token(&self, id: TokenId, secret: &NewSecret) -> ChangeResult<Draft<ApiToken>> {
        let asked = NewApiToken {
            name: "bootstrap".to_owned(),
            holder: Holder::User {
                user: FIRST_ADMIN,
                scope: AuthScope::System,
                permissions: Vec::new(),
            },
            expires_at: None,
        };
        self.new_token(id, None, asked, secret)
    }

    fn grant_first(
        &self,
        target: Target,
        role: RoleId,
        parts: &mut Vec<skyloom_store::Txn>,
    ) -> ChangeResult<bool> {
        let actor = Actor::User(FIRST_ADMIN);
        if self.at.grant(target, actor, role, false).is_some() {
            return Ok(false);
        }
        let grant = Grant {
            target,
            actor,
            role,
            inherited: false,
            created_at: self.now,
        };
        parts.push(create(&paths::grant(target, actor, role, false), &grant)?);
        Ok(true)
    }
}
