//! The queue of records while the disk takes none: who has its places, and what is lost and counted.

use super::*;

#[tokio::test]
async fn what_is_not_required_goes_on_and_its_loss_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let required = [Category::Admin].into_iter().collect();
    let (audit, broken) = on_a_broken_disk(Setup {
        required,
        ..setup(dir.path())
    });
    let calls = AUDIT_QUEUE_MAX - 2 * AUDIT_QUEUE_KEPT + 5;
    for n in 0..calls {
        let entry = Entry::new("call.test", i64::try_from(n).unwrap());
        audit.commit(entry).await.unwrap();
    }
    assert!(
        !audit.written().borrow().overflowing,
        "no gate shuts for it"
    );
    assert!(audit.commit(Entry::new("admin.action", 1)).await.is_err());
    assert_eq!(audit.stats().dropped[Category::Call.index()], 5);
    broken.store(false, Ordering::Relaxed);
    assert!(audit.close(SOON).await || audit.lost() > 0);
}

#[tokio::test]
async fn what_callers_cause_never_takes_the_last_places_of_a_full_queue() {
    for required in [
        Required::all(),
        [Category::Admin, Category::Kill].into_iter().collect(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (audit, broken) = on_a_broken_disk(Setup {
            required,
            ..setup(dir.path())
        });
        for n in 0..i64::try_from(AUDIT_QUEUE_MAX).unwrap() + 10 {
            for event in ["call.refused", "isolate.ended", "auth.register"] {
                audit.post(Entry::new(event, n));
            }
        }
        assert!(audit.queued() <= (AUDIT_QUEUE_MAX - AUDIT_QUEUE_KEPT) as u64);
        let theirs = ["kill.on", "admin.action", "kill.off", ADMIN_DENIED];
        for event in theirs {
            // Refused where it is required, and in its place all the same.
            let _ = audit.commit(Entry::new(event, 1)).await;
        }
        broken.store(false, Ordering::Relaxed);
        let mut written = audit.written();
        let healed = written.wait_for(Written::is_good);
        tokio::time::timeout(SOON, healed).await.unwrap().unwrap();
        some(&audit, 0..1).await;
        assert!(audit.close(SOON).await);
        let all = all(dir.path());
        for event in theirs {
            assert!(all.iter().any(|record| record["event"] == event), "{event}");
        }
        let gap = all.iter().find(|record| record["event"] == "system.lost");
        let gap = gap.unwrap();
        assert!(
            gap["lost_admin"].is_null() && gap["lost_kill"].is_null() && gap["lost_call"].is_u64(),
            "{gap}"
        );
        whole(dir.path());
    }
}

#[tokio::test]
async fn the_queue_is_bounded_for_administrators_too() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _broken) = on_a_broken_disk(setup(dir.path()));
    for n in 0..i64::try_from(AUDIT_QUEUE_MAX).unwrap() + 10 {
        audit.post(Entry::new("admin.action", n));
    }
    assert_eq!(audit.queued(), AUDIT_QUEUE_MAX as u64);
    assert_eq!(audit.stats().dropped[Category::Admin.index()], 10);
}
