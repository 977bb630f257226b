//! What was taken back before its time: single certificates, or all that a host ever had.
//!
//! A host's epoch is a moment: every certificate of it that begins earlier is refused, and the next one begins no earlier
//! ([`crate::HostGrant::not_earlier`]). So a process that does not know of the epoch yet and still issues by the old one
//! gives out nothing that would be taken by those who know. Records are kept as long as anything that they refuse could be used,
//! which is longer than it is valid: an expired certificate may still ask for its successor.

use std::collections::HashMap;

use jiff::{RoundMode, TimestampRound, Unit};
use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Timestamp};

use crate::lifetimes::later;
use crate::{HostCertificate, Lifetimes, Serial};

/// One certificate that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedCertificate {
    /// Its serial number.
    pub serial: Serial,
    /// Its host.
    pub host: HostId,
    /// When it was taken back.
    pub at: Timestamp,
    /// Why, for people.
    pub why: String,
    /// Until when this is kept.
    pub until: Timestamp,
}

impl RevokedCertificate {
    /// Takes this certificate back.
    #[must_use]
    pub fn new(
        certificate: &HostCertificate,
        now: Timestamp,
        why: impl Into<String>,
        lifetimes: &Lifetimes,
    ) -> Self {
        Self {
            serial: certificate.serial.clone(),
            host: certificate.host,
            at: now,
            why: why.into(),
            until: later(certificate.not_after.max(now), lifetimes.grace),
        }
    }
}

/// All earlier certificates of a host, taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEpoch {
    /// The host.
    pub host: HostId,
    /// What begins earlier is refused. A whole second, as times in certificates are.
    pub not_before: Timestamp,
    /// Why, for people.
    pub why: String,
    /// Until when this is kept.
    pub until: Timestamp,
}

impl HostEpoch {
    /// Takes back all certificates that the host has at `now`. An epoch never falls: a clock that is behind cannot give old
    /// certificates back.
    #[must_use]
    pub fn raise(
        before: Option<&Self>,
        host: HostId,
        now: Timestamp,
        why: impl Into<String>,
        lifetimes: &Lifetimes,
    ) -> Self {
        let up = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
        // Rounding fails at the end of time alone.
        let now = now.round(up).unwrap_or(now);
        let not_before = before.map_or(now, |b| b.not_before.max(now));
        Self {
            host,
            not_before,
            why: why.into(),
            until: later(not_before, lifetimes.longest()),
        }
    }
}

/// What has taken a certificate back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum RevokedBy {
    /// It alone was taken back.
    Serial {
        /// Why, for people.
        why: String,
    },
    /// All that begin before this moment.
    Epoch {
        /// The epoch's begin.
        not_before: Timestamp,
        /// Why, for people.
        why: String,
    },
}

/// The records, to be looked up.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    certificates: HashMap<Serial, RevokedCertificate>,
    hosts: HashMap<HostId, HostEpoch>,
}

impl Revocations {
    /// Of all records that there are.
    #[must_use]
    pub fn new(
        certificates: impl IntoIterator<Item = RevokedCertificate>,
        hosts: impl IntoIterator<Item = HostEpoch>,
    ) -> Self {
        Self {
            certificates: certificates.into_iter().map(|r| (r.serial.clone(), r)).collect(),
            hosts: hosts.into_iter().map(|e| (e.host, e)).collect(),
        }
    }

    /// What has taken this certificate back, if anything.
    #[must_use]
    pub fn find(&self, certificate: &HostCertificate) -> Option<RevokedBy> {
        if let Some(epoch) = self.hosts.get(&certificate.host)
            && certificate.not_before < epoch.not_before
        {
            return Some(RevokedBy::Epoch {
                not_before: epoch.not_before,
                why: epoch.why.clone(),
            });
        }
        let revoked = self.certificates.get(&certificate.serial)?;
        Some(RevokedBy::Serial {
            why: revoked.why.clone(),
        })
    }

    /// The host's epoch: what [`crate::HostGrant::not_earlier`] wants.
    #[must_use]
    pub fn epoch(&self, host: HostId) -> Option<&HostEpoch> {
        self.hosts.get(&host)
    }

    /// The records that refuse nothing any more that would not be refused without them: to be deleted. In order, of serial
    /// numbers and of hosts.
    #[must_use]
    pub fn over(&self, now: Timestamp) -> (Vec<Serial>, Vec<HostId>) {
        let certificates = self.certificates.values().filter(|r| r.until < now);
        let hosts = self.hosts.values().filter(|e| e.until < now);
        let mut over: (Vec<_>, Vec<_>) = (
            certificates.map(|r| r.serial.clone()).collect(),
            hosts.map(|e| e.host).collect(),
        );
        over.0.sort();
        over.1.sort();
        over
    }
}
