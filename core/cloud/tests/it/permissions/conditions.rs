//! Conditions of rules, and lists: what of a project's things a caller sees.

use std::collections::BTreeMap;

use super::*;

fn labelled(name: &str, image: ImageId, env: &str) -> CreateServer {
    CreateServer {
        labels: BTreeMap::from([("env".to_owned(), env.to_owned())]),
        ..plain(name, image)
    }
}

#[tokio::test]
async fn conditions_on_labels_hold() {
    let (world, made) = furnished().await;
    let admin = world.admin().await;
    let test = RuleSpec::allowing(&["server:*"]).when(When {
        labels: BTreeMap::from([("env".to_owned(), vec!["test".to_owned()])]),
        ..When::default()
    });
    let rules = vec![test, RuleSpec::allowing(&["image:read", "flavor:read"])];
    let tester = holder(AuthScope::Project(made.project), rules, made.project);
    let make = |who: Caller, name: &'static str, env: &'static str| {
        let (cloud, image) = (world.cloud.clone(), made.image);
        async move { cloud.create_server(&who, labelled(name, image, env)).await }
    };
    let prod = make(admin.clone(), "prod", "prod").await.unwrap().server.id();
    let refused = make(tester.clone(), "p2", "prod").await.unwrap_err();
    assert_eq!(refused.code(), "auth.forbidden");
    let own = make(tester.clone(), "t", "test").await.unwrap().server.id();

    assert!(world.cloud.get_server(&tester, own).await.is_ok());
    for hidden in [
        world.cloud.get_server(&tester, prod).await.map(drop).unwrap_err(),
        world
            .cloud
            .delete_server(&tester, prod)
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(
            hidden.code(),
            "server.not_found",
            "it is not told that there is one"
        );
    }
    let seen = world.cloud.list_servers(&tester, &list()).await.unwrap().items;
    assert_eq!(
        seen.iter().map(|s| s.id()).collect::<Vec<_>>(),
        [own],
        "the list is cut"
    );
    let all = world.cloud.list_servers(&admin, &list()).await.unwrap().items;
    assert_eq!(all.len(), 3);

    // Who may read all and stop those of the test alone is told which permission is missing.
    let test = RuleSpec::allowing(&["server:stop"]).when(When {
        labels: BTreeMap::from([("env".to_owned(), vec!["test".to_owned()])]),
        ..When::default()
    });
    let rules = vec![test, RuleSpec::allowing(&["*:read"])];
    let stopper = holder(AuthScope::Project(made.project), rules, made.project);
    let refused = world
        .cloud
        .stop_server(&stopper, prod, StopOptions::default())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Denied, "auth.forbidden")
    );
    let let_through = world
        .cloud
        .stop_server(&stopper, own, StopOptions::default())
        .await;
    assert_eq!(
        let_through.unwrap_err().kind(),
        ErrorKind::Conflict,
        "it is still being made"
    );
}

#[tokio::test]
async fn lists_show_what_the_scope_covers() {
    let (world, made) = furnished().await;
    let admin = world.admin().await;
    let shop = world.member(&admin, "shop").await;
    let names = async |who: &Caller| -> Vec<String> {
        let found = world.cloud.list_projects(who, &list()).await.unwrap().items;
        found.iter().map(|p| p.meta.name.to_string()).collect()
    };
    assert_eq!(names(&admin).await, ["default", "shop"]);
    assert_eq!(names(&shop).await, ["shop"]);
    let of = |domain| {
        holder(
            AuthScope::Domain(domain),
            vec![RuleSpec::allowing(&["*:read"])],
            Caller::NO_PROJECT,
        )
    };
    assert_eq!(
        names(&of(skyloom_identity::DEFAULT_DOMAIN)).await,
        ["default", "shop"]
    );
    let elsewhere = of(skyloom_identity::DomainId::from_uuid(Uuid::from_u128(7)));
    assert!(names(&elsewhere).await.is_empty());

    // Without a project there is nothing to list in one.
    let rights = Rights::of_the_cloud().unwrap();
    let nowhere = with_rights("nowhere", rights, Caller::NO_PROJECT);
    let refused = world.cloud.list_servers(&nowhere, &list()).await.unwrap_err();
    assert_eq!(refused.code(), "project.missing");
    let refused = world.cloud.create_server(&nowhere, plain("x", made.image)).await;
    assert_eq!(refused.unwrap_err().code(), "project.missing");
    assert!(
        world
            .cloud
            .list_tasks(&nowhere, &TaskQuery::default())
            .await
            .is_ok()
    );

    let reader = caller(BuiltIn::Reader, made.project);
    assert!(!reader.allows("server:start", &Object::all("server", reader.place().unwrap())));
    assert!(
        !reader.allows("server:dance", &Object::all("server", Place::System)),
        "no such permission"
    );
}
