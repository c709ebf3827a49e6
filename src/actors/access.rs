//! The keys a request path needs: opened by the vault, read by whoever registers or authenticates.

use crate::domain::token::{Pepper, TokenKeys};

/// The keys a request path needs.
#[derive(Debug)]
pub struct AccessKeys {
    /// Sign and verify session tokens.
    pub tokens: TokenKeys,
    /// Digests client keys.
    pub pepper: Pepper,
}
