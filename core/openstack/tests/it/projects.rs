//! Domains, the tree of projects, tags.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn projects_lie_below_one_another_and_below_their_domain() {
    let world = World::new().await;
    let domain = world.domain("one").await;
    let top = world.make_project("top", &domain, None).await;
    let middle = world.make_project("middle", &domain, Some(&top)).await;
    let leaf = world.make_project("leaf", &domain, Some(&middle)).await;
    let get = async |path: String| world.get(&world.admin, &path).await.is(200).body["project"].clone();

    assert_eq!(get(format!("/v3/projects/{top}")).await["parent_id"], domain);
    let up = get(format!("/v3/projects/{leaf}?parents_as_list&subtree_as_ids")).await;
    let parents: Vec<&Value> = up["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["project"]["id"])
        .collect();
    assert_eq!(parents, [&json!(middle), &json!(top)]);
    assert_eq!(up["subtree"], Value::Null);
    let down = get(format!("/v3/projects/{top}?parents_as_ids&subtree_as_ids")).await;
    assert_eq!(down["parents"], json!({&domain: null}));
    assert_eq!(down["subtree"], json!({&middle: {&leaf: null}}));
    let list = get(format!("/v3/projects/{top}?subtree_as_list")).await;
    assert_eq!(list["subtree"].as_array().unwrap().len(), 2);

    let below = world
        .get(&world.admin, &format!("/v3/projects?parent_id={top}"))
        .await
        .is(200);
    assert_eq!(below.ids("projects"), [middle.as_str()]);
    world
        .delete(&world.admin, &format!("/v3/projects/{top}"))
        .await
        .is(403);
    let elsewhere = json!({"project": {"name": "x", "domain_id": "default", "parent_id": top}});
    world.post(&world.admin, "/v3/projects", elsewhere).await.is(400);
    let moved = json!({"project": {"parent_id": leaf}});
    world
        .patch(&world.admin, &format!("/v3/projects/{top}"), moved)
        .await
        .is(400);
    let twice = json!({"project": {"name": "TOP", "domain_id": domain}});
    world.post(&world.admin, "/v3/projects", twice).await.is(409);
    world
        .post(
            &world.admin,
            "/v3/projects",
            json!({"project": {"name": "n".repeat(65)}}),
        )
        .await
        .is(400);
    world
        .delete(&world.admin, &format!("/v3/projects/{leaf}"))
        .await
        .is(204);
    world
        .get(&world.admin, &format!("/v3/projects/{leaf}"))
        .await
        .is(404);
}

#[tokio::test]
async fn a_domain_is_a_project_too() {
    let world = World::new().await;
    let body = json!({"project": {"name": "one", "is_domain": true, "owner": "me"}});
    let made = world.post(&world.admin, "/v3/projects", body).await.is(201);
    let (id, shown) = (made.id("project"), &made.body["project"]);
    assert_eq!(
        (&shown["is_domain"], &shown["domain_id"], &shown["owner"]),
        (&json!(true), &Value::Null, &json!("me"))
    );
    assert_eq!(
        world
            .get(&world.admin, &format!("/v3/domains/{id}"))
            .await
            .is(200)
            .body["domain"]["name"],
        "one"
    );
    let listed = world
        .get(&world.admin, "/v3/projects?is_domain=true")
        .await
        .is(200)
        .ids("projects");
    assert!(listed.contains(&id) && listed.contains(&"default".to_owned()));
    world
        .delete(&world.admin, &format!("/v3/projects/{id}"))
        .await
        .is(403);
    let off = json!({"project": {"enabled": false}});
    world
        .patch(&world.admin, &format!("/v3/projects/{id}"), off)
        .await
        .is(200);
    world
        .delete(&world.admin, &format!("/v3/projects/{id}"))
        .await
        .is(204);
    world
        .get(&world.admin, &format!("/v3/domains/{id}"))
        .await
        .is(404);
}

#[tokio::test]
async fn a_domain_goes_when_it_is_off_and_its_projects_hold_nothing() {
    let world = World::new().await;
    let domain = world.domain("one").await;
    let (user, project) = (
        world.user("anna", &domain).await,
        world.make_project("p", &domain, None).await,
    );
    let path = format!("/v3/domains/{domain}");
    world.delete(&world.admin, &path).await.is(403);
    world
        .patch(&world.admin, &path, json!({"domain": {"enabled": false}}))
        .await
        .is(200);
    world.hold("3 servers");
    let refused = world.delete(&world.admin, &path).await.is(409);
    assert!(
        refused.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("3 servers")
    );
    let lone = world.make_project("lone", "default", None).await;
    world
        .delete(&world.admin, &format!("/v3/projects/{lone}"))
        .await
        .is(409);

    let empty = World::new().await;
    let domain = empty.domain("one").await;
    let user_there = empty.user("anna", &domain).await;
    let path = format!("/v3/domains/{domain}");
    empty
        .patch(&empty.admin, &path, json!({"domain": {"enabled": false}}))
        .await
        .is(200);
    empty.delete(&empty.admin, &path).await.is(204);
    empty
        .get(&empty.admin, &format!("/v3/users/{user_there}"))
        .await
        .is(404);
    empty.delete(&empty.admin, "/v3/domains/default").await.is(403);
    assert_ne!((user, project), (domain, user_there));
}

#[tokio::test]
async fn tags_and_further_attributes_stay_with_a_project() {
    let world = World::new().await;
    let body = json!({"project": {"name": "p", "tags": ["a"], "team": "blue", "size": 3}});
    let made = world.post(&world.admin, "/v3/projects", body).await.is(201);
    let (id, shown) = (made.id("project"), &made.body["project"]);
    assert_eq!(
        (&shown["team"], &shown["size"], &shown["tags"]),
        (&json!("blue"), &json!("3"), &json!(["a"]))
    );
    let path = format!("/v3/projects/{id}");
    let changed = world
        .patch(
            &world.admin,
            &path,
            json!({"project": {"team": null, "name": "q"}}),
        )
        .await
        .is(200);
    assert!(changed.body["project"].get("team").is_none() && changed.body["project"]["name"] == "q");
    world
        .patch(&world.admin, &path, json!({"project": {"nested": {"x": 1}}}))
        .await
        .is(400);

    world.put(&world.admin, &format!("{path}/tags/b")).await.is(201);
    world.get(&world.admin, &format!("{path}/tags/b")).await.is(204);
    world.get(&world.admin, &format!("{path}/tags/c")).await.is(404);
    assert_eq!(
        world
            .get(&world.admin, &format!("{path}/tags"))
            .await
            .is(200)
            .body["tags"],
        json!(["a", "b"])
    );
    for (query, fits) in [
        ("tags=a,b", true),
        ("tags=a,c", false),
        ("tags-any=b,c", true),
        ("not-tags=a", false),
        ("not-tags-any=c", true),
    ] {
        let listed = world
            .get(&world.admin, &format!("/v3/projects?{query}"))
            .await
            .is(200)
            .ids("projects");
        assert_eq!(listed.contains(&id), fits, "{query}");
    }
    world
        .call(
            &world.admin,
            "PUT",
            &format!("{path}/tags"),
            Some(json!({"tags": ["x"]})),
        )
        .await
        .is(200);
    world
        .delete(&world.admin, &format!("{path}/tags/b"))
        .await
        .is(404);
    world.delete(&world.admin, &format!("{path}/tags")).await.is(204);
    assert_eq!(
        world
            .get(&world.admin, &format!("{path}/tags"))
            .await
            .is(200)
            .body["tags"],
        json!([])
    );
}
