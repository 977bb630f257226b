//! The journal on a real disk: what survives, and what a damaged file is taken for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use skyloom_agent::FileJournal;
use skyloom_flow::journal::{Effect, Entry, Intent, JobOutcome, Journal, JournalErrorKind};
use skyloom_model::{Id, Incarnation, JobId, JobWant, Reason};
use skyloom_store::{LeaseName, Revision};
use tempfile::TempDir;
use uuid::Uuid;

fn intent(number: u128, attempt: u32) -> Intent {
    Intent {
        effect: Effect {
            task: Id::from_uuid(Uuid::from_u128(number)),
            job: JobId::new("vm.start"),
            want: if number.is_multiple_of(2) {
                JobWant::Run
            } else {
                JobWant::Undo
            },
        },
        attempt,
        generation: 3,
        order: Revision(17),
    }
}

fn folder() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("host").join("journal");
    (temp, folder)
}

fn file(folder: &Path) -> PathBuf {
    folder.join("journal")
}

fn host() -> LeaseName {
    LeaseName::parse("hosts/h").unwrap()
}

/// What a journal knows of these effects.
fn all(journal: &FileJournal) -> Vec<Entry> {
    let effects = journal.effects();
    effects.iter().map(|e| journal.known(e).unwrap()).collect()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_in_the_next_life() {
    let (_temp, folder) = folder();
    let outcome: JobOutcome = Err(Reason::new("vm.broken", "it \"does\" not\nstart")
        .hint("look")
        .retryable());
    let journal = FileJournal::open(&folder).unwrap();
    journal.hold(&host(), 4).await.unwrap();
    for number in 0..3 {
        journal.intend(intent(number, 1)).await.unwrap();
    }
    journal.outcome(&intent(1, 1), outcome.clone()).await.unwrap();
    journal
        .outcome(&intent(2, 1), Ok(Some(json!({ "pid": 7 }))))
        .await
        .unwrap();
    journal.forget(&intent(0, 1).effect);
    let before = all(&journal);
    drop(journal);
    let journal = FileJournal::open(&folder).unwrap();
    assert_eq!(all(&journal), before);
    assert_eq!(before.len(), 2);
    assert_eq!(
        journal.known(&intent(1, 1).effect).unwrap().outcome,
        Some(outcome)
    );
    assert_eq!(
        journal.hold(&host(), 4).await.unwrap_err().kind(),
        JournalErrorKind::Behind
    );
    journal.intend(intent(2, 2)).await.unwrap();
    assert_eq!(journal.known(&intent(2, 2).effect).unwrap().outcome, None);
}

#[tokio::test]
async fn a_refused_epoch_stays_refused_and_says_what_to_do() {
    let (_temp, folder) = folder();
    let journal = FileJournal::open(&folder).unwrap();
    journal.hold(&host(), 7).await.unwrap();
    let refused = journal.hold(&host(), 5).await.unwrap_err();
    assert!(
        refused.to_string().contains("epoch 5") && refused.to_string().contains("epoch 7"),
        "{refused}"
    );
    assert!(refused.to_string().contains("put the journal away"), "{refused}");
    drop(journal);
    let journal = FileJournal::open(&folder).unwrap();
    assert_eq!(
        journal.hold(&host(), 8).await.unwrap_err().kind(),
        JournalErrorKind::Behind
    );
    drop(journal);
    fs::rename(&folder, folder.with_extension("away")).unwrap();
    FileJournal::open(&folder)
        .unwrap()
        .hold(&host(), 9)
        .await
        .unwrap();
}

#[test]
fn a_second_agent_is_refused_while_the_first_lives() {
    let (_temp, folder) = folder();
    let first = FileJournal::open(&folder).unwrap();
    let refused = FileJournal::open(&folder).unwrap_err();
    assert_eq!(refused.kind(), JournalErrorKind::InUse);
    assert!(refused.to_string().contains("another agent"), "{refused}");
    drop(first);
    FileJournal::open(&folder).unwrap();
}

#[test]
fn nobody_else_may_read_it() {
    let (_temp, folder) = folder();
    let _journal = FileJournal::open(&folder).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&file(&folder))), (0o700, 0o600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_are_all_kept() {
    let (_temp, folder) = folder();
    let journal = Arc::new(FileJournal::open(&folder).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let journal = journal.clone();
        tasks.spawn(async move {
            journal.intend(intent(number, 1)).await.unwrap();
            journal.outcome(&intent(number, 1), Ok(None)).await.unwrap();
            if number % 3 == 0 {
                journal.forget(&intent(number, 1).effect);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    drop(journal);
    let entries = all(&FileJournal::open(&folder).unwrap());
    assert_eq!(entries.len(), 133);
    assert!(entries.iter().all(|e| e.outcome == Some(Ok(None))));
}

#[tokio::test]
async fn it_does_not_grow_for_ever() {
    let (_temp, folder) = folder();
    let journal = FileJournal::open(&folder).unwrap();
    journal.hold(&host(), 4).await.unwrap();
    journal.intend(intent(1, 1)).await.unwrap();
    let large = "x".repeat(100_000);
    for number in 2..100 {
        journal.intend(intent(number, 1)).await.unwrap();
        journal
            .outcome(&intent(number, 1), Ok(Some(json!(large))))
            .await
            .unwrap();
        journal.forget(&intent(number, 1).effect);
    }
    assert!(fs::metadata(file(&folder)).unwrap().len() < 2 << 20);
    drop(journal);
    let journal = FileJournal::open(&folder).unwrap();
    assert_eq!(journal.effects(), [intent(1, 1).effect]);
    assert!(journal.hold(&host(), 4).await.is_err());
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_with_a_hint() {
    let (_temp, folder) = folder();
    let journal = FileJournal::open(&folder).unwrap();
    journal.intend(intent(1, 1)).await.unwrap();
    journal.intend(intent(2, 1)).await.unwrap();
    drop(journal);
    let good = fs::read(file(&folder)).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(file(&folder), bytes).unwrap();
        let refused = FileJournal::open(&folder).unwrap_err();
        assert_eq!(refused.kind(), JournalErrorKind::Corrupt);
        refused.to_string()
    };
    let mut bad = good.clone();
    let second = good.iter().position(|b| *b == b'\n').unwrap() + 1;
    bad[second + 60] ^= 1;
    let said = refused(&bad);
    assert!(
        said.contains("line 2") && said.contains("put the file away"),
        "{said}"
    );
    assert!(refused(b"").contains("empty"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A file that goes on with anything after a torn write: only whole lines count.
    #[test]
    fn it_goes_on_after_a_torn_write(garbage in prop::collection::vec(any::<u8>(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_temp, folder) = folder();
        let journal = FileJournal::open(&folder).unwrap();
        runtime.block_on(journal.intend(intent(1, 1))).unwrap();
        drop(journal);
        let mut bytes = fs::read(file(&folder)).unwrap();
        bytes.extend(&garbage);
        fs::write(file(&folder), &bytes).unwrap();
        let journal = FileJournal::open(&folder).unwrap();
        prop_assert_eq!(journal.effects().len(), 1);
        runtime.block_on(journal.intend(intent(2, 1))).unwrap();
        drop(journal);
        prop_assert_eq!(FileJournal::open(&folder).unwrap().effects().len(), 2);
    }
}

#[tokio::test]
async fn what_was_known_of_a_former_incarnation_is_forgotten_and_no_older_or_foreign_one_is_obeyed() {
    let (_temp, folder) = folder();
    let first = Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2));
    let restored = first.next(
        Uuid::from_u128(3),
        skyloom_model::Timestamp::from_second(50).unwrap(),
    );
    let journal = FileJournal::open(&folder).unwrap();
    assert!(!journal.obey(&first).await.unwrap());
    journal.hold(&host(), 7).await.unwrap();
    journal.intend(intent(2, 5)).await.unwrap();
    journal
        .outcome(&intent(2, 5), Ok(Some(json!({ "pid": 7 }))))
        .await
        .unwrap();
    assert!(!journal.obey(&first).await.unwrap(), "the same again");
    assert_eq!(all(&journal).len(), 1);

    // The restored store grants low epochs again, and gives orders of attempts that were made before.
    assert!(journal.obey(&restored).await.unwrap());
    assert!(all(&journal).is_empty());
    journal.hold(&host(), 1).await.unwrap();
    journal.intend(intent(2, 1)).await.unwrap();
    drop(journal);
    let journal = FileJournal::open(&folder).unwrap();
    assert_eq!(journal.obeys(), Some(restored));
    assert_eq!(all(&journal)[0].intent, intent(2, 1));
    let other = Incarnation::first(Uuid::from_u128(9), Uuid::from_u128(2));
    for (wrong, kind) in [
        (first, JournalErrorKind::Behind),
        (other, JournalErrorKind::Foreign),
    ] {
        assert_eq!(journal.obey(&wrong).await.unwrap_err().kind(), kind);
        assert_eq!(journal.obeys(), Some(restored));
    }
    assert_eq!(all(&journal).len(), 1);
    let behind = journal.hold(&host(), 1).await.unwrap_err();
    assert_eq!(
        behind.kind(),
        JournalErrorKind::Behind,
        "within one incarnation epochs only grow"
    );
}
