//! Configurations of domains: kept as they came. Users of a directory service come by an identity provider here.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::ask::Ask;
use super::edge::Routes;
use super::error::{Answer, Refusal};
use super::fields::Fields;
use super::ids::hex;
use super::kept::{may_change, may_read};
use super::shelf::Document;

/// The groups of options that there are, with the defaults of some.
fn defaults() -> Value {
    json!({
        "identity": {"driver": "sql", "list_limit": null},
        "ldap": {"url": "ldap://localhost", "user_tree_dn": null, "group_tree_dn": null, "suffix": "cn=example,cn=com"},
    })
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/domains/config/default", get(default_config))
        .route("/domains/config/{group}/default", get(default_group))
        .route("/domains/config/{group}/{option}/default", get(default_option))
        .route(
            "/domains/{domain}/config",
            get(show).put(create).patch(update).delete(delete),
        )
        .route(
            "/domains/{domain}/config/{group}",
            get(show_group).patch(update_group).delete(delete_group),
        )
        .route(
            "/domains/{domain}/config/{group}/{option}",
            get(show_option).patch(update_option).delete(delete_option),
        )
}

fn answer(config: &Value) -> Answer<Response> {
    Ok(Json(json!({"config": config})).into_response())
}

/// The part at `group` and `option`, wrapped in its last name.
fn part(config: &Value, group: &str, option: Option<&str>) -> Option<Value> {
    let found = config.get(group)?;
    match option {
        None => Some(json!({group: found})),
        Some(option) => found.get(option).map(|value| json!({option: value})),
    }
}

fn no_such(group: &str, option: Option<&str>) -> Refusal {
    let shown = option.map_or_else(|| group.to_owned(), |option| format!("{group}.{option}"));
    Refusal::missing("domain configuration", &shown)
}

async fn default_config(ask: Ask) -> Answer {
    may_read(&ask).await?;
    answer(&defaults())
}

async fn default_group(ask: Ask, Path(group): Path<String>) -> Answer {
    may_read(&ask).await?;
    answer(&part(&defaults(), &group, None).ok_or_else(|| no_such(&group, None))?)
}

async fn default_option(ask: Ask, Path((group, option)): Path<(String, String)>) -> Answer {
    may_read(&ask).await?;
    let found = part(&defaults(), &group, Some(&option));
    answer(&found.ok_or_else(|| no_such(&group, Some(&option)))?)
}

async fn place(ask: &Ask, domain: &str) -> Answer<String> {
    Ok(format!(
        "openstack/configs/{}",
        hex(ask.find_domain(domain).await?.value.id)
    ))
}

async fn kept(ask: &Ask, domain: &str) -> Answer<Value> {
    may_read(ask).await?;
    let found = ask.shelved(&place(ask, domain).await?).await?;
    found.map(Value::Object).ok_or_else(|| no_such(domain, None))
}

/// A configuration of known groups; each is an object.
fn checked(body: &Bytes) -> Answer<Document> {
    let config = Fields::of(body, "config")?.rest();
    let known = defaults();
    for (group, options) in &config {
        if known.get(group).is_none() || !options.is_object() {
            return Err(Refusal::forbidden(format!(
                "Group {group} is not supported for domain specific configurations"
            )));
        }
    }
    if config.is_empty() {
        return Err(Refusal::bad("'config' has no groups"));
    }
    Ok(config)
}

async fn show(ask: Ask, Path(domain): Path<String>) -> Answer {
    answer(&kept(&ask, &domain).await?)
}

async fn create(ask: Ask, Path(domain): Path<String>, body: Bytes) -> Answer {
    may_change(&ask).await?;
    let (place, config) = (place(&ask, &domain).await?, checked(&body)?);
    let there = ask.reshelve(&place, |document| {
        document.clone_from(&config);
        Ok(())
    });
    let status = match there.await? {
        Some(_) => StatusCode::OK,
        None => {
            ask.shelve("openstack/configs", &place, &config).await?;
            StatusCode::CREATED
        }
    };
    Ok((status, Json(json!({"config": config}))).into_response())
}

/// Puts options over those that are there.
fn overlay(document: &mut Document, config: &Document) {
    for (group, options) in config {
        let there = document.entry(group.clone()).or_insert_with(|| Map::new().into());
        if let (Some(there), Some(options)) = (there.as_object_mut(), options.as_object()) {
            there.extend(options.clone());
        }
    }
}

async fn changed(ask: &Ask, domain: &str, change: impl Fn(&mut Document) -> Answer<()>) -> Answer {
    may_change(ask).await?;
    let place = place(ask, domain).await?;
    let changed = ask.reshelve(&place, change).await?;
    answer(&Value::Object(changed.ok_or_else(|| no_such(domain, None))?))
}

async fn update(ask: Ask, Path(domain): Path<String>, body: Bytes) -> Answer {
    let config = checked(&body)?;
    let over = |document: &mut Document| {
        overlay(document, &config);
        Ok(())
    };
    changed(&ask, &domain, over).await
}

async fn delete(ask: Ask, Path(domain): Path<String>) -> Answer<StatusCode> {
    may_change(&ask).await?;
    if ask.unshelve(&place(&ask, &domain).await?).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(no_such(&domain, None))
}

async fn show_group(ask: Ask, Path((domain, group)): Path<(String, String)>) -> Answer {
    let config = kept(&ask, &domain).await?;
    answer(&part(&config, &group, None).ok_or_else(|| no_such(&group, None))?)
}

async fn show_option(ask: Ask, Path((domain, group, option)): Path<(String, String, String)>) -> Answer {
    let config = kept(&ask, &domain).await?;
    let found = part(&config, &group, Some(&option));
    answer(&found.ok_or_else(|| no_such(&group, Some(&option)))?)
}

async fn update_group(ask: Ask, Path((domain, group)): Path<(String, String)>, body: Bytes) -> Answer {
    let config = checked(&body)?;
    if config.len() != 1 || !config.contains_key(&group) {
        return Err(Refusal::bad("The body names another group than the path."));
    }
    let over = |document: &mut Document| {
        if !document.contains_key(&group) {
            return Err(no_such(&group, None));
        }
        overlay(document, &config);
        Ok(())
    };
    changed(&ask, &domain, over).await
}

async fn update_option(
    ask: Ask,
    Path((domain, group, option)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    let mut config = Fields::of(&body, "config")?;
    let value = config.value(&option);
    let value = value.ok_or_else(|| Refusal::bad("The body names another option than the path."))?;
    let over = |document: &mut Document| {
        let options = document.get_mut(&group).and_then(Value::as_object_mut);
        let there = options.and_then(|options| options.get_mut(&option));
        *there.ok_or_else(|| no_such(&group, Some(&option)))? = value.clone();
        Ok(())
    };
    changed(&ask, &domain, over).await
}

async fn delete_group(ask: Ask, Path((domain, group)): Path<(String, String)>) -> Answer<StatusCode> {
    let take = |document: &mut Document| match document.remove(&group) {
        Some(_) => Ok(()),
        None => Err(no_such(&group, None)),
    };
    changed(&ask, &domain, take).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_option(
    ask: Ask,
    Path((domain, group, option)): Path<(String, String, String)>,
) -> Answer<StatusCode> {
    let take = |document: &mut Document| {
        let options = document.get_mut(&group).and_then(Value::as_object_mut);
        match options.and_then(|options| options.remove(&option)) {
            Some(_) => Ok(()),
            None => Err(no_such(&group, Some(&option))),
        }
    };
    changed(&ask, &domain, take).await?;
    Ok(StatusCode::NO_CONTENT)
}
