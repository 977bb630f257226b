//! Records as Keystone shows them.

use serde_json::{Map, Value, json};
use skyloom_identity::{
    AccessRule, ApplicationCredential, BuiltIn, Credential, Domain, DomainId, Endpoint, Group, Interface,
    Region, Role, RoleId, Service, Snapshot, Trust, User, UserOptions,
};
use skyloom_model::{Project, ProjectId};

use super::ids::{self, hex, time};
use super::{MOUNT, PUBLIC};

/// What shapes need beside the record: where links lead, and what ids stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) root: &'a str,
    pub(crate) at: &'a Snapshot,
}

/// The record's extra attributes, under those that are its own.
fn over(extra: &Map<String, Value>, own: Value) -> Value {
    let mut all = extra.clone();
    if let Value::Object(own) = own {
        all.extend(own);
    }
    Value::Object(all)
}

/// An empty text is none.
fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

impl Shape<'_> {
    pub(crate) fn link(self, path: &str) -> Value {
        json!({"self": format!("{}/v3/{path}", self.root)})
    }

    /// Id and name of a domain, as tokens have them.
    pub(crate) fn domain_ref(self, id: DomainId) -> Value {
        let name = self.at.domain(id).map(|found| found.value.name.clone());
        json!({"id": ids::domain(id), "name": name})
    }

    pub(crate) fn domain(self, domain: &Domain) -> Value {
        let id = ids::domain(domain.id);
        let own = json!({
            "id": id,
            "name": domain.name,
            "description": domain.description,
            "enabled": domain.enabled,
            "tags": [],
            "options": {},
            "links": self.link(&format!("domains/{id}")),
        });
        over(&domain.extra, own)
    }

    /// A domain as the project that Keystone takes it for.
    pub(crate) fn domain_project(self, domain: &Domain) -> Value {
        let id = ids::domain(domain.id);
        let own = json!({
            "id": id,
            "name": domain.name,
            "description": domain.description,
            "enabled": domain.enabled,
            "domain_id": null,
            "parent_id": null,
            "is_domain": true,
            "tags": [],
            "options": {},
            "links": self.link(&format!("projects/{id}")),
        });
        over(&domain.extra, own)
    }

    pub(crate) fn project(self, project: &Project) -> Value {
        let (id, spec) = (project.meta.id.simple().to_string(), &project.spec);
        let domain = ids::domain(DomainId::from_uuid(spec.domain));
        let parent = spec.parent.map_or_else(|| domain.clone(), hex);
        let own = json!({
            "id": id,
            "name": project.meta.name,
            "description": spec.description,
            "enabled": spec.enabled,
            "domain_id": domain,
            "parent_id": parent,
            "is_domain": false,
            "tags": spec.tags,
            "options": {},
            "links": self.link(&format!("projects/{id}")),
        });
        let labels = project.meta.labels.iter();
        let extra = labels
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        over(&extra, own)
    }

    pub(crate) fn user(self, user: &User) -> Value {
        let id = hex(user.id);
        let mut own = json!({
            "id": id,
            "name": user.name,
            "domain_id": ids::domain(user.domain),
            "enabled": user.enabled,
            "password_expires_at": user.password_expires_at.map(ids::bare_time),
            "options": options(&user.options),
            "links": self.link(&format!("users/{id}")),
        });
        if let Some(project) = user.default_project {
            own["default_project_id"] = hex(project).into();
        }
        if let Some(email) = &user.email {
            own["email"] = email.as_str().into();
        }
        if !user.description.is_empty() {
            own["description"] = user.description.as_str().into();
        }
        over(&user.extra, own)
    }

    pub(crate) fn group(self, group: &Group) -> Value {
        let id = hex(group.id);
        let own = json!({
            "id": id,
            "name": group.name,
            "domain_id": ids::domain(group.domain),
            "description": group.description,
            "links": self.link(&format!("groups/{id}")),
        });
        over(&group.extra, own)
    }

    pub(crate) fn role(self, role: &Role) -> Value {
        let id = hex(role.id);
        let options = if BuiltIn::of(role.id).is_some() {
            json!({"immutable": true})
        } else {
            json!({})
        };
        let own = json!({
            "id": id,
            "name": role.name,
            "domain_id": role.domain.map(ids::domain),
            "description": or_null(&role.description),
            "options": options,
            "links": self.link(&format!("roles/{id}")),
        });
        over(&role.extra, own)
    }

    /// Id, name and link of a role, as implications have them.
    pub(crate) fn role_ref(self, id: RoleId) -> Value {
        let shown = hex(id);
        let name = self.at.role(id).map(|found| found.value.name.clone());
        json!({"id": shown, "name": name, "links": self.link(&format!("roles/{shown}"))})
    }

    /// Roles as tokens have them: ids and names, by name. Roles of domains are in no token.
    pub(crate) fn token_roles<'r>(self, roles: impl IntoIterator<Item = &'r RoleId>) -> Value {
        let found = roles.into_iter().filter_map(|role| self.at.role(*role));
        let mut global: Vec<&Role> = found
            .map(|role| &role.value)
            .filter(|role| role.domain.is_none())
            .collect();
        global.sort_by(|a, b| a.name.cmp(&b.name));
        global
            .iter()
            .map(|role| json!({"id": hex(role.id), "name": role.name}))
            .collect()
    }

    pub(crate) fn region(self, region: &Region) -> Value {
        json!({
            "id": region.id,
            "description": region.description,
            "parent_region_id": region.parent,
            "links": self.link(&format!("regions/{}", region.id)),
        })
    }

    pub(crate) fn service(self, service: &Service) -> Value {
        let id = hex(service.id);
        let mut own = json!({
            "id": id,
            "type": service.kind,
            "enabled": service.enabled,
            "links": self.link(&format!("services/{id}")),
        });
        if !service.name.is_empty() {
            own["name"] = service.name.as_str().into();
        }
        if !service.description.is_empty() {
            own["description"] = service.description.as_str().into();
        }
        own
    }

    pub(crate) fn endpoint(self, endpoint: &Endpoint) -> Value {
        let id = hex(endpoint.id);
        json!({
            "id": id,
            "interface": interface(endpoint.interface),
            "region": endpoint.region,
            "region_id": endpoint.region,
            "service_id": hex(endpoint.service),
            "url": endpoint.url,
            "enabled": endpoint.enabled,
            "links": self.link(&format!("endpoints/{id}")),
        })
    }

    /// What tokens tell of where services are.
    pub(crate) fn catalog(self, project: Option<ProjectId>, user: skyloom_identity::UserId) -> Value {
        let public = self.root.strip_suffix(MOUNT).unwrap_or(self.root);
        let address = |endpoint: &Endpoint| -> Option<String> {
            let mut url = endpoint.url.replace(PUBLIC, public);
            for (name, value) in [
                ("project_id", project.map(hex)),
                ("tenant_id", project.map(hex)),
                ("user_id", Some(hex(user))),
            ] {
                for mark in [format!("$({name})s"), format!("%({name})s")] {
                    if url.contains(&mark) {
                        // What is for projects is not told without one.
                        url = url.replace(&mark, value.as_deref()?);
                    }
                }
            }
            Some(url)
        };
        let of = |service: &Service| -> Value {
            let mut endpoints: Vec<&Endpoint> = self.at.endpoints().map(|found| &found.value).collect();
            endpoints.retain(|endpoint| endpoint.service == service.id && endpoint.enabled);
            let told = endpoints.iter().filter_map(|endpoint| {
                Some(json!({
                    "id": hex(endpoint.id),
                    "interface": interface(endpoint.interface),
                    "region": endpoint.region,
                    "region_id": endpoint.region,
                    "url": address(endpoint)?,
                }))
            });
            json!({
                "id": hex(service.id),
                "type": service.kind,
                "name": service.name,
                "endpoints": told.collect::<Vec<_>>(),
            })
        };
        let enabled = self
            .at
            .services()
            .map(|found| &found.value)
            .filter(|service| service.enabled);
        enabled.map(of).collect()
    }

    /// An application credential, without its secret.
    pub(crate) fn application(self, credential: &Credential, own: &ApplicationCredential) -> Value {
        let (id, user) = (hex(credential.id), hex(credential.user));
        let roles = own.roles.iter().filter_map(|role| self.at.role(*role));
        let roles: Vec<Value> = roles
            .map(|role| {
                let domain = role.value.domain.map(ids::domain);
                json!({"id": hex(role.value.id), "name": role.value.name, "domain_id": domain})
            })
            .collect();
        let mut shown = json!({
            "id": id,
            "name": own.name,
            "description": or_null(&own.description),
            "project_id": hex(own.project),
            "user_id": user,
            "roles": roles,
            "expires_at": own.expires_at.map(ids::bare_time),
            "unrestricted": own.unrestricted,
            "system": null,
            "links": self.link(&format!("users/{user}/application_credentials/{id}")),
        });
        if !own.access_rules.is_empty() {
            shown["access_rules"] = own.access_rules.iter().map(access_rule).collect();
        }
        shown
    }

    /// A trust; without its roles in lists.
    pub(crate) fn trust(self, trust: &Trust, roles: bool) -> Value {
        let id = hex(trust.id);
        let here = format!("{}/v3/OS-TRUST/trusts/{id}/roles", self.root);
        let mut shown = json!({
            "id": id,
            "trustor_user_id": hex(trust.trustor),
            "trustee_user_id": hex(trust.trustee),
            "project_id": trust.project.map(hex),
            "impersonation": trust.impersonation,
            "remaining_uses": trust.remaining_uses,
            "redelegation_count": trust.redelegation_count,
            "redelegated_trust_id": trust.redelegated_from.map(hex),
            "expires_at": trust.expires_at.map(time),
            "deleted_at": null,
            "links": self.link(&format!("OS-TRUST/trusts/{id}")),
        });
        if roles {
            let found = trust.roles.iter().filter_map(|role| self.at.role(*role));
            shown["roles"] = found.map(|role| self.role(&role.value)).collect();
            shown["roles_links"] = json!({"self": here, "next": null, "previous": null});
        }
        shown
    }
}

pub(crate) fn access_rule(rule: &AccessRule) -> Value {
    json!({
        "id": rule.id.simple().to_string(),
        "service": rule.service,
        "method": rule.method,
        "path": rule.path,
    })
}

pub(crate) fn interface(interface: Interface) -> &'static str {
    match interface {
        Interface::Public => "public",
        Interface::Internal => "internal",
        Interface::Admin => "admin",
    }
}

/// A user's options: those that are set.
fn options(options: &UserOptions) -> Value {
    let mut set = Map::new();
    let flags = [
        (
            "ignore_change_password_upon_first_use",
            options.ignore_change_password_upon_first_use,
        ),
        ("ignore_password_expiry", options.ignore_password_expiry),
        (
            "ignore_lockout_failure_attempts",
            options.ignore_lockout_failure_attempts,
        ),
        ("ignore_user_inactivity", options.ignore_user_inactivity),
        ("lock_password", options.lock_password),
        ("multi_factor_auth_enabled", options.multi_factor_auth_enabled),
    ];
    for (name, flag) in flags.into_iter().filter(|(_, flag)| *flag) {
        set.insert(name.to_owned(), flag.into());
    }
    if !options.multi_factor_auth_rules.is_empty() {
        set.insert(
            "multi_factor_auth_rules".to_owned(),
            json!(options.multi_factor_auth_rules),
        );
    }
    Value::Object(set)
}
