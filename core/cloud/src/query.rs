//! Questions to a host's agent about what is in no record, such as the end of a console log.
//!
//! ```text
//!  asker ── create queries/{host}/{id} ──> Store ──mirror──> agent: answer_queries
//!    ^                                                             │ looks, writes the answer into the same record
//!    └── sees the answer (mirror), deletes the record <────────────┘
//! ```
//!
//! The asker removes its question in any case; what a dead asker left behind the agent drops after a minute.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use skyloom_flow::Fence;
use skyloom_hypervisor::Hypervisor;
use skyloom_model::{Clock, HostId, Reason, ServerId, Timestamp, paths};
use skyloom_store::{DynBackend, Key, Mirror, Prefix, Txn, Value, Versioned, latest};
use tokio_util::sync::CancellationToken;

use crate::{CloudParts, Result};

/// Most bytes of a console log that can be asked for.
pub const MAX_CONSOLE_BYTES: u32 = 64 << 10;
/// Largest picture of a screen that is passed on: it fits a store's value with what JSON makes of it.
pub const MAX_SCREENSHOT_BYTES: usize = 704 << 10;
/// How a PNG begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// How long an asker waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// When an agent drops a question that nobody took away.
const LEFT_BEHIND: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// How often an agent looks for such questions.
const SWEEP: Duration = Duration::from_secs(60);

/// A question and, once the agent has seen it, its answer. Lies at [`paths::query`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// What is asked.
    pub question: Question,
    /// When, by the asker's clock.
    pub asked_at: Timestamp,
    /// What the agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum Question {
    /// The end of a server's console log.
    ConsoleTail {
        /// Whose.
        server: ServerId,
        /// Most bytes.
        bytes: u32,
    },
    /// A picture of what a server shows.
    Screenshot {
        /// Whose.
        server: ServerId,
    },
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum Answer {
    /// The end of a console log.
    ConsoleTail {
        /// The text; what is no UTF-8 is replaced. Untrusted.
        text: String,
    },
    /// A picture.
    Screenshot {
        /// A PNG of at most [`MAX_SCREENSHOT_BYTES`] in base 64. Untrusted.
        png: String,
    },
    /// It cannot say.
    Failed(Reason),
}

/// Asks and waits; `None` when the agent does not answer in time.
pub(crate) async fn ask(parts: &CloudParts, host: HostId, question: Question) -> Result<Option<Answer>> {
    let key = Key::parse(&paths::query(host, parts.ids.uuid()))?;
    let query = Query {
        question,
        asked_at: parts.clock.now(),
        answer: None,
    };
    parts
        .backend
        .commit(Txn::new().create(key.clone(), Value::json(&query)?))
        .await?;
    let answer = tokio::time::timeout(PATIENCE, answered(parts.backend.clone(), host, &key)).await;
    // By key, not by revision: whatever the agent wrote meanwhile, nobody else will read it.
    if let Err(error) = parts.backend.commit(Txn::new().delete(key.clone())).await {
        tracing::debug!(%key, %error, "a question stays behind");
    }
    answer.unwrap_or(Ok(None))
}

async fn answered(backend: DynBackend, host: HostId, key: &Key) -> Result<Option<Answer>> {
    let (mirror, driver) = Mirror::<Query>::new(backend, Prefix::parse(&paths::queries(host))?);
    let mut changes = mirror.changes();
    let look = async {
        while changes.next().await.is_some() {
            if let Some(query) = mirror.get(key)
                && let Some(answer) = &query.value.answer
            {
                return Some(answer.clone());
            }
        }
        None
    };
    tokio::select! {
        biased;
        answer = look => Ok(answer),
        () = driver.run(CancellationToken::new()) => Ok(None),
    }
}

/// What [`answer_queries`] is made of.
#[derive(Debug, Clone)]
pub struct ResponderParts {
    /// Where the questions are.
    pub backend: DynBackend,
    /// Whose questions.
    pub host: HostId,
    /// Who knows.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The lease under which answers are written.
    pub fence: latest::Receiver<Option<Fence>>,
}

/// Answers a host's questions until `shutdown`. The agent owns the future.
///
/// # Errors
/// Never in practice: a host's id makes a valid prefix.
pub async fn answer_queries(parts: ResponderParts, shutdown: CancellationToken) -> skyloom_store::Result<()> {
    let prefix = Prefix::parse(&paths::queries(parts.host)).map_err(|e| {
        skyloom_store::Error::new(skyloom_store::ErrorKind::Internal, "answer queries").because(e)
    })?;
    let (mirror, driver) = Mirror::<Query>::new(parts.backend.clone(), prefix);
    let mut changes = mirror.changes();
    let mut fence = parts.fence.clone();
    let respond = async {
        loop {
            tokio::select! {
                biased;
                changed = changes.next() => if changed.is_none() { return },
                // Questions may have come before the lease.
                fenced = fence.changed() => if fenced.is_err() { return },
                // Now and then also without a change, for what was left behind.
                () = tokio::time::sleep(SWEEP) => {}
            }
            let snapshot = mirror.snapshot();
            for query in snapshot.iter() {
                respond(&parts, query).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = driver.run(shutdown) => {}
        () = respond => {}
    }
    Ok(())
}

/// Answers one question, or drops it when it is too old. What fails is seen again with the next change.
async fn respond(parts: &ResponderParts, query: &Versioned<Query>) {
    let Some(fence) = parts.fence.borrow().clone() else {
        return;
    };
    let old = parts.clock.now().duration_since(query.value.asked_at) > LEFT_BEHIND;
    let txn = if old {
        query.delete()
    } else if query.value.answer.is_none() {
        let answer = Some(answer(&*parts.hypervisor, &query.value.question).await);
        match query.replace(&Query {
            answer,
            ..query.value.clone()
        }) {
            Ok(txn) => txn,
            Err(error) => {
                tracing::warn!(key = %query.key, %error, "an answer cannot be written");
                return;
            }
        }
    } else {
        return;
    };
    // A conflict means that the asker has gone or the lease is lost: nothing to do either way.
    if let Err(error) = parts.backend.commit(txn.guard(fence.guard())).await {
        tracing::warn!(key = %query.key, error = %skyloom_model::report(&error), "an answer cannot be written");
    }
}

/// Whether it looks like a picture that may be passed on.
pub(crate) fn is_picture(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_SCREENSHOT_BYTES && bytes.starts_with(PNG)
}

async fn answer(hypervisor: &dyn Hypervisor, question: &Question) -> Answer {
    match question {
        Question::ConsoleTail { server, bytes } => console_tail(hypervisor, *server, *bytes).await,
        Question::Screenshot { server } => screenshot(hypervisor, *server).await,
    }
}

async fn console_tail(hypervisor: &dyn Hypervisor, server: ServerId, bytes: u32) -> Answer {
    let Some(console) = hypervisor.as_console() else {
        return Answer::Failed(Reason::new(
            "host.no_console",
            "this host's hypervisor keeps no console log",
        ));
    };
    let most = usize::try_from(bytes.min(MAX_CONSOLE_BYTES)).unwrap_or(usize::MAX);
    match console.console_tail(server, most).await {
        Ok(tail) => {
            let start = tail.len().saturating_sub(most);
            let text = String::from_utf8_lossy(tail.get(start..).unwrap_or_default()).into_owned();
            Answer::ConsoleTail { text }
        }
        Err(error) => Answer::Failed(error.reason()),
    }
}

async fn screenshot(hypervisor: &dyn Hypervisor, server: ServerId) -> Answer {
    let Some(screen) = hypervisor.as_screen() else {
        return Answer::Failed(Reason::new(
            "host.cannot",
            "this host's hypervisor takes no pictures of screens",
        ));
    };
    match screen.screenshot(server).await {
        Ok(picture) if is_picture(&picture) => Answer::Screenshot {
            png: STANDARD.encode(picture),
        },
        Ok(picture) if picture.len() > MAX_SCREENSHOT_BYTES => {
            let message = format!(
                "the picture takes {} bytes, {MAX_SCREENSHOT_BYTES} are the most",
                picture.len()
            );
            Answer::Failed(
                Reason::new("screen.too_large", message)
                    .hint("have the guest show less, or a smaller screen"),
            )
        }
        Ok(_) => Answer::Failed(Reason::new(
            "screen.no_picture",
            "what the hypervisor gave is no PNG",
        )),
        Err(error) => Answer::Failed(error.reason()),
    }
}
