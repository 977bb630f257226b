//! `skyloom sim`: a day of the user's own, without any cloud.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::binary::{Run, bare, finish};

/// Runs it with a script on standard input.
async fn play(script: &str, args: &[&str]) -> Run {
    let mut command = bare(&[&["sim", "run", "--script", "-"], args].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const SMALL: &str = r#"
start = "08:00"
hosts = [{ count = 2, name = "n{n}", memory = "4G" }]

[[events]]
at = "08:01"
create = { count = 3, name = "web-{n}", flavor = "m1.medium" }

[[events]]
at = "08:02"
power_loss = { hosts = "n2", for = "1m" }
"#;

#[tokio::test]
async fn a_day_is_told_and_summed_up() {
    let run = play(SMALL, &["--seed", "3"]).await.code(0);
    for part in [
        "08:01:00.000 > create 3 × m1.medium as web-{n}\n",
        "server.create failed: web-",
        "2 (fewer than ",
        "hint: ",
        "= create: 3 asked, 2 done, 1 failed; from request to active p50 ",
        "> power loss of n2 for 1m\n",
        "host is unreachable: n2\n",
        "host is reachable: n2\n",
        "server now crashed (no task did it): web-",
        "server.create   done            2\n",
        "server.create   failed          1  placement.no_host\n",
        "checks      12 invariants held over ",
        "of seed 3\n",
    ] {
        assert!(run.out.contains(part), "no {part:?} in:\n{}", run.out);
    }
    assert_eq!(run.err, "");
    assert_eq!(
        play(SMALL, &["--seed", "3"]).await.out,
        run.out,
        "one seed, one script, one day"
    );
}

#[tokio::test]
async fn the_same_as_data() {
    let run = play(
        SMALL,
        &["-o", "json", "--hosts", "3", "--engines", "1", "--trace", "4"],
    )
    .await
    .code(0);
    let day = run.json();
    assert_eq!(day["summary"]["seed"], 42);
    assert_eq!(day["summary"]["engines"], 1);
    assert_eq!(day["summary"]["hosts"].as_array().unwrap().len(), 3);
    assert_eq!(day["summary"]["invariants"].as_array().unwrap().len(), 12);
    assert_eq!(day["summary"]["to_active"]["count"], 3);
    assert_eq!(day["trace"].as_array().unwrap().len(), 4);
    let first = &day["timeline"][0];
    assert_eq!(
        (&first["kind"], &first["what"]),
        (&"cloud".into(), &"host is reachable".into())
    );
    assert!(day["violation"].is_null());
    let hash = day["summary"]["hash"].as_str().unwrap().to_owned();
    let name = play(SMALL, &["-o", "name", "--hosts", "3", "--engines", "1"])
        .await
        .code(0);
    assert_eq!(name.out, format!("{hash}\n"));
}

#[tokio::test]
async fn a_wrong_script_is_a_usage_error_with_its_line() {
    let wrong = SMALL.replace("m1.medium", "m1.huge");
    play(&wrong, &[]).await.code(2).says(&[
        "error: -: line 7, column ",
        "events[1].create.flavor: there is no flavor \"m1.huge\"",
        "hint: one of",
    ]);
    play("hosts = 3", &[])
        .await
        .code(2)
        .says(&["line 1, column 9: hosts: invalid type"]);
    play(SMALL, &["--hosts", "0"])
        .await
        .code(2)
        .says(&["0 hosts are too few"]);
    play(SMALL, &["--until", "07:00"])
        .await
        .code(2)
        .says(&["until: 07:00 is before the day begins"]);
    finish(bare(&["sim", "run", "--script", "/nowhere/day.toml"]))
        .await
        .code(2)
        .says(&["cannot read the script from /nowhere/day.toml"]);
    finish(bare(&["sim", "run", "--until", "soon"]))
        .await
        .code(2)
        .says(&["is no time"]);
    finish(bare(&["sim", "run", "--dry-run"]))
        .await
        .code(2)
        .says(&["--dry-run goes with"]);
}

#[tokio::test]
async fn the_built_in_day_can_be_printed_and_played() {
    let script = finish(bare(&["sim", "script"])).await.code(0).out;
    let built_in = finish(bare(&["sim", "run", "--until", "08:01:30"]))
        .await
        .code(0)
        .out;
    assert!(built_in.contains("= create: 7 asked, 7 done"), "{built_in}");
    assert_eq!(play(&script, &["--until", "08:01:30"]).await.out, built_in);
}
