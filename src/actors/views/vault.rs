//! What is shown of keys: which there are, never one.

use serde::{Deserialize, Serialize};

/// The keys of the house, and how far a rotation is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultView {
    /// The master key that seals.
    pub master_key: u32,
    /// All that are kept, ascending.
    pub master_keys: Vec<u32>,
    /// Whether values are being sealed anew.
    pub rotating: bool,
    /// Credentials that are still under an older key.
    pub remaining: u64,
    /// Of these, those that do not open and keep an older key.
    pub damaged: u64,
    /// Values sealed anew since the start.
    pub resealed: u64,
    /// Credentials that are set.
    pub credentials: u64,
    /// The key that signs session tokens.
    pub token_key: u8,
    /// Rotated ones whose tokens still work.
    pub token_keys_in_grace: Vec<u8>,
}
