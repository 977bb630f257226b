//! What is seen of a guest, and the agent in it. Both wait for no verb; an agent that is silent holds up no look.

use std::time::Duration;

use async_trait::async_trait;
use skyloom_hypervisor::{GuestAgent, Result, Screen};
use skyloom_model::{Secret, ServerId};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::stream::Stream;
use virt_sys as sys;

use crate::LibvirtHypervisor;
use crate::domain;
use crate::errors::Fault;
use crate::state::Seen;

/// Longest picture.
const MAX_PICTURE: usize = 8 << 20;
/// Seconds that the agent may take for its answer.
const AGENT_SECONDS: i32 = 3;
/// All that a call to the agent may take.
const AGENT: Duration = Duration::from_secs(10);

/// The domain, if its guest is there.
fn there(conn: &Connect, id: ServerId) -> Result<Domain, Fault> {
    let domain = domain::must_find(conn, id)?.domain;
    match domain::see(&domain)? {
        Seen::Up | Seen::Held => Ok(domain),
        _ => Err(Fault::Conflict("it is off")),
    }
}

fn picture(conn: &Connect, id: ServerId) -> Result<Vec<u8>, Fault> {
    let domain = there(conn, id)?;
    let stream = Stream::new(conn, 0)?;
    let kind = domain.screenshot(&stream, 0, 0)?;
    if kind != "image/png" {
        stream.abort()?;
        return Err(Fault::Unsupported(format!("a picture of the kind {kind}")));
    }
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = stream.recv(&mut piece)?;
        if read == 0 {
            stream.finish()?;
            return Ok(all);
        }
        all.extend_from_slice(&piece[..read.min(piece.len())]);
        if all.len() > MAX_PICTURE {
            stream.abort()?;
            return Err(Fault::Unsupported("a picture of more than 8 MiB".to_owned()));
        }
    }
}

/// Whether the error says that no agent answers, not that it refused.
fn is_silent(error: &virt::error::Error) -> bool {
    matches!(
        error.code(),
        ErrorNumber::AgentUnresponsive | ErrorNumber::AgentUnsynced | ErrorNumber::OperationTimeout
    )
}

#[async_trait]
impl Screen for LibvirtHypervisor {
    async fn screenshot(&self, id: ServerId) -> Result<Vec<u8>> {
        let limit = self.core.config.timeouts.command;
        let seen = self.core.work.call(limit, (), move |conn| picture(conn, id));
        seen.await.map_err(|fault| fault.of("take screenshot", id))
    }
}

#[async_trait]
impl GuestAgent for LibvirtHypervisor {
    async fn answers(&self, id: ServerId) -> Result<bool> {
        let asked = self.core.work.call(AGENT, (), move |conn| {
            let domain = match there(conn, id) {
                Ok(domain) => domain,
                Err(Fault::Conflict(_)) => return Ok(false),
                Err(other) => return Err(other),
            };
            match domain.qemu_agent_command(r#"{"execute": "guest-ping"}"#, AGENT_SECONDS, 0) {
                Ok(_) => Ok(true),
                Err(e) if is_silent(&e) => Ok(false),
                Err(e) => Err(e.into()),
            }
        });
        asked.await.map_err(|fault| fault.of("ask the guest's agent", id))
    }

    async fn set_password(&self, id: ServerId, user: &str, hash: &Secret<String>) -> Result<()> {
        const OPERATION: &str = "set password";
        if user.contains('\0') || hash.expose().contains('\0') {
            return Err(Fault::Invalid("a user or password has no NUL").of(OPERATION, id));
        }
        // libvirt waits for an agent without any limit: one that is silent is not asked.
        let silent = || Fault::Down("no agent answers in the guest".to_owned()).of(OPERATION, id);
        let answers = self.answers(id).await?;
        let (user, hash) = (user.to_owned(), hash.clone());
        let set = self.core.work.call(AGENT, (), move |conn| {
            let domain = there(conn, id)?;
            if !answers {
                return Ok(false);
            }
            match domain.set_user_password(&user, hash.expose(), sys::VIR_DOMAIN_PASSWORD_ENCRYPTED) {
                Ok(_) => Ok(true),
                Err(e) if is_silent(&e) => Ok(false),
                Err(e) => Err(e.into()),
            }
        });
        match set.await.map_err(|fault| fault.of(OPERATION, id))? {
            true => Ok(()),
            false => Err(silent()),
        }
    }
}
