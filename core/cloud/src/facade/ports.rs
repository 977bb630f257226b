//! Ports: NICs of servers. They come and go with their server.

use skyloom_model::{Port, PortId};
use skyloom_store::Versioned;

use super::Cloud;
use crate::{Caller, ListQuery, Listed, Result};

impl Cloud {
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
}
