//! The end of a server's console log, asked of its host's agent.

use skyloom_model::{Reason, Server, ServerId};

use super::Cloud;
use crate::query::{self, Answer, MAX_CONSOLE_BYTES, Question};
use crate::{Caller, CloudError, ErrorKind, FieldError, Result};

impl Cloud {
    /// The last `bytes` (1 to 65536) of what the guest wrote to its serial console. Untrusted text: what is no UTF-8 is
    /// replaced, control characters are as they came.
    ///
    /// # Errors
    /// `server.not_found`, `server.not_placed`, `host.no_answer`, `bytes.invalid`, and those of the agent.
    pub async fn console_tail(&self, caller: &Caller, id: ServerId, bytes: u32) -> Result<String> {
        let server = self
            .own::<Server>(caller, "server:console", id.uuid())
            .await?
            .value;
        if !(1..=MAX_CONSOLE_BYTES).contains(&bytes) {
            let message = format!("{bytes} is not within 1 to {MAX_CONSOLE_BYTES}");
            return Err(CloudError::field(FieldError::new(
                "bytes",
                "bytes.invalid",
                message,
            )));
        }
        let Some(placement) = server.status.placement else {
            let reason = Reason::new(
                "server.not_placed",
                "the server is on no host, so it has no console",
            );
            return Err(CloudError::conflict(reason));
        };
        let question = Question::ConsoleTail { server: id, bytes };
        let answer = query::ask(&self.parts, placement.host, question).await?;
        match answer {
            Some(Answer::ConsoleTail { text }) => Ok(text),
            Some(Answer::Failed(reason)) if reason.retryable => {
                Err(CloudError::new(ErrorKind::Unavailable, reason))
            }
            Some(Answer::Failed(reason)) => Err(CloudError::conflict(reason)),
            None => {
                let host = if caller.sees_hosts() {
                    format!("the host {}", placement.host_name)
                } else {
                    "its host".to_owned()
                };
                let message = format!("the agent of {host} did not answer in time");
                let reason = Reason::new("host.no_answer", message)
                    .hint("look whether the agent runs")
                    .retryable();
                Err(CloudError::new(ErrorKind::Timeout, reason))
            }
        }
    }
}
