//! What must survive the end of the process, for stores that say they are durable.

use super::failure::{ensure, ensure_eq};
use super::leases::{acquire, granted};
use super::seat::{lease, prefix};
use super::{Abilities, Case, Seat, Verdict, case};
use crate::{LeaseMode, Renewal};

pub(super) fn cases() -> Vec<Case> {
    let reopen = Abilities {
        compact: false,
        reopen: true,
    };
    vec![
        case!("durable", says_that_it_is).needing(reopen),
        case!("durable", documents_stay).needing(reopen),
        case!("durable", revisions_go_on).needing(reopen),
        case!("durable", a_watch_resumes).needing(reopen),
        case!("durable", epochs_stay).needing(reopen),
        case!("durable", leases_stay).needing(reopen),
    ]
}

async fn says_that_it_is(seat: &mut Seat) -> Verdict {
    ensure!(
        seat.store.capability().durable,
        "it can be reopened, but does not say that it is durable"
    );
    Ok(())
}

async fn documents_stay(seat: &mut Seat) -> Verdict {
    for n in 0..30 {
        seat.put(&format!("a/{n}"), n).await?;
    }
    seat.delete("a/7").await?;
    let before = seat.list("").await?;
    seat.reopen().await?;
    ensure_eq!(seat.list("").await?, before, "after reopening");
    Ok(())
}

async fn revisions_go_on(seat: &mut Seat) -> Verdict {
    let before = seat.put("a", 1).await?;
    // The last commit leaves no document behind; its revision must not be given again.
    let last = seat.delete("a").await?;
    seat.reopen().await?;
    ensure!(last > before, "a delete is a commit");
    ensure_eq!(seat.revision().await?, last, "after reopening");
    let next = seat.put("a", 2).await?;
    ensure!(next > last, "revision {next} after {last}");
    Ok(())
}

async fn a_watch_resumes(seat: &mut Seat) -> Verdict {
    let first = seat.put("a/1", 1).await?;
    let second = seat.put("a/1", 2).await?;
    let third = seat.delete("a/1").await?;
    seat.reopen().await?;
    let mut events = seat.watch("a", first)?;
    events.expect(second).await?;
    events.expect(third).await?;
    let fourth = seat.put("a/1", 4).await?;
    events.expect(fourth).await?;
    Ok(())
}

async fn epochs_stay(seat: &mut Seat) -> Verdict {
    let mut last = 0;
    for _ in 0..3 {
        let epoch = granted(seat, "a", LeaseMode::TakeOver).await?;
        ensure!(epoch > last, "epoch {epoch} after {last}");
        last = epoch;
        seat.store.revoke(&lease("a")?, epoch).await?;
        seat.reopen().await?;
    }
    Ok(())
}

async fn leases_stay(seat: &mut Seat) -> Verdict {
    let name = lease("hosts/h1")?;
    let epoch = acquire(seat, "hosts/h1").await?;
    seat.reopen().await?;
    ensure_eq!(
        seat.store
            .leases(&prefix("hosts")?)
            .await?
            .first()
            .map(|l| l.epoch),
        Some(epoch),
        "it is not shown"
    );
    ensure_eq!(
        seat.store.renew(&name, epoch, seat.ttl).await?,
        Renewal::Held,
        "it was lost"
    );
    seat.commit(Seat::fenced("a", 1, "hosts/h1", epoch)?).await?;
    Ok(())
}
