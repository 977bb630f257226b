//! What is seen of a server's guest, asked of its host's agent: the end of its console log, a picture of its screen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
        let question = Question::ConsoleTail { server: id, bytes };
        match self.ask_agent(caller, &server, question).await? {
            Answer::ConsoleTail { text } => Ok(text),
            _ => Err(strange_answer()),
        }
    }

    /// A picture of what the guest shows: a PNG of at most [`crate::MAX_SCREENSHOT_BYTES`], as its first bytes say; beyond them it is untrusted.
    ///
    /// # Errors
    /// `server.not_found`, `server.not_placed`, `host.cannot`, `host.no_answer`, `host.bad_answer`, and those of the agent:
    /// `host.conflict` when the server is off, `screen.too_large`.
    pub async fn screenshot(&self, caller: &Caller, id: ServerId) -> Result<Vec<u8>> {
        let server = self
            .own::<Server>(caller, "server:console", id.uuid())
            .await?
            .value;
        if server.status.placement.is_some() {
            self.able(&server, "screenshot").await?;
        }
        let question = Question::Screenshot { server: id };
        let Answer::Screenshot { png } = self.ask_agent(caller, &server, question).await? else {
            return Err(strange_answer());
        };
        // The agent has looked at it, but whose agent is this?
        let picture = STANDARD.decode(png).map_err(|_| strange_answer())?;
        if !query::is_picture(&picture) {
            return Err(strange_answer());
        }
        Ok(picture)
    }

    async fn ask_agent(&self, caller: &Caller, server: &Server, question: Question) -> Result<Answer> {
        let Some(placement) = &server.status.placement else {
            let reason = Reason::new(
                "server.not_placed",
                "the server is on no host, so it has neither console nor screen",
            );
            return Err(CloudError::conflict(reason));
        };
        match query::ask(&self.parts, placement.host, question).await? {
            Some(Answer::Failed(reason)) if reason.retryable => {
                Err(CloudError::new(ErrorKind::Unavailable, reason))
            }
            Some(Answer::Failed(reason)) => Err(CloudError::conflict(reason)),
            Some(answer) => Ok(answer),
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

fn strange_answer() -> CloudError {
    let reason = Reason::new(
        "host.bad_answer",
        "the host's agent answered something that was not asked for",
    );
    CloudError::new(ErrorKind::Unavailable, reason)
}
