//! The exam of every store, sat on a server of MongoDB's protocol. The second handle is a second store with connections of
//! its own, as another process has it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Trial;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use skyloom_store::conformance::{self, Abilities, Exam, Failure, Sitting, Verdict};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_mongo::{MongoConfig, MongoStore};

use crate::support::Server;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    conformance::trials(Arc::new(MongoExam {
        server: Arc::clone(server),
    }))
}

struct MongoExam {
    server: Arc<Server>,
}

struct MongoSitting {
    config: MongoConfig,
    /// None after a reopening that failed.
    stores: Option<[Arc<MongoStore>; 2]>,
}

impl MongoSitting {
    async fn open(config: &MongoConfig) -> Result<[Arc<MongoStore>; 2], Failure> {
        let open = || MongoStore::open(config.clone());
        Ok([Arc::new(open().await?), Arc::new(open().await?)])
    }

    fn mongo(&self) -> &[Arc<MongoStore>; 2] {
        self.stores.as_ref().expect("the store is open between two calls")
    }

    async fn close(&mut self) {
        for store in self.stores.take().into_iter().flatten() {
            store.close().await;
        }
    }
}

#[async_trait]
impl Exam for MongoExam {
    fn name(&self) -> String {
        "mongo".to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: true,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let mut config = self.server.fresh();
        // A loaded machine is no reason to fail.
        config.call_ms = 30_000;
        config.connect_ms = 20_000;
        skyloom_store_mongo::migrate(&config).await?;
        let stores = Some(MongoSitting::open(&config).await?);
        Ok(Box::new(MongoSitting { config, stores }))
    }
}

#[async_trait]
impl Sitting for MongoSitting {
    fn store(&self) -> DynBackend {
        self.mongo()[0].clone()
    }

    fn second(&self) -> DynBackend {
        self.mongo()[1].clone()
    }

    /// The server's clock cannot be moved, so the ends of all leases are.
    async fn pass_time(&self, by: Duration) {
        let client = Client::with_uri_str(&self.config.uri).await.unwrap();
        let leases = client
            .database(&self.config.database)
            .collection::<Document>(&format!("{}leases", self.config.prefix));
        let by = i64::try_from(by.as_millis()).unwrap();
        let earlier = doc! { "$set": { "expires_at": { "$subtract": ["$expires_at", by] } } };
        leases.update_many(doc! {}, vec![earlier]).await.unwrap();
        client.shutdown().await;
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        Ok(self.mongo()[0].compact(revision).await?)
    }

    async fn reopen(&mut self) -> Verdict {
        self.close().await;
        self.stores = Some(Self::open(&self.config).await?);
        Ok(())
    }

    async fn end(mut self: Box<Self>) {
        self.close().await;
        let client = Client::with_uri_str(&self.config.uri).await.unwrap();
        client.database(&self.config.database).drop().await.unwrap();
        client.shutdown().await;
    }
}
