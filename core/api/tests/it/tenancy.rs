//! Whoever asks cleverly gets what is their own, or an error: attacks on the scope of lists, children, bodies and cursors.

use serde_json::{Value as Json, json};
use skyloom_identity::{AuthScope, BuiltIn, NewApplicationCredential, Principal, Rights};
use skyloom_model::ProjectId;

use crate::fields::planted;
use crate::harness::{Api, Reply, Role};
use crate::resources::active_image_in;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna";

/// Two projects; each has an image and some keypairs. The attacker is in the first.
struct Scene {
    api: Api,
    mine: String,
    theirs: String,
    other: ProjectId,
    their_image: String,
    their_keypair: String,
}

impl Scene {
    async fn new() -> Self {
        let api = Api::new().await;
        let other = api.project("other").await;
        let (mine, theirs) = (
            api.member().await,
            api.token(Role::Member { project: other }).await,
        );
        active_image_in(&api, "tiny", api.project).await;
        let their_image = active_image_in(&api, "theirs", other).await.to_string();
        let mut their_keypair = String::new();
        for n in 0..4 {
            let body = |whose| json!({"name": format!("{whose}-{n}"), "public_key": KEY});
            api.call("POST", "/v1/keypairs", &mine)
                .json(body("mine"))
                .await
                .ok(201);
            let made = api
                .call("POST", "/v1/keypairs", &theirs)
                .json(body("theirs"))
                .await
                .ok(201);
            made.json["meta"]["id"]
                .as_str()
                .unwrap()
                .clone_into(&mut their_keypair);
        }
        Self {
            api,
            mine,
            theirs,
            other,
            their_image,
            their_keypair,
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.api.call("GET", path, &self.mine).send().await
    }

    /// Refused as a bad request, or answered with what is the attacker's own.
    async fn own_or_refused(&self, path: &str) {
        let reply = self.get(path).await;
        let refused = [400, 403, 422].contains(&reply.status.as_u16());
        let own = reply.status == 200 && !reply.text.contains("theirs");
        assert!(refused || own, "{path}: {} {}", reply.status, reply.text);
    }

    async fn keypairs(&self) -> usize {
        self.get("/v1/keypairs?limit=1000").await.json["items"]
            .as_array()
            .map_or(0, Vec::len)
    }
}

#[tokio::test]
async fn attack_14_no_parameter_widens_a_list() {
    let scene = Scene::new().await;
    let other = scene.other;
    for query in [
        format!("project_id={other}"),
        format!("project={other}"),
        format!("tenant={other}"),
        format!("tenant_id={other}"),
        "all_projects=1".to_owned(),
        "all_tenants=true".to_owned(),
        format!("all_projects=1&project_id={other}"),
        format!("scope=p-{other}"),
        "scope=system".to_owned(),
        format!("project={}&project={other}", scene.api.project),
    ] {
        for list in ["keypairs", "images", "servers", "tasks", "events", "ports"] {
            scene.own_or_refused(&format!("/v1/{list}?{query}")).await;
        }
    }
    // Nor does the header: it is for those who have more than one project.
    let asked = scene.api.call("GET", "/v1/keypairs", &scene.mine);
    let reply = asked.header("x-skyloom-project", &other.to_string()).send().await;
    assert!([403, 404].contains(&reply.status.as_u16()), "{reply:?}");
}

#[tokio::test]
async fn attack_15_a_child_is_loaded_with_its_parent() {
    let scene = Scene::new().await;
    let who = async |token: &str| {
        let who = scene
            .api
            .call("GET", "/v1/auth/whoami", token)
            .send()
            .await
            .ok(200);
        who.json["user"].as_str().unwrap().to_owned()
    };
    let (me, they) = (who(&scene.mine).await, who(&scene.theirs).await);
    for path in [
        format!("/v1/users/{they}/credentials"),
        format!("/v1/users/{they}"),
    ] {
        assert_eq!(scene.get(&path).await.status, 404, "{path}");
    }
    // A credential of somebody else does not become one's own by its place in the path.
    let principal = Principal {
        user: they.parse().unwrap(),
        scope: AuthScope::Project(scene.other),
        ..(*Rights::of_the_cloud().unwrap().principal).clone()
    };
    let identity = &scene.api.identity;
    let secret = identity.new_secret();
    let asked = NewApplicationCredential {
        name: "theirs".to_owned(),
        description: String::new(),
        roles: Some([BuiltIn::Member.id()].into()),
        secret_hash: secret.hash.clone(),
        expires_at: None,
        unrestricted: false,
        access_rules: Vec::new(),
        permissions: Vec::new(),
    };
    let made = identity
        .editor()
        .change(|edit| edit.create_application_credential(&principal, asked.clone()));
    let credential = made.await.unwrap().id;
    let remove = async |user: &str, credential: &str| {
        let path = format!("/v1/users/{user}/credentials/{credential}");
        scene.api.call("DELETE", &path, &scene.mine).send().await
    };
    let nowhere = "01980c2e-7b7a-7000-8000-00000000abcd";
    let (foreign, absent) = (
        remove(&me, &credential.to_string()).await,
        remove(&me, nowhere).await,
    );
    assert_eq!((foreign.status, foreign.code()), (absent.status, absent.code()));
    assert!([403, 404].contains(&foreign.status.as_u16()), "{foreign:?}");
    let reply = remove(&they, &credential.to_string()).await;
    assert_eq!(reply.status, 404, "{reply:?}");
    assert!(identity.directory().snapshot().credential(credential).is_some());
}

#[tokio::test]
async fn attack_16_what_the_cloud_decides_is_in_no_body() {
    let scene = Scene::new().await;
    for (field, value) in [
        ("project_id", json!(scene.other)),
        ("project", json!(scene.other)),
        ("owner", json!("root")),
        ("status", json!({"lifecycle": "active"})),
        ("host", json!("h1")),
        ("generation", json!(7)),
        ("id", json!("01980c2e-7b7a-7000-8000-00000000abcd")),
        ("created_at", json!("2026-01-01T00:00:00Z")),
        ("meta", json!({"id": "01980c2e-7b7a-7000-8000-00000000abcd"})),
    ] {
        let refuse = async |path: &str, mut body: Json| {
            body[field] = value.clone();
            let reply = scene.api.call("POST", path, &scene.mine).json(body).await;
            assert!(
                [400, 422].contains(&reply.status.as_u16()),
                "{path} {field}: {reply:?}"
            );
            assert!(
                reply.text.contains(field),
                "{path} names the field {field}: {}",
                reply.text
            );
        };
        refuse(
            "/v1/servers",
            json!({"name": "s", "image": "tiny", "flavor": "m1.tiny"}),
        )
        .await;
        refuse("/v1/keypairs", json!({"name": "new", "public_key": KEY})).await;
        refuse(
            "/v1/images",
            json!({"name": "new", "format": "raw", "url": "https://images.example.org/i"}),
        )
        .await;
    }
    assert_eq!(scene.keypairs().await, 4);
    assert_eq!(scene.get("/v1/servers").await.json["items"], json!([]));
    assert_eq!(scene.get("/v1/tasks").await.json["items"], json!([]));
}

#[tokio::test]
async fn attack_17_what_is_foreign_is_not_used_in_a_create() {
    let scene = Scene::new().await;
    for (field, value) in [
        ("image", json!(scene.their_image)),
        ("image", json!("theirs")),
        ("keypairs", json!([scene.their_keypair])),
        ("keypairs", json!(["theirs-3"])),
    ] {
        let mut body = json!({"name": "s", "image": "tiny", "flavor": "m1.tiny"});
        body[field] = value.clone();
        let reply = scene
            .api
            .call("POST", "/v1/servers", &scene.mine)
            .json(body.clone())
            .await;
        assert!([404, 422].contains(&reply.status.as_u16()), "{body}: {reply:?}");
        // The same as of what there is nowhere, but for the name.
        body[field] = match &value {
            Json::Array(_) => json!(["nowhere"]),
            _ => json!("nowhere"),
        };
        let absent = scene
            .api
            .call("POST", "/v1/servers", &scene.mine)
            .json(body)
            .await;
        assert_eq!((reply.status, reply.code()), (absent.status, absent.code()));
    }
    assert_eq!(scene.get("/v1/servers").await.json["items"], json!([]));
}

#[tokio::test]
async fn attack_18_what_is_foreign_is_not_restored() {
    let scene = Scene::new().await;
    let mut foreign = std::collections::BTreeMap::new();
    let mut own_server = String::new();
    for (kind, project) in [
        ("servers", scene.other),
        ("volumes", scene.other),
        ("snapshots", scene.other),
        ("servers", scene.api.project),
    ] {
        let id = planted(&scene.api, kind, project).await;
        if project == scene.other {
            foreign.insert(kind, id);
        } else {
            own_server = id;
        }
    }
    let (server, volume, snapshot) = (&foreign["servers"], &foreign["volumes"], &foreign["snapshots"]);
    let nowhere = uuid::Uuid::from_u128(7).to_string();
    for (path, body, theirs) in [
        ("/v1/volumes", json!({"name": "v", "snapshot": "ID"}), snapshot),
        ("/v1/volumes", json!({"name": "v", "volume": "ID"}), volume),
        (
            "/v1/volumes",
            json!({"name": "v", "image": "ID"}),
            &scene.their_image,
        ),
        (
            "/v1/volumes",
            json!({"name": "v", "size_gib": 1, "server": "ID"}),
            server,
        ),
        ("/v1/snapshots", json!({"name": "s", "server": "ID"}), server),
        ("/v1/snapshots", json!({"name": "s", "volume": "ID"}), volume),
        (
            "/v1/servers/OWN/actions/rebuild",
            json!({"image": "ID"}),
            &scene.their_image,
        ),
        ("/v1/volumes/ID/actions/attach", json!({"server": "OWN"}), volume),
        ("/v1/servers/ID/actions/restore", json!({}), server),
    ] {
        let asked = async |id: &str| {
            let fill = |text: &str| text.replace("ID", id).replace("OWN", &own_server);
            let body: Json = serde_json::from_str(&fill(&body.to_string())).unwrap();
            let call = scene.api.call("POST", &fill(path), &scene.mine);
            call.json(body).await
        };
        let (reply, absent) = (asked(theirs).await, asked(&nowhere).await);
        assert!(
            [404, 422].contains(&reply.status.as_u16()),
            "{path} {body}: {reply:?}"
        );
        assert_eq!(
            (reply.status, reply.code()),
            (absent.status, absent.code()),
            "{path} {body}"
        );
        let without = |reply: &Reply, id: &str| {
            let told = format!("{}{}", reply.json["detail"], reply.json["errors"]);
            told.replace(id, "")
        };
        assert_eq!(
            without(&reply, theirs),
            without(&absent, &nowhere),
            "{path} {body}"
        );
    }
    assert_eq!(scene.get("/v1/volumes").await.json["items"], json!([]));
    assert_eq!(scene.get("/v1/snapshots").await.json["items"], json!([]));
    assert_eq!(scene.get("/v1/tasks").await.json["items"], json!([]));
}

#[tokio::test]
async fn attack_19_filters_are_no_language() {
    let scene = Scene::new().await;
    for query in [
        "sort=password_hash",
        "sort=-public_key",
        "fields=secrets",
        "filter%5B%24where%5D=1",
        "name%5B%24ne%5D=x",
        "name=%27%3B+DROP+TABLE+documents",
        "label=a%3D%27+OR+1%3D1",
        "label=%24where",
        "name=..%2F..%2F",
        "cursor=%00",
    ] {
        for list in ["keypairs", "images", "servers", "tasks", "events"] {
            scene.own_or_refused(&format!("/v1/{list}?{query}")).await;
        }
    }
    assert_eq!(scene.keypairs().await, 4);
}

#[tokio::test]
async fn attack_20_cursors_of_others_and_wild_limits() {
    let scene = Scene::new().await;
    let page = scene
        .api
        .call("GET", "/v1/keypairs?limit=2", &scene.theirs)
        .send()
        .await
        .ok(200);
    let cursor = page.json["next"].as_str().or(page.json["cursor"].as_str());
    let cursor = cursor
        .unwrap_or_else(|| panic!("a cursor in {}", page.text))
        .to_owned();
    let tampered: String = cursor.chars().rev().collect();
    for cursor in [cursor.as_str(), &tampered, "", "x", &"A".repeat(4000)] {
        scene
            .own_or_refused(&format!("/v1/keypairs?cursor={cursor}"))
            .await;
    }
    for limit in ["0", "-1", "1000000000", "99999999999999999999", "1e3", "x", ""] {
        scene.own_or_refused(&format!("/v1/keypairs?limit={limit}")).await;
    }
}

#[tokio::test]
async fn attack_23_users_name_no_host_and_no_arguments() {
    let scene = Scene::new().await;
    for (field, value) in [
        ("hints", json!({"host": "h1"})),
        ("scheduler_hints", json!({"host": "h1"})),
        ("host", json!("h1")),
        ("node", json!("h1")),
        ("extra_config", json!({"qemu": "-monitor stdio"})),
        ("args", json!(["-monitor", "stdio"])),
        ("devices", json!(["0000:00:02.0"])),
    ] {
        let mut body = json!({"name": "s", "image": "tiny", "flavor": "m1.tiny"});
        body[field] = value;
        let reply = scene
            .api
            .call("POST", "/v1/servers", &scene.mine)
            .json(body)
            .await;
        assert!(
            [400, 403, 422].contains(&reply.status.as_u16()),
            "{field}: {reply:?}"
        );
    }
    assert_eq!(scene.get("/v1/servers").await.json["items"], json!([]));
}
