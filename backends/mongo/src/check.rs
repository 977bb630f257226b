//! Refuses servers and settings that cannot keep the promises.

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, ReadConcernLevel, ReadPreference, SelectionCriteria};
use skyloom_store::{About, Error, ErrorKind, Result};

use crate::space::is_weak;

/// MongoDB 6.0.
const MIN_WIRE_VERSION: i64 = 17;

/// What can be lost by options of the address.
pub(crate) fn options(options: &ClientOptions) -> Vec<String> {
    let mut risks = Vec::new();
    if let Some(concern) = options.write_concern.as_ref().filter(|c| is_weak(c)) {
        let j = concern.journal.map_or("unset".to_owned(), |j| j.to_string());
        let w = match &concern.w {
            None => "unset".to_owned(),
            Some(w) => format!("{w:?}"),
        };
        risks.push(format!(
            "the address asks for write concern w {w}, journal {j}; a new primary may not have such writes"
        ));
    }
    if let Some(concern) = &options.read_concern
        && matches!(
            concern.level,
            ReadConcernLevel::Local | ReadConcernLevel::Available
        )
    {
        risks.push(format!(
            "the address asks for read concern {:?}, which shows what may be rolled back",
            concern.level
        ));
    }
    if let Some(SelectionCriteria::ReadPreference(preference)) = &options.selection_criteria
        && !matches!(preference, ReadPreference::Primary)
    {
        risks.push("the address asks to read from secondaries, which lag behind".to_owned());
    }
    risks
}

/// What the server says about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    pub(crate) hello: Document,
    /// `serverStatus`, where the user may ask.
    pub(crate) status: Document,
    /// `getCmdLineOpts`, where the user may ask.
    pub(crate) settings: Document,
    /// `buildInfo`, where the user may ask.
    pub(crate) build: Document,
}

/// Asks the primary.
pub(crate) async fn ask(client: &Client) -> mongodb::error::Result<Server> {
    let admin = client.database("admin");
    let optional = |name: &'static str| {
        let admin = admin.clone();
        async move {
            let answer = admin.run_command(doc! { name: 1 }).await;
            answer.unwrap_or_else(|e| {
                tracing::debug!(
                    command = name,
                    error = &e as &dyn std::error::Error,
                    "not to be had"
                );
                Document::new()
            })
        }
    };
    Ok(Server {
        hello: admin.run_command(doc! { "hello": 1 }).await?,
        status: optional("serverStatus").await,
        settings: optional("getCmdLineOpts").await,
        build: optional("buildInfo").await,
    })
}

/// A field of a field of …
fn deep<'d>(document: &'d Document, path: &[&str]) -> Option<&'d Bson> {
    let (last, parents) = path.split_last()?;
    let parent = parents
        .iter()
        .try_fold(document, |d, name| d.get_document(name).ok())?;
    parent.get(last)
}

impl Server {
    /// Refuses what has no transactions or no change streams; no setting allows that.
    pub(crate) fn usable(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::new(ErrorKind::Unsupported, "open store")
                .with("reason", reason)
                .with("hint", "the store needs a replica set of MongoDB 6.0 or later"))
        };
        let wire = crate::space::uint(&self.hello, "maxWireVersion").map_or(0, crate::space::int);
        if wire < MIN_WIRE_VERSION {
            return refuse(format!("the server is too old (wire version {wire})"));
        }
        let sharded = self.hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        if !sharded && self.hello.get_str("setName").is_err() {
            return refuse(
                "the server stands alone: it has no transactions, and what it loses nobody else has"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// What it is, as far as it tells.
    pub(crate) fn about(&self) -> About {
        let version = self
            .build
            .get_str("version")
            .unwrap_or("of a version that it does not tell");
        let mut about = About::new(format!("MongoDB {version}"));
        if let Ok(set) = self.hello.get_str("setName") {
            about = about.with_setting("replica set", set);
        }
        for (name, value) in [
            ("storage engine", deep(&self.status, &["storageEngine", "name"])),
            (
                "journal",
                deep(&self.settings, &["parsed", "storage", "journal", "enabled"]),
            ),
        ] {
            match value {
                Some(Bson::String(text)) => about = about.with_setting(name, text),
                Some(value) => about = about.with_setting(name, value.to_string()),
                None => {}
            }
        }
        about
    }

    /// What can be lost by the server's settings, as far as it tells.
    pub(crate) fn risks(&self) -> Vec<String> {
        let mut risks = Vec::new();
        let is_false =
            |document, path: &[&str]| deep(document, path).and_then(|v| v.as_bool()) == Some(false);
        if is_false(&self.status, &["storageEngine", "persistent"]) {
            risks.push("the server keeps its data in memory".to_owned());
        }
        if is_false(&self.settings, &["parsed", "storage", "journal", "enabled"]) {
            risks.push("the server runs without a journal".to_owned());
        }
        risks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn risks_of(uri: &str) -> usize {
        options(&ClientOptions::parse(uri).await.unwrap()).len()
    }

    #[tokio::test]
    async fn options_that_lose_commits_are_risks() {
        for (query, wanted) in [
            ("", 0),
            ("w=majority&journal=true", 0),
            ("w=majority&readConcernLevel=majority", 0),
            ("readConcernLevel=linearizable&readPreference=primary", 0),
            ("w=1", 1),
            ("w=3", 1),
            ("w=datacentres", 1),
            ("journal=false", 1),
            ("readConcernLevel=local", 1),
            ("readConcernLevel=available", 1),
            ("readPreference=secondaryPreferred", 1),
            ("w=1&readConcernLevel=local&readPreference=nearest", 3),
        ] {
            assert_eq!(
                risks_of(&format!("mongodb://a/?{query}")).await,
                wanted,
                "{query}"
            );
        }
    }

    #[test]
    fn servers_without_transactions_are_refused() {
        let hello = |d: Document| Server {
            hello: d,
            ..Server::default()
        };
        for (document, usable) in [
            (doc! { "maxWireVersion": 17, "setName": "rs0" }, true),
            (doc! { "maxWireVersion": 27_i64, "setName": "rs0" }, true),
            (doc! { "maxWireVersion": 21, "msg": "isdbgrid" }, true),
            (doc! { "maxWireVersion": 21 }, false),
            (doc! { "maxWireVersion": 21, "msg": "something" }, false),
            (doc! { "maxWireVersion": 13, "setName": "rs0" }, false),
            (doc! { "setName": "rs0" }, false),
        ] {
            let answer = hello(document.clone()).usable();
            assert_eq!(answer.is_ok(), usable, "{document}: {answer:?}");
            assert!(answer.is_ok() || answer.is_err_and(|e| e.kind() == ErrorKind::Unsupported));
        }
    }

    #[test]
    fn servers_that_forget_are_risks() {
        let server = |status, settings| Server {
            hello: Document::new(),
            status,
            settings,
            build: Document::new(),
        };
        let sound = server(
            doc! { "storageEngine": { "name": "wiredTiger", "persistent": true } },
            doc! { "parsed": { "storage": { "journal": { "enabled": true } } } },
        );
        assert_eq!(sound.risks().len(), 0);
        assert_eq!(server(doc! {}, doc! {}).risks().len(), 0, "it may not tell");
        let memory = server(
            doc! { "storageEngine": { "name": "inMemory", "persistent": false } },
            doc! {},
        );
        assert_eq!(memory.risks().len(), 1);
        let bare = server(
            doc! {},
            doc! { "parsed": { "storage": { "journal": { "enabled": false } } } },
        );
        assert_eq!(bare.risks().len(), 1);
    }
}
