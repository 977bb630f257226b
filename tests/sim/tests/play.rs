//! Days that are played: the same script and seed give the same day, and its text tells what happened.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use skyloom_sim::play::{
    BUILT_IN, Create, Cut, Direction, Event, For, Glob, HostGroup, Hosts, HostsFor, Moment, Numbered,
    Options, Play, Played, Script, Select, SlowStore, Span, Weather, What,
};

fn play(script: &str, seed: u64) -> Played {
    let played = Play::parse(script, &Options::seed(seed)).unwrap().run();
    assert_eq!(played.violation, None, "{played}");
    played
}

/// Asserts that the text has these parts, in this order.
#[track_caller]
fn tells(played: &Played, parts: &[&str]) {
    let text = played.to_string();
    let mut left = text.as_str();
    for part in parts {
        let Some((_, behind)) = left.split_once(part) else {
            panic!("no {part:?} (any more) in:\n{text}");
        };
        left = behind;
    }
}

/// A small day with every kind of event.
const ALL_KINDS: &str = r#"
start = "09:00"
engines = 2
lease_ttl = "4s"
hosts = [{ count = 3, name = "h{n}", vcpus = 8, memory = "8G", disk = "100G", labels = { rack = "a" } }]
flavors = [{ name = "s", vcpus = 1, memory = "512M", disk = 2, host_labels = { rack = "a" } }]
events = [
    { at = "09:00:10", create = { count = 6, name = "a-{n}", flavor = "s", over = "20s" } },
    { at = "20s", create = { count = 2, flavor = "m1.tiny", group = "g", start = false, host_labels = { rack = "a" } } },
    { at = "25s", slow_store = { by = "300ms", for = "10s" } },
    { at = "40s", agent_crash = { hosts = "h1", for = "5s" } },
    { at = "41s", start = { servers = "server-*" } },
    { at = "50s", disable = { hosts = "h2" } },
    { at = "50s", reboot = { servers = "a-*", count = 2, force = true } },
    { at = "55s", store_full = { for = "3s" } },
    { at = "60s", engine_crash = { engines = "engine-1", for = "10s" } },
    { at = "65s", stop = { servers = "a-*", power = "running", count = 2, over = "5s" } },
    { at = "70s", api_crash = { for = "5s" } },
    { at = "75s", cut = { of = "h3", direction = "in", for = "10s" } },
    { at = "80s", enable = { hosts = "h2" } },
    { at = "85s", disk_full = { hosts = "*", count = 1, for = "8s" } },
    { at = "86s", guest_crash = { servers = "a-*", count = 1 } },
    { at = "90s", weather = { faults = { slow = 30, lose-answer = 10, watch-drop = 10, pause = 360, compact = 120 }, for = "30s" } },
    { at = "95s", create = { count = 3, name = "a-{n}", flavor = "s", over = "10s" } },
    { at = "100s", power_loss = { hosts = "h1", for = "20s" } },
    { at = "130s", delete = { servers = "a-*", over = "10s" } },
]
"#;

#[test]
fn one_seed_and_one_script_are_one_day() {
    let day = play(ALL_KINDS, 7);
    let names: Vec<&str> = Script::parse(ALL_KINDS)
        .unwrap()
        .events
        .iter()
        .map(|e| e.what.name())
        .collect();
    let kinds: std::collections::BTreeSet<&str> = names.into_iter().collect();
    assert_eq!(kinds.len(), 17, "{kinds:?}");
    assert_eq!(day, play(ALL_KINDS, 7));
    assert_ne!(day.summary.hash, play(ALL_KINDS, 8).summary.hash);
    tells(
        &day,
        &[
            "09:00:10.000 > create 6 × s as a-{n} over 20s\n",
            "= create: 2 asked, 2 done",
            "> the store answers 300ms later for 10s\n",
            "> disable h2\n",
            "= disable: 1 asked, 1 done",
            "> crash of engine-1 for 10s\n",
            "> network of h3 cut, answers do not come back, for 10s\n",
            "guest crashes: a-",
            "> weather: pause 360 times an hour",
            "stands still",
            "> power loss of h1 for 20s\n",
            "> delete a-* over 10s\n",
            "= delete: 9 asked, 9 done",
            "# the day is over",
            "tasks       server.create",
            "checks      12 invariants held over",
            "of seed 7\n",
        ],
    );
    let bitten: Vec<&str> = day.summary.faults.keys().map(String::as_str).collect();
    for kind in [
        "crash",
        "cut-in",
        "disk-full",
        "full",
        "guest-ends",
        "pause",
        "slow",
    ] {
        assert!(bitten.contains(&kind), "{kind}: {bitten:?}");
    }
}

#[test]
fn a_power_loss_takes_the_guests_of_its_hosts() {
    let script = r#"
        start = "08:00"
        hosts = [{ count = 2, name = "rack{n}" }]
        events = [
            { at = "08:01", create = { count = 8, name = "web-{n}", flavor = "m1.small" } },
            { at = "08:03", power_loss = { hosts = "rack2", for = "2m" } },
            { at = "08:07", start = { servers = "*", power = "crashed" } },
        ]
    "#;
    let day = play(script, 1);
    tells(
        &day,
        &[
            "08:03:00.000 > power loss of rack2 for 2m\n",
            "host is unreachable: rack2\n",
            "08:05:00.000 > power is back on 1 host\n",
            "host is reachable: rack2\n",
            "4 × server now crashed",
            "> start the crashed *\n",
            "= start: 4 asked, 4 done",
        ],
    );
    // With every entry by itself, each guest is named.
    let crashed = day.timeline.iter().filter(|e| e.what.contains("now crashed"));
    assert_eq!(crashed.count(), 4);
    assert_eq!(format!("{day:#}").matches("server now crashed").count(), 4);
    let on: Vec<u32> = day.summary.hosts.iter().map(|h| h.servers).collect();
    assert_eq!(on, [4, 4]);
}

#[test]
fn what_finds_no_place_says_why() {
    let script = r#"
        hosts = [{ count = 2, name = "h{n}" }]
        events = [{ at = "1m", create = { count = 3, flavor = "m1.small", group = "apart" } }]
    "#;
    let day = play(script, 1);
    tells(
        &day,
        &[
            "! server.create failed: server-",
            "no host can run this server: 2 hosts considered: 2",
            "[placement.no_host]",
            "hint: ",
            "create: 3 asked, 2 done, 1 failed",
            "server.create   failed          1  placement.no_host",
        ],
    );
    let json = serde_json::to_value(&day).unwrap();
    assert_eq!(json["summary"]["to_active"]["count"], 2);
    assert_eq!(json["violation"], serde_json::Value::Null);
    let failed = json["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["kind"] == "task");
    assert_eq!(failed.unwrap()["reason"]["code"], "placement.no_host");
}

#[test]
fn users_are_told_when_nobody_answers_and_what_is_refused() {
    let script = r#"
        hosts = [{}]
        events = [
            { at = "1m", create = { count = 2, flavor = "m1.tiny" } },
            { at = "2m", start = { servers = "*" } },
            { at = "2m", stop = { servers = "nothing-*" } },
            { at = "3m", api_crash = { for = "1h" } },
            { at = "4m", delete = { servers = "*" } },
        ]
    "#;
    let day = play(script, 1);
    tells(
        &day,
        &[
            "! 2 × start refused: server-2, server-1\n",
            "[server.wrong_power_state]",
            "start: 2 asked, 2 refused",
            "delete refused: servers\n",
            "no answer in 30 tries [client.no_answer]",
        ],
    );
    let text = day.to_string();
    assert!(text.contains("stop: 0 asked"), "{text}");
}

#[test]
fn the_built_in_day_is_the_example_and_tells_all_of_it() {
    let day = play(BUILT_IN, 42);
    tells(
        &day,
        &[
            "08:01:00.000 > create 40 × web as web-{n} over 3m",
            "server.create failed: db-",
            "placement.no_host",
            "> power loss of 6 hosts: rack2-1, rack2-2, rack2-3, rack2-4 and 2 more for 4m",
            "6 × host is unreachable",
            "6 × host is reachable",
            "> start the crashed * over 1m",
            "> crash of engine-0 for 2m",
            "= create: 30 asked, 30 done",
            "> disable rack1-1",
            "= reboot: 10 asked, 10 done",
            "> full disks on 2 hosts",
            "= delete: 20 asked, 20 done",
            "12 hosts, 2 engines",
        ],
    );
}

#[test]
fn other_numbers_of_hosts_and_other_ends() {
    let options = Options::seed(1)
        .with_hosts(Some(5))
        .with_until(Some("08:01:30".parse().unwrap()));
    let day = Play::parse(BUILT_IN, &options.with_engines(Some(1)).with_trace(5))
        .unwrap()
        .run();
    assert_eq!(day.violation, None, "{day}");
    let mut names: Vec<&str> = day.summary.hosts.iter().map(|h| h.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["rack1-1", "rack1-2", "rack1-3", "rack2-1", "rack2-2"]);
    assert_eq!((day.summary.engines, day.trace.len()), (1, 5));
    // Of 40 over three minutes, those of the first half minute.
    tells(&day, &["08:01:30.000 # the day is over"]);
    assert!(day.to_string().contains("= create: 7 asked, 7 done"), "{day}");
    assert!(!day.to_string().contains("db-"), "{day}");
}

#[test]
fn what_is_wrong_is_named_with_line_field_and_hint() {
    let hosts = "hosts = [{ count = 2 }]\n";
    let create = "[[events]]\nat = \"1m\"\n";
    for (script, line, field, message, hint) in [
        ("", 1, "hosts", "there are no hosts", "[[hosts]]"),
        ("strat = \"8:00\"", 1, "strat", "unknown field `strat`", "`start`"),
        ("start = \"8h\"", 1, "start", "is no time of the day", "08:00"),
        ("start = \"8.30\"", 1, "start", "is no time", ""),
        ("engines = 0", 1, "engines", "0 is not possible", "from 1 to 64"),
        (
            "\n[[hosts]]\nmemory = \"lots\"",
            3,
            "hosts[1].memory",
            "\"lots\" is no size",
            "",
        ),
        (
            "[[hosts]]\nvcpus = \"4\"",
            2,
            "hosts[1].vcpus",
            "invalid type: string",
            "u32",
        ),
        (
            "[[hosts]]\ncount = 3\nname = \"h\"",
            3,
            "hosts[1].name",
            "names 3 hosts alike",
            "{n}",
        ),
        (
            "[[hosts]]\nname = \"api\"",
            1,
            "hosts",
            "cannot be named \"api\"",
            "",
        ),
        (
            "[[hosts]]\nname = \"x\"\n[[hosts]]\nname = \"x\"",
            1,
            "hosts",
            "two hosts named \"x\"",
            "",
        ),
        (
            &format!("{hosts}{create}"),
            2,
            "events[1]",
            "this one does nothing",
            "",
        ),
        (
            &format!("{hosts}{create}disable = {{ hosts = \"*\" }}\nenable = {{ hosts = \"*\" }}"),
            2,
            "events[1]",
            "this one has disable and enable",
            "",
        ),
        (
            &format!("{hosts}{create}create = {{ flavor = \"huge\" }}"),
            4,
            "events[1].create.flavor",
            "there is no flavor \"huge\"",
            "m1.large",
        ),
        (
            &format!("{hosts}{create}create = {{ flavour = \"m1.tiny\" }}"),
            4,
            "events[1].create.flavour",
            "unknown field `flavour`",
            "`flavor`",
        ),
        (
            &format!("{hosts}{create}power_loss = {{ hosts = \"rack-*\", for = \"1m\" }}"),
            4,
            "events[1].power_loss.hosts",
            "no host's name fits \"rack-*\"",
            "host-1",
        ),
        (
            &format!("{hosts}{create}power_loss = {{ hosts = \"*\", for = \"soon\" }}"),
            4,
            "events[1].power_loss.for",
            "\"soon\" is no length of time",
            "",
        ),
        (
            &format!("{hosts}{create}cut = {{ of = \"nobody\", for = \"1m\" }}"),
            4,
            "events[1].cut.of",
            "nothing is named \"nobody\"",
            "engine-0",
        ),
        (
            &format!("{hosts}{create}weather = {{ faults = {{ rain = 3 }}, for = \"1m\" }}"),
            4,
            "events[1].weather.faults",
            "no kind of fault is called rain",
            "lose-answer",
        ),
        (
            &format!("{hosts}{create}weather = {{ faults = {{ drift = 3 }}, for = \"1m\" }}"),
            4,
            "events[1].weather.faults.drift",
            "clocks drift",
            "leave it out",
        ),
        (
            &format!("start = \"08:00\"\n{hosts}[[events]]\nat = \"07:59\"\nstore_full = {{ for = \"1s\" }}"),
            4,
            "events[1].at",
            "07:59 is before the day begins",
            "08:00",
        ),
        ("hosts = [", 1, "", "", ""),
    ] {
        let error = Play::parse(script, &Options::seed(1)).unwrap_err();
        let at = error.at.map(|(line, _)| line);
        assert_eq!(
            (at, error.field.as_str()),
            (Some(line), field),
            "{script}\n{error:?}"
        );
        assert!(error.message.contains(message), "{script}\n{error:?}");
        assert!(
            error.hint.clone().unwrap_or_default().contains(hint),
            "{script}\n{error:?}"
        );
        assert!(error.to_string().starts_with(&format!("line {line}, column ")));
    }
}

fn span() -> impl Strategy<Value = Span> {
    (1u64..100_000_000).prop_map(|ms| Span::new(std::time::Duration::from_millis(ms)))
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![
        span().prop_map(Moment::After),
        (0u64..86_400).prop_map(|s| Moment::Clock(std::time::Duration::from_secs(s))),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let glob = || "[a-z*?\"\\\\-]{1,8}".prop_map(Glob::new);
    let count = || proptest::option::of(1usize..50);
    let hosts_for =
        move || (glob(), count(), span()).prop_map(|(hosts, count, lasts)| HostsFor { hosts, count, lasts });
    prop_oneof![
        (
            1usize..50,
            "[a-z \"]{0,4}\\{n\\}",
            span(),
            proptest::option::of("[a-z]{1,6}"),
            any::<bool>()
        )
            .prop_map(|(count, name, over, group, start)| What::Create(Create {
                count,
                name: Numbered::new(name),
                flavor: "m1.small".to_owned(),
                over,
                group,
                host_labels: [("rack".to_owned(), "1".to_owned())].into(),
                start,
            })),
        (glob(), count(), span()).prop_map(|(servers, count, over)| What::Start(Select {
            servers,
            power: None,
            count,
            over
        })),
        (glob(), count()).prop_map(|(hosts, count)| What::Disable(Hosts { hosts, count })),
        hosts_for().prop_map(What::PowerLoss),
        hosts_for().prop_map(What::DiskFull),
        span().prop_map(|lasts| What::ApiCrash(For { lasts })),
        (glob(), span()).prop_map(|(of, lasts)| What::Cut(Cut {
            of,
            direction: Direction::In,
            lasts
        })),
        (span(), span()).prop_map(|(by, lasts)| What::SlowStore(SlowStore { by, lasts })),
        (0usize..skyloom_sim::Kind::ALL.len(), 1u32..1000, span()).prop_map(|(kind, rate, lasts)| {
            let faults = [(skyloom_sim::Kind::ALL[kind], rate)].into();
            What::Weather(Weather { faults, lasts })
        }),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let event = (moment(), what()).prop_map(|(at, what)| Event { at, what });
    let events = proptest::collection::vec(event, 0..6);
    (
        1usize..64,
        0u64..86_400,
        proptest::option::of(moment()),
        events,
        1usize..9,
    )
        .prop_map(|(engines, start, until, events, count)| Script {
            start: Moment::Clock(std::time::Duration::from_secs(start)),
            until,
            engines,
            hosts: vec![HostGroup {
                count,
                cpu_ratio: Some(1.5),
                ..HostGroup::default()
            }],
            events,
            ..Script::default()
        })
}

proptest! {
    #[test]
    fn a_script_that_is_written_is_read_back(script in script()) {
        let text = toml::to_string(&script).unwrap();
        let read: Script = toml::from_str(&text).unwrap();
        prop_assert_eq!(read, script);
    }

    #[test]
    fn any_script_is_set_or_refused_with_a_field(script in script(), hosts in 0usize..20, engines in 0usize..3) {
        let options = Options::seed(1).with_hosts(Some(hosts)).with_engines(Some(engines));
        if let Err(error) = Play::new(&script, &options) {
            prop_assert!(!error.field.is_empty(), "{error}");
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,60}", at in 0usize..4000, cut in 0usize..60) {
        let _ = Play::parse(&text, &Options::seed(1));
        // And none that is almost a script.
        let begin = at.min(BUILT_IN.len());
        let end = (begin + cut).min(BUILT_IN.len());
        let broken = format!("{}{text}{}", &BUILT_IN[..begin], &BUILT_IN[end..]);
        if let Err(error) = Play::parse(&broken, &Options::seed(1)) {
            prop_assert!(error.at.is_some(), "{error}");
        }
    }
}

#[test]
fn what_has_ended_is_archived_a_day_later_and_is_not_missed() {
    let script = r#"
start = "08:00"
engines = 1
lease_ttl = "60s"
hosts = [{ count = 1, name = "h" }]
events = [
    { at = "08:01", create = { count = 2, name = "a-{n}", flavor = "m1.tiny" } },
    { at = "32:30", stop = { servers = "a-1" } },
]
"#;
    // The rules hold for what left the store: it is archived as it was.
    let played = play(script, 3);
    tells(
        &played,
        &[
            "create: 2 asked, 2 done",
            "stop: 1 asked, 1 done",
            "played",
            "24 h",
        ],
    );
}
