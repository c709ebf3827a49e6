//! Kill switches and suspensions.

use super::samples::{key, keyed, mcp, session};
use crate::domain::ids::{DenyId, ID_BYTES};
use crate::domain::kill::{Deny, Ending, Kind, Lifted, Target};
use crate::domain::name::ToolName;
use crate::storage::{Store, StoreError};

fn deny(n: u8, kind: Kind, target: Target) -> Deny {
    Deny {
        id: DenyId::from_random([n; ID_BYTES]),
        kind,
        target,
        label: format!("label {n}"),
        reason: format!("reason {n}"),
        author: "root".into(),
        created_at: i64::from(n),
        expires_at: n.is_multiple_of(2).then_some(1000),
        lifted: None,
    }
}

fn over(mut deny: Deny, at: i64, how: Ending) -> Deny {
    let by = "root".to_owned();
    deny.lifted = Some(Lifted { at, by, how });
    deny
}

pub(super) async fn saving_replaces_and_one_is_active_per_target(store: Store) {
    let tool = ToolName::parse("echo").unwrap();
    let demo = mcp(1, "demo").id;
    let (_, key) = keyed(&store, 1, "ada").await;
    let user = Target::User(key.user.clone());
    let all = [
        deny(1, Kind::KillSwitch, Target::Tool(demo.clone(), tool)),
        deny(2, Kind::KillSwitch, Target::Mcp(demo.clone())),
        deny(3, Kind::KillSwitch, user.clone()),
        deny(4, Kind::Suspension, user),
        deny(5, Kind::KillSwitch, Target::Client(key.id)),
        deny(6, Kind::KillSwitch, Target::All),
    ];
    store.save_denies(&all, 9).await.unwrap();
    // Late and twice is nothing new.
    store.save_denies(&all, 9).await.unwrap();
    assert_eq!(store.active_denies().await.unwrap(), all);

    let lifted = over(all[1].clone(), 50, Ending::Expired);
    store
        .save_denies(std::slice::from_ref(&lifted), 60)
        .await
        .unwrap();
    assert_eq!(store.deny(&lifted.id).await.unwrap(), lifted);
    assert_eq!(store.active_denies().await.unwrap().len(), 5);
    // The journal knows it in force after all.
    store.save_denies(&all[1..2], 60).await.unwrap();
    assert_eq!(store.active_denies().await.unwrap().len(), 6);
    // Another one for the same target takes its place.
    let second = deny(7, Kind::KillSwitch, Target::Mcp(demo));
    store
        .save_denies(std::slice::from_ref(&second), 70)
        .await
        .unwrap();
    let first = store.deny(&all[1].id).await.unwrap().lifted.unwrap();
    assert_eq!((first.at, first.how), (70, Ending::Superseded));
    assert_eq!(store.active_denies().await.unwrap().len(), 6);
    let missing = DenyId::from_random([99; ID_BYTES]);
    let error = store.deny(&missing).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

pub(super) async fn a_suspension_ends_the_sessions_there_were(store: Store) {
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
    let mut of_key = deny(1, Kind::Suspension, Target::Client(first.id.clone()));
    of_key.created_at = all[0].created_at;
    store
        .save_denies(std::slice::from_ref(&of_key), 9)
        .await
        .unwrap();
    // A session made later, when it was lifted, is not of its time.
    assert_eq!(store.live_sessions(0).await.unwrap(), all[1..]);
    let mut of_user = deny(2, Kind::Suspension, Target::User(ada.id));
    of_user.created_at = 9_000;
    // Also if all the store hears of it is that it is over.
    let of_user = over(of_user, 9_001, Ending::Lifted);
    store
        .save_denies(std::slice::from_ref(&of_user), 9)
        .await
        .unwrap();
    assert_eq!(store.live_sessions(0).await.unwrap(), all[3..]);
}

pub(super) async fn the_newest_history_is_kept(store: Store) {
    let past: Vec<Deny> = (1..=5)
        .map(|n| {
            over(
                deny(n, Kind::KillSwitch, Target::All),
                100 + i64::from(n),
                Ending::Lifted,
            )
        })
        .collect();
    store.save_denies(&past, 9).await.unwrap();
    let active = deny(6, Kind::KillSwitch, Target::All);
    store
        .save_denies(std::slice::from_ref(&active), 9)
        .await
        .unwrap();
    let ids = |denies: Vec<Deny>| {
        denies
            .into_iter()
            .map(|one| one.created_at)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(store.deny_history(3).await.unwrap()), [6, 5, 4]);
    assert_eq!(store.forget_denies(5).await.unwrap(), 0);
    assert_eq!(store.forget_denies(2).await.unwrap(), 3);
    assert_eq!(ids(store.deny_history(9).await.unwrap()), [6, 5, 4]);
}
