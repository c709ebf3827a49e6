//! Looking a host's name up: on a thread, since the system's resolver blocks, and on so many at most.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::domain::limits::{EGRESS_ADDRESSES_MAX, EGRESS_LOOKUPS_ALL_MAX};

/// Threads that look up hosts.
static LOOKUPS: Semaphore = Semaphore::const_new(EGRESS_LOOKUPS_ALL_MAX);

/// The addresses of a name, the first ones of them; why there are none.
pub(super) async fn addresses(
    name: String,
    port: u16,
    places: &Arc<Semaphore>,
) -> Result<Vec<SocketAddr>, String> {
    let failed = |why: String| format!("it cannot be looked up: {why}");
    // Neither is ever closed. The thread keeps both as long as it takes, also if we are gone: one whose
    // lookups hang must not take the places of others by asking again.
    let own = Arc::clone(places).acquire_owned().await;
    let of_all = LOOKUPS.acquire().await;
    let looked_up = spawn_blocking(move || {
        let _places = (own, of_all);
        (name.as_str(), port).to_socket_addrs()
    });
    let mut found: Vec<SocketAddr> = looked_up
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?
        .collect();
    found.dedup();
    found.truncate(EGRESS_ADDRESSES_MAX);
    Ok(found)
}
