//! Looking a host's name up: on a thread, since the system's resolver blocks, and on so many at most.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::sync::Mutex;
use crate::domain::ids::UserId;
use crate::domain::limits::{
    EGRESS_ADDRESSES_MAX, EGRESS_LOOKUPS_ALL_MAX, EGRESS_LOOKUPS_MAX, EGRESS_LOOKUPS_USER_MAX,
};

/// Threads that look up hosts.
static LOOKUPS: Semaphore = Semaphore::const_new(EGRESS_LOOKUPS_ALL_MAX);
/// Those of the users that have a run which asks.
static USERS: Users = Users(Mutex::new(BTreeMap::new()));

#[derive(Debug)]
struct Users(Mutex<BTreeMap<UserId, Weak<Semaphore>>>);

/// A run that has names looked up.
#[derive(Debug)]
pub(super) struct Asker {
    own: Arc<Semaphore>,
    /// `None` for a shared instance, which is nobody's.
    user: Option<Arc<Semaphore>>,
}

// === impl Users ===

impl Users {
    fn of(&self, user: &UserId) -> Arc<Semaphore> {
        let mut users = self.0.lock();
        if let Some(places) = users.get(user).and_then(Weak::upgrade) {
            return places;
        }
        // Those whose runs are over.
        users.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(EGRESS_LOOKUPS_USER_MAX));
        users.insert(user.clone(), Arc::downgrade(&places));
        places
    }
}

// === impl Asker ===

impl Asker {
    /// A run of this user.
    pub(super) fn new(user: Option<&UserId>) -> Self {
        Self {
            own: Arc::new(Semaphore::new(EGRESS_LOOKUPS_MAX)),
            user: user.map(|user| USERS.of(user)),
        }
    }

    /// The addresses of a name, the first ones of them; why there are none.
    pub(super) async fn addresses(
        &self,
        name: String,
        port: u16,
    ) -> Result<Vec<SocketAddr>, String> {
        let failed = |why: String| format!("it cannot be looked up: {why}");
        // None is ever closed. The thread keeps all as long as it takes, also if we are gone: one whose
        // lookups hang must not take the places of others by asking again.
        let own = Arc::clone(&self.own).acquire_owned().await;
        let of_user = match &self.user {
            Some(user) => user.clone().acquire_owned().await.ok(),
            None => None,
        };
        let of_all = LOOKUPS.acquire().await;
        let looked_up = spawn_blocking(move || {
            let _places = (own, of_user, of_all);
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
}

/// Whether an address is one of this host's, whatever else it looks like: the way to it begins where it ends. No
/// packet is sent.
///
/// # Errors
/// There is no way to it.
pub(super) fn is_own(address: IpAddr) -> io::Result<bool> {
    let address = address.to_canonical();
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Any port that is one.
    socket.connect((address, 9))?;
    Ok(socket.local_addr()?.ip() == address)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn user(n: u8) -> UserId {
        UserId::from_random([n; ID_BYTES])
    }

    #[tokio::test(start_paused = true)]
    async fn all_runs_of_a_user_look_up_no_more_than_one_may() {
        let first = Asker::new(Some(&user(201)));
        let mut held = Vec::new();
        for _ in 0..EGRESS_LOOKUPS_USER_MAX {
            let places = first.user.clone().unwrap();
            held.push(places.acquire_owned().await.unwrap());
        }
        let waits = async |asker: &Asker| {
            let asked = asker.addresses("127.0.0.1".to_owned(), 1);
            let wait = Duration::from_secs(1);
            tokio::time::timeout(wait, asked).await.is_err()
        };
        assert!(
            waits(&Asker::new(Some(&user(201)))).await,
            "another run of hers"
        );
        assert!(!waits(&Asker::new(Some(&user(202)))).await);
        assert!(!waits(&Asker::new(None)).await);
        held.pop();
        assert!(!waits(&first).await, "what is given back is taken");
    }

    #[test]
    fn who_has_no_run_is_not_kept() {
        let users = Users(Mutex::new(BTreeMap::new()));
        drop(users.of(&user(1)));
        let _kept = users.of(&user(2));
        assert_eq!(users.0.lock().len(), 1);
    }

    #[test]
    fn the_host_knows_its_own_addresses() {
        for own in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert!(is_own(own.parse().unwrap()).unwrap(), "{own}");
        }
        // Nobody's; without a network there is no way to it.
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!is_own(other.parse().unwrap()).unwrap_or(false), "{other}");
        }
    }
}
