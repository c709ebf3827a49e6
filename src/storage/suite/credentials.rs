//! Credentials: set, counted, listed, forgotten.

use super::samples;
use crate::domain::credential::{Holder, Stored};
use crate::domain::name::CredentialName;
use crate::storage::{Store, StoreError};

pub(super) async fn a_value_is_set_counted_and_forgotten(store: Store) {
    let mcp = samples::mcp(1, "github");
    let holder = Holder::Shared.id();
    let mut value = Stored {
        holder: holder.clone(),
        mcp: mcp.id.clone(),
        name: CredentialName::parse("TOKEN").unwrap(),
        sealed: "first".to_owned(),
        version: 0,
        set_at: 1,
        set_by: "uid:0(root)".to_owned(),
    };
    let missing = store.set_credential(&value).await.unwrap_err();
    assert!(
        matches!(missing, StoreError::NotFound { .. }),
        "{missing:?}"
    );
    store.create_mcp(&mcp, 1).await.unwrap();
    assert_eq!(store.set_credential(&value).await.unwrap(), 1);
    value.sealed = "second".to_owned();
    value.set_at = 2;
    assert_eq!(store.set_credential(&value).await.unwrap(), 2);
    value.version = 2;
    assert_eq!(store.credentials().await.unwrap(), [value.clone()]);
    let forget = || store.remove_credential(&holder, &mcp.id, &value.name);
    assert!(forget().await.unwrap());
    assert!(!forget().await.unwrap());
    assert!(store.credentials().await.unwrap().is_empty());
    // A version is of one value only.
    assert_eq!(store.set_credential(&value).await.unwrap(), 3);
    assert_eq!(store.credentials().await.unwrap()[0].version, 3);
    assert!(forget().await.unwrap());
    let anew = [(value.clone(), "resealed".to_owned())];
    assert_eq!(store.reseal_credentials(&anew).await.unwrap(), 0);
    assert!(store.credentials().await.unwrap().is_empty());
}

pub(super) async fn archiving_an_mcp_forgets_what_was_set_for_it(store: Store) {
    use crate::domain::mcp::McpState::{Archived, Draft, Published};
    let (old, new) = (samples::mcp(1, "github"), samples::mcp(2, "github"));
    let value = |mcp: &crate::domain::mcp::Mcp| Stored {
        holder: Holder::Shared.id(),
        mcp: mcp.id.clone(),
        name: CredentialName::parse("TOKEN").unwrap(),
        sealed: "sealed".to_owned(),
        version: 1,
        set_at: 1,
        set_by: "uid:0(root)".to_owned(),
    };
    store.create_mcp(&old, 1).await.unwrap();
    store.set_credential(&value(&old)).await.unwrap();
    let other = if old.state == Draft { Published } else { Draft };
    store.set_mcp_state(&old.id, other, 2).await.unwrap();
    assert_eq!(store.credentials().await.unwrap().len(), 1);
    store.set_mcp_state(&old.id, Archived, 3).await.unwrap();
    store.create_mcp(&new, 4).await.unwrap();
    store.set_credential(&value(&new)).await.unwrap();
    assert_eq!(store.credentials().await.unwrap(), [value(&new)]);
}

pub(super) async fn a_seal_is_replaced_only_if_the_value_is_the_same(store: Store) {
    let mcp = samples::mcp(1, "github");
    store.create_mcp(&mcp, 1).await.unwrap();
    let value = |name: &str, sealed: &str| Stored {
        holder: Holder::Shared.id(),
        mcp: mcp.id.clone(),
        name: CredentialName::parse(name).unwrap(),
        sealed: sealed.to_owned(),
        version: 1,
        set_at: 1,
        set_by: "uid:0(root)".to_owned(),
    };
    let (same, other) = (value("A", "old"), value("B", "old"));
    for one in [&same, &other] {
        store.set_credential(one).await.unwrap();
    }
    // Set by somebody between the reading and the writing.
    store.set_credential(&value("B", "set anew")).await.unwrap();
    let anew = [
        (same.clone(), "resealed".to_owned()),
        (other, "resealed".to_owned()),
        (value("C", "never there"), "resealed".to_owned()),
    ];
    assert_eq!(store.reseal_credentials(&anew).await.unwrap(), 1);
    assert_eq!(store.reseal_credentials(&[]).await.unwrap(), 0);
    let kept = store.credentials().await.unwrap();
    let seals: Vec<&str> = kept.iter().map(|one| one.sealed.as_str()).collect();
    assert_eq!(seals, ["resealed", "set anew"]);
    assert_eq!(
        (kept[0].version, kept[0].set_at),
        (1, 1),
        "it is the same value"
    );
}
