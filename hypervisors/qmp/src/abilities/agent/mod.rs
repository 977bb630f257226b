//! The agent in the guest, over a virtual serial line whose other end is a socket of QEMU.

mod wire;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use skyloom_hypervisor::{ErrorKind, Result};
use skyloom_model::{Secret, ServerId};
use tokio::net::UnixStream;

use super::screen::executing;
use crate::core::Core;
use crate::dir;
use crate::vm::Vm;
use wire::{AgentError, Line};

pub(super) async fn answers(core: &Core, id: ServerId) -> Result<bool> {
    let vm = match executing(core, "ask guest agent", id).await {
        Ok(vm) => vm,
        Err(e) if e.kind() == ErrorKind::Conflict => return Ok(false),
        Err(e) => return Err(e),
    };
    match call(&vm, "guest-ping", &Value::Null).await {
        Ok(_) => Ok(true),
        Err(e) => {
            tracing::debug!(server = %id, error = %skyloom_model::report(&e), "no guest agent");
            Ok(false)
        }
    }
}

pub(super) async fn set_password(core: &Core, id: ServerId, user: &str, hash: &Secret<String>) -> Result<()> {
    const OPERATION: &str = "set password";
    let vm = executing(core, OPERATION, id).await?;
    let encoded = STANDARD.encode(hash.expose());
    let arguments = json!({ "username": user, "password": encoded, "crypted": true });
    match call(&vm, "guest-set-user-password", &arguments).await {
        Ok(_) => Ok(()),
        Err(AgentError::Refused(words)) => {
            // It may say anything, also what it was told.
            let tells = words.contains(hash.expose().as_str()) || words.contains(&encoded);
            let words = if tells { "something secret" } else { &words };
            Err(vm
                .error(ErrorKind::Refused, OPERATION)
                .with("the agent said", words.escape_debug()))
        }
        Err(e) => Err(vm
            .error(ErrorKind::Unavailable, OPERATION)
            .with("because", "no agent answers")
            .because(e)),
    }
}

/// One question on a connection of its own.
async fn call(vm: &Arc<Vm>, command: &'static str, arguments: &Value) -> Result<Value, AgentError> {
    let _talking = vm.talking.lock().await;
    let limit = vm.env.config.timeouts.agent;
    let expected = vm.record.lock().await.live.process().map(|p| p.pid);
    let talk = async {
        let stream = UnixStream::connect(vm.dir.socket(dir::AGENT)).await?;
        let peer = stream.peer_cred()?.pid().and_then(|p| u32::try_from(p).ok());
        if peer.is_none() || peer != expected {
            return Err(AgentError::Foreign);
        }
        let mut line = Line::new(stream);
        // Told apart from the answers to questions of earlier agents.
        line.synchronise(vm.env.config.clock.now().as_microsecond().unsigned_abs())
            .await?;
        line.call(command, arguments).await
    };
    tokio::time::timeout(limit, talk)
        .await
        .unwrap_or(Err(AgentError::Silent))
}
