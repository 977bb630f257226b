//! Decisions per second, allowed and refused.

#![allow(clippy::expect_used, reason = "a benchmark may panic")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skyloom_identity::{
    AuthScope, BuiltIn, DomainId, Method, Object, PERMISSIONS, Place, Policy, Principal, Registry, RoleId,
    UserId, Via,
};
use skyloom_model::ProjectId;
use uuid::Uuid;

fn deciding(c: &mut Criterion) {
    let registry = Arc::new(Registry::new(&[PERMISSIONS]).expect("a table"));
    let builder = Policy::builder(registry.clone()).built_in().expect("the roles");
    let policy = builder.build().expect("a policy");
    let project = ProjectId::from_uuid(Uuid::from_u128(7));
    let domain = DomainId::from_uuid(Uuid::from_u128(8));
    let roles: BTreeSet<RoleId> = [BuiltIn::Reader.id(), BuiltIn::Member.id()].into();
    let principal = Principal {
        user: UserId::from_uuid(Uuid::from_u128(9)),
        domain,
        scope: AuthScope::Project(project),
        roles: Arc::new(roles),
        via: Via::User,
        methods: vec![Method::Password],
        until: None,
        audit_ids: Vec::new(),
    };
    let ancestors = [ProjectId::from_uuid(Uuid::from_u128(10))];
    let place = |id| Place::Project {
        id,
        domain,
        ancestors: &ancestors,
    };
    let mine = Object::one("server", place(project));
    let foreign = Object::one("server", place(ancestors[0]));
    let start = registry.permission("server:start").expect("a permission");
    let mut group = c.benchmark_group("policy");
    group.throughput(Throughput::Elements(1));
    group.bench_function("allow", |b| {
        b.iter(|| policy.decide((&principal).into(), black_box(start), black_box(&mine)));
    });
    group.bench_function("hide", |b| {
        b.iter(|| policy.decide((&principal).into(), black_box(start), black_box(&foreign)));
    });
    group.finish();
}

criterion_group!(benches, deciding);
criterion_main!(benches);
