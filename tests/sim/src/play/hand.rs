//! The users of a play: they ask the API as programs do, and write down what they were told.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use skyloom_cloud::{Cloud, CloudError, CreateServer, ListQuery, PatchHost, StopOptions};
use skyloom_model::{HostId, Reason, Resource as _, Server, ServerId, TaskId};

use super::script::{Halt, Select};
use super::stage::{offset, some};
use crate::client::{Client, Failed, Terms};

/// Tries of one call.
const TRIES: usize = 30;
/// Servers of one page of a list.
const PAGE: u32 = 1000;

/// What users do because of one event.
#[derive(Debug)]
pub(crate) struct Deed {
    pub(super) event: usize,
    pub(super) verb: Verb,
    /// Nothing new is asked for from then on.
    pub(super) until: Duration,
}

/// What they ask for.
#[derive(Debug)]
pub(super) enum Verb {
    Create(Vec<Wish>),
    Start(Select),
    Stop(Halt),
    Reboot(Halt),
    Delete(Select),
    /// Lets new servers onto hosts, or not.
    Enable(Vec<String>, bool),
}

/// A new server, and how long after the event it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) after: Duration,
    pub(super) request: CreateServer,
}

/// What a call gave.
type Told = Result<Option<(TaskId, ServerId)>, Failed>;

/// One user with one thing to ask.
struct Hand {
    client: Client,
    event: usize,
    key: String,
    subject: String,
}

/// Does all of it.
pub(crate) async fn perform(deed: Arc<Deed>, terms: Terms, hosts: Vec<(String, HostId)>, seed: u64) {
    let bed = terms.door.bed.clone();
    let event = deed.event;
    let hand = |number: usize, subject: &str| {
        let key = format!("event-{event}-{number}");
        Hand {
            client: Client::named(key.clone(), terms.clone(), seed),
            event,
            key,
            subject: subject.to_owned(),
        }
    };
    match &deed.verb {
        Verb::Create(wishes) => {
            bed.diary(|diary, _| diary.expects(event, wishes.len()));
            let all = wishes.iter().enumerate().map(|(i, wish)| {
                let hand = hand(i, wish.request.name.as_deref().unwrap_or_default());
                async move {
                    tokio::time::sleep(wish.after).await;
                    hand.create(&wish.request).await;
                }
            });
            join_all(all).await;
        }
        Verb::Enable(names, enabled) => {
            bed.diary(|diary, _| diary.expects(event, names.len()));
            let fits = hosts.iter().filter(|(name, _)| names.contains(name));
            let all = fits
                .enumerate()
                .map(|(i, (name, id))| hand(i, name).enable(*id, *enabled));
            join_all(all).await;
        }
        Verb::Start(s) | Verb::Delete(s) => {
            let found = hand(0, "servers").pick(s, &deed).await;
            let delete = matches!(deed.verb, Verb::Delete(_));
            act(found, hand, move |cloud, caller, id| {
                async move {
                    let done = match delete {
                        true => cloud.delete_server(&caller, id).await,
                        false => cloud.start_server(&caller, id).await,
                    };
                    done.map(|d| d.task.id)
                }
                .boxed()
            })
            .await;
        }
        Verb::Stop(h) | Verb::Reboot(h) => {
            let all = Select {
                servers: h.servers.clone(),
                power: h.power,
                count: h.count,
                over: h.over,
            };
            let found = hand(0, "servers").pick(&all, &deed).await;
            let reboot = matches!(deed.verb, Verb::Reboot(_));
            let options = StopOptions {
                force: h.force,
                timeout_seconds: None,
            };
            act(found, hand, move |cloud, caller, id| {
                async move {
                    let done = match reboot {
                        true => cloud.reboot_server(&caller, id, options).await,
                        false => cloud.stop_server(&caller, id, options).await,
                    };
                    done.map(|d| d.task.id)
                }
                .boxed()
            })
            .await;
        }
    }
    bed.diary(|diary, now| diary.all_asked(now, event));
}

type Call = BoxFuture<'static, Result<TaskId, CloudError>>;

/// Asks for the same of each of the servers, at their moments.
async fn act(
    servers: Vec<(Duration, String, ServerId)>,
    hand: impl Fn(usize, &str) -> Hand,
    call: impl Fn(Arc<Cloud>, skyloom_cloud::Caller, ServerId) -> Call + Copy,
) {
    let all = servers.iter().enumerate().map(|(i, (after, name, id))| {
        let hand = hand(i + 1, name);
        async move {
            tokio::time::sleep(*after).await;
            let id = *id;
            hand.ask(|cloud, caller| call(cloud, caller, id).map(move |done| Ok((done?, id))).boxed())
                .await;
        }
    });
    join_all(all).await;
}

impl Hand {
    async fn create(self, request: &CreateServer) {
        let request = CreateServer {
            image: self.client.terms.image.to_string(),
            ..request.clone()
        };
        self.ask(|cloud, caller| {
            let request = request.clone();
            async move {
                let made = cloud.create_server(&caller, request).await?;
                Ok((made.task.id, made.server.id()))
            }
            .boxed()
        })
        .await;
    }

    /// Asks until there is an answer, and writes it down.
    async fn ask(
        mut self,
        call: impl Fn(
            Arc<Cloud>,
            skyloom_cloud::Caller,
        ) -> BoxFuture<'static, Result<(TaskId, ServerId), CloudError>>,
    ) {
        let bed = self.client.terms.door.bed.clone();
        let asked_at = bed.clock.elapsed();
        let caller = self.client.caller(Some(self.key.clone()));
        let told = self.client.ask(TRIES, |cloud| call(cloud, caller.clone())).await;
        self.write_down(asked_at, told.map(Some));
    }

    async fn enable(mut self, host: HostId, enabled: bool) {
        let bed = self.client.terms.door.bed.clone();
        let asked_at = bed.clock.elapsed();
        let caller = self.client.caller(Some(self.key.clone()));
        let told = self
            .client
            .ask(TRIES, |cloud| {
                let caller = caller.clone();
                let change = PatchHost {
                    enabled: Some(enabled),
                    ..PatchHost::default()
                };
                async move { cloud.patch_host(&caller, host, change).await.map(drop) }.boxed()
            })
            .await;
        self.write_down(asked_at, told.map(|()| None));
    }

    fn write_down(&self, asked_at: Duration, told: Told) {
        let bed = &self.client.terms.door.bed;
        match told {
            Ok(task) => {
                if let Some((task, _)) = task {
                    bed.checker(|c| c.acknowledge(task));
                }
                bed.note(&self.key, "told", || format!("{}: {task:?}", self.subject));
                bed.diary(|diary, _| diary.accepted(self.event, asked_at, task));
            }
            Err(failed) => {
                let reason = match failed {
                    Failed::Said(error) => error.reason().clone(),
                    Failed::Lost => Reason::new("client.no_answer", format!("no answer in {TRIES} tries")),
                };
                bed.diary(|diary, now| diary.refused(now, self.event, &self.subject, reason));
            }
        }
    }

    /// Some of the servers that are there now, with how long after now each is its turn.
    async fn pick(mut self, wanted: &Select, deed: &Deed) -> Vec<(Duration, String, ServerId)> {
        let bed = self.client.terms.door.bed.clone();
        let began = bed.clock.elapsed();
        let mut found: Vec<(String, ServerId)> = Vec::new();
        let mut cursor = None;
        loop {
            let caller = self.client.caller(None);
            let query = ListQuery {
                limit: Some(PAGE),
                cursor: cursor.take(),
                ..ListQuery::default()
            };
            let page = self
                .client
                .ask(TRIES, |cloud| {
                    let (caller, query) = (caller.clone(), query.clone());
                    async move { cloud.list_servers(&caller, &query).await }.boxed()
                })
                .await;
            match page {
                Ok(page) => {
                    let fits = |s: &&Server| {
                        let power = wanted.power.is_none_or(|power| s.status.power == power);
                        power && wanted.servers.matches(s.meta.name.as_str())
                    };
                    let fitting = page.items.iter().filter(fits);
                    found.extend(fitting.map(|s| (s.meta.name.to_string(), s.id())));
                    cursor = page.next;
                }
                Err(failed) => {
                    self.write_down(began, Err(failed));
                    return Vec::new();
                }
            }
            if cursor.is_none() {
                break;
            }
        }
        found.sort();
        let (over, picked) = (wanted.over.get(), some(found, wanted.count, &mut self.client.rng));
        let all = picked.len();
        let turns = picked
            .into_iter()
            .enumerate()
            .map(|(i, (name, id))| (offset(over, i, all), name, id));
        let turns: Vec<_> = turns.filter(|(after, ..)| began + *after < deed.until).collect();
        bed.diary(|diary, _| diary.expects(self.event, turns.len()));
        turns
    }
}
