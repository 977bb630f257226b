//! Going through records that grow with time below each scope, without reading the young ones.

use skyloom_store::{Key, KeyValue, ListOptions, Prefix, Result, Store};

/// Records that are read at once when there is reason to think that most are young, and at most.
const FEW: usize = 16;
const MANY: usize = 256;

/// What a walk does about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is old.
    Old,
    /// It stays; what follows may be old.
    Stays,
    /// It is young, and so is what follows it in its scope.
    Young,
}

/// Where a walk is. Begins anew when it is through.
#[derive(Debug)]
pub(super) struct Walk {
    below: &'static str,
    after: Option<Key>,
    page: usize,
}

/// A step of a walk.
#[derive(Debug)]
pub(super) struct Step {
    /// What is old, in key order.
    pub(super) old: Vec<KeyValue>,
    /// Records that were read.
    pub(super) looked: usize,
}

impl Walk {
    pub(super) fn new(below: &'static str) -> Self {
        Self {
            below,
            after: None,
            page: FEW,
        }
    }

    /// Whether the walk is in the middle.
    pub(super) fn under_way(&self) -> bool {
        self.after.is_some()
    }

    /// The next page.
    pub(super) async fn step(
        &mut self,
        store: &dyn Store,
        judge: impl Fn(&KeyValue) -> Verdict + Send,
    ) -> Result<Step> {
        let below = self.prefix()?;
        let mut options = ListOptions::default().with_limit(self.page);
        if let Some(after) = &self.after {
            options = options.with_after(after.clone());
        }
        let page = store.list(&below, options).await?;
        let looked = page.items.len();
        self.after = page.items.last().filter(|_| page.more).map(|kv| kv.key.clone());
        self.page = (self.page * 2).min(MANY);
        let mut old = Vec::new();
        for kv in page.items {
            match judge(&kv) {
                Verdict::Old => old.push(kv),
                Verdict::Stays => {}
                Verdict::Young => {
                    self.after = Some(behind_scope(&below, &kv.key)?);
                    self.page = FEW;
                    break;
                }
            }
        }
        Ok(Step { old, looked })
    }

    fn prefix(&self) -> Result<Prefix> {
        Prefix::parse(self.below).map_err(super::copy::bad_key)
    }
}

/// A key behind all of the scope, the first segment below `below`, that `key` lies in.
fn behind_scope(below: &Prefix, key: &Key) -> Result<Key> {
    let scope = below.strip(key).and_then(|rest| rest.split('/').next());
    // No id and no time has this character, which follows all of theirs.
    Key::parse(&format!("{}{}/~", below.as_str(), scope.unwrap_or_default())).map_err(super::copy::bad_key)
}
