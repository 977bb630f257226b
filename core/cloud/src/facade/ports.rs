//! Ports: NICs, of servers or to be. Those that are made with a server go with it.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::Object;
use skyloom_model::{Name, Port, PortId, SecurityGroupId};
use skyloom_store::Versioned;

use super::Cloud;
use super::networks::check_texts;
use super::once::Change;
use super::plugging::Plugging;
use super::records::precondition;
use super::volumes::conflict;
use crate::{Caller, CreatePort, ListQuery, Listed, Result, UpdatePort, amounts};

impl Cloud {
    /// Makes a port: its address and MAC address are its own from then on.
    ///
    /// # Errors
    /// `name.invalid`, `labels.invalid`, `network.not_found`, `network.no_subnet`, `network.no_port_security`, `address.invalid`,
    /// `address.in_use`, `mac.in_use`, `subnet.exhausted`, `security-group.not_found`, `security-group.too_many`, `quota.exceeded`,
    /// `auth.forbidden`.
    pub async fn create_port(&self, caller: &Caller, request: CreatePort) -> Result<Port> {
        let place = caller.here()?;
        caller.may(
            "port:create",
            &Object::all("port", place).labelled(&request.labels),
        )?;
        let name = check_texts(request.name.as_deref(), Some(&request.labels), None)?;
        let (request, name): (_, &Option<Name>) = (&request, &name);
        let done = self
            .once(caller, "ports.create", json!(request), || {
                async move {
                    let mut plugging = Plugging::new(self, caller);
                    let port = plugging.port("", request, name.clone(), None).await?;
                    let (txn, amounts) = plugging.finish()?;
                    let told = port.meta.clone();
                    Ok(Change::new(txn, port).charge(amounts).told("port:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of the project's ports.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_ports(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Port>> {
        self.list_resources(caller, "port:read", &[caller.scope()], query)
            .await
    }

    /// One port.
    ///
    /// # Errors
    /// `port.not_found`.
    pub async fn get_port(&self, caller: &Caller, id: PortId) -> Result<Versioned<Port>> {
        self.own(caller, "port:read", id.uuid()).await
    }

    /// Changes name, labels and security groups of a port; what is absent stays.
    ///
    /// # Errors
    /// `port.not_found`, `name.invalid`, `labels.invalid`, `port.user_network`, `network.no_port_security`, `security-group.not_found`,
    /// `security-group.too_many`, `precondition.failed`, `auth.forbidden`.
    pub async fn update_port(&self, caller: &Caller, id: PortId, request: UpdatePort) -> Result<Port> {
        let name = check_texts(request.name.as_deref(), request.labels.as_ref(), None)?;
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "ports.update", json!([id, request]), || {
                async move {
                    let found = self.own::<Port>(caller, "port:update", id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    let mut port = found.value.clone();
                    if let Some(name) = name {
                        port.meta.name = name.clone();
                    }
                    if let Some(labels) = &request.labels {
                        port.meta.labels = labels.clone();
                    }
                    let mut plugging = Plugging::new(self, caller);
                    let mut task = None;
                    if let Some(groups) = &request.security_groups {
                        plugging.regroup(&mut port, groups).await?;
                        port.meta.generation += 1;
                        let (before, now) = (&found.value.spec.security_groups, &port.spec.security_groups);
                        let changed = |g: &&SecurityGroupId| before.contains(g) != now.contains(g);
                        let joined: Vec<_> = before.iter().chain(now).filter(changed).copied().collect();
                        task = self.rewire(caller, &port, &[], &joined, port.spec.server).await?;
                    }
                    let (parts, amounts) = plugging.finish()?;
                    port.meta.updated_at = self.now();
                    let txn = found.replace(&port)?.and(parts);
                    let change = Change::new(txn, port).task(task).charge(amounts);
                    Ok(change.told("port:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Removes a port that no server has.
    ///
    /// # Errors
    /// `port.not_found`, `port.in_use`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_port(&self, caller: &Caller, id: PortId) -> Result<()> {
        self.once(caller, "ports.delete", json!(id), || {
            async move {
                let found = self.own::<Port>(caller, "port:delete", id.uuid()).await?;
                precondition(caller, found.modified)?;
                if found.value.spec.server.is_some() {
                    let message = "a server has the port";
                    return Err(conflict("port.in_use", message, "delete the server first"));
                }
                let mut plugging = Plugging::new(self, caller);
                plugging.remove(&found).await?;
                let (txn, _) = plugging.finish()?;
                let left = &found.value.spec.security_groups;
                let task = self.rewire(caller, &found.value, &[], left, None).await?;
                let change = Change::new(txn, ()).task(task).give_back(amounts::of_ports(1));
                Ok(change.told("port:delete", &found.value.meta))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }
}
