//! Placements and refusals that a reader can check by hand.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

use skyloom_model::{
    Host, HostFacts, HostId, HostLedger, HostSpec, HostStatus, Id, Ids, ManualClock, Meta, Name, Resources,
    Scope, SeededIds,
};
use skyloom_scheduler::fleet::{Demand, HostFilter, HostWeigher, Policy, Report, View};
use skyloom_scheduler::{FleetScheduler, HostView, Inventory, NoFit, Request, Scheduler, claim};

fn id<K: ?Sized>(seed: u64) -> Id<K> {
    Id::from_uuid(SeededIds::new(ManualClock::new(), seed).uuid())
}

const CAPACITY: Resources = Resources {
    vcpus: 16,
    memory_mib: 65_536,
    disk_gib: 1_000,
};

fn host(number: u64) -> HostView {
    HostView {
        id: id(number),
        name: Name::new(format!("rack-1-host-{number}")).unwrap(),
        spec: HostSpec::default(),
        reachable: true,
        facts: Some(HostFacts {
            capacity: CAPACITY,
            architecture: "x86_64".into(),
            hypervisor: "fake".into(),
            hypervisor_version: "1".into(),
            accelerator: "fake".into(),
            accelerator_reason: "test".into(),
            traits: vec!["kvm".into()],
        }),
        labels: [("zone".to_owned(), format!("z{number}"))].into(),
        ledger: HostLedger::default(),
        ledger_revision: number,
    }
}

fn using(number: u64, memory_mib: u64) -> HostView {
    let mut host = host(number);
    host.ledger.used.memory_mib = memory_mib;
    host
}

fn request(memory_mib: u64) -> Request {
    Request::new(
        id(1_000),
        Resources {
            vcpus: 1,
            memory_mib,
            disk_gib: 10,
        },
        "x86_64",
    )
}

fn cloud(hosts: impl IntoIterator<Item = HostView>) -> Inventory {
    hosts.into_iter().collect()
}

fn refused(request: &Request, cloud: &Inventory) -> NoFit {
    FleetScheduler::default()
        .place(request, cloud)
        .expect_err("no host fits")
}

#[test]
fn spread_takes_the_emptiest_and_pack_the_fullest_that_fits() {
    let c = cloud([
        using(1, 10_000),
        using(2, 1_000),
        using(3, 60_000),
        using(4, 65_000),
    ]);
    let r = request(2_048);
    assert_eq!(FleetScheduler::spread().place(&r, &c).unwrap().host, id(2));
    assert_eq!(FleetScheduler::pack().place(&r, &c).unwrap().host, id(3));
}

#[test]
fn placement_carries_what_must_be_committed() {
    let c = cloud([using(7, 1_000)]);
    let mut r = request(2_048);
    r.anti_affinity_group = Some("db".into());
    let placed = FleetScheduler::default().place(&r, &c).unwrap();
    assert_eq!((placed.host, placed.ledger_revision), (id(7), 7));
    assert_eq!(
        placed.ledger_after,
        claim(&c.get(id(7)).unwrap().ledger, &r.claim())
    );
    assert_eq!(
        placed.ledger_after.used,
        Resources {
            vcpus: 1,
            memory_mib: 3_048,
            disk_gib: 10
        }
    );
    assert_eq!(
        (placed.ledger_after.servers, placed.ledger_after.groups["db"]),
        (1, 1)
    );
    let chosen = placed.report.chosen.unwrap();
    assert_eq!(chosen.host, id(7));
    let parts: Vec<_> = chosen.parts.iter().map(|part| part.weigher.as_str()).collect();
    assert_eq!(parts, ["groups", "free"]);
    let sum: f64 = chosen.parts.iter().map(|part| part.value * part.weight).sum();
    assert_eq!(chosen.score, sum);
}

#[test]
fn equal_hosts_share_the_servers_evenly() {
    let c = cloud((0..10).map(host));
    let mut counts = std::collections::BTreeMap::<HostId, u32>::new();
    for server in 0..1_000 {
        let r = Request {
            server: id(10_000 + server),
            ..request(1_024)
        };
        *counts
            .entry(FleetScheduler::default().place(&r, &c).unwrap().host)
            .or_default() += 1;
    }
    assert_eq!(counts.len(), 10, "every host is chosen");
    assert!(counts.values().all(|n| (60..=140).contains(n)), "{counts:?}");
}

#[test]
fn refusal_says_what_is_missing_without_naming_hosts() {
    let mut disabled = host(3);
    disabled.spec.enabled = false;
    let mut unreachable = host(4);
    unreachable.reachable = false;
    let c = cloud([using(1, 23_552), using(2, 60_000), disabled, unreachable]);
    let reason = refused(&request(65_000), &c).reason();
    assert_eq!(reason.code, "placement.no_host");
    assert_eq!(
        reason.message,
        "no host can run this server: 4 hosts considered: 2 (fewer than 65000 MiB of memory left), \
         1 (disabled), 1 (unreachable)"
    );
    assert_eq!(
        reason.hint.as_deref(),
        Some(
            "it would fit if you ask for at most 41984 MiB of memory; an operator could open a host that is disabled"
        )
    );
    assert!(reason.retryable);
}

#[test]
fn hint_names_the_fewest_changes() {
    let mut far = host(1);
    far.spec.enabled = false;
    far.reachable = false;
    let c = cloud([far, using(2, 60_000), using(3, 50_000)]);
    let no_fit = refused(&request(20_000), &c);
    let nearest = &no_fit.report.nearest[0];
    assert_eq!(nearest.host, id(3));
    assert_eq!(
        nearest.lacks[0].to_string(),
        "needs 20000 MiB of memory, has 15536"
    );
    let asked = request(15_536);
    assert_eq!(FleetScheduler::default().place(&asked, &c).unwrap().host, id(3));
    let hint = no_fit.reason().hint.unwrap();
    assert!(
        hint.starts_with("it would fit if you ask for at most 15536 MiB of memory"),
        "{hint}"
    );
}

#[test]
fn empty_cloud_is_refused_plainly() {
    let reason = refused(&request(1), &Inventory::new()).reason();
    assert_eq!(reason.message, "no host can run this server: 0 hosts considered");
    assert_eq!(reason.hint.as_deref(), Some("add a host"));
}

#[test]
fn tenants_see_no_host_and_operators_see_them_by_name() {
    let mut labelled = request(1_024);
    labelled.labels.insert("zone".into(), "z9".into());
    let no_fit = refused(&labelled, &cloud([host(1), host(2)]));
    let operator = no_fit.report.operator_text();
    assert!(operator.contains("rack-1-host-1"), "{operator}");
    let tenant = no_fit.report.tenant_text();
    assert_eq!(
        tenant,
        "0 of 2 hosts fit\n  2: label zone=z9 is missing (and nothing else for 2)\n  \
         it would fit if you: require label zone=z9 no more"
    );
    let json = serde_json::to_string(&no_fit.report.for_tenants()).unwrap();
    let reason = serde_json::to_string(&no_fit.reason()).unwrap();
    let mut closed = host(1);
    closed.spec.enabled = false;
    let closed = refused(&request(1), &cloud([closed])).reason();
    assert_eq!(
        closed.hint.as_deref(),
        Some("an operator could open a host that is disabled")
    );
    let closed = serde_json::to_string(&closed).unwrap();
    for text in [json, reason, tenant, closed] {
        for secret in ["rack-1", "z1", "z2", &id::<Host>(1).to_string()] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let fits = FleetScheduler::default()
        .place(&request(1), &cloud([host(1)]))
        .unwrap()
        .report;
    assert!(fits.operator_text().contains("chosen: rack-1-host-1, score"));
    assert_eq!(fits.tenant_text(), "1 of 1 hosts fit");
}

#[test]
fn reports_survive_json() {
    let c = cloud([host(1), using(2, 65_536)]);
    for report in [
        FleetScheduler::default()
            .place(&request(1_024), &c)
            .unwrap()
            .report,
        *refused(&request(99_999), &c).report,
    ] {
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}

#[test]
fn only_looks_at_one_host() {
    let c = cloud([host(1), using(2, 60_000)]);
    let asked = Request {
        only: Some(id(2)),
        ..request(1_024)
    };
    let placed = FleetScheduler::default().place(&asked, &c).unwrap();
    assert_eq!((placed.host, placed.report.considered), (id(2), 1));
    let large = Request {
        only: Some(id(2)),
        ..request(10_000)
    };
    assert_eq!(
        refused(&large, &c).reason().message,
        "no host can run this server: 1 host considered: 1 (fewer than 10000 MiB of memory left)"
    );
    let unknown = Request {
        only: Some(id(5)),
        ..request(1_024)
    };
    assert_eq!(refused(&unknown, &c).report.considered, 0);
}

#[test]
fn attack_76_a_host_that_claims_too_much_draws_nothing() {
    let claim = |capacity, limit| {
        let mut liar = using(1, 60_000);
        liar.facts.as_mut().unwrap().capacity = capacity;
        liar.spec.limit = limit;
        liar
    };
    let million = Resources {
        vcpus: 1_000_000,
        memory_mib: 1 << 40,
        disk_gib: 1 << 40,
    };
    let all = Resources {
        vcpus: u32::MAX,
        memory_mib: u64::MAX,
        disk_gib: u64::MAX,
    };
    for capacity in [million, all] {
        let held = claim(capacity, Some(CAPACITY));
        assert_eq!(held.effective(), host(1).effective(), "cut at the limit");
        let placed = FleetScheduler::spread()
            .place(&request(2_048), &cloud([held.clone(), using(2, 10_000)]))
            .unwrap();
        assert_eq!(placed.host, id(2), "the emptier by what is believed");
        refused(&request(8_192), &cloud([held]));
        // Who set no limit believes the host; nothing overflows even then.
        let mut free = claim(capacity, None);
        free.spec.memory_ratio = 1e300;
        assert!(free.effective().memory_mib >= capacity.memory_mib);
    }
}

#[test]
fn limit_reserve_and_ratio_are_applied_in_this_order() {
    let mut h = host(1);
    h.spec.limit = Some(Resources {
        vcpus: 8,
        memory_mib: 32_768,
        disk_gib: 500,
    });
    h.spec.reserved = Resources {
        vcpus: 1,
        memory_mib: 768,
        disk_gib: 100,
    };
    (h.spec.cpu_ratio, h.spec.memory_ratio, h.spec.disk_ratio) = (4.0, 1.5, 0.5);
    assert_eq!(
        h.effective(),
        Resources {
            vcpus: 28,
            memory_mib: 48_000,
            disk_gib: 200
        }
    );
    h.ledger.used = Resources {
        vcpus: 30,
        memory_mib: 1_000,
        disk_gib: 0,
    };
    assert_eq!(
        h.free(),
        Resources {
            vcpus: 0,
            memory_mib: 47_000,
            disk_gib: 200
        }
    );
}

#[test]
fn view_of_a_record_takes_its_fields() {
    let clock = ManualClock::new();
    let view = host(3);
    let mut meta = Meta::new(
        view.id.uuid(),
        view.name.clone(),
        Scope::System,
        skyloom_model::Clock::now(&clock),
    );
    meta.labels = view.labels.clone();
    let status = HostStatus {
        reachable: true,
        facts: view.facts.clone(),
        ..HostStatus::default()
    };
    let mut record = Host {
        meta,
        spec: view.spec.clone(),
        status,
    };
    assert_eq!(HostView::of(&record, HostLedger::default(), 3), view);
    // A host whose agent cannot be asked now takes no new servers, however well it is.
    record.status.certificate_expired = true;
    assert!(!HostView::of(&record, HostLedger::default(), 3).reachable);
}

#[derive(Debug)]
struct EvenName;
impl HostFilter for EvenName {
    fn name(&self) -> &'static str {
        "even"
    }
    fn check(&self, _: &Demand, host: &View<'_>) -> Result<(), String> {
        let even = host.machine().name.as_str().ends_with(['0', '2', '4', '6', '8']);
        if even { Ok(()) } else { Err("odd".to_owned()) }
    }
}
#[derive(Debug)]
struct Number;
impl HostWeigher for Number {
    fn name(&self) -> &'static str {
        "number"
    }
    fn weigh(&self, _: &Demand, host: &View<'_>) -> f64 {
        if host.machine().id == id(8) {
            f64::NAN
        } else {
            let name = host.machine().name.as_str();
            name.rsplit('-').next().unwrap().parse::<f64>().unwrap() / 10.0
        }
    }
}

#[test]
fn own_filters_and_weighers_join_in() {
    let with = |weight| {
        let policy = Policy::any().with_filter(EvenName).with_weigher(Number, weight);
        FleetScheduler::new(policy)
    };
    let placed = with(1.0)
        .place(&request(1_024), &cloud((1..=9).map(host)))
        .unwrap();
    assert_eq!(placed.host, id(6), "8 weighs no number, odd ones are refused");
    assert_eq!(placed.report.summary(), "9 hosts considered: 4 fit, 5 (even)");
    let c = cloud((1..=7).map(host));
    assert_eq!(with(-1.0).place(&request(1_024), &c).unwrap().host, id(2));
}

#[test]
fn ten_thousand_hosts_are_explained_in_few_words() {
    let c = cloud((0..10_000).map(|n| using(n, 60_000 + n % 5_000)));
    let refused = *refused(&request(60_000), &c).report;
    let mut grouped = request(1_000);
    grouped.anti_affinity_group = Some("g".into());
    let placed = FleetScheduler::default().place(&grouped, &c).unwrap().report;
    assert_eq!((placed.fitting, placed.compared.len()), (226, 3));
    assert_eq!((placed.considered, placed.uncounted), (256, 9_744));
    let text = placed.operator_text();
    assert!(
        text.starts_with("226 of 256 hosts fit; 9744 more were not counted\n"),
        "{text}"
    );
    assert_eq!((refused.considered, refused.uncounted), (10_000, 0));
    for (report, most) in [(refused, 4_096), (placed, 2_048)] {
        assert!(serde_json::to_string(&report).unwrap().len() < most);
    }
}
