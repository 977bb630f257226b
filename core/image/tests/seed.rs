//! Config drives: what is rendered, and whether other programs can read the volume.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use serde_json::{Value, json};
use skyloom_image::iso9660::{self, IsoFile};
use skyloom_image::{MAX_USER_DATA, SeedNic, SeedSpec, sha256_of};
use skyloom_model::{Hostname, MacAddr, Secret};

fn spec() -> SeedSpec {
    SeedSpec {
        instance_id: "0192f0c1-7c1e-7000-8000-000000000001".to_owned(),
        hostname: Hostname::new("web-1.example.org").unwrap(),
        default_user: "skyloom".to_owned(),
        ssh_keys: vec!["ssh-ed25519 AAAA me@home".to_owned()],
        password_hash: Some(Secret::new("$6$salt$hash".to_owned())),
        user_data: None,
        metadata: BTreeMap::from([("role: x".to_owned(), "a\nb: \"c\"".to_owned())]),
        nics: vec![
            SeedNic {
                mac: MacAddr::qemu([0, 0, 1]),
                address: "10.0.2.15".parse().unwrap(),
                prefix_len: 24,
                gateway: Some("10.0.2.2".parse().unwrap()),
                dns: vec!["10.0.2.3".parse().unwrap(), "2001:db8::53".parse().unwrap()],
            },
            SeedNic {
                mac: MacAddr::qemu([0, 0, 2]),
                address: "fd00::5".parse().unwrap(),
                prefix_len: 64,
                gateway: Some("fd00::1".parse().unwrap()),
                dns: Vec::new(),
            },
        ],
    }
}

fn cloud_config(text: &str) -> Value {
    serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap()
}

#[test]
fn the_files_say_what_the_spec_says() {
    let files = spec().render().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&files.meta_data).unwrap(),
        json!({
            "instance-id": "0192f0c1-7c1e-7000-8000-000000000001",
            "local-hostname": "web-1.example.org",
            "metadata": { "role: x": "a\nb: \"c\"" },
        })
    );
    assert_eq!(files.meta_data.lines().count(), 1);
    assert_eq!(
        cloud_config(&files.user_data),
        json!({
            "hostname": "web-1.example.org",
            "ssh_pwauth": true,
            "users": [{
                "name": "skyloom", "groups": ["sudo"], "sudo": ["ALL=(ALL) NOPASSWD:ALL"], "shell": "/bin/bash",
                "lock_passwd": false, "hashed_passwd": "$6$salt$hash",
                "ssh_authorized_keys": ["ssh-ed25519 AAAA me@home"],
            }],
        })
    );
    assert_eq!(
        serde_json::from_str::<Value>(&files.network_config).unwrap(),
        json!({
            "version": 2,
            "ethernets": {
                "eth0": {
                    "match": { "macaddress": "52:54:00:00:00:01" }, "set-name": "eth0",
                    "dhcp4": false, "dhcp6": false, "addresses": ["10.0.2.15/24"],
                    "routes": [{ "to": "0.0.0.0/0", "via": "10.0.2.2" }],
                    "nameservers": { "addresses": ["10.0.2.3", "2001:db8::53"] },
                },
                "eth1": {
                    "match": { "macaddress": "52:54:00:00:00:02" }, "set-name": "eth1",
                    "dhcp4": false, "dhcp6": false, "addresses": ["fd00::5/64"],
                    "routes": [{ "to": "::/0", "via": "fd00::1" }],
                },
            },
        })
    );
    assert_eq!(files.vendor_data, None);
}

#[test]
fn own_user_data_stays_as_it_is_and_ours_goes_below() {
    let own = "#!/bin/sh\necho \"ä\"\r\n# no newline at the end";
    let mut with_own = spec();
    with_own.user_data = Some(Secret::new(own.to_owned()));
    let files = with_own.render().unwrap();
    assert_eq!(files.user_data, own);
    assert_eq!(files.vendor_data, Some(spec().render().unwrap().user_data));
}

#[test]
fn without_a_password_it_is_locked() {
    let mut locked = spec();
    locked.password_hash = None;
    let config = cloud_config(&locked.render().unwrap().user_data);
    assert_eq!(config["ssh_pwauth"], json!(false));
    assert_eq!(config["users"][0]["lock_passwd"], json!(true));
    assert_eq!(config["users"][0].get("hashed_passwd"), None);
}

#[test]
fn values_that_would_break_a_file_are_refused() {
    type Change = Box<dyn Fn(&mut SeedSpec)>;
    let cases: Vec<(&str, Change)> = vec![
        ("seed.instance_id", Box::new(|s| s.instance_id = String::new())),
        (
            "seed.instance_id",
            Box::new(|s| s.instance_id = "a\nb".to_owned()),
        ),
        ("seed.instance_id", Box::new(|s| s.instance_id = "x".repeat(65))),
        ("seed.user_name", Box::new(|s| s.default_user = String::new())),
        (
            "seed.user_name",
            Box::new(|s| s.default_user = "root:x".to_owned()),
        ),
        ("seed.user_name", Box::new(|s| s.default_user = "-a".to_owned())),
        (
            "seed.ssh_key",
            Box::new(|s| s.ssh_keys.push("ssh-rsa A\nssh-rsa B".to_owned())),
        ),
        ("seed.ssh_key", Box::new(|s| s.ssh_keys.push(" ".to_owned()))),
        (
            "seed.password_hash",
            Box::new(|s| s.password_hash = Some(Secret::new("plain".to_owned()))),
        ),
        (
            "seed.password_hash",
            Box::new(|s| s.password_hash = Some(Secret::new("$6$a:b".to_owned()))),
        ),
        (
            "seed.too_large",
            Box::new(|s| s.user_data = Some(Secret::new("x".repeat(MAX_USER_DATA + 1)))),
        ),
        ("seed.nic", Box::new(|s| s.nics[0].prefix_len = 33)),
        ("seed.nic", Box::new(|s| s.nics[0].prefix_len = 0)),
        (
            "seed.nic",
            Box::new(|s| s.nics[0].gateway = Some("fd00::1".parse().unwrap())),
        ),
    ];
    for (n, (code, change)) in cases.iter().enumerate() {
        let mut spec = spec();
        change(&mut spec);
        assert_eq!(spec.render().unwrap_err().code, *code, "case {n}");
    }
}

#[test]
fn debug_output_has_no_secrets() {
    let mut with_own = spec();
    with_own.user_data = Some(Secret::new("canary-user-data".to_owned()));
    with_own.password_hash = Some(Secret::new("$6$canary-hash".to_owned()));
    let shown = format!("{with_own:?} {:?}", with_own.render().unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

fn run(program: &str, args: &[&str], dir: &Path) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{program} {args:?}: {text}");
    text
}

#[test]
fn xorriso_and_blkid_read_the_volume() {
    let mut with_own = spec();
    with_own.user_data = Some(Secret::new("#cloud-config\n{}".to_owned()));
    let files = with_own.render().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("seed.iso"), with_own.iso().unwrap()).unwrap();

    let label = run(
        "blkid",
        &["-p", "-o", "value", "-s", "LABEL", "-s", "TYPE", "seed.iso"],
        dir.path(),
    );
    assert_eq!(
        label.split_whitespace().collect::<Vec<_>>(),
        ["cidata", "iso9660"]
    );

    // By default xorriso takes the Joliet tree of a volume without Rock Ridge.
    let args = [
        "-osirrox",
        "on",
        "-indev",
        "seed.iso",
        "-check_media",
        "--",
        "-extract",
        "/",
        "out",
    ];
    run("xorriso", &args, dir.path());
    let read = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert_eq!(read("meta-data"), files.meta_data);
    assert_eq!(read("user-data"), files.user_data);
    assert_eq!(read("network-config"), files.network_config);
    assert_eq!(read("vendor-data"), files.vendor_data.unwrap());
}

#[test]
fn equal_specs_give_equal_bytes_for_ever() {
    let iso = spec().iso().unwrap();
    assert_eq!(iso, spec().iso().unwrap());
    // A change of this value means that rebuilt config drives differ from stored ones: that must be on purpose.
    assert_eq!(
        sha256_of(&mut iso.as_slice()).unwrap().sha256,
        "8b1e505b3ba0f646bcf82921012cf5b94de95e6c192eeb3c0b0484d1309d23fe"
    );
}

#[test]
fn names_out_of_the_rules_are_refused() {
    let file = |name| IsoFile { name, content: b"" };
    let long = "x".repeat(31);
    for bad in ["", "A", "a/b", "..\0", "ä", "a b", &long] {
        assert_eq!(
            iso9660::volume("cidata", &[file(bad)]).unwrap_err().code,
            "seed.iso_name",
            "{bad:?}"
        );
    }
    for label in ["", "a b", "seventeen-letters"] {
        assert!(iso9660::volume(label, &[]).is_err(), "{label:?}");
    }
    assert!(
        iso9660::volume("cidata", &[file("a-b"), file("a_b")]).is_err(),
        "equal in upper case"
    );
}

/// A small reader: the files of the Joliet tree (or of the primary one), by ECMA-119 and the Joliet specification.
fn read_volume(iso: &[u8], joliet: bool) -> BTreeMap<String, Vec<u8>> {
    let sector = |n: usize| &iso[n * 2048..(n + 1) * 2048];
    let le32 = |b: &[u8]| u32::from_le_bytes(b[..4].try_into().unwrap()) as usize;
    let both = |b: &[u8]| {
        let little = le32(b);
        assert_eq!(little, u32::from_be_bytes(b[4..8].try_into().unwrap()) as usize);
        little
    };
    let descriptor = (16..32)
        .map(sector)
        .take_while(|d| d[0] != 255)
        .find(|d| d[0] == if joliet { 2 } else { 1 })
        .unwrap();
    assert_eq!(&descriptor[1..6], b"CD001");
    assert_eq!(both(&descriptor[80..]) * 2048, iso.len());
    let root = &descriptor[156..190];
    let (start, len) = (both(&root[2..]), both(&root[10..]));
    // The path table agrees with the root record.
    assert_eq!(le32(&sector(le32(&descriptor[140..]))[2..]), start);
    let directory = &iso[start * 2048..start * 2048 + len];
    let mut files = BTreeMap::new();
    let mut at = 0;
    while at < directory.len() {
        let record_len = directory[at] as usize;
        if record_len == 0 {
            at = (at / 2048 + 1) * 2048;
            continue;
        }
        let record = &directory[at..at + record_len];
        assert_eq!(
            at / 2048,
            (at + record_len - 1) / 2048,
            "a record crosses a sector"
        );
        at += record_len;
        let name = &record[33..33 + record[32] as usize];
        if record[25] & 2 != 0 {
            continue;
        }
        let name = if joliet {
            let units: Vec<u16> = name.chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
            String::from_utf16(&units).unwrap()
        } else {
            String::from_utf8(name.to_vec()).unwrap()
        };
        let (start, len) = (both(&record[2..]), both(&record[10..]));
        let content = iso[start * 2048..start * 2048 + len].to_vec();
        assert!(
            files
                .insert(name.strip_suffix(";1").unwrap().to_owned(), content)
                .is_none()
        );
    }
    files
}

#[test]
fn readers_without_joliet_see_upper_case_names() {
    let files = read_volume(&spec().iso().unwrap(), false);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["META_DATA.", "NETWORK_CONFIG.", "USER_DATA."]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn volumes_round_trip(
        files in proptest::collection::btree_map("[a-z0-9-]{1,20}([.][a-z0-9]{1,8})?", proptest::collection::vec(any::<u8>(), 0..3000), 0..40)
    ) {
        let list: Vec<IsoFile<'_>> = files.iter().map(|(name, content)| IsoFile { name, content }).collect();
        let iso = iso9660::volume("cidata", &list).unwrap();
        prop_assert_eq!(&read_volume(&iso, true), &files);
        prop_assert_eq!(read_volume(&iso, false).len(), files.len());
    }
}
