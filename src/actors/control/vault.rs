//! The keys of the house, as administrators rotate them. No isolate is restarted by it.

use std::sync::Arc;

use crate::domain::code::Code;
use crate::domain::seal::MasterKeys;

use super::super::vault::{self, RotateError, RotateTokensError, VaultError};
use super::super::views::VaultView;
use super::{Control, ControlError};

impl From<VaultError> for ControlError {
    fn from(error: VaultError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<RotateError> for ControlError {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::Starting => Self::new(Code::Starting, error.to_string()),
            RotateError::Keys(keys) => {
                Self::new(Code::Conflict, keys.to_string()).next("legation vault status")
            }
            RotateError::Vault(error) => error.into(),
        }
    }
}

impl From<RotateTokensError> for ControlError {
    fn from(error: RotateTokensError) -> Self {
        match error {
            RotateTokensError::Starting => Self::new(Code::Starting, error.to_string()),
            RotateTokensError::TooMany | RotateTokensError::Changed => {
                Self::new(Code::Conflict, error.to_string()).next("legation vault status")
            }
            RotateTokensError::Vault(error) => error.into(),
        }
    }
}

impl Control {
    /// Makes a new master key and has everything sealed anew in the background.
    ///
    /// # Errors
    /// The key file cannot be written: the old key goes on.
    pub async fn rotate_master_key(&self) -> Result<VaultView, ControlError> {
        vault::rotate(&self.ctx).await?;
        self.vault().await
    }

    /// Makes a new key that signs session tokens; those of the old one work for the grace.
    ///
    /// # Errors
    /// Too many were rotated within the grace, or the store is away.
    pub async fn rotate_token_key(&self) -> Result<VaultView, ControlError> {
        vault::rotate_tokens(&self.ctx).await?;
        self.vault().await
    }

    /// Which keys there are, and how far a rotation is.
    ///
    /// # Errors
    /// The store is away.
    pub async fn vault(&self) -> Result<VaultView, ControlError> {
        let keys = self.master_keys()?;
        let (token_key, token_keys_in_grace) = vault::token_keys(&self.ctx).await?;
        let (stats, all) = (self.ctx.vault.stats(), self.ctx.credentials.all());
        let current = Some(keys.current_id());
        let older = all
            .iter()
            .filter(|one| vault::key_of(&one.sealed) != current);
        Ok(VaultView {
            master_key: keys.current_id(),
            master_keys: keys.ids(),
            rotating: !keys.is_settled(),
            remaining: older.count() as u64,
            damaged: if keys.is_settled() {
                0
            } else {
                stats.damaged()
            },
            resealed: stats.resealed(),
            credentials: all.len() as u64,
            token_key,
            token_keys_in_grace,
        })
    }

    pub(super) fn master_keys(&self) -> Result<Arc<MasterKeys>, ControlError> {
        self.ctx.vault.keys().ok_or_else(|| {
            let text = "the keys are not loaded yet; try again in a moment";
            ControlError::new(Code::Starting, text)
        })
    }
}
