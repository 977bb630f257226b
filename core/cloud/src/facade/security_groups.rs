//! Security groups: what may reach ports, and what they may reach.
//!
//! Every project has one called `default`, made with the first port that needs it: all may leave, and the group's own ports may
//! come in.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::Object;
use skyloom_model::{
    Direction, Family, GroupMembers, Meta, Name, Protocol, Remote, Resource as _, SecurityGroup,
    SecurityGroupId, SecurityGroupSpec, SecurityRule, paths,
};
use skyloom_store::{Guard, Txn, Versioned};
use uuid::Uuid;

use super::Cloud;
use super::networks::{check_new, check_texts};
use super::once::Change;
use super::records::{create, create_resource, precondition};
use super::volumes::conflict;
use crate::checks::{self, addresses};
use crate::{
    AddRule, Caller, CloudError, CreateSecurityGroup, FieldError, ListQuery, Listed, Result,
    UpdateSecurityGroup, amounts,
};

/// The name of the group that ports are in where nothing is said.
pub(super) const DEFAULT: &str = "default";
/// Most rules of a group.
const MAX_RULES: usize = 200;

/// Ports of TCP and UDP, types and codes of ICMP; nothing else has any: `rule.invalid`.
fn check_ports(rule: &AddRule) -> Result<()> {
    let wrong =
        |field: &str, message: &str| Err(CloudError::field(FieldError::new(field, "rule.invalid", message)));
    match (rule.protocol, rule.port_min, rule.port_max) {
        (_, None, None) => Ok(()),
        (Some(Protocol::Tcp | Protocol::Udp), Some(min), Some(max)) if min <= max => Ok(()),
        (Some(Protocol::Tcp | Protocol::Udp), ..) => wrong(
            "port_min",
            "give both port_min and port_max, the smaller one first",
        ),
        (Some(Protocol::Icmp), Some(kind), code) if kind.max(code.unwrap_or(0)) < 256 => Ok(()),
        (Some(Protocol::Icmp), ..) => wrong(
            "port_min",
            "of ICMP it is the type, 0 to 255, and port_max the code",
        ),
        _ => wrong("port_min", "only TCP, UDP and ICMP have ports, types and codes"),
    }
}

impl Cloud {
    fn rule(&self, direction: Direction, family: Family, remote: Option<Remote>) -> SecurityRule {
        SecurityRule {
            id: self.parts.ids.uuid(),
            direction,
            family,
            protocol: None,
            port_min: None,
            port_max: None,
            remote,
        }
    }

    /// A group that lets everything out, and the part of a commit that makes it with its unique name.
    pub(super) async fn new_group(
        &self,
        caller: &Caller,
        name: &Name,
        description: &str,
    ) -> Result<(SecurityGroup, Txn)> {
        let meta = Meta::new(self.parts.ids.uuid(), name.clone(), caller.scope(), self.now());
        let claim = self
            .claim_name::<SecurityGroup>("security-group", caller.scope(), name, meta.id)
            .await?;
        let families = [Family::Ipv4, Family::Ipv6];
        let mut rules: Vec<SecurityRule> = families
            .map(|family| self.rule(Direction::Egress, family, None))
            .into();
        if name.as_str() == DEFAULT {
            let group = SecurityGroupId::from_uuid(meta.id);
            let own = |family| self.rule(Direction::Ingress, family, Some(Remote::Group { group }));
            rules.extend(families.map(own));
        }
        let group = SecurityGroup {
            meta,
            spec: SecurityGroupSpec {
                rules,
                description: description.to_owned(),
            },
        };
        Ok((group, claim))
    }

    /// Makes a security group that lets everything out and nothing in.
    ///
    /// # Errors
    /// `name.invalid`, `labels.invalid`, `description.too_long`, `security-group.name_taken`, `quota.exceeded`, `auth.forbidden`.
    pub async fn create_security_group(
        &self,
        caller: &Caller,
        request: CreateSecurityGroup,
    ) -> Result<SecurityGroup> {
        let place = caller.here()?;
        let all = Object::all("security-group", place);
        caller.may("security-group:create", &all.labelled(&request.labels))?;
        let name = check_new(&request.name, &request.labels, &request.description)?;
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "security-groups.create", json!(request), || {
                async move {
                    let (mut group, claim) = self.new_group(caller, name, &request.description).await?;
                    group.meta.labels = request.labels.clone();
                    let told = group.meta.clone();
                    let mut members = GroupMembers::default();
                    if name.as_str() == DEFAULT {
                        members.named_by.insert(group.id());
                    }
                    let members = create(&paths::members(group.id()), &members)?;
                    let txn = create_resource(&group)?.and(claim).and(members);
                    let amounts = amounts::of_security_group(group.spec.rules.len());
                    let change = Change::new(txn, group).charge(amounts);
                    Ok(change.told("security-group:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of the project's security groups.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_security_groups(
        &self,
        caller: &Caller,
        query: &ListQuery,
    ) -> Result<Listed<SecurityGroup>> {
        self.list_resources(caller, "security-group:read", &[caller.scope()], query)
            .await
    }

    /// One security group.
    ///
    /// # Errors
    /// `security-group.not_found`.
    pub async fn get_security_group(
        &self,
        caller: &Caller,
        id: SecurityGroupId,
    ) -> Result<Versioned<SecurityGroup>> {
        self.own(caller, "security-group:read", id.uuid()).await
    }

    /// Changes name, description and labels of a security group; what is absent stays.
    ///
    /// # Errors
    /// `security-group.not_found`, `security-group.is_default` for the name of `default`, `security-group.name_taken`, `name.invalid`,
    /// `labels.invalid`, `description.too_long`, `precondition.failed`, `auth.forbidden`.
    pub async fn update_security_group(
        &self,
        caller: &Caller,
        id: SecurityGroupId,
        request: UpdateSecurityGroup,
    ) -> Result<SecurityGroup> {
        let name = check_texts(
            request.name.as_deref(),
            request.labels.as_ref(),
            request.description.as_deref(),
        )?;
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "security-groups.update", json!([id, request]), || {
                async move {
                    let found = self
                        .own::<SecurityGroup>(caller, "security-group:update", id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let mut group = found.value.clone();
                    if group.meta.name.as_str() == DEFAULT
                        && name.as_ref().is_some_and(|n| *n != group.meta.name)
                    {
                        let message = "the group that new ports are in keeps its name";
                        return Err(conflict(
                            "security-group.is_default",
                            message,
                            "make another group",
                        ));
                    }
                    let claims = self.renaming("security-group", &found, name.as_ref()).await?;
                    if let Some(name) = name {
                        group.meta.name = name.clone();
                    }
                    if let Some(labels) = &request.labels {
                        group.meta.labels = labels.clone();
                    }
                    if let Some(description) = &request.description {
                        group.spec.description = description.clone();
                    }
                    group.meta.updated_at = self.now();
                    let txn = found.replace(&group)?.and(claims);
                    Ok(Change::new(txn, group).told("security-group:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Removes a security group that no port is in. Rules of other groups that name it allow nobody from then on.
    ///
    /// # Errors
    /// `security-group.not_found`, `security-group.in_use`, `security-group.is_default`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_security_group(&self, caller: &Caller, id: SecurityGroupId) -> Result<()> {
        self.once(caller, "security-groups.delete", json!(id), || {
            async move {
                let found = self
                    .own::<SecurityGroup>(caller, "security-group:delete", id.uuid())
                    .await?;
                precondition(caller, found.modified)?;
                if found.value.meta.name.as_str() == DEFAULT {
                    let message = "every project keeps the group that new ports are in";
                    return Err(conflict(
                        "security-group.is_default",
                        message,
                        "take its rules out instead",
                    ));
                }
                let mut txn = self.remove_named(&found).await?;
                let mut namers: Vec<SecurityGroupId> = Vec::new();
                if let Some(members) = self.read::<GroupMembers>(&paths::members(id)).await? {
                    let ports = members.value.ports.len();
                    if ports > 0 {
                        let message = format!("{ports} ports are in the security group");
                        return Err(conflict(
                            "security-group.in_use",
                            message,
                            "put them into other groups first",
                        ));
                    }
                    txn = txn.and(members.delete());
                    namers.extend(members.value.named_by.iter().filter(|namer| **namer != id));
                }
                // What is left of it on hosts is newer than what they have: wirings are of the newest of these records.
                let mut named = Vec::new();
                for namer in namers {
                    let scope = found.value.meta.scope;
                    let Some(namer) = self.resource::<SecurityGroup>(scope, namer.uuid()).await? else {
                        continue;
                    };
                    let mut group = namer.value.clone();
                    group.meta.generation += 1;
                    txn = txn.and(namer.replace(&group)?);
                    named.push(group.id());
                }
                let task = self.rewire(caller, &found.value, &named, &[], None).await?;
                let amounts = amounts::of_security_group(found.value.spec.rules.len());
                let change = Change::new(txn, ()).task(task).give_back(amounts);
                Ok(change.told("security-group:delete", &found.value.meta))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }

    /// Allows one thing more.
    ///
    /// # Errors
    /// `security-group.not_found`, `rule.invalid`, `rule.exists`, `rule.too_many`, `cidr.invalid`, `quota.exceeded`,
    /// `precondition.failed`, `auth.forbidden`.
    pub async fn add_rule(
        &self,
        caller: &Caller,
        id: SecurityGroupId,
        request: AddRule,
    ) -> Result<SecurityGroup> {
        check_ports(&request)?;
        let request = &request;
        let done = self
            .once(caller, "security-groups.add_rule", json!([id, request]), || {
                async move {
                    let found = self
                        .own::<SecurityGroup>(caller, "security-group:update", id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let (remote, family, guard) = self.remote(caller, request).await?;
                    let rule = SecurityRule {
                        protocol: request.protocol,
                        port_min: request.port_min,
                        port_max: request.port_max,
                        ..self.rule(request.direction, family, remote)
                    };
                    let mut group = found.value.clone();
                    let same = |other: &SecurityRule| {
                        SecurityRule {
                            id: rule.id,
                            ..other.clone()
                        } == rule
                    };
                    if let Some(other) = group.spec.rules.iter().find(|other| same(other)) {
                        let message = format!("the rule {} allows just that", other.id);
                        return Err(conflict("rule.exists", message, "nothing is to be done"));
                    }
                    if group.spec.rules.len() >= MAX_RULES {
                        let message = format!("a group has at most {MAX_RULES} rules");
                        return Err(conflict(
                            "rule.too_many",
                            message,
                            "use several groups, or prefixes",
                        ));
                    }
                    group.spec.rules.push(rule);
                    group.meta.generation += 1;
                    group.meta.updated_at = self.now();
                    // A group may name itself: it is compared already.
                    let guard = guard.filter(|(of, _)| *of != id).map(|(_, guard)| guard);
                    let mut txn = guard.into_iter().fold(found.replace(&group)?, Txn::guard);
                    if let Some(Remote::Group { group: named }) =
                        group.spec.rules.last().and_then(|r| r.remote.as_ref())
                    {
                        txn = txn.and(self.named_by(*named, id).await?);
                    }
                    let task = self.rewire(caller, &group, &[id], &[], None).await?;
                    let change = Change::new(txn, group).task(task).charge(amounts::of_rule());
                    Ok(change.told("security-group:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Adds: who is in `named` concerns the members of `namer`.
    async fn named_by(&self, named: SecurityGroupId, namer: SecurityGroupId) -> Result<Txn> {
        let at = paths::members(named);
        let Some(found) = self.read::<GroupMembers>(&at).await? else {
            let named_by = [namer].into();
            return create(
                &at,
                &GroupMembers {
                    named_by,
                    ..GroupMembers::default()
                },
            );
        };
        let mut members = found.value.clone();
        match members.named_by.insert(namer) {
            true => Ok(found.replace(&members)?),
            false => Ok(Txn::new()),
        }
    }

    /// The other side of a rule, and the family that both are of.
    async fn remote(
        &self,
        caller: &Caller,
        request: &AddRule,
    ) -> Result<(Option<Remote>, Family, Option<(SecurityGroupId, Guard)>)> {
        let wrong =
            |field: &str, message: &str| CloudError::field(FieldError::new(field, "rule.invalid", message));
        let family = request.family.unwrap_or(Family::Ipv4);
        match (&request.remote_prefix, &request.remote_group) {
            (Some(_), Some(_)) => Err(wrong("remote_group", "give a prefix or a group, not both")),
            (None, None) => Ok((None, family, None)),
            (Some(text), None) => {
                let prefix = addresses::prefix("remote_prefix", text)?;
                if request.family.is_some_and(|family| family != prefix.family()) {
                    return Err(wrong("remote_prefix", "it is of the other family"));
                }
                let remote = Remote::Prefix {
                    base: prefix.base(),
                    prefix_len: prefix.bits(),
                };
                Ok((Some(remote), prefix.family(), None))
            }
            (None, Some(asked)) => {
                let group = self.group_of(caller, "remote_group", asked).await?;
                let id = group.value.id();
                Ok((
                    Some(Remote::Group { group: id }),
                    family,
                    Some((id, group.unchanged())),
                ))
            }
        }
    }

    /// Takes one rule out.
    ///
    /// # Errors
    /// `security-group.not_found`, `rule.not_found`, `precondition.failed`, `auth.forbidden`.
    pub async fn remove_rule(
        &self,
        caller: &Caller,
        id: SecurityGroupId,
        rule: Uuid,
    ) -> Result<SecurityGroup> {
        let done = self
            .once(caller, "security-groups.remove_rule", json!([id, rule]), || {
                async move {
                    let found = self
                        .own::<SecurityGroup>(caller, "security-group:update", id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let mut group = found.value.clone();
                    group.spec.rules.retain(|other| other.id != rule);
                    if group.spec.rules.len() == found.value.spec.rules.len() {
                        return Err(CloudError::not_found("rule"));
                    }
                    group.meta.generation += 1;
                    group.meta.updated_at = self.now();
                    let task = self.rewire(caller, &group, &[id], &[], None).await?;
                    let change = Change::new(found.replace(&group)?, group).task(task);
                    let change = change.give_back(amounts::of_rule());
                    Ok(change.told("security-group:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// The group with that id or name, if the caller may see it.
    pub(super) async fn group_of(
        &self,
        caller: &Caller,
        field: &str,
        asked: &str,
    ) -> Result<Versioned<SecurityGroup>> {
        let found = self.by_id_or_name::<SecurityGroup>(caller.scope(), asked).await?;
        let found = found.filter(|group| caller.may_to("security-group:read", &group.value.meta).is_ok());
        checks::found(field, "security-group", asked, found)
    }
}
