//! Ports: NICs of servers. They come and go with their server.

use skyloom_model::{Port, PortId, Resource as _, paths};
use skyloom_store::Versioned;

use super::Cloud;
use super::records::prefix;
use crate::{Caller, ListQuery, Listed, Result};

impl Cloud {
    /// A page of the project's ports.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_ports(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Port>> {
        caller.may_read()?;
        self.list_resources(&[prefix(&paths::scoped(Port::KIND, caller.scope()))?], query)
            .await
    }

    /// One port.
    ///
    /// # Errors
    /// `port.not_found`.
    pub async fn get_port(&self, caller: &Caller, id: PortId) -> Result<Versioned<Port>> {
        caller.may_read()?;
        self.own(caller, id.uuid(), "port").await
    }
}
