//! Users, groups, keys, settings.

use super::samples::{group, key, keyed, mcp, name, user};
use crate::storage::{Store, StoreError};

pub(super) async fn users_are_found_by_name_and_id(store: Store) {
    let (bob, ada) = (user(1, "bob"), user(2, "ada"));
    store.create_user(&bob).await.unwrap();
    store.create_user(&ada).await.unwrap();
    assert_eq!(store.user_by_name(&name("ada")).await.unwrap(), ada);
    assert_eq!(store.user(&bob.id).await.unwrap(), bob);
    assert_eq!(store.users().await.unwrap(), [ada, bob]);
    let missing = store.user_by_name(&name("eve")).await.unwrap_err();
    assert_eq!(missing.to_string(), "user `eve` does not exist");
    let missing = store.user(&user(9, "x").id).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { kind: "user", .. }));
}

pub(super) async fn a_taken_user_name_is_a_conflict(store: Store) {
    store.create_user(&user(1, "ada")).await.unwrap();
    let error = store.create_user(&user(2, "ada")).await.unwrap_err();
    assert_eq!(error.to_string(), "user `ada` exists already");
    assert!(matches!(error, StoreError::Conflict { kind: "user", .. }));
    assert_eq!(store.users().await.unwrap().len(), 1);
}

pub(super) async fn groups_hold_members_and_grants(store: Store) {
    let (ada, bob) = (user(1, "ada"), user(2, "bob"));
    let (devs, empty) = (group(1, "devs"), group(2, "empty"));
    let demo = mcp(1, "demo");
    for one in [&ada, &bob] {
        store.create_user(one).await.unwrap();
    }
    for one in [&devs, &empty] {
        store.create_group(one).await.unwrap();
    }
    store.create_mcp(&demo, 5).await.unwrap();
    let taken = store.create_group(&group(3, "devs")).await.unwrap_err();
    assert!(matches!(taken, StoreError::Conflict { kind: "group", .. }));

    assert!(store.add_member(&devs.id, &bob.id).await.unwrap());
    assert!(store.add_member(&devs.id, &ada.id).await.unwrap());
    assert!(!store.add_member(&devs.id, &ada.id).await.unwrap());
    assert!(store.grant(&devs.id, &demo.id).await.unwrap());
    assert!(!store.grant(&devs.id, &demo.id).await.unwrap());
    assert_eq!(store.group_by_name(&name("devs")).await.unwrap(), devs);
    assert_eq!(
        store.members(&devs.id).await.unwrap(),
        [ada.id.clone(), bob.id.clone()]
    );

    let views = store.groups().await.unwrap();
    assert_eq!(views[0].group, devs);
    assert_eq!(views[0].members, [ada.id.clone(), bob.id.clone()]);
    assert_eq!(views[0].grants, std::slice::from_ref(&demo.id));
    assert_eq!(views[1].group, empty);
    assert!(views[1].members.is_empty() && views[1].grants.is_empty());

    assert!(store.remove_member(&devs.id, &ada.id).await.unwrap());
    assert!(!store.remove_member(&devs.id, &ada.id).await.unwrap());
    assert!(store.revoke_grant(&devs.id, &demo.id).await.unwrap());
    assert!(!store.revoke_grant(&devs.id, &demo.id).await.unwrap());
    let views = store.groups().await.unwrap();
    assert_eq!(views[0].members, [bob.id]);
    assert!(views[0].grants.is_empty());
}

pub(super) async fn membership_needs_both_sides(store: Store) {
    let (ada, devs, demo) = (user(1, "ada"), group(1, "devs"), mcp(1, "demo"));
    store.create_group(&devs).await.unwrap();
    let error = store.add_member(&devs.id, &ada.id).await.unwrap_err();
    assert!(matches!(
        error,
        StoreError::NotFound {
            kind: "user or group",
            ..
        }
    ));
    let error = store.grant(&devs.id, &demo.id).await.unwrap_err();
    assert!(matches!(
        error,
        StoreError::NotFound {
            kind: "mcp or group",
            ..
        }
    ));
    let error = store.group_by_name(&name("ops")).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "group", .. }));
}

pub(super) async fn grants_reach_a_user_once(store: Store) {
    let (ada, bob) = (user(1, "ada"), user(2, "bob"));
    let (devs, ops) = (group(1, "devs"), group(2, "ops"));
    let (one, two) = (mcp(1, "one"), mcp(2, "two"));
    for each in [&ada, &bob] {
        store.create_user(each).await.unwrap();
    }
    for each in [&devs, &ops] {
        store.create_group(each).await.unwrap();
        store.add_member(&each.id, &ada.id).await.unwrap();
    }
    for each in [&one, &two] {
        store.create_mcp(each, 1).await.unwrap();
        store.grant(&devs.id, &each.id).await.unwrap();
    }
    store.grant(&ops.id, &one.id).await.unwrap();
    assert_eq!(
        store.grants_of_user(&ada.id).await.unwrap(),
        [one.id, two.id]
    );
    assert!(store.grants_of_user(&bob.id).await.unwrap().is_empty());
}

pub(super) async fn keys_are_found_by_prefix_and_listed(store: Store) {
    let (ada, first) = keyed(&store, 1, "ada").await;
    let (_, others) = keyed(&store, 2, "bob").await;
    let mut second = key(3, &ada);
    second.expires_at = Some(99);
    store.create_key(&second).await.unwrap();
    assert_eq!(store.key_by_prefix("prefix03").await.unwrap(), second);
    assert_eq!(store.key(&first.id).await.unwrap(), first);
    assert_eq!(
        store.keys(Some(&ada.id)).await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(store.keys(None).await.unwrap(), [first, others, second]);
    let error = store.key_by_prefix("nobody00").await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "key", .. }));

    let mut clash = key(4, &ada);
    clash.prefix = "prefix03".into();
    let error = store.create_key(&clash).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: "key", .. }));
    let stranger = user(9, "eve");
    let error = store.create_key(&key(9, &stranger)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("user `{}` does not exist", stranger.id)
    );
}

pub(super) async fn revoking_a_key_keeps_the_first_date(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let revoked = store.revoke_key(&key.id, 50).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(50));
    let again = store.revoke_key(&key.id, 60).await.unwrap();
    assert_eq!(again.revoked_at, Some(50));
    assert_eq!(store.key(&key.id).await.unwrap().revoked_at, Some(50));
    let other = super::samples::key(7, &user(7, "x"));
    let error = store.revoke_key(&other.id, 60).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "key", .. }));
}

pub(super) async fn touching_keys_never_goes_back(store: Store) {
    let (ada, first) = keyed(&store, 1, "ada").await;
    let (_, second) = keyed(&store, 2, "bob").await;
    let unknown = key(9, &ada);
    store.touch_keys(&[]).await.unwrap();
    store
        .touch_keys(&[
            (first.id.clone(), 70),
            (unknown.id.clone(), 70),
            (second.id.clone(), 80),
        ])
        .await
        .unwrap();
    store.touch_keys(&[(first.id.clone(), 60)]).await.unwrap();
    assert_eq!(store.key(&first.id).await.unwrap().last_used_at, Some(70));
    assert_eq!(store.key(&second.id).await.unwrap().last_used_at, Some(80));
    assert!(store.key(&unknown.id).await.is_err());
}

pub(super) async fn settings_are_set_once_and_overwritten(store: Store) {
    assert_eq!(store.setting("a").await.unwrap(), None);
    assert_eq!(store.init_setting("a", "1").await.unwrap(), "1");
    assert_eq!(store.init_setting("a", "2").await.unwrap(), "1");
    store.set_setting("a", "3").await.unwrap();
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("3"));
    store.set_setting("b", "").await.unwrap();
    assert_eq!(store.setting("b").await.unwrap().as_deref(), Some(""));
    assert!(store.remove_setting("a").await.unwrap());
    assert!(!store.remove_setting("a").await.unwrap());
}

pub(super) async fn a_setting_is_swapped_only_for_what_was_read(store: Store) {
    assert!(
        !store.swap_setting("a", "", "1").await.unwrap(),
        "there is none"
    );
    store.set_setting("a", "1").await.unwrap();
    assert!(!store.swap_setting("a", "0", "2").await.unwrap());
    assert!(store.swap_setting("a", "1", "2").await.unwrap());
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("2"));
}

pub(super) async fn a_user_goes_with_all_that_is_theirs(store: Store) {
    use crate::domain::account::Removal;
    use crate::domain::credential::{Holder, Stored};
    use crate::domain::name::CredentialName;
    let (ada, ben) = (user(1, "ada"), user(2, "ben"));
    let (dev, demo) = (group(1, "dev"), super::samples::mcp(1, "demo"));
    store.create_group(&dev).await.unwrap();
    store.create_mcp(&demo, 1).await.unwrap();
    for one in [&ada, &ben] {
        store.create_user(one).await.unwrap();
        store.add_member(&dev.id, &one.id).await.unwrap();
    }
    store.create_key(&key(1, &ada)).await.unwrap();
    store.create_key(&key(2, &ben)).await.unwrap();
    for holder in [
        Holder::User(ada.id.clone()),
        Holder::User(ben.id.clone()),
        Holder::Shared,
    ] {
        let value = Stored {
            holder: holder.id(),
            mcp: demo.id.clone(),
            name: CredentialName::parse("TOKEN").unwrap(),
            sealed: "sealed".to_owned(),
            version: 1,
            set_at: 1,
            set_by: "uid:0(root)".to_owned(),
        };
        store.set_credential(&value).await.unwrap();
    }
    let removal = Removal {
        id: ada.id.clone(),
        name: ada.name.clone(),
        by: "uid:0(root)".to_owned(),
        keys: vec![key(1, &ada).id],
    };
    assert_eq!(store.removals().await.unwrap(), []);
    store.remove_user(&removal).await.unwrap();
    assert_eq!(store.users().await.unwrap(), std::slice::from_ref(&ben));
    let keys = store.keys(None).await.unwrap();
    assert!(keys.iter().all(|key| key.user == ben.id) && keys.len() == 1);
    let groups = store.groups().await.unwrap();
    assert_eq!(groups[0].members, std::slice::from_ref(&ben.id));
    let held = store.credentials().await.unwrap();
    assert!(held.iter().all(|one| one.holder != ada.id) && held.len() == 2);
    // Until its end it is kept in mind; a second one is none.
    assert_eq!(
        store.removals().await.unwrap(),
        std::slice::from_ref(&removal)
    );
    store.end_removal(&ada.id).await.unwrap();
    let missing = store.remove_user(&removal).await.unwrap_err();
    assert_eq!(store.removals().await.unwrap(), []);
    assert!(
        matches!(missing, StoreError::NotFound { .. }),
        "{missing:?}"
    );
    store.create_user(&user(3, "ada")).await.unwrap();
}
