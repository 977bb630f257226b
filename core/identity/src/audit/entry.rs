//! One entry of the audit.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use skyloom_model::{Id, ProjectId, TaskId, Timestamp};
use skyloom_store::{Key, Result, Txn, Value};
use uuid::Uuid;

use super::key;
use crate::{DomainId, Method, Principal, UserId, Via};

/// Id of an entry.
pub type EntryId = Id<Entry>;

/// A word of the program: a permission, a kind, an error's code, a field's name. Never made of what a caller sent: but for reading
/// one back, it is made of texts that are compiled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Word(Cow<'static, str>);

impl Word {
    /// A word.
    #[must_use]
    pub const fn new(word: &'static str) -> Self {
        Self(Cow::Borrowed(word))
    }
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Most bytes of a [`Text`].
const MAX_TEXT: usize = 256;

/// Text that came from a caller: at most 256 bytes, control and formatting characters escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Escapes and cuts a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut out = String::new();
        for c in text.chars() {
            let mut buffer = [0; 4];
            let plain = !c.is_control() && !formats(c) && c != '\\';
            let escaped = if plain {
                Cow::Borrowed(&*c.encode_utf8(&mut buffer))
            } else {
                Cow::Owned(c.escape_default().to_string())
            };
            if out.len() + escaped.len() > MAX_TEXT - '…'.len_utf8() {
                out.push('…');
                break;
            }
            out.push_str(&escaped);
        }
        Self(out)
    }
    /// The text as it is kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Characters that are not seen themselves but change how others are.
const fn formats(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

/// Who did it, or tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditActor {
    /// The user. `None` where none is known: what was typed in as a name is not kept, it may be a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The user's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainId>,
    /// By what.
    pub via: Via,
    /// How that was proven, or tried to be.
    #[serde(default)]
    pub methods: Vec<Method>,
}

impl AuditActor {
    /// Somebody who has not proven who they are.
    #[must_use]
    pub fn unknown(methods: Vec<Method>) -> Self {
        Self {
            user: None,
            domain: None,
            via: Via::User,
            methods,
        }
    }
}

impl From<&Principal> for AuditActor {
    fn from(principal: &Principal) -> Self {
        Self {
            user: Some(principal.user),
            domain: Some(principal.domain),
            via: principal.via.clone(),
            methods: principal.methods.clone(),
        }
    }
}

/// Where the object lies: who may see the entry follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum AuditScope {
    /// In the cloud itself.
    System,
    /// In a domain.
    Domain {
        /// Which.
        id: DomainId,
    },
    /// In a project.
    Project {
        /// Which.
        id: ProjectId,
        /// Of which domain.
        domain: DomainId,
    },
}

/// What it was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditObject {
    /// Its kind.
    pub kind: Word,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its name, as its record has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Where it lies.
    pub scope: AuditScope,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum AuditOutcome {
    /// It was done, or has begun as a task.
    Done,
    /// It was not allowed.
    Denied {
        /// Why, as a code.
        code: Word,
    },
    /// It was allowed and did not work.
    Failed {
        /// Why, as a code.
        code: Word,
    },
}

/// One entry that stands for many of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// How many.
    pub times: u64,
    /// When the last of them was.
    pub until: Timestamp,
}

/// Who did what to what, from where, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub id: EntryId,
    /// When.
    pub at: Timestamp,
    /// The request.
    #[serde(default)]
    pub request_id: Text,
    /// Who.
    pub actor: AuditActor,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// What, as a permission's name.
    pub action: Word,
    /// To what.
    pub object: AuditObject,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The task that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Names of the fields that it changed. Never their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Word>,
    /// The tokens that it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_audit_ids: Vec<Uuid>,
    /// Set where the entry stands for many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Repeated>,
}

/// Most names of fields, methods and tokens that an entry keeps.
const MOST: usize = 64;

impl Entry {
    /// The day below which it lies.
    pub(super) fn day(at: Timestamp) -> String {
        at.strftime("%Y-%m-%d").to_string()
    }

    pub(super) fn key(&self) -> Result<Key> {
        key(&format!("{}/{}/{}", super::AUDIT, Self::day(self.at), self.id))
    }

    /// The part of a commit that writes it.
    pub(super) fn create(&self) -> Result<Txn> {
        let mut bounded = self.clone();
        bounded.changes.truncate(MOST);
        bounded.token_audit_ids.truncate(MOST);
        bounded.actor.methods.truncate(MOST);
        Ok(Txn::new().create(self.key()?, Value::json(&bounded)?))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
