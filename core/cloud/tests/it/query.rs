//! Questions to agents.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skyloom_cloud::{
    Answer, ErrorKind, MAX_CONSOLE_BYTES, MAX_SCREENSHOT_BYTES, Query, Question, ResponderParts,
    answer_queries,
};
use skyloom_flow::Fence;
use skyloom_hypervisor::{ErrorKind as HostError, FaultPoint};
use skyloom_model::{Clock as _, HostId, Resource as _, ServerId, paths};
use skyloom_store::{Grant, LeaseMode, LeaseName, Mirror, Prefix, Txn, Value, latest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

/// The answering half of an agent, for as long as it is kept.
async fn agent(world: &World, host: HostId) -> JoinSet<()> {
    leased_after(world, host, Duration::ZERO).await
}

/// The same, where the agent learns of its lease after `wait`.
async fn leased_after(world: &World, host: HostId, wait: Duration) -> JoinSet<()> {
    let lease = LeaseName::parse(&paths::host_lease(host)).unwrap();
    let ttl = Duration::from_secs(3600);
    let granted = world
        .store
        .grant(&lease, "agent", ttl, LeaseMode::TakeOver)
        .await
        .unwrap();
    let Grant::Granted { epoch } = granted else {
        panic!("{granted:?}")
    };
    let fenced = Some(Fence::new(lease, epoch, ttl));
    let (fence, receiver) = latest::channel(if wait.is_zero() { fenced.clone() } else { None });
    let parts = ResponderParts {
        backend: world.store.clone(),
        host,
        hypervisor: Arc::new(world.hosts[&host].fake.hypervisor()),
        clock: Arc::new(world.clock.clone()),
        fence: receiver,
    };
    let mut running = JoinSet::new();
    running.spawn(async move { answer_queries(parts, CancellationToken::new()).await.unwrap() });
    running.spawn(async move {
        tokio::time::sleep(wait).await;
        fence.send_replace(fenced);
        std::future::pending::<()>().await;
    });
    running
}

async fn placed() -> (World, skyloom_cloud::Caller, HostId, ServerId) {
    let mut world = World::new();
    let admin = world.admin().await;
    let host = world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let made = world
        .cloud
        .create_server(&admin, server("s", image))
        .await
        .unwrap();
    let unplaced = world
        .cloud
        .console_tail(&admin, made.server.id(), 10)
        .await
        .unwrap_err();
    assert_eq!(unplaced.code(), "server.not_placed");
    Engine::new(&world).await.carry(&made.task).await;
    (world, admin, host, made.server.id())
}

#[tokio::test]
async fn the_agent_tells_the_end_of_the_console() {
    let (world, admin, host, id) = placed().await;
    let _agent = agent(&world, host).await;
    let fake = &world.hosts[&host].fake;
    fake.print(id, "first\nläst").unwrap();
    let text = world.cloud.console_tail(&admin, id, 5).await.unwrap();
    assert_eq!(text, "läst");
    let text = world.cloud.console_tail(&admin, id, 3).await.unwrap();
    assert_eq!(text, "\u{fffd}st", "a cut character does no harm");
    for bytes in [0, MAX_CONSOLE_BYTES + 1] {
        assert_eq!(
            world
                .cloud
                .console_tail(&admin, id, bytes)
                .await
                .unwrap_err()
                .code(),
            "bytes.invalid"
        );
    }
    fake.fail_next(FaultPoint::Console, HostError::Unavailable)
        .unwrap();
    let error = world.cloud.console_tail(&admin, id, 5).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Unavailable, "host.unavailable")
    );
    assert!(
        world.documents("queries").await.is_empty(),
        "questions are taken away"
    );
}

#[tokio::test]
async fn the_agent_sends_a_picture_of_the_screen() {
    let (world, admin, host, id) = placed().await;
    let _agent = agent(&world, host).await;
    let picture = world.cloud.screenshot(&admin, id).await.unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < 100);
    world.hosts[&host].fake.crash_guest(id).unwrap();
    let off = world.cloud.screenshot(&admin, id).await.unwrap_err();
    assert_eq!((off.kind(), off.code()), (ErrorKind::Conflict, "host.conflict"));
    assert!(world.documents("queries").await.is_empty());
}

/// Writes `answer` into the first question that comes.
async fn answer_once(world: &World, host: HostId, answer: Answer) {
    let prefix = Prefix::parse(&paths::queries(host)).unwrap();
    let (mirror, driver) = Mirror::<Query>::new(world.store.clone(), prefix);
    let mut running = JoinSet::new();
    running.spawn(driver.run(CancellationToken::new()));
    let mut changes = mirror.changes();
    let asked = loop {
        changes.next().await.unwrap();
        if let Some(asked) = mirror.snapshot().iter().next() {
            break asked.clone();
        }
    };
    let answered = Query {
        answer: Some(answer),
        ..asked.value.clone()
    };
    world
        .store
        .commit(asked.replace(&answered).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_no_picture_is_not_passed_on() {
    let (world, admin, host, id) = placed().await;
    let long = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; MAX_SCREENSHOT_BYTES]].concat();
    let of = |bytes: &[u8]| Answer::Screenshot {
        png: STANDARD.encode(bytes),
    };
    for hostile in [
        Answer::Screenshot {
            png: "not base 64!".into(),
        },
        of(b""),
        of(b"<html><script>"),
        of(&long),
        Answer::ConsoleTail { text: "x".into() },
    ] {
        let (asked, ()) = tokio::join!(
            world.cloud.screenshot(&admin, id),
            answer_once(&world, host, hostile)
        );
        let error = asked.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Unavailable, "host.bad_answer")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_agent_there_is_an_answer_too() {
    let (world, admin, _, id) = placed().await;
    let error = world.cloud.console_tail(&admin, id, 5).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Timeout, "host.no_answer")
    );
    assert!(world.documents("queries").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_question_that_came_before_the_lease_is_answered_with_it() {
    let (world, admin, host, id) = placed().await;
    world.hosts[&host].fake.print(id, "text").unwrap();
    // Virtual time passes when nobody has anything to do: by then the question has been seen.
    let _agent = leased_after(&world, host, Duration::from_secs(1)).await;
    assert_eq!(world.cloud.console_tail(&admin, id, 4).await.unwrap(), "text");
}

#[tokio::test]
async fn what_a_dead_asker_left_behind_is_dropped() {
    let (world, _, host, id) = placed().await;
    let old = Query {
        question: Question::ConsoleTail { server: id, bytes: 1 },
        asked_at: world.clock.now(),
        answer: None,
    };
    let at = key(&paths::query(host, world.ids.uuid()));
    world
        .store
        .commit(Txn::new().create(at, Value::json(&old).unwrap()))
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(61));
    let prefix = Prefix::parse(&paths::queries(host)).unwrap();
    let (mirror, driver) = Mirror::<Query>::new(world.store.clone(), prefix);
    let mut running = JoinSet::new();
    running.spawn(driver.run(CancellationToken::new()));
    let mut changes = mirror.changes();
    changes.next().await.unwrap();
    assert_eq!(mirror.snapshot().iter().count(), 1);
    let _agent = agent(&world, host).await;
    while mirror.snapshot().iter().count() > 0 {
        changes.next().await.unwrap();
    }
}
