//! From what a person typed (a name, an id, the beginning of an id) to one record.

use skyloom::cloud::ShownPlan;
use skyloom_bin::nearest::nearest;
use skyloom_model::{Resource, Task};
use uuid::Uuid;

use crate::client::{Client, Target, kind};
use crate::error::{CliError, Result};
use crate::exit::Exit;

/// How many records are looked through for an id prefix or a similar name.
const SEARCHED: usize = 10_000;
/// Shortest prefix of an id.
const MIN_PREFIX: usize = 4;

/// The record that `text` names.
pub(crate) async fn one<R: Resource>(client: &Client, text: &str) -> Result<R> {
    let noun = R::KIND.trim_end_matches('s');
    if text.is_empty() {
        return Err(CliError::usage(format!("the {noun}'s name is empty")));
    }
    if let Ok(id) = text.parse::<Uuid>() {
        match client.record(id).await {
            Err(error) if error.exit == Exit::NotFound => {}
            other => return other,
        }
    }
    let named = client
        .list::<R>(R::KIND, &[("name", text.to_owned())], SEARCHED)
        .await?;
    if let Some(found) = single(noun, text, named, |r| r.meta().id)? {
        return Ok(found);
    }
    let mut all = client.list::<R>(R::KIND, &[], SEARCHED).await?;
    let prefix = text.to_ascii_lowercase();
    let begins = |r: &R| r.meta().id.to_string().starts_with(&prefix);
    if is_prefix(&prefix) && all.iter().any(begins) {
        let matching = all.extract_if(.., |r| begins(r)).collect();
        if let Some(found) = single(noun, text, matching, |r: &R| r.meta().id)? {
            return Ok(found);
        }
    }
    let names: Vec<&str> = all.iter().map(|r| r.meta().name.as_str()).collect();
    Err(unknown(noun, text, &names))
}

/// Several records; nothing is done before all are known.
pub(crate) async fn many<R: Resource>(client: &Client, texts: &[String]) -> Result<Vec<R>> {
    let mut found: Vec<R> = Vec::new();
    for text in texts {
        let record: R = one(client, text).await?;
        if found.iter().all(|known| known.meta().id != record.meta().id) {
            found.push(record);
        }
    }
    Ok(found)
}

/// The task whose id is `text` or begins with it.
pub(crate) async fn task(client: &Client, text: &str) -> Result<Task> {
    if let Ok(id) = text.parse::<Uuid>() {
        let document: crate::client::types::TaskDocument = client.get(task_target(id)).await?;
        return Ok(document.task);
    }
    let prefix = text.to_ascii_lowercase();
    if is_prefix(&prefix) {
        // Those that have moved to the archive only when none of the others fits.
        for query in [&[][..], &[("archived", "true".to_owned())][..]] {
            let all = client.list::<Task>("tasks", query, SEARCHED).await?;
            let matching = all
                .into_iter()
                .filter(|task| task.id.to_string().starts_with(&prefix))
                .collect();
            if let Some(found) = single("task", text, matching, |task: &Task| task.id.uuid())? {
                return Ok(found);
            }
        }
    }
    Err(unknown("task", text, &[]))
}

/// The shown plan whose id is `text` or begins with it.
pub(crate) async fn plan(client: &Client, text: &str) -> Result<ShownPlan> {
    if let Ok(id) = text.parse::<Uuid>() {
        return client.get(kind("plans").then(id)).await;
    }
    let prefix = text.to_ascii_lowercase();
    if is_prefix(&prefix) {
        let all = client.list::<ShownPlan>("plans", &[], SEARCHED).await?;
        let matching = all
            .into_iter()
            .filter(|plan| plan.id.to_string().starts_with(&prefix));
        if let Some(found) = single("plan", text, matching.collect(), |plan: &ShownPlan| plan.id)? {
            return Ok(found);
        }
    }
    Err(unknown("plan", text, &[]))
}

/// `v1/tasks/<id>`.
pub(crate) fn task_target(id: Uuid) -> Target {
    kind("tasks").then(id)
}

fn is_prefix(text: &str) -> bool {
    text.len() >= MIN_PREFIX && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// The only one, none, or an error that lists them.
fn single<T>(noun: &str, text: &str, mut found: Vec<T>, id: impl Fn(&T) -> Uuid) -> Result<Option<T>> {
    if found.len() <= 1 {
        return Ok(found.pop());
    }
    let mut error = CliError::usage(format!("{} {noun}s are called \"{text}\"", found.len()))
        .hint("name it by its id, or by more of it");
    for item in found.iter().take(5) {
        error = error.detail(id(item).to_string());
    }
    Err(error)
}

fn unknown(noun: &str, text: &str, names: &[&str]) -> CliError {
    let error = CliError::new(Exit::NotFound, format!("there is no {noun} \"{text}\" here"));
    let near = nearest(text, names.iter().copied(), 3);
    if near.is_empty() {
        error.hint(match noun {
            "task" | "plan" => {
                format!("see `skyloom {noun} list`; give an id or at least 4 characters of one")
            }
            _ => format!("see `skyloom {noun} list`; --project picks another project"),
        })
    } else {
        error.hint(format!("did you mean {}?", near.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hexadecimal_text_of_some_length_is_a_prefix() {
        assert!(is_prefix("0198-") && is_prefix("beef"));
        assert!(!is_prefix("abc") && !is_prefix("web-1"));
    }

    #[test]
    fn several_are_listed_and_none_has_neighbours() {
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let error = single("server", "web", ids.to_vec(), |id| *id).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.render(false).contains(&ids[1].to_string()));
        let error = unknown("server", "web-9", &["web-1", "db"]);
        assert_eq!(error.exit, Exit::NotFound);
        assert!(error.render(false).contains("did you mean web-1?"), "{error:?}");
    }
}
