//! What servers tell of themselves, without being asked: that the list of their resources or prompts has changed, or
//! a resource that somebody subscribed to. Who has a stream open hears it; of tools nothing is passed on, since
//! what is offered of them is what the operator discovered ([`super::announced`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::domain::ids::{ID_BYTES, McpId, TaskId, UserId};
use crate::domain::limits::{EARS_UNHEARD_MAX, WATCHED_MAX, WATCHERS_MAX};

use super::session::SessionHandle;
use super::slot::{Principal, SlotKey};
use super::sync::Mutex;

/// Who subscribes: a session, or a subscription of a client without one.
pub type Subscriber = [u8; ID_BYTES];

/// What a server tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its list of resources has changed.
    Resources,
    /// Its list of prompts has.
    Prompts,
    /// A resource has; the line as the server wrote it.
    Updated(Bytes),
    /// What a user was sent to is done there; the line as the server wrote it.
    Elicited(Bytes),
    /// A message about a task of a client with a session.
    OfTask(Bytes),
    /// A task of a client without one stands differently.
    Task(TaskId),
}

#[derive(Debug)]
struct Ear {
    subscriber: Subscriber,
    session: Subscriber,
    user: UserId,
    /// Of which mcp; `None`: of all.
    mcp: Option<McpId>,
    tell: mpsc::Sender<(McpId, Told)>,
}

/// All that listen.
#[derive(Debug, Default)]
pub struct Ears {
    open: Mutex<HashMap<u64, Ear>>,
    opened: AtomicU64,
    changes: Changes,
}

/// Counts who comes and goes.
#[derive(Debug)]
struct Changes(watch::Sender<u64>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Changes {
    fn one_more(&self) {
        self.0
            .send_modify(|number| *number = number.wrapping_add(1));
    }
}

impl Ear {
    /// Whether an isolate speaks for it.
    fn is_served_by(&self, of: &SlotKey) -> bool {
        self.is_of(of)
            && match &of.principal {
                Principal::User(user) => *user == self.user,
                Principal::Session(_, session) => session.bits() == self.session,
                Principal::Shared => true,
            }
    }
}

/// One that listens to the servers of an mcp, or of all.
#[derive(Debug)]
pub struct Hearing {
    ears: Arc<Ears>,
    number: u64,
    told: mpsc::Receiver<(McpId, Told)>,
}

impl Ears {
    /// Listens to the servers of an mcp, or of all, that are of concern to a session. Which of all its key sees is for
    /// the listener to look.
    pub fn open(
        self: &Arc<Self>,
        session: &SessionHandle,
        subscriber: Subscriber,
        mcp: Option<McpId>,
    ) -> Hearing {
        let (tell, told) = mpsc::channel(EARS_UNHEARD_MAX);
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let ear = Ear {
            subscriber,
            session: session.id().bits(),
            user: session.user.id.clone(),
            mcp,
            tell,
        };
        self.open.lock().insert(number, ear);
        self.changes.one_more();
        Hearing {
            ears: Arc::clone(self),
            number,
            told,
        }
    }

    /// Tells all whom this isolate serves.
    pub(super) fn tell(&self, of: &SlotKey, told: &Told) {
        // What only looks what a server offers serves nobody; nobody is asked by a server of all, so nobody waits for
        // that.
        let of_all = of.principal == Principal::Shared;
        if of.is_probe() || (of_all && matches!(told, Told::Elicited(_))) {
            return;
        }
        let serves = |ear: &&Ear| ear.is_served_by(of);
        for ear in self.open.lock().values().filter(serves) {
            ear.tell(of, told);
        }
    }

    /// Tells these.
    pub(super) fn tell_some(&self, of: &SlotKey, who: &HashSet<Subscriber>, told: &Told) {
        let meant = |ear: &&Ear| ear.is_of(of) && who.contains(&ear.subscriber);
        for ear in self.open.lock().values().filter(meant) {
            ear.tell(of, told);
        }
    }

    /// Tells those of a session something of a server, whatever servers they hear.
    pub(super) fn tell_session(&self, session: &SessionHandle, of: &McpId, told: &Told) {
        let session = session.id().bits();
        let open = self.open.lock();
        for ear in open.values().filter(|ear| ear.session == session) {
            let _ = ear.tell.try_send((of.clone(), told.clone()));
        }
    }

    /// Whether anybody listens whom this isolate serves.
    pub(super) fn listen(&self, of: &SlotKey) -> bool {
        !of.is_probe() && self.open.lock().values().any(|ear| ear.is_served_by(of))
    }

    /// Changes with who listens.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.0.subscribe()
    }

    /// Whether this one listens.
    pub(super) fn is_open(&self, who: &Subscriber) -> bool {
        self.open.lock().values().any(|ear| ear.subscriber == *who)
    }

    /// Whether anybody of these listens.
    pub(super) fn hear(&self, watched: &Watched) -> bool {
        let watched = watched.0.lock();
        if watched.is_empty() {
            return false;
        }
        let open = self.open.lock();
        open.values()
            .any(|ear| watched.values().any(|who| who.contains(&ear.subscriber)))
    }
}

impl Ear {
    fn is_of(&self, of: &SlotKey) -> bool {
        self.mcp.as_ref().is_none_or(|mcp| *mcp == of.mcp)
    }

    fn tell(&self, of: &SlotKey, told: &Told) {
        // Who is behind misses it.
        let _ = self.tell.try_send((of.mcp.clone(), told.clone()));
    }
}

impl Hearing {
    /// What is told next, and by the servers of which mcp.
    pub async fn next(&mut self) -> Option<(McpId, Told)> {
        self.told.recv().await
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.ears.open.lock().remove(&self.number);
        self.ears.changes.one_more();
    }
}

/// Resources of one isolate's server, and who subscribed to them. Outlives its runs: each new one is subscribed to
/// all of them.
#[derive(Debug, Default)]
pub struct Watched(
    Mutex<HashMap<Box<str>, HashSet<Subscriber>>>,
    Changes,
    Subscribed,
);

/// Those that a server without sessions has acknowledged.
#[derive(Debug)]
struct Subscribed(watch::Sender<HashSet<Box<str>>>);

impl Default for Subscribed {
    fn default() -> Self {
        Self(watch::Sender::new(HashSet::new()))
    }
}

impl Watched {
    /// One more subscribes; gives whether nobody did before.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn add(&self, uri: &str, who: Subscriber) -> Result<bool, ()> {
        let mut watched = self.0.lock();
        if let Some(watchers) = watched.get_mut(uri) {
            if watchers.len() >= WATCHERS_MAX && !watchers.contains(&who) {
                return Err(());
            }
            watchers.insert(who);
            return Ok(false);
        }
        if watched.len() >= WATCHED_MAX {
            return Err(());
        }
        watched.insert(uri.into(), HashSet::from([who]));
        self.1.one_more();
        Ok(true)
    }

    /// One less does; gives whether nobody is left.
    pub(super) fn remove(&self, uri: &str, who: Subscriber) -> bool {
        let mut watched = self.0.lock();
        let Some(watchers) = watched.get_mut(uri) else {
            return true;
        };
        watchers.remove(&who);
        let nobody = watchers.is_empty();
        if nobody {
            watched.remove(uri);
            self.1.one_more();
        }
        nobody
    }

    /// Forgets who is not there any more.
    pub(super) fn keep(&self, is_there: impl Fn(&Subscriber) -> bool) {
        self.0.lock().retain(|_, watchers| {
            watchers.retain(&is_there);
            !watchers.is_empty()
        });
        self.1.one_more();
    }

    /// Changes with what is subscribed to.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.1.0.subscribe()
    }

    /// Its server, which has no sessions, tells of these and no others.
    pub(super) fn are_told(&self, uris: &[Box<str>]) {
        self.2.0.send_replace(uris.iter().cloned().collect());
    }

    /// Waits until it tells of this one.
    pub(super) async fn is_told(&self, uri: &str) {
        let mut told = self.2.0.subscribe();
        // It is we who hold the sender.
        let _ = told.wait_for(|told| told.contains(uri)).await;
    }

    /// Who subscribed to it.
    pub(super) fn who(&self, uri: &str) -> HashSet<Subscriber> {
        self.0.lock().get(uri).cloned().unwrap_or_default()
    }

    /// What is subscribed to.
    pub(super) fn uris(&self) -> Vec<Box<str>> {
        self.0.lock().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_watched_as_long_as_anybody_does() {
        let watched = Watched::default();
        let (ada, bob) = ([1; ID_BYTES], [2; ID_BYTES]);
        assert_eq!(watched.add("a:1", ada), Ok(true));
        assert_eq!(watched.add("a:1", bob), Ok(false));
        assert_eq!(watched.add("a:1", bob), Ok(false));
        assert!(!watched.remove("a:1", ada));
        assert!(watched.remove("a:1", bob));
        assert!(watched.remove("a:1", bob), "nobody did");
        assert!(watched.uris().is_empty());
    }

    #[test]
    fn so_many_resources_and_no_more() {
        let watched = Watched::default();
        for n in 0..WATCHED_MAX {
            assert_eq!(watched.add(&format!("a:{n}"), [1; ID_BYTES]), Ok(true));
        }
        assert_eq!(watched.add("a:x", [1; ID_BYTES]), Err(()));
        for n in 0..1_000_000 {
            assert_eq!(watched.add(&format!("b:{n}"), [1; ID_BYTES]), Err(()));
        }
        assert_eq!(watched.uris().len(), WATCHED_MAX);
        assert_eq!(watched.add("a:1", [2; ID_BYTES]), Ok(false));
        watched.keep(|who| *who == [2; ID_BYTES]);
        assert_eq!(watched.uris(), [Box::from("a:1")]);
    }
}
