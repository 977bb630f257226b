//! Hosts' certificates: join tokens for operators, certificates for machines, and taking them back.
//!
//! Each step is one commit that guards the host's record and its epoch. So of a join and a revocation at the same time one comes first:
//! either the certificate is older than the epoch, or the join token is gone.

use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use skyloom_identity::audit::{AuditOutcome, Word};
use skyloom_model::{Host, HostId, Hostname, Reason, Resource as _, Scope, Timestamp};
use skyloom_pki::{
    CertificateRequest, HostEpoch, HostGrant, HostJoined, Issued, JoinHost, JoinRefused, JoinToken,
    JoinTokenRecord, Peer, Redeemed, RenewCertificate, RevokedCertificate, may_renew,
};
use skyloom_store::{Guard, Table, Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::{create, key, precondition, prefix};
use crate::authority::{self, HostAuthority, refused};
use crate::{Caller, CloudError, FieldError, Result, ShownOnce};

/// Tries of one change before it gives up against others.
const TRIES: usize = 16;

/// A join token for a host, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinTokenAccepted {
    /// The host that it is for.
    pub host: HostId,
    /// The name that the machine must join under.
    pub name: Hostname,
    /// The token, only this once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<ShownOnce>,
    /// Until when it may be used.
    pub until: Timestamp,
    /// The cloud's roots in PEM: the machine needs them to know this cloud.
    pub roots: String,
}

/// Why a host's certificates are taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RevokeCertificates {
    /// For people, up to 255 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 255))]
    pub why: String,
}

/// A host's certificates were taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CertificatesRevoked {
    /// The host.
    pub host: HostId,
    /// What begins earlier is refused.
    pub not_before: Timestamp,
}

impl Cloud {
    /// With the authority of this process. Without one hosts have tokens alone.
    #[must_use]
    pub fn with_authority(mut self, authority: Arc<HostAuthority>) -> Self {
        self.authority = Some(authority);
        self
    }

    /// The authority of this process.
    #[must_use]
    pub fn authority(&self) -> Option<&Arc<HostAuthority>> {
        self.authority.as_ref()
    }

    fn issuing(&self) -> Result<&HostAuthority> {
        self.authority.as_deref().ok_or_else(|| {
            CloudError::conflict(
                Reason::new("pki.disabled", "this cloud gives out no certificates")
                    .hint("set pki.enabled in the API's configuration, or use tokens"),
            )
        })
    }

    /// Makes a join token for a host; one that was made before and not used is gone.
    ///
    /// # Errors
    /// `host.not_found`, `host.not_a_hostname`, `pki.disabled`, `precondition.failed`, `auth.forbidden`.
    pub async fn host_join_token(&self, caller: &Caller, id: HostId) -> Result<JoinTokenAccepted> {
        let authority = self.issuing()?;
        let host = self
            .allowed::<Host>(caller, "host:join", Scope::System, id.uuid())
            .await?;
        let name = Hostname::new(host.value.meta.name.as_str()).map_err(|e| {
            let message = format!(
                "the name {} {e}: a machine cannot join under it",
                host.value.meta.name
            );
            CloudError::conflict(Reason::new("host.not_a_hostname", message))
        })?;
        let ids = &*self.parts.ids;
        let JoinToken { token, record } =
            JoinToken::generate(id, name.clone(), ids, self.now(), authority.lifetimes());
        let answer = JoinTokenAccepted {
            host: id,
            name,
            token: None,
            until: record.until,
            roots: authority.roots(),
        };
        let done = self
            .once(caller, "hosts.join_token", json!(id), || {
                let (record, answer) = (record.clone(), answer.clone());
                async move {
                    let host = self
                        .allowed::<Host>(caller, "host:join", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, host.modified)?;
                    let mut txn =
                        create(&authority::join_token(&record.hash), &record)?.guard(host.unchanged());
                    for before in self.join_tokens_of(id).await? {
                        txn = txn.and(before.delete());
                    }
                    Ok(Change::new(txn, answer).told("host:join", &host.value.meta))
                }
                .boxed()
            })
            .await?;
        let secret = ShownOnce::new(token.expose().clone());
        Ok(JoinTokenAccepted {
            token: done.fresh.then_some(secret),
            ..done.answer
        })
    }

    /// Takes back all certificates that a host has, and its join tokens. It may join again with a new one.
    ///
    /// # Errors
    /// `host.not_found`, `pki.disabled`, `precondition.failed`, `auth.forbidden`.
    pub async fn revoke_certificates(
        &self,
        caller: &Caller,
        id: HostId,
        request: RevokeCertificates,
    ) -> Result<CertificatesRevoked> {
        let authority = self.issuing()?;
        if request.why.chars().nth(255).is_some() || request.why.chars().any(char::is_control) {
            let field = FieldError::new(
                "why",
                "why.invalid",
                "at most 255 characters, none of them for control",
            );
            return Err(CloudError::field(field));
        }
        let request = &request;
        let done = self
            .once(caller, "hosts.revoke_certificates", json!([id, request]), || {
                async move {
                    let mut host = self
                        .allowed::<Host>(caller, "host:join", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, host.modified)?;
                    let (epoch, txn) = self.raise_epoch(authority, id, &request.why).await?;
                    host.value.status.certificate_until = None;
                    host.value.status.certificate_expired = false;
                    host.value.meta.updated_at = self.now();
                    let answer = CertificatesRevoked {
                        host: id,
                        not_before: epoch.not_before,
                    };
                    let change = Change::new(txn.and(host.replace(&host.value)?), answer);
                    Ok(change.told("host:join", &host.value.meta))
                }
                .boxed()
            })
            .await?;
        // The others hear of it; here it holds at once.
        if let Err(error) = authority.refresh().await {
            tracing::warn!(%error, "the revocation is not read now");
        }
        Ok(done.answer)
    }

    /// The part of a commit that ends all certificates and join tokens of a host.
    async fn raise_epoch(
        &self,
        authority: &HostAuthority,
        id: HostId,
        why: &str,
    ) -> Result<(HostEpoch, Txn)> {
        let path = authority::epoch(id);
        let before = self.read::<HostEpoch>(&path).await?;
        let known = before.as_ref().map(|b| &b.value);
        let epoch = HostEpoch::raise(known, id, self.now(), why, authority.lifetimes());
        let mut txn = match &before {
            Some(before) => before.replace(&epoch)?,
            None => create(&path, &epoch)?,
        };
        for token in self.join_tokens_of(id).await? {
            txn = txn.and(token.delete());
        }
        Ok((epoch, txn))
    }

    /// The same, where there is an authority: for a host that goes.
    pub(crate) async fn end_certificates(&self, id: HostId, why: &str) -> Result<Txn> {
        match self.authority.as_deref() {
            Some(authority) => Ok(self.raise_epoch(authority, id, why).await?.1),
            None => Ok(Txn::new()),
        }
    }

    /// A machine becomes a host: whoever presents the join token first, with a key, gets that key's certificate. The audit has both who came
    /// from where and got it, and who had the token and was refused.
    ///
    /// # Errors
    /// `join.unknown`, `join.other_host`, `join.used`, `join.expired`, `pki.…` for a bad request, `pki.disabled`.
    pub async fn join_host(
        &self,
        request: &JoinHost,
        source: Option<IpAddr>,
        request_id: &str,
    ) -> Result<HostJoined> {
        let authority = self.issuing()?;
        let denied = |refused: JoinRefused| CloudError::denied(refused.reason());
        let asked = CertificateRequest::from_pem(&request.request).map_err(refused)?;
        let hash = JoinToken::hash(&request.token).map_err(denied)?;
        let name = Hostname::new(request.name.as_str())
            .map_err(|e| CloudError::field(FieldError::new("name", "name.invalid", e.to_string())))?;
        for _ in 0..TRIES {
            let record = self
                .read::<JoinTokenRecord>(&authority::join_token(&hash))
                .await?;
            let record = record.ok_or_else(|| denied(JoinRefused::Unknown))?;
            let host = record.value.host;
            let (now, again) = (self.now(), authority.lifetimes().join_again);
            let redeemed = record
                .value
                .redeem(&request.token, &name, asked.fingerprint(), now, again);
            let entry = |outcome| self.joining(&record.value, source, request_id, outcome);
            let redeemed = match redeemed {
                Ok(redeemed) => redeemed,
                Err(e) => {
                    tracing::warn!(%host, name = %record.value.name, reason = %e, "a join token was presented and refused");
                    let code = Word::new(e.code());
                    self.audit_alone(|| entry(AuditOutcome::Denied { code })).await;
                    return Err(denied(e));
                }
            };
            let used = match redeemed {
                Redeemed::First(used) => record.replace(&used)?,
                Redeemed::Again => Txn::new().guard(record.unchanged()),
            };
            // One whose host was removed is of no use, and says no more than one that never was.
            let found = self.resource::<Host>(Scope::System, host.uuid()).await?;
            let found = found.ok_or_else(|| denied(JoinRefused::Unknown))?;
            let (answer, txn) = self.issue(authority, &asked, found).await?;
            let told = self.audit_part(|| entry(AuditOutcome::Done))?;
            if self.commit(used.and(txn).and(told)).await? {
                tracing::info!(%host, until = %answer.not_after, "a host has joined");
                return Ok(answer);
            }
        }
        Err(CloudError::contended())
    }

    /// The successor of the certificate that a host has shown.
    ///
    /// # Errors
    /// `certificate.expired`, `certificate.not_yet`, `certificate.revoked`, `certificate.foreign`, `pki.…` for a bad request.
    pub async fn renew_certificate(&self, peer: &Peer, request: &RenewCertificate) -> Result<HostJoined> {
        let authority = self.issuing()?;
        let asked = CertificateRequest::from_pem(&request.request).map_err(refused)?;
        let shown = peer.certificate();
        let revoked = || {
            CloudError::denied(
                Reason::new("certificate.revoked", "the host's certificate was taken back")
                    .hint("if the host is to be trusted again, make a join token for it"),
            )
        };
        for _ in 0..TRIES {
            let standing = authority.judge().standing(peer, self.now());
            may_renew(&standing, self.now(), authority.lifetimes().grace).map_err(CloudError::denied)?;
            // What this process has not heard of yet stands in the store.
            let serial = authority::revoked(&shown.serial);
            if self.read::<RevokedCertificate>(&serial).await?.is_some() {
                return Err(revoked());
            }
            let epoch = self.read::<HostEpoch>(&authority::epoch(shown.host)).await?;
            if epoch.is_some_and(|epoch| shown.not_before < epoch.value.not_before) {
                return Err(revoked());
            }
            let found = self.resource::<Host>(Scope::System, shown.host.uuid()).await?;
            let (answer, txn) = self.issue(authority, &asked, found.ok_or_else(revoked)?).await?;
            if self.commit(txn.guard(Guard::Absent(key(&serial)?))).await? {
                tracing::info!(host = %shown.host, until = %answer.not_after, "a host's certificate was renewed");
                return Ok(answer);
            }
        }
        Err(CloudError::contended())
    }

    /// A certificate for a host, and the commit without which it must not be given out.
    async fn issue(
        &self,
        authority: &HostAuthority,
        asked: &CertificateRequest,
        mut host: Versioned<Host>,
    ) -> Result<(HostJoined, Txn)> {
        let id = host.value.id();
        let path = authority::epoch(id);
        let epoch = self.read::<HostEpoch>(&path).await?;
        let unchanged = match &epoch {
            Some(epoch) => epoch.unchanged(),
            None => Guard::Absent(key(&path)?),
        };
        let name = Hostname::new(host.value.meta.name.as_str())
            .map_err(|e| CloudError::internal(format!("a host that joins has no host name: {e}")))?;
        let grant = HostGrant {
            host: id,
            name,
            not_earlier: epoch.map(|epoch| epoch.value.not_before),
        };
        let now = self.now();
        let ids = &*self.parts.ids;
        let issued = authority
            .signer()?
            .issue_host(asked, &grant, ids, now, authority.lifetimes());
        let Issued {
            pem,
            not_after,
            host: says,
            ..
        } = issued.map_err(refused)?;
        let says = says.ok_or_else(|| CloudError::internal("a host's certificate names no host"))?;
        host.value.status.certificate_until = Some(not_after);
        host.value.status.certificate_expired = false;
        host.value.meta.updated_at = now;
        let answer = HostJoined {
            host: id,
            certificate: pem,
            roots: authority.roots(),
            not_before: says.not_before,
            not_after,
        };
        Ok((answer, host.replace(&host.value)?.guard(unchanged)))
    }

    async fn join_tokens_of(&self, id: HostId) -> Result<Vec<Versioned<JoinTokenRecord>>> {
        let table = Table::<JoinTokenRecord>::new(self.parts.backend.clone(), prefix(authority::joins())?);
        let mut all = table.list_all().await?.items;
        all.retain(|t| t.value.host == id);
        Ok(all)
    }
}
