//! What a login says: who, proven how, for which scope.

use serde_json::Value;
use skyloom_identity::{CredentialRef, DEFAULT_DOMAIN, DomainRef, ProjectRef, Proof, ScopeAsked, UserRef};
use skyloom_model::Secret;

use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids;

fn needed(field: &str) -> Refusal {
    Refusal::bad(format!("'{field}' is a required property"))
}

/// The proofs of `identity`, in the order of its methods.
pub(crate) fn read(auth: &mut Fields) -> Answer<Vec<Proof>> {
    let mut identity = auth.object("identity")?.ok_or_else(|| needed("identity"))?;
    let methods = identity.texts("methods")?.ok_or_else(|| needed("methods"))?;
    if methods.is_empty() {
        return Err(Refusal::unauthorized());
    }
    let mut proofs = Vec::new();
    for method in &methods {
        // A method that is named twice has one section.
        let Some(section) = identity.object(method)? else {
            if methods.iter().filter(|other| *other == method).count() > 1 {
                continue;
            }
            return Err(needed(method));
        };
        proofs.push(proof(method, section)?);
    }
    Ok(proofs)
}

fn proof(method: &str, mut section: Fields) -> Answer<Proof> {
    match method {
        "password" => {
            let mut body = section.object("user")?.ok_or_else(|| needed("user"))?;
            let password = Secret::new(body.needed("password")?);
            let user = user(body)?;
            Ok(Proof::Password { user, password })
        }
        "totp" => {
            let mut body = section.object("user")?.ok_or_else(|| needed("user"))?;
            let code = Secret::new(body.needed("passcode")?);
            let user = user(body)?;
            Ok(Proof::Totp { user, code })
        }
        "token" => Ok(Proof::Token(Secret::new(section.needed("id")?))),
        "application_credential" => {
            let secret = Secret::new(section.needed("secret")?);
            let credential = match section.text("id")? {
                Some(id) => CredentialRef::Id(ids::parse(&id).ok_or_else(Refusal::unauthorized)?),
                None => CredentialRef::Name {
                    name: section.needed("name")?,
                    user: user(section.object("user")?.ok_or_else(|| needed("user"))?)?,
                },
            };
            Ok(Proof::ApplicationCredential { credential, secret })
        }
        // As for a wrong password: what there is to try is in the manual.
        _ => Err(Refusal::unauthorized()),
    }
}

fn user(mut body: Fields) -> Answer<UserRef> {
    match body.text("id")? {
        // What is no id is nobody's.
        Some(id) => ids::parse(&id).map(UserRef::Id).ok_or_else(Refusal::unauthorized),
        None => Ok(UserRef::Name {
            name: body.needed("name")?,
            domain: domain(body.object("domain")?)?,
        }),
    }
}

/// A domain of a login; the default one where none is named.
fn domain(body: Option<Fields>) -> Answer<DomainRef> {
    let Some(mut body) = body else {
        return Ok(DomainRef::Id(DEFAULT_DOMAIN));
    };
    match (body.text("id")?, body.text("name")?) {
        (Some(id), _) => ids::parse_domain(&id)
            .map(DomainRef::Id)
            .ok_or_else(Refusal::unauthorized),
        (None, Some(name)) => Ok(DomainRef::Name(name)),
        (None, None) => Err(needed("domain")),
    }
}

/// Where the token's roles shall count.
pub(crate) fn scope(auth: &mut Fields) -> Answer<ScopeAsked> {
    let scope = match auth.value("scope") {
        None | Some(Value::Null) => return Ok(ScopeAsked::Default),
        Some(Value::String(text)) if text == "unscoped" => return Ok(ScopeAsked::Unscoped),
        Some(value) => value,
    };
    let mut scope = Fields::from_value(scope, "scope")?;
    if scope.has("unscoped") {
        return Ok(ScopeAsked::Unscoped);
    }
    if let Some(mut project) = scope.object("project")? {
        let found = match project.text("id")? {
            Some(id) => ProjectRef::Id(ids::parse(&id).ok_or_else(Refusal::unauthorized)?),
            None => ProjectRef::Name {
                name: project.needed("name")?,
                domain: domain(project.object("domain")?)?,
            },
        };
        return Ok(ScopeAsked::Project(found));
    }
    if let Some(asked) = scope.object("domain")? {
        return domain(Some(asked)).map(ScopeAsked::Domain);
    }
    if let Some(mut system) = scope.object("system")? {
        return match system.flag("all")? {
            Some(true) => Ok(ScopeAsked::System),
            _ => Err(Refusal::bad(
                "Invalid input for field 'system': it is {\"all\": true}",
            )),
        };
    }
    if let Some(mut trust) = scope.object("OS-TRUST:trust")? {
        let id = trust.needed("id")?;
        return ids::parse(&id)
            .map(ScopeAsked::Trust)
            .ok_or_else(Refusal::unauthorized);
    }
    Err(Refusal::bad(
        "Invalid input for field 'scope': project, domain, system or OS-TRUST:trust",
    ))
}
