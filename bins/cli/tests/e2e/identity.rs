//! The command line's nouns of identity against the real API, as docs/operations.md uses them.

use crate::support::{Process, Sky};

#[test]
fn an_organisation_is_set_up_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "dev",
        "--hypervisor",
        "fake",
        "--store",
        "memory",
        "--listen",
        "127.0.0.1:0",
    ];
    let process = Process::start("skyloom", &args, &dir.path().join("log"));
    let sky = Sky {
        endpoint: process.line("SKYLOOM_ENDPOINT="),
        token: process.line("SKYLOOM_TOKEN="),
    };
    sky.json(&["project", "create", "web"]);
    sky.json(&["user", "create", "anna"]);
    let explain = ["policy", "explain", "anna", "server:start", "project/web"];
    assert!(
        !sky.text(&explain).contains(": allowed"),
        "nothing is given to who is new"
    );
    sky.json(&["grant", "add", "member", "--user", "anna", "--project", "web"]);
    let said = sky.text(&explain);
    assert!(said.contains(": allowed") && said.contains("member"), "{said}");
    sky.json(&["quota", "set", "--of", "web", "servers=20", "vcpus=80"]);
    let quota = sky.text(&["quota", "show", "--of", "web"]);
    assert!(quota.contains("20") && quota.contains("80"), "{quota}");

    let below = sky.json(&["project", "create", "edge", "--parent", "web"]);
    assert!(below["spec"]["parent"].is_string(), "{below}");
    assert!(sky.text(&["project", "tree"]).contains("web\n  edge\n"));
    assert_eq!(sky.json(&["quota", "recount"]), serde_json::json!([]));

    // The audit is for auditors, whatever else one may do.
    let search = ["audit", "search", "--user", "admin"];
    let refused = sky.try_text(&search).unwrap_err();
    assert!(refused.contains("audit:read"), "{refused}");
    sky.json(&["grant", "add", "auditor", "--user", "admin", "--system"]);
    let told = sky.text(&search);
    for action in ["project:create", "user:create", "grant:create"] {
        assert!(told.contains(action), "{action} in {told}");
    }
    sky.text(&["audit", "verify"]);
    assert_eq!(sky.json(&["whoami"])["name"], "admin");
}
