//! One record's way into the archive: create, look when that was not said to have worked, then remove.

use serde_json::Value as Json;
use skyloom_model::{Plan, Run, Scope, Task, TaskId, paths};
use skyloom_store::{
    Error, ErrorKind, Guard, Key, KeyError, KeyValue, Outcome, Prefix, Result, Store, Txn, Value,
};

use super::document::{Archived, Composed, Content, Document, Finished, Part, Place, joined, part_key};
use super::{Archive, longest};

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the archive and has left the hot store by this very call.
    Moved,
    /// Somebody else was faster.
    Elsewhere,
}

/// Whether an equal copy is in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    Equal,
    Differs,
    Absent,
}

impl Archive {
    /// Moves a finished task with its plan and its run.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the archive has another task of that id, [`ErrorKind::TooLarge`] and the like when the
    /// task can never be written, and those of both stores. The hot store is as it was then.
    pub(super) async fn move_task(&self, record: &KeyValue, task: Task) -> Result<Fate> {
        let Some(ended_at) = task.ended_at.filter(|_| task.state.ended()) else {
            return Err(Error::new(ErrorKind::Invalid, "archive task").with("has not ended", task.id));
        };
        let (plan, run) = (key(&paths::plan(task.id))?, key(&paths::run(task.id))?);
        let finished = Finished {
            record: record.clone(),
            task,
            ended_at,
            plan: self.hot().get(&plan).await?,
            run: self.hot().get(&run).await?,
        };
        // What cannot be read here could not be shown from there.
        if let Some(kv) = &finished.plan {
            kv.value.parse::<Plan>()?;
        }
        if let Some(kv) = &finished.run {
            kv.value.parse::<Run>()?;
        }
        match self.copy_task(&finished).await? {
            Copy::Equal => {}
            // Between the list and the plan somebody else may have moved it all.
            _ if self.gone(record).await? => return Ok(Fate::Elsewhere),
            _ => {
                return Err(Error::new(ErrorKind::Conflict, "archive task")
                    .with("another task of this id is archived", finished.task.id));
            }
        }
        let mut txn = removed(Txn::new(), record);
        for (at, there) in [(plan, &finished.plan), (run, &finished.run)] {
            txn = match there {
                Some(kv) => removed(txn, kv),
                None => txn.guard(Guard::Absent(at)),
            };
        }
        self.remove(txn, record).await
    }

    /// Moves events, as many as fit in one commit. Answers how many, and those that cannot be moved.
    ///
    /// # Errors
    /// Those of both stores.
    pub(super) async fn move_events(&self, events: &[(KeyValue, Key)]) -> Result<(usize, Vec<Key>)> {
        let mut copies = Vec::with_capacity(events.len());
        let mut all = Txn::new();
        for (kv, to) in events {
            // As it would be read and written again, so that it can be compared.
            let copy = Value::json(&kv.value.parse::<Json>()?)?;
            all = all.create(to.clone(), copy.clone());
            copies.push((kv, to, copy));
        }
        let copied = match self.store().commit(all).await {
            Ok(outcome) => matches!(outcome, Outcome::Committed { .. }),
            Err(error) if error.kind() == ErrorKind::Unknown || of_record(&error) => false,
            Err(error) => return Err(error),
        };
        let (mut txn, mut moved, mut left) = (Txn::new(), Vec::new(), Vec::new());
        for (kv, to, copy) in copies {
            let there = if copied {
                Copy::Equal
            } else {
                match create(self.store(), to, &copy).await {
                    Err(error) if of_record(&error) => Copy::Differs,
                    other => other?,
                }
            };
            if there == Copy::Equal {
                txn = removed(txn, kv);
                moved.push(kv);
            } else if !self.gone(kv).await? {
                left.push(kv.key.clone());
            }
        }
        let Some(first) = moved.first() else {
            return Ok((0, left));
        };
        match self.remove(txn, first).await? {
            Fate::Moved => Ok((moved.len(), left)),
            Fate::Elsewhere => Ok((0, left)),
        }
    }

    async fn copy_task(&self, finished: &Finished) -> Result<Copy> {
        let Composed { head, place, parts } =
            finished.compose(self.now(), longest(self.store().capability()))?;
        let id = finished.task.id;
        for (name, value) in &parts {
            // The name of a part tells its content, so another is none of ours.
            if create(self.store(), &part_key(id, name)?, value).await? != Copy::Equal {
                return Ok(Copy::Differs);
            }
        }
        let at = key(&paths::archived_task(finished.task.scope, finished.ended_at, id))?;
        let txn = Txn::new()
            .create(at, head)
            .create(key(&paths::archived_task_id(id))?, place);
        match self.store().commit(txn).await {
            Ok(Outcome::Committed { .. }) => Ok(Copy::Equal),
            Ok(Outcome::Conflict { .. }) => self.look(finished).await,
            Err(error) if error.kind() == ErrorKind::Unknown => match self.look(finished).await? {
                Copy::Absent => Err(error),
                seen => Ok(seen),
            },
            Err(error) => Err(error),
        }
    }

    /// Whether this very task is archived.
    async fn look(&self, finished: &Finished) -> Result<Copy> {
        Ok(match self.document(finished.task.id).await? {
            None => Copy::Absent,
            Some((_, there)) if Content::of(there.clone()) == finished.content()? => Copy::Equal,
            Some(_) => Copy::Differs,
        })
    }

    /// Removes what has been copied, if it still is as it was read. `probe` is one of the records.
    async fn remove(&self, txn: Txn, probe: &KeyValue) -> Result<Fate> {
        match self.hot().commit(txn).await {
            Ok(Outcome::Committed { .. }) => Ok(Fate::Moved),
            Ok(Outcome::Conflict { .. }) => Ok(Fate::Elsewhere),
            Err(error) if error.kind() == ErrorKind::Unknown => {
                if self.gone(probe).await? {
                    Ok(Fate::Moved)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a record of the hot store is not as it was any more.
    async fn gone(&self, record: &KeyValue) -> Result<bool> {
        let there = self.hot().get(&record.key).await?;
        Ok(there.is_none_or(|kv| kv.modified != record.modified))
    }

    /// An archived task, whole.
    pub(crate) async fn find(&self, id: TaskId) -> Result<Option<(Scope, Archived)>> {
        match self.document(id).await? {
            Some((scope, document)) => Ok(Some((scope, Archived::of(document)?))),
            None => Ok(None),
        }
    }

    /// The document of an archived task, with what was written in parts, and whose it is.
    async fn document(&self, id: TaskId) -> Result<Option<(Scope, Document)>> {
        let Some(place) = self.store().get(&key(&paths::archived_task_id(id))?).await? else {
            return Ok(None);
        };
        let Place { scope, ended_at } = place.value.parse()?;
        let at = key(&paths::archived_task(scope, ended_at, id))?;
        // Removed in one commit with what said that it is there.
        let Some(head) = self.store().get(&at).await? else {
            return Ok(None);
        };
        let mut document: Document = head.value.parse()?;
        if let Some(parts) = &document.parts {
            let mut texts = Vec::with_capacity(parts.count);
            for name in parts.names() {
                let Some(part) = self.store().get(&part_key(id, &name)?).await? else {
                    return Err(Error::new(ErrorKind::Corrupt, "read archived task")
                        .with("key", &at)
                        .with("missing part", name));
                };
                texts.push(part.value.parse::<Part>()?.text);
            }
            document.rest = joined(&texts)?;
        }
        Ok(Some((scope, document)))
    }
}

/// Creates a document that is the same whoever writes it.
async fn create(store: &dyn Store, at: &Key, value: &Value) -> Result<Copy> {
    let txn = Txn::new().create(at.clone(), value.clone());
    let error = match store.commit(txn).await {
        Ok(Outcome::Committed { .. }) => return Ok(Copy::Equal),
        Ok(Outcome::Conflict { .. }) => None,
        Err(error) if error.kind() == ErrorKind::Unknown => Some(error),
        Err(error) => return Err(error),
    };
    let wanted: Json = Value::json(&value.parse::<Json>()?)?.parse()?;
    match (store.get(at).await?, error) {
        (Some(there), _) if there.value.parse::<Json>()? == wanted => Ok(Copy::Equal),
        (Some(_), _) => Ok(Copy::Differs),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(Copy::Absent),
    }
}

fn removed(txn: Txn, record: &KeyValue) -> Txn {
    txn.guard(Guard::Revision(record.key.clone(), record.modified))
        .delete(record.key.clone())
}

/// Whether an error says something of one record, not of the store.
pub(super) fn of_record(error: &Error) -> bool {
    use ErrorKind as K;
    matches!(
        error.kind(),
        K::Conflict | K::TooLarge | K::Invalid | K::Corrupt | K::TooNew | K::Internal
    )
}

/// The key of a path made of ids, times and fixed words.
pub(super) fn key(path: &str) -> Result<Key> {
    Key::parse(path).map_err(bad_key)
}

/// The prefix of such a path.
pub(super) fn prefix(path: &str) -> Result<Prefix> {
    Prefix::parse(path).map_err(bad_key)
}

pub(super) fn bad_key(error: KeyError) -> Error {
    Error::new(ErrorKind::Internal, "address archive").because(error)
}
