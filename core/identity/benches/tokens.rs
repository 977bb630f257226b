//! What a bearer token costs: to verify (remembered and not), to give; and a sealed secret.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skyloom_identity::{
    AuthScope, Epochs, FileKeys, Grounds, KeyRing, Method, NewSecret, SecretStore as _, SignerConfig,
    SigningKeyRecord, TokenEpochs, TokenRequest, TokenSigner, TokenVerifier, Vault, VerifierConfig, Via,
    parse_secret,
};
use skyloom_model::{Clock as _, Id, Ids, OsIds, Secret, SystemClock};
use skyloom_store::Key;
use uuid::Uuid;

#[derive(Debug)]
struct Unchanged;

impl Epochs for Unchanged {
    fn current(&self, _grounds: &Grounds) -> Option<TokenEpochs> {
        Some(TokenEpochs::default())
    }
    fn revoked(&self, _token: Uuid) -> bool {
        false
    }
}

fn tokens(c: &mut Criterion) {
    let clock = SystemClock::new();
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    FileKeys::generate(&path, &*ids).unwrap();
    let vault = Vault::new(
        Arc::new(FileKeys::read(&path, &[], Arc::clone(&ids)).unwrap()),
        Arc::clone(&ids),
    );
    let now = clock.now();
    let record = runtime
        .block_on(SigningKeyRecord::generate(&vault, &*ids, now, now))
        .unwrap();
    let records = std::slice::from_ref(&record);
    let signer = runtime
        .block_on(TokenSigner::open(SignerConfig::new("sky"), records, &vault))
        .unwrap();
    let request = TokenRequest {
        grounds: Grounds {
            user: Id::fresh(&*ids),
            domain: Id::fresh(&*ids),
            scope: AuthScope::Project(Id::fresh(&*ids)),
            via: Via::User,
        },
        methods: vec![Method::Password],
        epochs: TokenEpochs::default(),
        life: None,
        not_after: None,
        parent: None,
    };
    let token = signer.issue(&request, now, &*ids).unwrap().token;
    let verifier = |remembered| {
        let config = VerifierConfig {
            remembered,
            ..VerifierConfig::new("sky")
        };
        TokenVerifier::new(config, KeyRing::new(records).unwrap())
    };

    let mut group = c.benchmark_group("tokens");
    group.throughput(Throughput::Elements(1));
    let remembering = verifier(10_000);
    group.bench_function("verify, signature remembered", |b| {
        b.iter(|| {
            remembering
                .verify(black_box(token.expose()), now, &Unchanged)
                .unwrap()
        });
    });
    let forgetful = verifier(0);
    group.bench_function("verify, signature not remembered", |b| {
        b.iter(|| {
            forgetful
                .verify(black_box(token.expose()), now, &Unchanged)
                .unwrap()
        });
    });
    group.bench_function("give", |b| {
        b.iter(|| signer.issue(black_box(&request), now, &*ids).unwrap())
    });
    let secret = NewSecret::generate(&*ids).secret;
    group.bench_function("hash of a secret", |b| {
        b.iter(|| parse_secret(black_box(secret.expose())).unwrap())
    });
    group.finish();

    let mut group = c.benchmark_group("vault");
    group.throughput(Throughput::Elements(1));
    let place = Key::parse("identity/credentials/u/c").unwrap();
    let plain = Secret::new(vec![7; 64]);
    let sealed = runtime.block_on(vault.seal(&place, &plain)).unwrap();
    group.bench_function("seal 64 bytes", |b| {
        b.iter(|| runtime.block_on(vault.seal(&place, &plain)).unwrap())
    });
    group.bench_function("open 64 bytes", |b| {
        b.iter(|| runtime.block_on(vault.open(&place, &sealed)).unwrap())
    });
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
