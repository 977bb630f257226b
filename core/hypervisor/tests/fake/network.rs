//! The fake network breaks when it is told to, and keeps no user data.

use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{EffectKind, ErrorKind, FakeWorld, Fault, FaultPoint, HostNetwork};

#[tokio::test]
async fn each_verb_of_the_network_fails_when_planned() {
    let world = FakeWorld::in_memory();
    let (network, wiring) = (world.network(), exam_wiring(1, 1));
    for point in FaultPoint::NETWORK {
        world.fail_next(point, ErrorKind::Full).unwrap();
        let failed = match point {
            FaultPoint::EnsurePort => network.ensure_port(&wiring).await.err(),
            FaultPoint::RemovePort => network.remove_port(wiring.port, 1).await.err(),
            FaultPoint::Ports => network.ports().await.err(),
            _ => network.recover().await.err(),
        };
        assert_eq!(failed.unwrap().kind(), ErrorKind::Full, "{point:?}");
    }
    assert_eq!(
        world.wiring(wiring.port).unwrap(),
        None,
        "a failed verb did nothing"
    );
    let after = Fault::FailAfterEffect(ErrorKind::Timeout);
    world
        .fault_for(wiring.server, FaultPoint::EnsurePort, after)
        .unwrap();
    assert_eq!(
        network.ensure_port(&wiring).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    network.ensure_port(&wiring).await.unwrap();
    assert_eq!(
        world.effects_of(wiring.server).unwrap(),
        vec![EffectKind::PortWired { port: wiring.port }]
    );
}

#[tokio::test]
async fn wirings_are_kept_without_their_user_data() {
    let world = FakeWorld::in_memory();
    let wiring = exam_wiring(1, 1);
    world.network().ensure_port(&wiring).await.unwrap();
    let kept = world.wiring(wiring.port).unwrap().unwrap();
    assert!(wiring.metadata.user_data.is_some() && kept.metadata.user_data.is_none());
    let mut changed = wiring.clone();
    (changed.generation, changed.rules) = (2, vec![]);
    world.network().ensure_port(&changed).await.unwrap();
    world.network().remove_port(wiring.port, 2).await.unwrap();
    let port = wiring.port;
    assert_eq!(
        world.effects_of(wiring.server).unwrap(),
        vec![
            EffectKind::PortWired { port },
            EffectKind::PortRewired { port },
            EffectKind::PortRemoved { port }
        ]
    );
}
