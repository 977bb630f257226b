//! The crate line (docs/rfd/0001-crate-line.md), the size of files and what breaks "one seed, one trace", checked on every run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// What each crate of the core may depend on. A crate that is not named here may not be in `core/`.
const LINE: &[(&str, &[&str])] = &[
    ("skyloom-model", &[]),
    ("skyloom-image", &["skyloom-model"]),
    ("skyloom-store", &["skyloom-model"]),
    ("skyloom-scheduler", &["skyloom-model"]),
    ("skyloom-identity", &["skyloom-model", "skyloom-store"]),
    ("skyloom-pki", &["skyloom-model"]),
    (
        "skyloom-openstack",
        &["skyloom-model", "skyloom-store", "skyloom-identity"],
    ),
    ("skyloom-hypervisor", &["skyloom-model"]),
    (
        "skyloom-flow",
        &[
            "skyloom-model",
            "skyloom-store",
            "skyloom-scheduler",
            "skyloom-hypervisor",
        ],
    ),
    (
        "skyloom-cloud",
        &[
            "skyloom-pki",
            "skyloom-model",
            "skyloom-identity",
            "skyloom-image",
            "skyloom-store",
            "skyloom-scheduler",
            "skyloom-hypervisor",
            "skyloom-flow",
        ],
    ),
    (
        "skyloom-api",
        &[
            "skyloom-pki",
            "skyloom-model",
            "skyloom-identity",
            "skyloom-store",
            "skyloom-identity",
            "skyloom-scheduler",
            "skyloom-cloud",
            "skyloom-image",
        ],
    ),
    (
        "skyloom-engine",
        &[
            "skyloom-model",
            "skyloom-store",
            "skyloom-scheduler",
            "skyloom-flow",
            "skyloom-cloud",
        ],
    ),
    (
        "skyloom-agent",
        &[
            "skyloom-model",
            "skyloom-store",
            "skyloom-hypervisor",
            "skyloom-flow",
            "skyloom-cloud",
            "skyloom-pki",
        ],
    ),
    ("skyloom-store-sql", &["skyloom-model", "skyloom-store"]),
    ("skyloom-store-etcd", &["skyloom-model", "skyloom-store"]),
    ("skyloom-store-mongo", &["skyloom-model", "skyloom-store"]),
    (
        "skyloom-store-remote",
        &["skyloom-model", "skyloom-store", "skyloom-pki"],
    ),
    (
        "skyloom-pool",
        &["skyloom-model", "skyloom-hypervisor", "skyloom-image"],
    ),
    ("skyloom-bridge", &["skyloom-model", "skyloom-hypervisor"]),
    ("skyloom-qemu", &["skyloom-model", "skyloom-hypervisor"]),
    (
        "skyloom-qmp",
        &["skyloom-model", "skyloom-hypervisor", "skyloom-qemu"],
    ),
    (
        "skyloom-libvirt",
        &["skyloom-model", "skyloom-hypervisor", "skyloom-qemu"],
    ),
];

/// Crates that must stay free of any runtime: pure and synchronous.
const PURE: &[&str] = &["skyloom-model", "skyloom-scheduler"];

/// Longest source file in lines. A longer one needs splitting, not a larger number here.
const MAX_LINES: usize = 600;
/// Longest `main.rs` of a binary.
const MAX_MAIN: usize = 100;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn dependencies_point_one_way() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let allowed: BTreeMap<&str, BTreeSet<&str>> = LINE
        .iter()
        .map(|(c, d)| (*c, d.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let path = package.manifest_path.strip_prefix(root()).unwrap();
        let normal = package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal);
        let ours: Vec<&str> = normal
            .clone()
            .map(|d| d.name.as_str())
            .filter(|n| n.starts_with("skyloom"))
            .collect();
        match allowed.get(name) {
            Some(may) => wrong.extend(
                ours.iter()
                    .filter(|d| !may.contains(**d))
                    .map(|d| format!("{name} -> {d}")),
            ),
            None if name == "skyloom" || path.starts_with("bins") || path.starts_with("tests") => {}
            None => wrong.push(format!("{name} at {path} is not in the line")),
        }
        if PURE.contains(&name) {
            wrong.extend(
                normal
                    .filter(|d| ["tokio", "futures", "async-trait"].contains(&d.name.as_str()))
                    .map(|d| format!("{name} -> {}", d.name)),
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "the crate line is broken:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_default_features_are_light() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let facade = metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == "skyloom")
        .unwrap();
    assert!(
        facade.features["default"].is_empty(),
        "default features: {:?}",
        facade.features["default"]
    );
    for backend in [
        "skyloom-store-sql",
        "skyloom-store-etcd",
        "skyloom-store-mongo",
        "skyloom-store-remote",
        "skyloom-qmp",
        "skyloom-libvirt",
        "skyloom-pool",
        "skyloom-bridge",
    ] {
        let dependency = facade
            .dependencies
            .iter()
            .find(|d| d.name == backend && d.kind == DependencyKind::Normal)
            .unwrap();
        assert!(dependency.optional, "{backend} must be a feature");
    }
}

#[test]
fn files_are_small_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in sources(&root()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let lines = text.lines().count();
        let limit = if name.starts_with("bins/") && name.ends_with("src/main.rs") {
            MAX_MAIN
        } else {
            MAX_LINES
        };
        if lines > limit {
            wrong.push(format!("{name}: {lines} lines, limit {limit}"));
        }
        if !text.starts_with("//!") && !text.starts_with("#!") {
            wrong.push(format!("{name}: does not begin with what it is"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_shell_is_ever_started() {
    let mut wrong = Vec::new();
    for file in sources(&root()) {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if name == "tests/architecture.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let shell = ["sh\"", "bash\"", "/bin/sh\"", "/bin/bash\""].map(|s| format!("Command::new(\"{s}"));
            if shell.iter().any(|s| line.contains(s.as_str())) || line.contains("danger_accept_invalid") {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where one seed must give one trace: nothing there may draw from an ambient random generator.
const SEEDED: &[&str] = &["core/", "backends/", "hypervisors/", "bins/", "tests/sim/"];

/// `tokio::select!` without `biased;` and all of `futures::select!` begin with a branch of their own random choice.
#[test]
fn every_select_says_which_branch_goes_first() {
    let mut wrong = Vec::new();
    for file in sources(&root()) {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if !SEEDED.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("select!") {
            let line = text[..at].matches('\n').count() + 1;
            let begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let body = text[at + "select!".len()..].trim_start();
            let biased = ["{", "(", "["]
                .iter()
                .find_map(|open| body.strip_prefix(open))
                .is_some_and(|body| body.trim_start().starts_with("biased;"));
            let comment = text[begin..at].trim_start().starts_with("//");
            if !comment && (!biased || text[begin..at].ends_with("futures::")) {
                wrong.push(format!("{name}:{line}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "select! without biased; as its first token:\n{}",
        wrong.join("\n")
    );
}

/// What breaks rules or kills processes for tests. A normal build of a program has none of it.
const TEST_FEATURES: &[&str] = &["failpoints", "ablation"];

#[test]
fn no_normal_build_can_be_told_to_die() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let test_feature = |feature: &str| {
        TEST_FEATURES
            .iter()
            .any(|t| feature.split('/').next_back() == Some(*t))
    };
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        for (feature, enables) in &package.features {
            if !test_feature(feature) {
                wrong.extend(
                    enables
                        .iter()
                        .filter(|e| test_feature(e) || *e == "dep:fail")
                        .map(|e| format!("{}: feature {feature} turns on {e}", package.name)),
                );
            }
        }
        for dependency in &package.dependencies {
            let simulator = package.name.as_str() == "skyloom-sim";
            if dependency.kind != DependencyKind::Normal || simulator {
                continue;
            }
            let turned_on = dependency.features.iter().any(|f| test_feature(f));
            // The crate behind the points is there for nothing else: it must not be there at all.
            let wrongly = match dependency.name.as_str() {
                "fail" => !dependency.optional,
                _ => turned_on,
            };
            if wrongly {
                wrong.push(format!(
                    "{} -> {} with a test feature",
                    package.name, dependency.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_crash_point_is_somewhere_and_in_the_list() {
    let mut placed = BTreeSet::new();
    for file in sources(&root()) {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if name.starts_with("core/") && name != "core/model/src/crash.rs" {
            let text = std::fs::read_to_string(&file).unwrap();
            for call in text.split("crash_point(\"").skip(1) {
                let point = call.split('"').next().unwrap().to_owned();
                assert!(placed.insert(point.clone()), "{point} is there twice: {name}");
            }
        }
    }
    let listed: BTreeSet<String> = skyloom::model::crash::CRASH_POINTS
        .iter()
        .map(|p| p.name.to_owned())
        .collect();
    assert_eq!(placed, listed);
}

/// A crate with flows of its own has a test that compares the cases of its torture with all the flows that it registers.
#[test]
fn every_crate_with_flows_tortures_them() {
    let mut with_flows = 0;
    let mut wrong = Vec::new();
    let crates = sources(&root());
    for file in &crates {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let product = ["core/", "backends/", "hypervisors/", "bins/"]
            .iter()
            .any(|f| name.starts_with(f));
        let Some((folder, _)) = name.split_once("/src/").filter(|_| product) else {
            continue;
        };
        if !std::fs::read_to_string(file)
            .unwrap()
            .contains("impl TaskFlow for ")
        {
            continue;
        }
        with_flows += 1;
        let tests = root().join(folder).join("tests");
        let tortured = crates.iter().filter(|f| f.starts_with(&tests)).any(|f| {
            let text = std::fs::read_to_string(f).unwrap();
            ["fn every_flow_is_tortured()", ".names()", "torture("]
                .iter()
                .all(|part| text.contains(part))
        });
        if !tortured {
            wrong.push(format!(
                "{name}: no test in {} tortures its flows",
                tests.display()
            ));
        }
    }
    assert!(with_flows > 3, "the flows were not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = [
        "core",
        "backends",
        "hypervisors",
        "bins",
        "examples",
        "benches",
        "tests",
    ]
    .iter()
    .map(|d| root.join(d))
    .collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}
