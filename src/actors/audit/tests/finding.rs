//! What is found although the index is wrong.

use super::super::follow::Follow;
use super::super::index::{INDEX_NAME, Index};
use super::*;
use crate::domain::audit::filter::{Columns, Filter};
use crate::storage::{AuditIndex, Fresh};

#[tokio::test]
async fn a_row_that_points_elsewhere_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(setup(dir.path())).unwrap();
    some(&audit, 0..20).await;
    let tip = audit.written().borrow().tip;
    let mut follow = Follow::from(dir.path().to_owned(), 1);
    let mut fresh = Vec::new();
    while let Some(record) = follow.next(tip.seq).unwrap() {
        fresh.extend(Columns::of(&record.line).map(|columns| Fresh {
            columns,
            segment: record.segment,
            place: record.place,
        }));
    }
    let whole = async |fresh: &[Fresh], name: &str| {
        let db = AuditIndex::open(&dir.path().join(name)).await.unwrap();
        db.add(fresh, tip).await.unwrap();
        let index = Arc::new(Index {
            db,
            hurry: Default::default(),
            wrong: Default::default(),
        });
        let found = search(
            &audit,
            Some(Arc::clone(&index)),
            Filter::default(),
            None,
            100,
        );
        let found = found.await.unwrap().items.into_iter();
        let found = found.filter(|item| item.event == "call.test").count();
        let told = tokio::time::timeout(Duration::from_millis(1), index.wrong.notified());
        (found, told.await.is_ok())
    };
    assert_eq!(whole(&fresh, INDEX_NAME).await, (20, false));
    // Another record is at one's place; no line begins there; nothing is there.
    let places = [fresh[7].place, fresh[7].place + 3, 1 << 40];
    for (n, place) in places.into_iter().enumerate() {
        let mut wrong = fresh.clone();
        wrong[5].place = place;
        let name = format!("other{n}.db");
        assert_eq!(whole(&wrong, &name).await, (20, true), "{place}");
    }
    assert!(audit.close(SOON).await);
}
