//! Writes fenced by leases.

use super::failure::{ensure, ensure_eq};
use super::leases::{acquire, granted, run_out};
use super::seat::{json, key, lease, number};
use super::{Case, Seat, Verdict, case};
use crate::{Guard, LeaseMode, Renewal, Txn};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("fence", the_holder_writes),
        case!("fence", another_epoch_does_not_write),
        case!("fence", without_a_lease_nobody_writes),
        case!("fence", after_its_end_nobody_writes),
        case!("fence", after_revocation_nobody_writes),
        case!("fence", after_a_take_over_the_former_holder_does_not_write),
        case!("fence", a_renewed_lease_writes_on),
        case!("fence", a_conflict_names_the_guard),
        case!("fence", a_failed_fence_undoes_everything),
        case!("fence", fences_of_two_names),
        case!("fence", a_fence_alone_is_checked),
    ]
}

/// The write must be refused with nothing written.
async fn fenced_off(seat: &Seat, name: &str, epoch: u64) -> Verdict {
    let conflict = seat.conflict(Seat::fenced("fenced", 1, name, epoch)?).await?;
    ensure_eq!(conflict, (0, None), "a lease guard's conflict");
    ensure!(seat.get("fenced").await?.is_none(), "the refused write is there");
    Ok(())
}

async fn the_holder_writes(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    seat.commit(Seat::fenced("a", 1, "hosts/h1", epoch)?).await?;
    ensure_eq!(number(&seat.have("a").await?)?, 1, "it did not write");
    Ok(())
}

async fn another_epoch_does_not_write(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    fenced_off(seat, "hosts/h1", epoch + 1).await?;
    fenced_off(seat, "hosts/h1", epoch - 1).await
}

async fn without_a_lease_nobody_writes(seat: &mut Seat) -> Verdict {
    acquire(seat, "hosts/h1").await?;
    fenced_off(seat, "hosts/h2", 1).await?;
    fenced_off(seat, "hosts/h2", 0).await
}

async fn after_its_end_nobody_writes(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    run_out(seat).await;
    fenced_off(seat, "hosts/h1", epoch).await
}

async fn after_revocation_nobody_writes(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    seat.store.revoke(&lease("hosts/h1")?, epoch).await?;
    fenced_off(seat, "hosts/h1", epoch).await
}

async fn after_a_take_over_the_former_holder_does_not_write(seat: &mut Seat) -> Verdict {
    let old = acquire(seat, "hosts/h1").await?;
    let new = granted(seat, "hosts/h1", LeaseMode::TakeOver).await?;
    fenced_off(seat, "hosts/h1", old).await?;
    seat.commit(Seat::fenced("a", 1, "hosts/h1", new)?).await?;
    Ok(())
}

async fn a_renewed_lease_writes_on(seat: &mut Seat) -> Verdict {
    let epoch = acquire(seat, "hosts/h1").await?;
    for n in 0..4 {
        seat.pass_time(seat.ttl / 2).await;
        ensure_eq!(
            seat.store.renew(&lease("hosts/h1")?, epoch, seat.ttl).await?,
            Renewal::Held,
            "in time"
        );
        seat.commit(Seat::fenced("a", n, "hosts/h1", epoch)?).await?;
    }
    Ok(())
}

async fn a_conflict_names_the_guard(seat: &mut Seat) -> Verdict {
    let a = seat.create("a", 1).await?;
    let txn = Txn::new()
        .replace(key("a")?, a, json(2)?)
        .guard(Guard::Lease(lease("x")?, 1))
        .guard(Guard::Absent(key("a")?));
    ensure_eq!(seat.conflict(txn).await?, (1, None), "wrong conflict");
    Ok(())
}

async fn a_failed_fence_undoes_everything(seat: &mut Seat) -> Verdict {
    let a = seat.create("a", 1).await?;
    let txn = Txn::new()
        .replace(key("a")?, a, json(2)?)
        .put(key("b")?, json(2)?)
        .guard(Guard::Lease(lease("hosts/h1")?, 1));
    seat.conflict(txn).await?;
    ensure_eq!(seat.have("a").await?.modified, a, "a was written");
    ensure!(seat.get("b").await?.is_none(), "b was written");
    Ok(())
}

async fn fences_of_two_names(seat: &mut Seat) -> Verdict {
    let (engine, host) = (
        acquire(seat, "engines/e1").await?,
        acquire(seat, "hosts/h1").await?,
    );
    let write = |host_epoch| {
        let fenced = Seat::fenced("a", 1, "engines/e1", engine)?;
        Ok::<_, super::Failure>(fenced.guard(Guard::Lease(lease("hosts/h1")?, host_epoch)))
    };
    seat.commit(write(host)?).await?;
    granted(seat, "hosts/h1", LeaseMode::TakeOver).await?;
    ensure_eq!(
        seat.conflict(write(host)?).await?,
        (1, None),
        "the second fence fell"
    );
    Ok(())
}

async fn a_fence_alone_is_checked(seat: &mut Seat) -> Verdict {
    let present = seat.create("a", 1).await?;
    let epoch = acquire(seat, "hosts/h1").await?;
    let check = |epoch| Ok::<_, super::Failure>(Txn::new().guard(Guard::Lease(lease("hosts/h1")?, epoch)));
    ensure_eq!(
        seat.commit(check(epoch)?).await?,
        present,
        "a check answers the present revision"
    );
    ensure_eq!(
        seat.conflict(check(epoch + 1)?).await?,
        (0, None),
        "a check of another epoch"
    );
    Ok(())
}
