//! What all answers have, and what is no route.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use skyloom_openstack::identity::OpenstackConfig;

use crate::world::World;

#[tokio::test]
async fn versions_are_told_to_everybody() {
    let world = World::new().await;
    for path in ["", "/"] {
        let reply = world.get("", path).await.is(300);
        assert_eq!(reply.body["versions"]["values"][0]["id"], "v3.14");
    }
    for path in ["/v3", "/v3/"] {
        let reply = world.get("", path).await.is(200);
        let link = &reply.body["version"]["links"][0]["href"];
        assert_eq!(link, "http://cloud.example:5000/identity/v3/");
    }
}

#[tokio::test]
async fn every_answer_has_its_id_and_every_refusal_its_form() {
    let world = World::new().await;
    let first = world.get("", "/v3").await;
    let second = world.get("", "/v3").await;
    let id = |reply: &crate::world::Reply| {
        reply.headers["x-openstack-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert!(id(&first).starts_with("req-") && id(&first).len() == 40);
    assert_ne!(id(&first), id(&second));
    assert_eq!(first.headers["vary"], "X-Auth-Token");

    let refused = world.get("", "/v3/users").await.is(401);
    assert_eq!(
        refused.headers["www-authenticate"],
        "Keystone uri=\"http://cloud.example:5000/identity\""
    );
    let message = "The request you have made requires authentication.";
    assert_eq!(
        refused.body,
        json!({"error": {"code": 401, "message": message, "title": "Unauthorized"}})
    );
    assert_eq!(
        world.get(&world.admin, "/v3/nothing").await.is(404).body["error"]["title"],
        "Not Found"
    );
    assert_eq!(
        world.put(&world.admin, "/v3/users").await.is(405).body["error"]["code"],
        405
    );
    assert_eq!(
        world.get("no token", "/v3/users").await.is(401).body["error"]["message"],
        message
    );
    let long = json!({"user": {"name": "n".repeat(200_000)}});
    assert_eq!(
        world.post(&world.admin, "/v3/users", long).await.is(413).body["error"]["code"],
        413
    );
    let wrong = world.post(&world.admin, "/v3/users", json!([])).await.is(400);
    assert!(
        wrong.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("malformed")
    );
}

#[tokio::test]
async fn links_repeat_no_host_that_is_none() {
    let world = World::new().await;
    for (host, root) in [
        ("evil\"><x", "http://localhost"),
        ("[::1]:5000", "http://[::1]:5000"),
    ] {
        let request = Request::builder().uri("/identity/v3").header("host", host);
        let reply = world.send(request.body(Body::empty()).unwrap()).await.is(200);
        assert_eq!(
            reply.body["version"]["links"][0]["href"],
            format!("{root}/identity/v3/")
        );
    }
    let config = OpenstackConfig {
        public_url: "https://keystone.example/".to_owned(),
        ..OpenstackConfig::default()
    };
    let behind = World::with(config).await;
    let reply = behind.get("", "/v3").await.is(200);
    assert_eq!(
        reply.body["version"]["links"][0]["href"],
        "https://keystone.example/identity/v3/"
    );
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let world = World::new().await;
    for name in ["alpha", "beta", "gamma"] {
        world.user(name, "default").await;
    }
    let names = async |query: &str| -> Vec<String> {
        let reply = world
            .get(&world.admin, &format!("/v3/users?{query}"))
            .await
            .is(200);
        let users = reply.body["users"].as_array().unwrap().clone();
        users
            .iter()
            .map(|user| user["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("name=BETA").await, ["beta"]);
    assert_eq!(names("name__contains=mm").await, ["gamma"]);
    assert_eq!(names("enabled=false").await, [""; 0]);
    assert_eq!(
        names("sort_key=name&sort_dir=desc&limit=2").await,
        ["gamma", "beta"]
    );
    let page = world
        .get(&world.admin, "/v3/users?sort_key=name&limit=1")
        .await
        .is(200);
    assert_eq!(
        page.body["links"]["self"],
        "http://cloud.example:5000/identity/v3/users"
    );
    let next = page.body["links"]["next"].as_str().unwrap();
    assert!(next.starts_with("http://cloud.example:5000/identity/v3/users?") && next.contains("marker="));
    world.get(&world.admin, "/v3/users?marker=none").await.is(400);
}

#[tokio::test]
async fn the_catalog_names_the_address_by_which_one_came() {
    let world = World::new().await;
    let catalog = world.get(&world.admin, "/v3/auth/catalog").await.is(200).body;
    assert_eq!(catalog["catalog"][0]["type"], "identity");
    assert_eq!(
        catalog["catalog"][0]["endpoints"][0]["url"],
        "http://cloud.example:5000/identity/v3"
    );
    assert_eq!(catalog["catalog"][0]["endpoints"][0]["region"], "RegionOne");

    // A second start makes nothing twice.
    skyloom_openstack::identity::bootstrap(&world.identity)
        .await
        .unwrap();
    assert_eq!(
        world
            .get(&world.admin, "/v3/endpoints")
            .await
            .is(200)
            .ids("endpoints")
            .len(),
        3
    );

    let service = json!({"service": {"name": "swift", "type": "object-store"}});
    let service = world
        .post(&world.admin, "/v3/services", service)
        .await
        .is(201)
        .id("service");
    let url = "http://s/v1/AUTH_$(project_id)s";
    let endpoint =
        json!({"endpoint": {"service_id": service, "interface": "public", "url": url, "region": "New"}});
    world.post(&world.admin, "/v3/endpoints", endpoint).await.is(201);
    world.get(&world.admin, "/v3/regions/New").await.is(200);
    let (_, project, token) = world.member("m").await;
    let seen = async |token: &str| {
        let catalog = world.get(token, "/v3/auth/catalog").await.is(200).body;
        let all = catalog["catalog"].as_array().unwrap().clone();
        all.into_iter()
            .find(|service| service["type"] == "object-store")
            .unwrap()["endpoints"]
            .clone()
    };
    assert_eq!(
        seen(&token).await[0]["url"],
        format!("http://s/v1/AUTH_{project}")
    );
    assert_eq!(
        seen(&world.admin).await,
        json!([]),
        "without a project there is no address of it"
    );
    world.delete(&world.admin, "/v3/regions/New").await.is(403);
    world
        .post(&token, "/v3/services", json!({"service": {"type": "x"}}))
        .await
        .is(403);
}
