//! Leases: grants, renewals, ends, epochs.

use std::time::Duration;

use super::failure::{ensure, ensure_eq};
use super::seat::{lease, prefix, refused};
use super::{Case, Failure, Seat, Verdict, case};
use crate::{ErrorKind, Grant, LeaseInfo, LeaseMode, Renewal};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("lease", a_free_name_is_granted),
        case!("lease", a_held_name_is_not_granted),
        case!("lease", the_same_holder_text_is_nobody_special),
        case!("lease", a_name_is_taken_over),
        case!("lease", a_free_name_can_be_taken_over),
        case!("lease", renewing_extends),
        case!("lease", an_old_epoch_cannot_renew),
        case!("lease", what_nobody_holds_cannot_be_renewed),
        case!("lease", it_runs_out),
        case!("lease", what_ran_out_cannot_be_renewed),
        case!("lease", a_shorter_renewal_counts),
        case!("lease", revoking_frees),
        case!("lease", revoking_another_epoch_does_nothing),
        case!("lease", what_was_revoked_cannot_be_renewed),
        case!("lease", epochs_grow_across_every_end),
        case!("lease", epochs_of_names_are_their_own),
        case!("lease", all_below_a_prefix),
        case!("lease", those_that_ran_out_are_shown),
        case!("lease", those_revoked_are_not_shown),
        case!("lease", no_revisions_and_no_events),
        case!("lease", names_are_no_keys),
        case!("lease", a_long_holder_is_refused),
        case!("lease", no_time_is_refused),
        case!("lease", another_handle_sees_the_same),
    ]
}

pub(super) async fn ask(seat: &Seat, name: &str, mode: LeaseMode) -> Result<Grant, Failure> {
    Ok(seat.store.grant(&lease(name)?, "holder", seat.ttl, mode).await?)
}
/// A grant that must be given: its epoch.
pub(super) async fn granted(seat: &Seat, name: &str, mode: LeaseMode) -> Result<u64, Failure> {
    match ask(seat, name, mode).await? {
        Grant::Granted { epoch } => Ok(epoch),
        Grant::Held(info) => Err(Failure::new(format!(
            "wanted a grant of {name}, but it is held: {info:?}"
        ))),
    }
}
pub(super) async fn acquire(seat: &Seat, name: &str) -> Result<u64, Failure> {
    granted(seat, name, LeaseMode::Acquire).await
}
async fn held(seat: &Seat, name: &str) -> Result<LeaseInfo, Failure> {
    match ask(seat, name, LeaseMode::Acquire).await? {
        Grant::Held(info) => Ok(info),
        Grant::Granted { epoch } => Err(Failure::new(format!(
            "{name} was given away again, with epoch {epoch}"
        ))),
    }
}
async fn renew(seat: &Seat, name: &str, epoch: u64) -> Result<Renewal, Failure> {
    Ok(seat.store.renew(&lease(name)?, epoch, seat.ttl).await?)
}
async fn revoke(seat: &Seat, name: &str, epoch: u64) -> Verdict {
    Ok(seat.store.revoke(&lease(name)?, epoch).await?)
}
/// Long enough that every lease given so far has run out.
pub(super) async fn run_out(seat: &Seat) {
    seat.pass_time(seat.ttl + seat.ttl / 4).await;
}

async fn a_free_name_is_granted(seat: &mut Seat) -> Verdict {
    ensure!(acquire(seat, "hosts/h1").await? > 0, "epoch 0 is no epoch");
    Ok(())
}

async fn a_held_name_is_not_granted(seat: &mut Seat) -> Verdict {
    let name = lease("hosts/h1")?;
    let Grant::Granted { epoch } = seat
        .store
        .grant(&name, "agent of h1", seat.ttl, LeaseMode::Acquire)
        .await?
    else {
        return Err(Failure::new("a free name was not granted"));
    };
    let info = held(seat, "hosts/h1").await?;
    ensure_eq!(
        (&info.name, info.epoch, &*info.holder, info.expired),
        (&name, epoch, "agent of h1", false),
        "wrong info"
    );
    acquire(seat, "hosts/h2").await?;
    Ok(())
}

async fn the_same_holder_text_is_nobody_special(seat: &mut Seat) -> Verdict {
    acquire(seat, "a").await?;
    held(seat, "a").await?;
    Ok(())
}

async fn a_name_is_taken_over(seat: &mut Seat) -> Verdict {
    let old = acquire(seat, "a").await?;
    let new = granted(seat, "a", LeaseMode::TakeOver).await?;
    ensure!(new > old, "epoch {new} after {old}");
    ensure_eq!(
        renew(seat, "a", old).await?,
        Renewal::Lost,
        "the former holder renews"
    );
    ensure_eq!(
        renew(seat, "a", new).await?,
        Renewal::Held,
        "the new holder cannot renew"
    );
    Ok(())
}

async fn a_free_name_can_be_taken_over(seat: &mut Seat) -> Verdict {
    let first = granted(seat, "a", LeaseMode::TakeOver).await?;
    run_out(seat).await;
    let second = granted(seat, "a", LeaseMode::TakeOver).await?;
    ensure!(second > first, "epoch {second} after {first}");
    Ok(())
}

async fn renewing_extends(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "a").await?;
    for step in 0..4 {
        seat.pass_time(seat.ttl / 2).await;
        ensure_eq!(
            renew(seat, "a", epoch).await?,
            Renewal::Held,
            "in time, at step {step}"
        );
    }
    ensure_eq!(held(seat, "a").await?.epoch, epoch, "renewing changed the epoch");
    Ok(())
}

async fn an_old_epoch_cannot_renew(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "a").await?;
    ensure_eq!(
        renew(seat, "a", epoch + 1).await?,
        Renewal::Lost,
        "an epoch that was never given"
    );
    ensure_eq!(renew(seat, "a", 0).await?, Renewal::Lost, "epoch 0");
    ensure_eq!(renew(seat, "a", epoch).await?, Renewal::Held, "the true epoch");
    Ok(())
}

async fn what_nobody_holds_cannot_be_renewed(seat: &mut Seat) -> Verdict {
    ensure_eq!(
        renew(seat, "a", 1).await?,
        Renewal::Lost,
        "a name that was never granted"
    );
    revoke(seat, "a", 1).await?;
    acquire(seat, "a").await?;
    Ok(())
}

async fn it_runs_out(seat: &mut Seat) -> Verdict {
    let first = acquire(seat, "a").await?;
    run_out(seat).await;
    let second = acquire(seat, "a").await?;
    ensure!(second > first, "epoch {second} after {first}");
    Ok(())
}

async fn what_ran_out_cannot_be_renewed(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "a").await?;
    run_out(seat).await;
    ensure_eq!(
        renew(seat, "a", epoch).await?,
        Renewal::Lost,
        "it came back from the dead"
    );
    ensure_eq!(renew(seat, "a", epoch).await?, Renewal::Lost, "at the second try");
    acquire(seat, "a").await?;
    Ok(())
}

async fn a_shorter_renewal_counts(seat: &mut Seat) -> Verdict {
    let name = lease("a")?;
    let Grant::Granted { epoch } = seat
        .store
        .grant(&name, "h", seat.ttl * 100, LeaseMode::Acquire)
        .await?
    else {
        return Err(Failure::new("a free name was not granted"));
    };
    ensure_eq!(renew(seat, "a", epoch).await?, Renewal::Held, "in time");
    run_out(seat).await;
    acquire(seat, "a").await?;
    Ok(())
}

async fn revoking_frees(seat: &mut Seat) -> Verdict {
    let first = acquire(seat, "a").await?;
    revoke(seat, "a", first).await?;
    let second = acquire(seat, "a").await?;
    ensure!(second > first, "epoch {second} after {first}");
    Ok(())
}

async fn revoking_another_epoch_does_nothing(seat: &mut Seat) -> Verdict {
    let old = acquire(seat, "a").await?;
    let new = granted(seat, "a", LeaseMode::TakeOver).await?;
    revoke(seat, "a", old).await?;
    revoke(seat, "a", new + 1).await?;
    ensure_eq!(
        held(seat, "a").await?.epoch,
        new,
        "the former holder revoked the new one's lease"
    );
    Ok(())
}

async fn what_was_revoked_cannot_be_renewed(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "a").await?;
    revoke(seat, "a", epoch).await?;
    ensure_eq!(
        renew(seat, "a", epoch).await?,
        Renewal::Lost,
        "it came back from the dead"
    );
    revoke(seat, "a", epoch).await?;
    acquire(seat, "a").await?;
    Ok(())
}

async fn epochs_grow_across_every_end(seat: &mut Seat) -> Verdict {
    let mut last = 0;
    for round in 0..6 {
        let epoch = granted(
            seat,
            "a",
            if round % 3 == 0 {
                LeaseMode::TakeOver
            } else {
                LeaseMode::Acquire
            },
        )
        .await?;
        ensure!(epoch > last, "epoch {epoch} after {last} in round {round}");
        last = epoch;
        match round % 3 {
            0 => revoke(seat, "a", epoch).await?,
            1 => run_out(seat).await,
            _ => {} // the next one takes over
        }
    }
    Ok(())
}

async fn epochs_of_names_are_their_own(seat: &mut Seat) -> Verdict {
    let a = acquire(seat, "a").await?;
    let b = granted(seat, "b", LeaseMode::TakeOver).await?;
    granted(seat, "b", LeaseMode::TakeOver).await?;
    ensure_eq!(
        renew(seat, "a", a).await?,
        Renewal::Held,
        "another name's grant ended it"
    );
    ensure_eq!(renew(seat, "b", b).await?, Renewal::Lost, "the old epoch of b");
    Ok(())
}

async fn shown(seat: &Seat, below: &str) -> Result<Vec<(String, bool)>, Failure> {
    let leases = seat.store.leases(&prefix(below)?).await?;
    Ok(leases
        .into_iter()
        .map(|l| (l.name.to_string(), l.expired))
        .collect())
}

fn alive(names: &[&str]) -> Vec<(String, bool)> {
    names.iter().map(|n| ((*n).to_owned(), false)).collect()
}

async fn all_below_a_prefix(seat: &mut Seat) -> Verdict {
    for name in ["hosts/h2", "hosts/h10", "hosts/h1", "engines/e1", "hosts/h1/x"] {
        acquire(seat, name).await?;
    }
    ensure_eq!(
        shown(seat, "hosts").await?,
        alive(&["hosts/h1", "hosts/h1/x", "hosts/h10", "hosts/h2"]),
        "below hosts/"
    );
    ensure_eq!(
        shown(seat, "hosts/h1").await?,
        alive(&["hosts/h1/x"]),
        "below hosts/h1/"
    );
    ensure_eq!(shown(seat, "").await?.len(), 5, "all");
    ensure_eq!(shown(seat, "nothing").await?, [], "below nothing/");
    Ok(())
}

async fn those_that_ran_out_are_shown(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    run_out(seat).await;
    acquire(seat, "hosts/h2").await?;
    let wanted = vec![("hosts/h1".to_owned(), true), ("hosts/h2".to_owned(), false)];
    ensure_eq!(shown(seat, "hosts").await?, wanted, "one ran out");
    let leases = seat.store.leases(&prefix("hosts")?).await?;
    ensure_eq!(
        leases.first().map(|l| l.epoch),
        Some(epoch),
        "the epoch of the one that ran out"
    );
    Ok(())
}

async fn those_revoked_are_not_shown(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    acquire(seat, "hosts/h2").await?;
    revoke(seat, "hosts/h1", epoch).await?;
    ensure_eq!(
        shown(seat, "hosts").await?,
        alive(&["hosts/h2"]),
        "one was revoked"
    );
    Ok(())
}

async fn no_revisions_and_no_events(seat: &mut Seat) -> Verdict {
    let before = seat.put("hosts/h1/status", 0).await?;
    let mut events = seat.watch("", before)?;
    let epoch = acquire(seat, "hosts/h1").await?;
    renew(seat, "hosts/h1", epoch).await?;
    let epoch = granted(seat, "hosts/h1", LeaseMode::TakeOver).await?;
    revoke(seat, "hosts/h1", epoch).await?;
    acquire(seat, "hosts/h1").await?;
    run_out(seat).await;
    seat.store.leases(&prefix("")?).await?;
    ensure_eq!(seat.revision().await?, before, "leases moved the revision");
    let marker = seat.put("marker", 0).await?;
    events.expect(marker).await?;
    Ok(())
}

async fn names_are_no_keys(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    ensure!(seat.get("hosts/h1").await?.is_none(), "a lease is a document");
    ensure!(seat.list("").await?.items.is_empty(), "a lease is listed");
    seat.create("hosts/h1", 1).await?;
    seat.delete("hosts/h1").await?;
    ensure_eq!(
        renew(seat, "hosts/h1", epoch).await?,
        Renewal::Held,
        "deleting a document ended a lease"
    );
    Ok(())
}

async fn a_long_holder_is_refused(seat: &mut Seat) -> Verdict {
    let (long, longest) = ("h".repeat(257), "ö".repeat(128));
    let answer = seat
        .store
        .grant(&lease("a")?, &long, seat.ttl, LeaseMode::Acquire)
        .await;
    refused(answer, ErrorKind::Invalid, "a holder of 257 bytes")?;
    seat.store
        .grant(&lease("a")?, &longest, seat.ttl, LeaseMode::Acquire)
        .await?;
    ensure_eq!(
        held(seat, "a").await?.holder,
        longest,
        "the holder came back changed"
    );
    Ok(())
}

async fn no_time_is_refused(seat: &mut Seat) -> Verdict {
    let answer = seat
        .store
        .grant(&lease("a")?, "h", Duration::ZERO, LeaseMode::Acquire)
        .await;
    refused(answer, ErrorKind::Invalid, "a lease for no time")
}

async fn another_handle_sees_the_same(seat: &mut Seat) -> Verdict {
    let other = seat.second();
    let epoch = acquire(seat, "a").await?;
    let answer = other
        .grant(&lease("a")?, "other", seat.ttl, LeaseMode::Acquire)
        .await?;
    ensure!(
        matches!(&answer, Grant::Held(info) if info.epoch == epoch),
        "another handle got {answer:?}"
    );
    ensure_eq!(
        other.renew(&lease("a")?, epoch, seat.ttl).await?,
        Renewal::Held,
        "through another handle"
    );
    Ok(())
}
