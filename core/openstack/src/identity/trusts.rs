//! Delegations (`OS-TRUST`).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use serde_json::json;
use skyloom_identity::{Doomed, NewTrust, RoleId, Trust, UserId};
use skyloom_store::Versioned;

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids::{self, hex};
use super::thing::{Lies, Thing};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/OS-TRUST/trusts", get(list).post(create))
        .route("/OS-TRUST/trusts/{trust}", get(show).delete(delete))
        .route("/OS-TRUST/trusts/{trust}/roles", get(list_roles))
        .route("/OS-TRUST/trusts/{trust}/roles/{role}", get(show_role))
}

impl Ask {
    /// The roles that a body names, by their ids or names.
    pub(crate) fn roles_in(&self, body: Option<Vec<Fields>>) -> Answer<Option<BTreeSet<RoleId>>> {
        let Some(list) = body else { return Ok(None) };
        let mut roles = BTreeSet::new();
        for mut one in list {
            let id = one.text("id")?;
            let name = one.text("name")?;
            let domain = one.domain("domain_id")?;
            let found = match (&id, &name) {
                (Some(id), _) => ids::parse(id).and_then(|id| self.at.role(id)),
                (None, Some(name)) => self.at.find_role(domain, name),
                (None, None) => return Err(Refusal::bad("A role is named by its 'id' or 'name'")),
            };
            let shown = id.or(name).unwrap_or_default();
            roles.insert(found.ok_or_else(|| Refusal::missing("role", &shown))?.value.id);
        }
        Ok(Some(roles))
    }

    /// A trust as the policy sees it: of the trustor, and of the trustee too for reading.
    fn trust_thing(&self, trust: &Trust, of: UserId) -> Thing {
        let domain = self.at.user(trust.trustor).map(|user| user.value.domain);
        let lies = domain.map_or(Lies::System, Lies::Domain);
        Thing::one("trust", lies, trust.id.uuid()).owned_by(of)
    }

    fn sees_trust(&self, trust: &Trust) -> bool {
        [trust.trustor, trust.trustee]
            .into_iter()
            .any(|of| self.may("trust:read", &self.trust_thing(trust, of)))
    }

    fn find_trust(&self, id: &str) -> Answer<Arc<Versioned<Trust>>> {
        let found = ids::parse(id).and_then(|id| self.at.trust(id));
        // One that is used up or has ended is not there any more.
        let found = found.filter(|found| {
            let (now, trust) = (self.identity().now(), &found.value);
            trust.expires_at.is_none_or(|end| end > now) && trust.remaining_uses != Some(0)
        });
        let found = found.filter(|found| self.sees_trust(&found.value));
        found.cloned().ok_or_else(|| Refusal::missing("trust", id))
    }
}

async fn list(ask: Ask) -> Answer {
    let user = |name: &str| -> Answer<Option<UserId>> {
        let Some(id) = ask.query.get(name) else {
            return Ok(None);
        };
        ids::parse(id)
            .map(Some)
            .ok_or_else(|| Refusal::missing("user", id))
    };
    let (trustor, trustee) = (user("trustor_user_id")?, user("trustee_user_id")?);
    if ![trustor, trustee].contains(&Some(ask.user())) {
        ask.require_list("trust:read")?;
    }
    let trusts = ask.at.trusts().map(|trust| &trust.value).filter(|trust| {
        trustor.is_none_or(|user| user == trust.trustor) && trustee.is_none_or(|user| user == trust.trustee)
    });
    let seen = trusts.filter(|trust| ask.sees_trust(trust));
    let trusts = seen.map(|trust| ask.shape().trust(trust, false)).collect();
    ask.page("trusts", trusts, &["project_id"])
}

async fn create(ask: Ask, body: Bytes) -> Answer {
    let mut body = Fields::of(&body, "trust")?;
    let needed = |field: &str| Refusal::bad(format!("'{field}' is a required property"));
    let trustor: UserId = body
        .id("trustor_user_id", "user")?
        .ok_or_else(|| needed("trustor_user_id"))?;
    let trustee: UserId = body
        .id("trustee_user_id", "user")?
        .ok_or_else(|| needed("trustee_user_id"))?;
    let own = ask
        .at
        .user(trustor)
        .map(|user| Thing::of_user("trust", &user.value));
    let own = own.ok_or_else(|| Refusal::missing("user", &hex(trustor)))?;
    ask.require("trust:create", &own).await?;
    let allowed = body.flag("allow_redelegation")?.unwrap_or(false);
    let count = body.number("redelegation_count")?;
    let asked = NewTrust {
        trustee,
        project: body.id("project_id", "project")?,
        roles: Some(ask.roles_in(body.objects("roles")?)?.unwrap_or_default()),
        impersonation: body
            .flag("impersonation")?
            .ok_or_else(|| needed("impersonation"))?,
        remaining_uses: body.number("remaining_uses")?,
        redelegation_count: if allowed { count.unwrap_or(3) } else { 0 },
        expires_at: body.time("expires_at")?,
    };
    // As who they came, not as whom they act: nobody delegates more than their token has.
    let by = &ask.valid.rights.principal;
    let made = ask
        .change(
            |edit| edit.create_trust(by, asked.clone()),
            |trust| own.deed("trust:create").on(trust.id.uuid()),
        )
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"trust": ask.shape().trust(&made, true)})),
    )
        .into_response())
}

async fn show(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_trust(&id)?;
    Ok(Json(json!({"trust": ask.shape().trust(&found.value, true)})).into_response())
}

async fn delete(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let found = ask.find_trust(&id)?;
    let thing = ask.trust_thing(&found.value, found.value.trustor);
    ask.require("trust:delete", &thing).await?;
    ask.remove(Doomed::Trust(found.value.id), thing.deed("trust:delete"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_roles(ask: Ask, Path(id): Path<String>) -> Answer {
    let found = ask.find_trust(&id)?;
    let roles = found.value.roles.iter().filter_map(|role| ask.at.role(*role));
    let roles = roles.map(|role| ask.shape().role(&role.value)).collect();
    ask.page("roles", roles, &["name"])
}

async fn show_role(ask: Ask, Path((id, role)): Path<(String, String)>) -> Answer {
    let found = ask.find_trust(&id)?;
    let role_id = ids::parse(&role).filter(|id| found.value.roles.contains(id));
    let known = role_id
        .and_then(|id| ask.at.role(id))
        .ok_or_else(|| Refusal::missing("role", &role))?;
    Ok(Json(json!({"role": ask.shape().role(&known.value)})).into_response())
}
