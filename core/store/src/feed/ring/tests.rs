//! The ring against a plain list: nothing missed, doubled or out of order for whoever keeps up.

use proptest::prelude::*;

use super::*;

fn ring() -> Arc<Ring<u64>> {
    Ring::new(Revision(0), usize::MAX)
}

fn push(ring: &Ring<u64>, n: u64) {
    assert!(ring.push_after(&n, Revision(n), 1));
    ring.wake();
}

/// What a reader gets without waiting.
fn now(reader: &mut Reader<u64>, most: usize) -> (Vec<u64>, Poll<Result<Turn, End>>) {
    let mut out = VecDeque::new();
    let mut cx = Context::from_waker(Waker::noop());
    let turn = reader.poll_next(&mut cx, most, &mut out);
    (out.into(), turn)
}

#[test]
fn readers_get_what_comes_after_they_joined() {
    let ring = ring();
    let mut early = ring.join(100);
    push(&ring, 1);
    let mut late = ring.join(100);
    push(&ring, 2);
    push(&ring, 3);
    assert_eq!(now(&mut early, 2).0, [1, 2]);
    assert_eq!(now(&mut early, 9).0, [3]);
    assert_eq!(now(&mut late, 9).0, [2, 3]);
    assert!(now(&mut late, 9).1.is_pending());
    assert!(!ring.push_after(&3, Revision(3), 1), "that one is in");
}

#[test]
fn a_reader_joins_at_its_position_or_not_at_all() {
    let ring = Ring::new(Revision(5), usize::MAX);
    assert!(ring.join_at(Revision(4), 1).is_none(), "it began later");
    let mut at_start = ring.join_at(Revision(5), 9).unwrap();
    push(&ring, 7);
    assert!(ring.join_at(Revision(6), 1).is_none(), "7 would be missed");
    let mut at = ring.join_at(Revision(7), 9).unwrap();
    push(&ring, 8);
    assert_eq!(
        (now(&mut at_start, 9).0, now(&mut at, 9).0),
        (vec![7, 8], vec![8])
    );
    ring.end(End::Closed);
    assert!(ring.join_at(Revision(8), 1).is_none());
}

#[test]
fn who_is_too_far_behind_is_lost_and_costs_nothing() {
    let ring = ring();
    let (mut slow, mut fast) = (ring.join(3), ring.join(usize::MAX));
    for n in 1..=1000 {
        push(&ring, n);
        assert_eq!(now(&mut fast, 9).0, [n]);
    }
    assert_eq!(now(&mut slow, 9).1, Poll::Ready(Err(End::Lost)));
    assert!(ring.0.lock().items.len() <= 2 * TRIM_ITEMS);
}

#[test]
fn weight_is_bounded_whatever_readers_ask_for() {
    let ring = Ring::new(Revision(0), 10 * TRIM_WEIGHT);
    let mut patient = ring.join(usize::MAX);
    for n in 1..=100 {
        ring.push_after(&n, Revision(n), TRIM_WEIGHT);
        assert!(ring.0.lock().weight <= 11 * TRIM_WEIGHT);
    }
    assert_eq!(now(&mut patient, 9).1, Poll::Ready(Err(End::Lost)));
}

#[test]
fn progress_takes_no_place_and_is_told_once() {
    let ring = ring();
    let mut reader = ring.join(1);
    for n in 1..=9 {
        ring.progress(Revision(n));
    }
    assert_eq!(
        now(&mut reader, 9).1,
        Poll::Ready(Ok(Turn::Progress(Revision(9))))
    );
    assert!(now(&mut reader, 9).1.is_pending());
    push(&ring, 10);
    ring.progress(Revision(12));
    assert_eq!(now(&mut reader, 9), (vec![10], Poll::Ready(Ok(Turn::Items))));
}

#[test]
fn the_end_comes_after_what_is_left() {
    let ring = ring();
    let mut reader = ring.join(9);
    push(&ring, 1);
    ring.end(End::Closed);
    assert_eq!(now(&mut reader, 9).0, [1]);
    assert_eq!(now(&mut reader, 9).1, Poll::Ready(Err(End::Closed)));
}

#[test]
fn nothing_is_kept_for_nobody() {
    let ring = ring();
    drop((ring.join(9), ring.join(9)));
    let mut reader = ring.join(usize::MAX);
    for n in 1..=50 {
        push(&ring, n);
    }
    assert_eq!(now(&mut reader, 50).0.len(), 50);
    drop(reader);
    let kept = ring.0.lock().items.len();
    assert_eq!((kept, ring.readers()), (0, 0));
}

#[tokio::test]
async fn who_waits_is_woken() {
    let ring = ring();
    let mut readers: Vec<_> = (0..3).map(|_| ring.join(9)).collect();
    let reading = readers.iter_mut().map(|reader| async {
        let mut out = VecDeque::new();
        while out.len() < 2 {
            reader.next(9, &mut out).await.unwrap();
        }
        out
    });
    let pushing = async {
        for n in 1..=2 {
            tokio::task::yield_now().await;
            push(&ring, n);
        }
    };
    let (read, ()) = tokio::join!(futures::future::join_all(reading), pushing);
    assert_eq!(read, [[1, 2], [1, 2], [1, 2]]);
}

proptest! {
    #[test]
    fn whoever_keeps_up_reads_everything_in_order(
        steps in proptest::collection::vec((0..5_usize, 1..20_usize), 1..300),
        buffers in proptest::collection::vec(1..200_usize, 3),
    ) {
        let ring = ring();
        let mut readers: Vec<_> = buffers.iter().map(|b| (Some(ring.join(*b)), Vec::new())).collect();
        let mut pushed = 0;
        for (who, many) in steps {
            let Some((reader, read)) = readers.get_mut(who) else {
                for _ in 0..many {
                    pushed += 1;
                    push(&ring, pushed);
                }
                continue;
            };
            let behind = pushed - read.len() as u64;
            let Some(open) = reader else { continue };
            let (got, turn) = now(open, many);
            read.extend(got);
            if turn == Poll::Ready(Err(End::Lost)) {
                prop_assert!(behind > buffers[who] as u64);
                *reader = None;
            } else {
                prop_assert!(behind <= buffers[who] as u64);
            }
        }
        for (_, read) in readers {
            prop_assert_eq!(&read, &(1..=read.len() as u64).collect::<Vec<_>>());
        }
    }
}
