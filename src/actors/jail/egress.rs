//! The way out of an isolate: what its definition allows, and nothing else.
//!
//! The listeners are sockets inside the isolate's network, accepted here, in the gateway's: whoever
//! comes over them is that isolate, no token says so. It asks for hosts by name; the gateway looks the
//! name up itself, refuses addresses that are not the world's, and connects to the very address it
//! looked at, so that a name cannot mean one thing when it is checked and another when it is used.
//!
//! One task for each run, which owns all others: when it is dropped, every connection is cut.

mod connection;
mod names;
mod pace;
mod places;
mod reach;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sandbox::host::Doors;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::actors::launcher::{EgressCount, OnDenied};
use crate::actors::lookup::Asker;
use crate::domain::egress::site::Site;
use crate::domain::egress::{Rule, Wanted};
use crate::domain::ids::UserId;
use crate::domain::limits::{ACCEPT_RETRY, EGRESS_DENIALS_TOLD};
use crate::domain::login::Login;

use names::Names;
use pace::Pace;
use places::Places;

pub(super) use places::Users;

/// The way out of one run; dropping it closes it.
#[derive(Debug)]
pub(super) struct Egress {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// Where a run may go, and over what.
#[derive(Debug)]
pub(super) struct Leave {
    /// What lets it go.
    pub(super) rules: Vec<Rule>,
    /// The operator's proxy, if everything goes over one.
    pub(super) proxy: Option<Site>,
    /// What that asks for.
    pub(super) proxy_login: Option<Arc<Login>>,
}

/// What all tasks of one run know.
struct Shared {
    leave: Leave,
    names: Names,
    places: Places,
    asker: Asker,
    on_denied: OnDenied,
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    denied: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Who comes over a listener.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// A client that knows of the proxy.
    Proxy,
    /// Anybody who connected to this port of any address.
    Port(u16),
}

impl Egress {
    /// Serves the listeners of a run of this user; `ports` in their order. Needs the runtime's context.
    pub(super) fn start(
        doors: Doors,
        ports: &[u16],
        leave: Leave,
        (users, user): (&Users, Option<&UserId>),
        on_denied: OnDenied,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            leave,
            names: Names::default(),
            places: users.places(user),
            asker: Asker::new(user),
            on_denied,
            connections: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let socket = UdpSocket::from_std(doors.names)?;
        tasks.spawn(names::serve(socket, Arc::clone(&shared)));
        let proxy = TcpListener::from_std(doors.proxy)?;
        tasks.spawn(listen(proxy, Way::Proxy, Arc::clone(&shared)));
        for (port, listener) in ports.iter().zip(doors.ports) {
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(listen(listener, Way::Port(*port), Arc::clone(&shared)));
        }
        let task = tokio::spawn(async move {
            // They end with us alone; one that panicked is not missed by the others.
            while tasks.join_next().await.is_some() {}
        });
        Ok(Self {
            shared,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// What went over it so far.
    pub(super) fn count(&self) -> EgressCount {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EgressCount {
            open: self.shared.places.taken(),
            connections: of(&self.shared.connections),
            sent_bytes: of(&self.shared.sent),
            received_bytes: of(&self.shared.received),
            denied: of(&self.shared.denied),
        }
    }
}

impl Shared {
    fn allows(&self, wanted: &Wanted, port: u16) -> bool {
        let mut rules = self.leave.rules.iter();
        rules.any(|rule| rule.allows(wanted, port))
    }

    /// Whether a rule for this says that its address may be private.
    fn may_be_private(&self, wanted: &Wanted, port: u16) -> bool {
        let mut rules = self.leave.rules.iter();
        rules.any(|rule| rule.is_private() && rule.allows(wanted, port))
    }

    /// Counts an attempt that was not let go, and tells of the first ones.
    fn deny(&self, target: &str, why: &str) {
        if self.denied.fetch_add(1, Ordering::Relaxed) < EGRESS_DENIALS_TOLD {
            (self.on_denied)(target, why);
        }
    }
}

async fn listen(listener: TcpListener, way: Way, shared: Arc<Shared>) {
    let mut open = JoinSet::new();
    let mut pace = Pace::new();
    loop {
        pace.next().await;
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        while open.try_join_next().is_some() {}
        // Who waits here waits in the isolate's own line.
        let Ok(place) = shared.places.take().await else {
            shared.deny("any host", "too many connections of all isolates are open");
            continue;
        };
        let shared = Arc::clone(&shared);
        open.spawn(async move {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            connection::run(client, way, &shared).await;
            drop(place);
        });
    }
}
