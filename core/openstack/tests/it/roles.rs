//! Roles, what they imply, to whom they are given, and what comes of it.

use serde_json::{Value, json};
use skyloom_identity::BuiltIn;

use crate::world::World;

#[tokio::test]
async fn a_role_is_given_on_everything_to_everybody_and_taken_back() {
    let world = World::new().await;
    let (domain, role) = (world.domain("one").await, world.role("r").await);
    let (user, group) = (
        world.user("anna", &domain).await,
        world.group("team", &domain).await,
    );
    let project = world.make_project("p", &domain, None).await;
    let admin = &world.admin;
    let mut places = Vec::new();
    for actor in [format!("users/{user}"), format!("groups/{group}")] {
        for target in [format!("projects/{project}"), format!("domains/{domain}")] {
            places.push((format!("/v3/{target}/{actor}/roles"), String::new()));
            places.push((
                format!("/v3/OS-INHERIT/{target}/{actor}/roles"),
                "/inherited_to_projects".to_owned(),
            ));
        }
        places.push((format!("/v3/system/{actor}/roles"), String::new()));
    }
    for (all, below) in &places {
        let one = format!("{all}/{role}{below}");
        world.get(admin, &one).await.is(404);
        world.delete(admin, &one).await.is(404);
        world.put(admin, &one).await.is(204);
        world.put(admin, &one).await.is(204);
        world.call(admin, "HEAD", &one, None).await.is(204);
        assert_eq!(
            world
                .get(admin, &format!("{all}{below}"))
                .await
                .is(200)
                .ids("roles"),
            [role.as_str()],
            "{one}"
        );
    }
    let count = async |query: &str| {
        let reply = world
            .get(admin, &format!("/v3/role_assignments?role.id={role}{query}"))
            .await
            .is(200);
        reply.body["role_assignments"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, places.len());
    assert_eq!(count("&scope.system=all").await, 2);
    assert_eq!(count(&format!("&user.id={user}")).await, 5);
    assert_eq!(
        count(&format!("&group.id={group}&scope.domain.id={domain}")).await,
        2
    );
    assert_eq!(count("&scope.OS-INHERIT:inherited_to=projects").await, 4);
    for (all, below) in &places {
        world.delete(admin, &format!("{all}/{role}{below}")).await.is(204);
    }
    assert_eq!(count("").await, 0);
    world
        .get(admin, "/v3/role_assignments?include_subtree=1")
        .await
        .is(400);
    world
        .get(admin, &format!("/v3/role_assignments?effective&group.id={group}"))
        .await
        .is(400);
}

#[tokio::test]
async fn effective_assignments_work_out_groups_trees_and_implied_roles() {
    let world = World::new().await;
    let domain = world.domain("one").await;
    let top = world.make_project("top", &domain, None).await;
    let leaf = world.make_project("leaf", &domain, Some(&top)).await;
    let (user, group) = (
        world.user("anna", &domain).await,
        world.group("team", &domain).await,
    );
    world
        .put(&world.admin, &format!("/v3/groups/{group}/users/{user}"))
        .await
        .is(204);
    let (prior, implied) = (world.role("prior").await, world.role("implied").await);
    world
        .put(&world.admin, &format!("/v3/roles/{prior}/implies/{implied}"))
        .await
        .is(201);
    let inherited =
        format!("/v3/OS-INHERIT/projects/{top}/groups/{group}/roles/{prior}/inherited_to_projects");
    world.put(&world.admin, &inherited).await.is(204);

    let query = format!("/v3/role_assignments?effective&user.id={user}&include_names");
    let found = world.get(&world.admin, &query).await.is(200).body["role_assignments"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(found.len(), 2, "{found:?}");
    for one in &found {
        assert_eq!(one["scope"]["project"]["id"], leaf);
        assert_eq!(one["scope"]["project"]["name"], "leaf");
        assert_eq!(one["scope"]["OS-INHERIT:inherited_to"], "projects");
        assert_eq!(one["user"]["name"], "anna");
        assert_eq!(one["user"]["domain"]["name"], "one");
        let links = one["links"].as_object().unwrap();
        assert!(
            links["assignment"].as_str().unwrap().ends_with(&inherited[3..]),
            "{links:?}"
        );
        assert!(
            links["membership"]
                .as_str()
                .unwrap()
                .ends_with(&format!("/groups/{group}/users/{user}"))
        );
        let by = links
            .get("prior_role")
            .map(|link| link.as_str().unwrap().to_owned());
        assert_eq!(by.is_some(), one["role"]["id"] == implied);
    }
    let below = format!("/v3/role_assignments?effective&scope.project.id={top}");
    assert_eq!(
        world.get(&world.admin, &below).await.is(200).body["role_assignments"],
        json!([])
    );
    let tree = world
        .get(&world.admin, &format!("{below}&include_subtree=true"))
        .await
        .is(200);
    assert_eq!(tree.body["role_assignments"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn roles_imply_others_without_circles_and_never_admin() {
    let world = World::new().await;
    let (a, b) = (world.role("a").await, world.role("b").await);
    let rule = |prior: &str, implied: &str| format!("/v3/roles/{prior}/implies/{implied}");
    let made = world.put(&world.admin, &rule(&a, &b)).await.is(201).body;
    assert_eq!(made["role_inference"]["prior_role"]["name"], "a");
    assert_eq!(made["role_inference"]["implies"]["id"], b);
    world
        .call(&world.admin, "HEAD", &rule(&a, &b), None)
        .await
        .is(204);
    world.put(&world.admin, &rule(&b, &a)).await.is(403);
    world
        .put(&world.admin, &rule(&a, &World::built_in(BuiltIn::Admin)))
        .await
        .is(403);
    let rules = world.get(&world.admin, "/v3/role_inferences").await.is(200).body;
    assert_eq!(
        rules["role_inferences"].as_array().unwrap().len(),
        4,
        "with the three that are built in"
    );
    world.delete(&world.admin, &rule(&a, &b)).await.is(204);
    world.get(&world.admin, &rule(&a, &b)).await.is(404);
}

#[tokio::test]
async fn roles_of_a_domain_stay_in_it_and_out_of_tokens() {
    let world = World::new().await;
    let (one, two) = (world.domain("one").await, world.domain("two").await);
    let body = json!({"role": {"name": "own", "domain_id": one}});
    let own = world
        .post(&world.admin, "/v3/roles", body)
        .await
        .is(201)
        .id("role");
    let listed = world
        .get(&world.admin, &format!("/v3/roles?domain_id={one}"))
        .await
        .is(200);
    assert_eq!(listed.ids("roles"), [own.as_str()]);
    assert!(
        !world
            .get(&world.admin, "/v3/roles")
            .await
            .is(200)
            .ids("roles")
            .contains(&own)
    );

    let user = world.user("anna", &one).await;
    let there = world.make_project("p", &two, None).await;
    world
        .put(
            &world.admin,
            &format!("/v3/projects/{there}/users/{user}/roles/{own}"),
        )
        .await
        .is(403);
    let here = world.make_project("p", &one, None).await;
    world
        .put(
            &world.admin,
            &format!("/v3/projects/{here}/users/{user}/roles/{own}"),
        )
        .await
        .is(204);
    let reader = World::built_in(BuiltIn::Reader);
    world
        .put(&world.admin, &format!("/v3/roles/{own}/implies/{reader}"))
        .await
        .is(201);
    let query = format!("/v3/role_assignments?effective&user.id={user}");
    let found = world.get(&world.admin, &query).await.is(200).body["role_assignments"].clone();
    let roles: Vec<&Value> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["role"]["id"])
        .collect();
    assert_eq!(roles, [&json!(reader)]);

    // What is built in stays.
    world
        .delete(&world.admin, &format!("/v3/roles/{reader}"))
        .await
        .is(403);
    world
        .patch(
            &world.admin,
            &format!("/v3/roles/{reader}"),
            json!({"role": {"name": "x"}}),
        )
        .await
        .is(400);
    world
        .delete(&world.admin, &format!("/v3/roles/{own}"))
        .await
        .is(204);
}
