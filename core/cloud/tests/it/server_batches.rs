//! Several servers at once, lists of them, and what has become of one.

use std::collections::BTreeMap;

use skyloom_cloud::{
    BatchServers, Caller, CreateServers, ErrorKind, LockServer, Selector, ServerQuery, ServerSort,
    UpdateServer,
};
use skyloom_model::{Lifecycle, PowerState, Resource as _, ServerAction, ServerId, TaskState};

use crate::server_actions::Site;
use crate::world::{server, with_key};

#[tokio::test]
async fn several_are_made_by_one_request_once() {
    let site = Site::new().await;
    let request = CreateServers {
        count: 3,
        server: server("web", site.image),
    };
    let keyed = with_key(&site.member, "three");
    let cloud = &site.world.cloud;
    let made = cloud.create_servers(&keyed, request.clone()).await.unwrap();
    let names: Vec<&str> = made.items.iter().map(|i| i.name.as_deref().unwrap()).collect();
    assert_eq!((names, made.refused), (vec!["web-1", "web-2", "web-3"], 0));
    assert!(made.items.iter().all(|i| i.password.is_some()));
    let again = cloud.create_servers(&keyed, request.clone()).await.unwrap();
    let ids = |answer: &skyloom_cloud::BatchAnswer| answer.items.iter().map(|i| i.id).collect::<Vec<_>>();
    assert_eq!(ids(&made), ids(&again));
    assert!(again.items.iter().all(|i| i.password.is_none()), "shown once");
    for item in &made.items {
        assert_eq!(
            site.carry(item.task.as_ref().unwrap()).await.state,
            TaskState::Done
        );
    }
    for (count, code) in [(0, "count.invalid"), (101, "count.invalid")] {
        let wrong = CreateServers {
            count,
            ..request.clone()
        };
        assert_eq!(
            cloud
                .create_servers(&site.member, wrong)
                .await
                .unwrap_err()
                .code(),
            code
        );
    }
}

#[tokio::test]
async fn several_that_the_quota_has_no_room_for_are_not_begun() {
    let mut site = Site::new().await;
    let limit = skyloom_identity::Limits::new().with(
        skyloom_identity::ResourceName::new("servers").unwrap(),
        skyloom_identity::Limit::Most(2),
    );
    site.world.cloud = site.world.cloud.clone().with_default_limits(limit);
    let request = |count| CreateServers {
        count,
        server: server("web", site.image),
    };
    let cloud = &site.world.cloud;
    let refused = cloud.create_servers(&site.member, request(3)).await.unwrap_err();
    assert!(refused.code().starts_with("quota."), "{}", refused.code());
    assert!(site.world.documents("r/servers").await.is_empty());
    assert_eq!(
        cloud
            .create_servers(&site.member, request(2))
            .await
            .unwrap()
            .refused,
        0
    );
}

#[tokio::test]
async fn one_action_on_several_has_an_answer_for_each() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let id = site.created(name).await;
        let labels = BTreeMap::from([(
            "env".to_owned(),
            if name == "c" { "live" } else { "test" }.to_owned(),
        )]);
        let change = UpdateServer {
            labels: Some(labels),
            ..UpdateServer::default()
        };
        cloud.update_server(&site.member, id, change).await.unwrap();
        ids.push(id);
    }
    cloud
        .lock_server(&site.member, ids[1], LockServer::default())
        .await
        .unwrap();
    let of_test = Selector {
        labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        ..Selector::default()
    };
    let request = |selector: &Selector| BatchServers {
        action: ServerAction::Stop,
        selector: selector.clone(),
        options: serde_json::json!({"force": true}).as_object().unwrap().clone(),
    };
    let dry = Caller {
        dry_run: true,
        ..site.member.clone()
    };
    let shown = cloud.batch_servers(&dry, request(&of_test)).await.unwrap();
    let codes = |answer: &skyloom_cloud::BatchAnswer| -> Vec<Option<String>> {
        answer
            .items
            .iter()
            .map(|i| i.refused.as_ref().map(|r| r.code.clone()))
            .collect()
    };
    assert_eq!(codes(&shown), [None, Some("server.locked".to_owned())]);
    assert!(shown.items.iter().all(|i| i.task.is_none()));
    let done = cloud
        .batch_servers(&site.member, request(&of_test))
        .await
        .unwrap();
    assert_eq!(
        (codes(&done), done.refused),
        (vec![None, Some("server.locked".to_owned())], 1)
    );
    let task = done.items[0].task.as_ref().unwrap();
    assert_eq!(site.carry(task).await.state, TaskState::Done);
    let powers: Vec<PowerState> = ids.iter().map(|id| site.domain(*id).unwrap().power).collect();
    assert_eq!(
        powers,
        [PowerState::Stopped, PowerState::Running, PowerState::Running]
    );
    let both = Selector {
        ids: ids.clone(),
        ..of_test
    };
    for wrong in [both, Selector::default()] {
        let refused = cloud
            .batch_servers(&site.member, request(&wrong))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), "selector.invalid");
    }
    let query = |change: fn(&mut ServerQuery)| {
        let mut query = ServerQuery::default();
        change(&mut query);
        query
    };
    for (query, found) in [
        (query(|q| q.power = Some(PowerState::Stopped)), 1),
        (query(|q| q.lifecycle = Some(Lifecycle::Active)), 3),
        (query(|q| q.lifecycle = Some(Lifecycle::Recycled)), 0),
        (query(|q| q.flavor = Some("m1.tiny".to_owned())), 3),
        (query(|q| q.image = Some("nothing".to_owned())), 0),
        (query(|q| q.label = Some("env=live".to_owned())), 1),
    ] {
        let listed = cloud.find_servers(&site.member, &query).await.unwrap();
        assert_eq!(listed.items.len(), found, "{query:?}");
    }
    let on_host = query(|q| q.host = Some("h1".to_owned()));
    assert_eq!(
        cloud
            .find_servers(&site.operator(), &on_host)
            .await
            .unwrap()
            .items
            .len(),
        3
    );
    assert_eq!(
        cloud
            .find_servers(&site.member, &on_host)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Denied
    );
}

#[tokio::test]
async fn a_timeline_has_every_task_step_and_event_in_order() {
    let site = Site::new().await;
    let id = site.created("web").await;
    site.act(id, ServerAction::Pause).await;
    let timeline = site
        .world
        .cloud
        .server_timeline(&site.member, id)
        .await
        .unwrap()
        .items;
    assert!(timeline.is_sorted_by_key(|entry| entry.at));
    let names = |what: &str| -> Vec<&str> {
        let of = timeline.iter().filter(|entry| entry.what == what);
        of.map(|entry| entry.name.as_str()).collect()
    };
    let mut tasks = names("task");
    tasks.sort_unstable();
    assert_eq!(tasks, ["server.create", "server.pause"]);
    for step in ["image.cache", "disk.root", "vm.define", "vm.start", "vm.pause"] {
        assert!(
            names("step").contains(&step),
            "{step} is not in {:?}",
            names("step")
        );
    }
    assert!(names("event").contains(&"task_ended"));
}

#[tokio::test]
async fn servers_are_listed_in_every_order_page_by_page_and_a_cursor_leads_nowhere_else() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let mut ids = Vec::new();
    for name in ["m", "a", "z", "a"] {
        site.world.clock.advance(std::time::Duration::from_secs(1));
        ids.push(site.created(name).await);
    }
    site.act(ids[2], ServerAction::Pause).await;
    let other = site.world.member(&site.admin, "other").await;
    let all = |sort: ServerSort, by: Caller| {
        let cloud = cloud.clone();
        async move {
            let (mut found, mut cursor): (Vec<ServerId>, _) = (Vec::new(), None);
            loop {
                let query = ServerQuery {
                    sort: Some(sort),
                    limit: Some(1),
                    cursor,
                    ..ServerQuery::default()
                };
                let page = cloud.find_servers(&by, &query).await.unwrap();
                assert!(page.items.len() <= 1);
                found.extend(page.items.iter().map(|server| server.id()));
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => return found,
                }
            }
        }
    };
    for (up, down, order) in [
        (ServerSort::Name, ServerSort::NameDown, [1, 3, 0, 2]),
        (ServerSort::Created, ServerSort::CreatedDown, [0, 1, 2, 3]),
        (ServerSort::State, ServerSort::StateDown, [2, 0, 1, 3]),
    ] {
        let mut wanted: Vec<ServerId> = order.iter().map(|at| ids[*at]).collect();
        assert_eq!(all(up, site.member.clone()).await, wanted);
        wanted.reverse();
        assert_eq!(all(down, site.member.clone()).await, wanted);
        assert!(all(up, other.clone()).await.is_empty());
    }
    let query = |sort, cursor| ServerQuery {
        sort: Some(sort),
        limit: Some(2),
        cursor,
        ..ServerQuery::default()
    };
    let page = cloud
        .find_servers(&site.member, &query(ServerSort::Name, None))
        .await
        .unwrap();
    let next = page.next.unwrap();
    let elsewhere = cloud
        .find_servers(&other, &query(ServerSort::Name, Some(next.clone())))
        .await
        .unwrap();
    assert!(
        elsewhere.items.is_empty(),
        "another project's cursor shows nothing of it"
    );
    let refused = cloud
        .find_servers(&site.member, &query(ServerSort::State, Some(next)))
        .await;
    assert_eq!(refused.unwrap_err().code(), "cursor.invalid");
}
