//! Bearer tokens: the attacks 1 to 6 and 8 as far as they touch tokens, rotation of keys, epochs.

mod attacks;
mod rotation;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skyloom_identity::{
    AuthScope, CredentialId, Epochs, FileKeys, Grounds, IssuedToken, KeyRing, MAX_CHAIN, Method,
    SecretStore as _, SignerConfig, SigningKeyRecord, TokenClaims, TokenEpochs, TokenError, TokenRequest,
    TokenSigner, TokenVerifier, Vault, VerifierConfig, Via, Why,
};
use skyloom_model::{Clock as _, Id, Ids, ManualClock, SeededIds, Timestamp};
use uuid::Uuid;

const ISSUER: &str = "https://cloud.example";

/// What is so now, as a test sets it.
#[derive(Debug, Default)]
struct Now {
    epochs: Mutex<Option<TokenEpochs>>,
    revoked: Mutex<BTreeSet<Uuid>>,
}

impl Epochs for Now {
    fn current(&self, _grounds: &Grounds) -> Option<TokenEpochs> {
        *self.epochs.lock()
    }
    fn revoked(&self, token: Uuid) -> bool {
        self.revoked.lock().contains(&token)
    }
}

/// A cloud with one signing key.
struct Cloud {
    clock: ManualClock,
    ids: Arc<dyn Ids>,
    vault: Vault,
    record: SigningKeyRecord,
    signer: TokenSigner,
    verifier: TokenVerifier,
    now: Now,
    grounds: Grounds,
    _folder: tempfile::TempDir,
}

const EPOCHS: TokenEpochs = TokenEpochs {
    user: 3,
    domain: 1,
    scope: 2,
    credential: 0,
};

impl Cloud {
    fn new() -> Self {
        let clock = ManualClock::new();
        clock.advance(Duration::from_millis(700));
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(clock.clone(), 11));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        FileKeys::generate(&path, &*ids).unwrap();
        let vault = Vault::new(
            Arc::new(FileKeys::read(&path, &[], ids.clone()).unwrap()),
            ids.clone(),
        );
        let now = clock.now();
        let record = wait(SigningKeyRecord::generate(&vault, &*ids, now, now)).unwrap();
        let signer = signer(&vault, std::slice::from_ref(&record));
        let ring = KeyRing::new(std::slice::from_ref(&record)).unwrap();
        Self {
            verifier: TokenVerifier::new(VerifierConfig::new(ISSUER), ring),
            now: Now {
                epochs: Mutex::new(Some(EPOCHS)),
                ..Now::default()
            },
            grounds: Grounds {
                user: Id::fresh(&*ids),
                domain: Id::fresh(&*ids),
                scope: AuthScope::Project(Id::fresh(&*ids)),
                via: Via::User,
            },
            clock,
            ids,
            vault,
            record,
            signer,
            _folder: folder,
        }
    }

    fn request(&self) -> TokenRequest<'static> {
        TokenRequest {
            grounds: self.grounds.clone(),
            methods: vec![Method::Password, Method::Totp],
            epochs: EPOCHS,
            life: None,
            not_after: None,
            parent: None,
        }
    }

    fn issue(&self, request: &TokenRequest<'_>) -> IssuedToken {
        self.signer.issue(request, self.clock.now(), &*self.ids).unwrap()
    }

    fn token(&self) -> (String, TokenClaims) {
        let issued = self.issue(&self.request());
        (issued.token.expose().clone(), issued.claims)
    }

    fn verify(&self, token: &str) -> Result<Arc<TokenClaims>, Why> {
        self.verifier
            .verify(token, self.clock.now(), &self.now)
            .map_err(|denied| denied.why())
    }

    /// A text signed with the cloud's own key, whatever it says.
    fn forged(&self, header: &Value, claims: &Value) -> String {
        let place = SigningKeyRecord::place(&self.record.kid).unwrap();
        let seed = wait(self.vault.open(&place, &self.record.private)).unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).unwrap();
        let message = message(header, claims);
        let signature = pair.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(&self) -> Value {
        json!({"typ": "sky+jwt", "alg": "EdDSA", "kid": self.record.kid})
    }
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn signer(vault: &Vault, records: &[SigningKeyRecord]) -> TokenSigner {
    wait(TokenSigner::open(SignerConfig::new(ISSUER), records, vault)).unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_token_says_what_was_asked_for_and_verifies() {
    let cloud = Cloud::new();
    let (token, claims) = cloud.token();
    let now = cloud.clock.now();
    assert_eq!(claims.grounds(), cloud.grounds);
    assert_eq!(claims.methods, [Method::Password, Method::Totp]);
    assert_eq!(claims.until().as_second(), now.as_second() + 900);
    assert!(claims.given_at() <= now);
    for _ in 0..2 {
        assert_eq!(*cloud.verify(&token).unwrap(), claims);
    }
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(
        header,
        cloud.header(),
        "the header says these three things and nothing else"
    );
    let shown = format!("{:?} {:?}", cloud.signer, cloud.issue(&cloud.request()));
    assert!(
        !shown.contains(token.split('.').next_back().unwrap()) && !shown.contains("eyJ"),
        "{shown}"
    );
}

#[test]
fn every_scope_and_ground_comes_back_as_it_was() {
    let cloud = Cloud::new();
    let ids = &*cloud.ids;
    let scopes = [
        AuthScope::System,
        AuthScope::None,
        AuthScope::Domain(Id::fresh(ids)),
        AuthScope::Project(Id::fresh(ids)),
    ];
    let vias = [
        Via::User,
        Via::ApplicationCredential {
            id: CredentialId::fresh(ids),
        },
        Via::ApiToken { id: Id::fresh(ids) },
        Via::Trust {
            id: Id::fresh(ids),
            trustee: Id::fresh(ids),
        },
        Via::Host { id: Id::fresh(ids) },
    ];
    for scope in scopes {
        for via in vias.clone() {
            let grounds = Grounds {
                scope,
                via,
                ..cloud.grounds.clone()
            };
            let request = TokenRequest {
                grounds: grounds.clone(),
                ..cloud.request()
            };
            let token = cloud.issue(&request).token;
            assert_eq!(cloud.verify(token.expose()).unwrap().grounds(), grounds);
        }
    }
}

#[test]
fn a_token_made_from_a_token_never_ends_later() {
    let cloud = Cloud::new();
    let (_, first) = cloud.token();
    cloud.clock.advance(Duration::from_secs(600));
    let request = TokenRequest {
        parent: Some(&first),
        life: Some(Duration::from_secs(100_000)),
        ..cloud.request()
    };
    let second = cloud.issue(&request);
    assert_eq!(second.claims.exp, first.exp);
    assert_eq!(second.claims.chain, [first.jti]);
    assert_eq!(second.claims.audit_ids(), [second.claims.jti, first.jti]);
    cloud.clock.advance(Duration::from_secs(299));
    cloud.verify(second.token.expose()).unwrap();
    cloud.clock.advance(Duration::from_secs(1));
    assert_eq!(cloud.verify(second.token.expose()), Err(Why::Expired));
    let error = cloud
        .signer
        .issue(&request, cloud.clock.now(), &*cloud.ids)
        .unwrap_err();
    assert!(matches!(error, TokenError::Ended), "{error}");
}

#[test]
fn a_token_ends_with_the_credential_behind_it_and_never_lives_too_long() {
    let cloud = Cloud::new();
    let now = cloud.clock.now();
    let until = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap();
    let end = |life: Option<u64>, not_after: Option<Timestamp>| {
        let request = TokenRequest {
            life: life.map(Duration::from_secs),
            not_after,
            ..cloud.request()
        };
        cloud
            .signer
            .issue(&request, now, &*cloud.ids)
            .map(|issued| issued.claims.exp - now.as_second())
    };
    assert_eq!(end(None, None).unwrap(), 900);
    assert_eq!(end(Some(60), None).unwrap(), 60);
    assert_eq!(end(Some(u64::MAX), None).unwrap(), 3600);
    assert_eq!(end(None, Some(until(10))).unwrap(), 10);
    assert!(matches!(end(None, Some(until(0))), Err(TokenError::Ended)));
    assert!(matches!(end(Some(0), None), Err(TokenError::Ended)));
}

#[test]
fn chains_are_bounded_and_stay_with_their_user() {
    let cloud = Cloud::new();
    let (mut token, mut claims) = cloud.token();
    for _ in 0..MAX_CHAIN {
        let issued = cloud.issue(&TokenRequest {
            parent: Some(&claims),
            ..cloud.request()
        });
        (token, claims) = (issued.token.expose().clone(), issued.claims);
    }
    assert_eq!(claims.chain.len(), MAX_CHAIN);
    assert!(token.len() < 2048, "{}", token.len());
    cloud.verify(&token).unwrap();
    let request = TokenRequest {
        parent: Some(&claims),
        ..cloud.request()
    };
    let error = cloud
        .signer
        .issue(&request, cloud.clock.now(), &*cloud.ids)
        .unwrap_err();
    assert!(matches!(error, TokenError::ChainTooLong), "{error}");

    let (_, own) = cloud.token();
    let other = Grounds {
        user: Id::fresh(&*cloud.ids),
        ..cloud.grounds.clone()
    };
    let issue = |grounds: &Grounds| {
        let request = TokenRequest {
            parent: Some(&own),
            grounds: grounds.clone(),
            ..cloud.request()
        };
        cloud.signer.issue(&request, cloud.clock.now(), &*cloud.ids)
    };
    assert!(matches!(issue(&other), Err(TokenError::ParentOfAnother)));
    // The trustee of a trust acts for the trustor.
    let via = |trustee| Via::Trust {
        id: Id::fresh(&*cloud.ids),
        trustee,
    };
    issue(&Grounds {
        via: via(cloud.grounds.user),
        ..other.clone()
    })
    .unwrap();
    let stranger = issue(&Grounds {
        via: via(Id::fresh(&*cloud.ids)),
        ..other
    });
    assert!(matches!(stranger, Err(TokenError::ParentOfAnother)));
}

#[test]
fn each_epoch_ends_the_tokens_of_before() {
    let cloud = Cloud::new();
    let (token, _) = cloud.token();
    let raised = [
        TokenEpochs { user: 4, ..EPOCHS },
        TokenEpochs { domain: 2, ..EPOCHS },
        TokenEpochs { scope: 3, ..EPOCHS },
        TokenEpochs {
            credential: 1,
            ..EPOCHS
        },
        // Set back by a restored backup: not the one of the token either.
        TokenEpochs { user: 2, ..EPOCHS },
    ];
    for epochs in raised {
        // It was seen a moment ago: what is remembered does not help it.
        *cloud.now.epochs.lock() = Some(EPOCHS);
        cloud.verify(&token).unwrap();
        *cloud.now.epochs.lock() = Some(epochs);
        assert_eq!(cloud.verify(&token), Err(Why::Outdated), "{epochs:?}");
        let new = cloud.issue(&TokenRequest {
            epochs,
            ..cloud.request()
        });
        cloud.verify(new.token.expose()).unwrap();
    }
    *cloud.now.epochs.lock() = None;
    assert_eq!(cloud.verify(&token), Err(Why::Gone));
}

#[test]
fn a_revoked_token_stays_revoked_with_all_that_was_made_from_it() {
    let cloud = Cloud::new();
    let (token, claims) = cloud.token();
    let child = cloud.issue(&TokenRequest {
        parent: Some(&claims),
        ..cloud.request()
    });
    let grandchild = cloud.issue(&TokenRequest {
        parent: Some(&child.claims),
        ..cloud.request()
    });
    let (other, _) = cloud.token();
    let family = [&token, child.token.expose(), grandchild.token.expose()];
    for token in family {
        cloud.verify(token).unwrap();
    }
    cloud.now.revoked.lock().insert(child.claims.jti);
    cloud.verify(family[0]).unwrap();
    assert_eq!(cloud.verify(family[1]), Err(Why::Revoked));
    assert_eq!(cloud.verify(family[2]), Err(Why::Revoked));
    cloud.now.revoked.lock().insert(claims.jti);
    for token in family {
        assert_eq!(cloud.verify(token), Err(Why::Revoked));
        // And in a process that has just started.
        let ring = KeyRing::new(std::slice::from_ref(&cloud.record)).unwrap();
        let fresh = TokenVerifier::new(VerifierConfig::new(ISSUER), ring);
        let denied = fresh.verify(token, cloud.clock.now(), &cloud.now).unwrap_err();
        assert_eq!(denied.why(), Why::Revoked);
    }
    cloud.verify(&other).unwrap();
}
