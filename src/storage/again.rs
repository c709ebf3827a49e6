//! Trying a whole transaction again, where the database undid it for another's sake. Single
//! statements are tried again by their lane.

use super::error::{StoreError, is_victim};
use crate::domain::limits::STORE_WRITE_TRIES;

/// Runs a transaction until it is done, fails by itself, or was the victim too often.
pub(super) async fn again<T, F>(transaction: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut n = 1;
    loop {
        let done = transaction().await;
        match &done {
            Err(StoreError::Unavailable { source, .. })
                if is_victim(source) && n < STORE_WRITE_TRIES => {}
            _ => return done,
        }
        tokio::time::sleep(super::postgres::victims_pause(n)).await;
        n += 1;
    }
}
