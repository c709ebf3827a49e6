mod damage;
mod finding;
mod queue;

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::reading::{all, records};
use super::*;
use crate::domain::audit::Required;
use crate::domain::audit::check::Report;
use crate::domain::audit::filter::Columns;
use crate::domain::limits::{AUDIT_QUEUE_KEPT, AUDIT_QUEUE_MAX};

const SOON: Duration = Duration::from_secs(10);

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, Durability::Durable)
}

fn check(dir: &Path) -> Report {
    Verify::of(dir, None).unwrap().run().unwrap()
}

fn whole(dir: &Path) -> Report {
    let report = check(dir);
    assert!(report.whole, "{report:?}");
    report
}

fn newest(dir: &Path) -> std::path::PathBuf {
    files::segments(dir).unwrap().pop().unwrap().path
}

/// A disk that can be told to fail.
fn disk() -> (Sync, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&broken);
    let sync = Sync::with(move |file| match look.load(Ordering::Relaxed) {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => file.sync_data(),
    });
    (sync, broken)
}

/// A log whose disk takes nothing any more, until it is told to.
fn on_a_broken_disk(setup: Setup) -> (Audit, Arc<AtomicBool>) {
    let (sync, broken) = disk();
    let audit = Audit::start(Setup { sync, ..setup }).unwrap();
    broken.store(true, Ordering::Relaxed);
    (audit, broken)
}

async fn some(audit: &Audit, numbers: std::ops::Range<i64>) {
    for n in numbers {
        audit.commit(Entry::new("call.test", n)).await.unwrap();
    }
}

fn life(setup: &Setup, numbers: std::ops::Range<i64>) -> impl Future<Output = ()> {
    let audit = Audit::start(setup.clone()).unwrap();
    async move {
        some(&audit, numbers).await;
        assert!(audit.close(SOON).await);
    }
}

#[tokio::test]
async fn what_is_committed_is_in_the_file_and_the_chain_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(setup(dir.path())).unwrap();
    for n in 0..10 {
        audit.commit(Entry::new("call.test", n)).await.unwrap();
        assert_eq!(records(dir.path()).len(), usize::try_from(n).unwrap() + 1);
    }
    assert!(audit.close(SOON).await);
    life(&setup(dir.path()), 10..12).await;
    let report = whole(dir.path());
    assert_eq!(report.segments, 1, "it goes on where it was");
    assert_eq!(records(dir.path()).len(), 12);
    assert_eq!(
        report.signed_upto + 1,
        report.last_seq,
        "signed when it closed"
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&newest(dir.path())), 0o600);
    assert_eq!(mode(&dir.path().join("checkpoint")), 0o600);
}

#[tokio::test]
async fn buffered_records_arrive_without_being_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path(), Durability::Buffered).unwrap();
    some(&audit, 0..1000).await;
    assert!(audit.close(SOON).await);
    assert_eq!(records(dir.path()).len(), 1000);
    assert_eq!(audit.lost(), 0);
    whole(dir.path());
}

#[tokio::test]
async fn segments_are_bound_to_each_other_and_retention_keeps_the_log_whole() {
    let dir = tempfile::tempdir().unwrap();
    let small = Setup {
        segment_bytes_max: 10_000,
        ..setup(dir.path())
    };
    life(&small, 0..400).await;
    let report = whole(dir.path());
    assert!(report.segments > 4, "{report:?}");
    assert_eq!(records(dir.path()).len(), 400);
    let kept = Setup {
        retention_bytes_max: Some(25_000),
        ..small
    };
    life(&kept, 400..410).await;
    let report = whole(dir.path());
    assert!(
        (2..5).contains(&report.segments) && report.first_seq > 1,
        "{report:?}"
    );
    let removed = all(dir.path())
        .into_iter()
        .rfind(|record| record["event"] == "system.removed")
        .unwrap();
    assert_eq!(removed["last_seq"], report.first_seq - 1);
    // What is missing beyond that is found.
    let segments = files::segments(dir.path()).unwrap();
    std::fs::remove_file(&segments[0].path).unwrap();
    assert!(!check(dir.path()).whole);
}

#[tokio::test]
async fn the_newest_segment_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let greedy = Setup {
        segment_bytes_max: 1,
        retention: Some(Duration::ZERO),
        retention_bytes_max: Some(1),
        ..setup(dir.path())
    };
    life(&greedy, 0..20).await;
    let report = whole(dir.path());
    assert!(report.segments <= 2, "{report:?}");
    assert_eq!(records(dir.path()).last().unwrap()["at"], 19);
}

#[tokio::test]
async fn a_disk_that_fails_refuses_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (sync, broken) = disk();
    let audit = Audit::start(Setup {
        sync,
        ..setup(dir.path())
    })
    .unwrap();
    some(&audit, 0..3).await;
    broken.store(true, Ordering::Relaxed);
    let error = audit.commit(Entry::new("call.test", 3)).await.unwrap_err();
    assert_eq!(error, AuditError::Failing);
    assert!(audit.written().borrow().failing.is_some());
    for n in 4..i64::try_from(AUDIT_QUEUE_MAX).unwrap() + 10 {
        audit.post(Entry::new("call.test", n));
    }
    let refused = audit.commit(Entry::new("call.test", 0)).await;
    assert_eq!(refused, Err(AuditError::Failing));
    let lost = audit.lost();
    assert!(lost > 0 && audit.written().borrow().overflowing);
    assert!(audit.stats().write_errors > 0 && audit.stats().lag > Duration::ZERO);
    broken.store(false, Ordering::Relaxed);
    let mut written = audit.written();
    let healed = written.wait_for(Written::is_good);
    tokio::time::timeout(SOON, healed).await.unwrap().unwrap();
    some(&audit, 0..1).await;
    assert!(audit.close(SOON).await);
    let all = all(dir.path());
    let gap = all
        .iter()
        .find(|record| record["event"] == "system.lost")
        .unwrap();
    assert_eq!(
        (&gap["records"], &gap["lost_call"]),
        (&lost.into(), &lost.into())
    );
    let columns = Columns::of(gap.to_string().as_bytes()).unwrap();
    assert_eq!(columns.event, "system.lost", "a search finds it");
    let kept: Vec<i64> = records(dir.path())
        .iter()
        .map(|r| r["at"].as_i64().unwrap())
        .collect();
    let most = i64::try_from(AUDIT_QUEUE_MAX - AUDIT_QUEUE_KEPT).unwrap();
    assert_eq!(kept[..kept.len() - 1], (0..most + 3).collect::<Vec<_>>());
    whole(dir.path());
}

#[test]
fn a_batch_whose_sync_failed_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    // What the kernel does after an I/O error: the pages are gone, the error comes once.
    let sync = Sync::with(move |file| {
        if count.fetch_add(1, Ordering::Relaxed) != 2 {
            return file.sync_data();
        }
        file.set_len(file.metadata()?.len() - 5)?;
        Err(io::Error::other("input/output error"))
    });
    let setup = Setup {
        sync,
        ..setup(dir.path())
    };
    let mut log = resume::open(setup, Arc::default()).unwrap();
    log.write(b",\"at\":1,\"event\":\"call.test\"\n").unwrap();
    let batch = b",\"at\":2,\"event\":\"call.test\"\n,\"at\":3,\"event\":\"call.test\"\n";
    assert!(log.write(batch).is_err());
    log.write(batch).unwrap();
    log.finish().unwrap();
    assert!(tries.load(Ordering::Relaxed) > 3);
    let at: Vec<i64> = records(dir.path())
        .iter()
        .map(|r| r["at"].as_i64().unwrap())
        .collect();
    assert_eq!(at, [1, 2, 3]);
    whole(dir.path());
}

#[tokio::test]
async fn a_close_that_loses_records_says_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _broken) = on_a_broken_disk(setup(dir.path()));
    audit.post(Entry::new("call.test", 1));
    assert!(!audit.close(SOON).await);
    assert!(
        audit.0.is_closed(),
        "it answers at once, not by the timeout"
    );
}

#[tokio::test]
async fn a_lost_record_shuts_the_log_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(setup(dir.path())).unwrap();
    let mut written = audit.written();
    audit.0.lose(Category::Call);
    let open = written.wait_for(Written::is_good);
    tokio::time::timeout(SOON, open).await.unwrap().unwrap();
    assert_eq!(audit.lost(), 1);
}

#[tokio::test]
async fn calls_without_an_end_are_counted_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let call = |event: &'static str, id: &str| Entry::new(event, 1).field("call", id);
    let setup = Setup {
        segment_bytes_max: 1_500,
        ..setup(dir.path())
    };
    let audit = Audit::start(setup.clone()).unwrap();
    audit.commit(Entry::new(STARTED, 1)).await.unwrap();
    for n in 0..20 {
        audit
            .commit(call("call.start", &format!("call_{n}")))
            .await
            .unwrap();
        if n != 3 && n != 12 {
            audit
                .commit(call("call.end", &format!("call_{n}")))
                .await
                .unwrap();
        }
    }
    // As kill -9 leaves it: no last words.
    std::mem::forget(audit);
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().flatten() {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    let keys = setup.keys.clone();
    let next = Setup {
        dir: copy.path().to_owned(),
        keys,
        ..setup
    };
    let audit = Audit::start(next.clone()).unwrap();
    audit.commit(Entry::new(STARTED, 2)).await.unwrap();
    audit.commit(Entry::new(STOPPED, 2)).await.unwrap();
    assert!(audit.close(SOON).await);
    let found = |dir: &Path| -> Vec<serde_json::Value> {
        let all = all(dir).into_iter();
        all.filter(|record| record["event"] == "system.recovered")
            .collect()
    };
    let told = found(copy.path());
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["unfinished"], &told[0]["calls"]),
        (&2.into(), &"call_12 call_3".into())
    );
    // After a stop in order there is nothing to recover.
    life(&next, 0..1).await;
    assert_eq!(found(copy.path()).len(), 1);
}

#[tokio::test]
async fn checkpoints_come_by_count_and_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let often = Setup {
        checkpoint_records: 10,
        ..setup(dir.path())
    };
    let audit = Audit::start(often).unwrap();
    some(&audit, 0..25).await;
    let count = |dir: &Path| {
        let all = all(dir).into_iter();
        all.filter(|record| record["event"] == "system.checkpoint")
            .count()
    };
    assert_eq!(count(dir.path()), 2);
    assert!(audit.close(SOON).await);

    let dir = tempfile::tempdir().unwrap();
    let soon = Setup {
        checkpoint_every: Duration::from_millis(50),
        ..setup(dir.path())
    };
    let audit = Audit::start(soon).unwrap();
    some(&audit, 0..1).await;
    let mut written = audit.written();
    let signed = written.wait_for(|written| written.tip.seq == 3);
    tokio::time::timeout(SOON, signed).await.unwrap().unwrap();
    assert_eq!(count(dir.path()), 1);
    assert!(audit.stats().checkpoint_at.is_some());
}

#[test]
fn a_directory_without_a_log_is_no_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = Verify::of(dir.path(), None).unwrap().run();
    assert!(
        matches!(nothing, Err(VerifyError::Nothing(_))),
        "{nothing:?}"
    );
    let nowhere = Verify::of(&dir.path().join("x"), None).unwrap().run();
    assert!(
        matches!(nowhere, Err(VerifyError::Nothing(_))),
        "{nowhere:?}"
    );
}

#[tokio::test]
async fn a_clock_that_jumps_back_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(crate::actors::clock::SetClock::at(1_000_000));
    let jumping = Setup {
        clock: Arc::<crate::actors::clock::SetClock>::clone(&clock),
        segment_bytes_max: 1_000,
        retention: Some(Duration::from_secs(1)),
        ..setup(dir.path())
    };
    let audit = Audit::start(jumping).unwrap();
    for at in [5_000, 3_000, -7, 9_000_000, 0] {
        clock.advance(-900_000);
        some(&audit, at..at + 4).await;
    }
    assert!(audit.close(SOON).await);
    let report = whole(dir.path());
    assert_eq!(
        report.first_seq, 1,
        "the files are from the future, and stay"
    );
    assert_eq!(records(dir.path()).len(), 20);
}

#[tokio::test]
async fn a_second_server_is_kept_away_from_a_log_that_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(setup(dir.path())).unwrap();
    some(&audit, 0..1).await;
    let second = Audit::start(setup(dir.path())).unwrap_err();
    let pid = format!("pid {}", std::process::id());
    assert!(
        matches!(&second, OpenError::Held { holder: Some(who), .. } if *who == pid),
        "{second}"
    );
    assert!(audit.close(SOON).await);
    life(&setup(dir.path()), 1..2).await;
    assert_eq!(records(dir.path()).len(), 2);
    whole(dir.path());
}

#[tokio::test]
async fn another_installations_log_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| Setup {
        installation: Some(name.to_owned()),
        keys: dir.path().join("keys").join(name),
        dir: dir.path().join("log"),
        ..setup(dir.path())
    };
    life(&of("first"), 0..3).await;
    // Even what a crash left is for the log's own server to judge.
    let path = newest(&of("first").dir);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"seq\":").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Audit::start(of("second")).unwrap_err();
    assert!(
        matches!(&error, OpenError::Foreign { theirs, ours, .. } if theirs == "first" && ours == "second"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    life(&of("first"), 3..4).await;
    let keys = of("first").keys.join(PUBLIC_KEY_NAME);
    let report = Verify::of(&of("first").dir, Some(&keys)).unwrap().run();
    assert!(report.unwrap().whole);
}
