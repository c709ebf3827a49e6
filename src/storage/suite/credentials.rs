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
}
