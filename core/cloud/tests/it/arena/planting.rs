//! Things and claims that belong to nobody, put there by hand: by the rules of the engine they do not come about.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_hypervisor::{HostStorage as _, Hypervisor as _, VmSpec};
use skyloom_model::{Claim, HostId, HostLedger, ServerId, Task, paths};
use skyloom_scheduler::claim;
use skyloom_store::{Txn, Value};

use super::CloudWorld;
use crate::world::key;

impl CloudWorld {
    /// A host where `server` does not live, or the only one.
    async fn other_host(&self, server: ServerId) -> HostId {
        let home = self.servers().await[&server]
            .status
            .placement
            .as_ref()
            .unwrap()
            .host;
        let mut hosts = self.world.hosts.keys();
        hosts.find(|h| **h != home).copied().unwrap_or(home)
    }

    /// A guest of a server that is gone, disks of one that nobody knows, and what `server` left on a host where it was.
    pub(super) async fn plant_things(&mut self, server: ServerId) {
        let host = self.other_host(server).await;
        let [gone, unknown] = [(); 2].map(|()| ServerId::fresh(&*self.world.ids));
        let mut planted = BTreeSet::from([gone, unknown]);
        let fake = self.world.hosts[&host].fake.clone();
        fake.storage()
            .create_seed(unknown, "seed", b"left")
            .await
            .unwrap();
        let elsewhere = self.world.hosts.len() > 1;
        for (id, generation) in [(gone, 7), (server, 1)] {
            if id == server && !elsewhere {
                continue;
            }
            planted.insert(id);
            fake.storage().create_seed(id, "seed", b"left").await.unwrap();
            let spec = VmSpec {
                boot: skyloom_hypervisor::Boot::FirstDisk,
                id,
                project: self.caller.project,
                generation,
                name: "left".to_owned().try_into().unwrap(),
                vcpus: 1,
                memory_mib: 64,
                disks: Vec::new(),
                nics: Vec::new(),
            };
            fake.hypervisor().define(&spec).await.unwrap();
            let seen = self.witness(host).look(id).await;
            self.world.store.commit(seen).await.unwrap();
        }
        fake.hypervisor().start(gone, 7).await.unwrap();
        self.planted = Some((host, planted));
    }

    /// A claim of a server that is gone, or of one that lives elsewhere.
    pub(super) async fn plant_claim(&mut self, server: ServerId) {
        let host = self.other_host(server).await;
        let whose = match self.world.hosts.len() {
            1 => ServerId::fresh(&*self.world.ids),
            _ => server,
        };
        let claimed = Claim {
            server: whose,
            scope: Some(self.caller.scope()),
            resources: self.servers().await[&server].spec.flavor.spec.resources,
            group: None,
        };
        let ledgers: BTreeMap<String, HostLedger> = self.all(paths::LEDGERS).await;
        let ledger = claim(&ledgers[&paths::ledger(host)], &claimed);
        let txn = Txn::new()
            .put(key(&paths::ledger(host)), Value::json(&ledger).unwrap())
            .put(key(&paths::claim(host, whose)), Value::json(&claimed).unwrap());
        self.world.store.commit(txn).await.unwrap();
        self.planted = Some((host, BTreeSet::from([whose])));
    }

    pub(super) async fn release(&self) -> Task {
        let cloud = &self.world.cloud;
        let (host, servers) = self.planted.clone().unwrap();
        let host = cloud.get_host(&self.admin, host).await.unwrap().value;
        let params = serde_json::json!({ "servers": servers });
        let task = cloud.own_task("test", "claim.release", &host, params);
        cloud.submit_once(&task.id.to_string(), task).await.unwrap()
    }
}
