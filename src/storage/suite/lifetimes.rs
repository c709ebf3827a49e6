//! Sessions.

use super::samples::{key, keyed, session, user};
use crate::domain::limits::STORE_BATCH_MAX;
use crate::storage::stats::Class;
use crate::storage::{SessionSeen, Store, StoreError};

pub(super) async fn sessions_live_until_they_expire(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let (first, mut second) = (session(1, &key), session(2, &key));
    second.expires_at = 5_000;
    store.create_session(&first).await.unwrap();
    store.create_session(&second).await.unwrap();
    assert_eq!(
        store.live_sessions(4_999).await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(
        store.live_sessions(5_000).await.unwrap(),
        std::slice::from_ref(&first)
    );
    assert_eq!(store.purge_sessions(4_999).await.unwrap(), 0);
    assert_eq!(store.purge_sessions(5_000).await.unwrap(), 1);
    assert_eq!(
        store.live_sessions(0).await.unwrap(),
        std::slice::from_ref(&first)
    );
    assert!(store.end_session(&first.id).await.unwrap());
    assert!(!store.end_session(&first.id).await.unwrap());
    assert!(store.live_sessions(0).await.unwrap().is_empty());
    let stranger = super::samples::key(9, &user(9, "eve"));
    let error = store
        .create_session(&session(9, &stranger))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }));
}

pub(super) async fn many_are_saved_in_few_statements(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let mut seen = Vec::new();
    for n in 0..200u8 {
        let session = session(n, &key);
        store.create_session(&session).await.unwrap();
        seen.push(SessionSeen {
            id: session.id,
            seen_at: 5_000,
            expires_at: 20_000,
        });
    }
    let many = STORE_BATCH_MAX + 1;
    let all: Vec<_> = seen.iter().cycle().take(many).cloned().collect();
    let count = || Class::ALL.map(|class| store.stats().of(class).count());
    let before = count();
    store.extend_sessions(&all).await.unwrap();
    let keys = vec![(key.id.clone(), 7_000); many];
    store.touch_keys(&keys).await.unwrap();
    let after = count();
    assert_eq!(after[1] - before[1], 4, "statements that write");
    assert_eq!(after[2], before[2], "no transaction");
    let live = store.live_sessions(0).await.unwrap();
    assert_eq!(live.len(), 200);
    for one in live {
        assert_eq!((one.seen_at, one.expires_at), (5_000, 20_000));
    }
    let stored = store.key(&key.id).await.unwrap();
    assert_eq!(stored.last_used_at, Some(7_000));
}

pub(super) async fn sessions_are_extended_in_a_batch(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let (first, second, gone) = (session(1, &key), session(2, &key), session(3, &key));
    store.create_session(&first).await.unwrap();
    store.create_session(&second).await.unwrap();
    let seen = |id: &crate::domain::ids::SessionId, seen_at, expires_at| SessionSeen {
        id: id.clone(),
        seen_at,
        expires_at,
    };
    store.extend_sessions(&[]).await.unwrap();
    store
        .extend_sessions(&[
            seen(&first.id, 4_000, 20_000),
            seen(&gone.id, 4_000, 20_000),
            // Older than what is stored: passed over.
            seen(&second.id, 1, 2),
        ])
        .await
        .unwrap();
    let live = store.live_sessions(0).await.unwrap();
    assert_eq!((live[0].seen_at, live[0].expires_at), (4_000, 20_000));
    assert_eq!(live[1], second);
    assert_eq!(live.len(), 2, "an ended session does not come back");
}

pub(super) async fn sessions_end_by_key_and_by_user(store: Store) {
    let (ada, first) = keyed(&store, 1, "ada").await;
    let (_, others) = keyed(&store, 2, "bob").await;
    let second = key(3, &ada);
    store.create_key(&second).await.unwrap();
    let all = [
        session(1, &first),
        session(2, &first),
        session(3, &second),
        session(4, &others),
    ];
    for one in &all {
        store.create_session(one).await.unwrap();
    }
    assert_eq!(
        store.end_sessions_of_key(&first.id).await.unwrap(),
        [all[0].id.clone(), all[1].id.clone()]
    );
    assert!(
        store
            .end_sessions_of_key(&first.id)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.end_sessions_of_user(&ada.id).await.unwrap(),
        [all[2].id.clone()]
    );
    assert_eq!(store.live_sessions(0).await.unwrap(), [all[3].clone()]);
}
