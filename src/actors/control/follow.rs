//! The live tree: a picture, then numbered changes, for as long as somebody follows.
//!
//! What a change carries is whole: the node as it is when the line is made, so lines may be
//! applied twice and none is built on another. A follower that falls behind gets a fresh picture.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::domain::code::Code;
use crate::domain::ids::{IsolateId, UserId};
use crate::domain::limits::{FOLLOW_BEAT, FOLLOW_USAGE_EVERY, FOLLOWERS_MAX};

use super::super::changes::{Change, Who};
use super::super::root::Service;
use super::super::slot::SlotKey;
use super::super::views::{IsolateView, Status, TreeNode};
use super::tree::node;
use super::{Control, ControlError};

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum News {
    /// Everything. The first line, and again whenever lines were missed.
    Snapshot {
        /// The last change it holds.
        seq: u64,
        /// The server.
        status: Box<Status>,
        /// The tree.
        tree: Box<TreeNode>,
    },
    /// An actor entered a state.
    Change {
        /// Its number: greater than the last line's. A gap is of changes that this line holds too.
        seq: u64,
        /// Who: an id of the tree.
        actor: String,
        /// The state it entered.
        to: String,
        /// Why.
        cause: String,
        /// Whose child `node` is.
        parent: String,
        /// The id of the node to put in place: the actor's own, or its user's.
        place: String,
        /// The node as it is now; `None`: it is no more.
        node: Option<Box<TreeNode>>,
        /// `node` comes without its children: those you have stay.
        keep_children: bool,
    },
    /// The counters of all isolates, every five seconds, and the server's.
    Usage {
        /// The last change before it.
        seq: u64,
        /// The server.
        status: Box<Status>,
        /// Each isolate.
        isolates: Vec<IsolateView>,
    },
    /// Nothing changed; the connection lives.
    Beat {
        /// The last change.
        seq: u64,
    },
    /// The server stops; no line follows.
    End {
        /// The last change.
        seq: u64,
    },
}

/// A follower. Dropping it ends it.
#[derive(Debug)]
pub struct Follower {
    control: Control,
    changes: Receiver<Arc<Change>>,
    seq: u64,
    first: bool,
    ended: bool,
    /// Changes were missed.
    behind: bool,
    /// Received and not yet told.
    held: Option<Arc<Change>>,
    usage: Interval,
    beat: Interval,
}

impl Control {
    /// Follows the tree.
    ///
    /// # Errors
    /// [`FOLLOWERS_MAX`] follow already.
    pub fn follow(&self) -> Result<Follower, ControlError> {
        if self.ctx.changes.followers() >= FOLLOWERS_MAX {
            let message = format!("{FOLLOWERS_MAX} follow the tree already, which is the most");
            return Err(ControlError::new(Code::Busy, message)
                .next("end one of them, or ask for /v1/tree now and then"));
        }
        let (seq, changes) = self.ctx.changes.follow();
        let every = |period| {
            let mut every = interval_at(Instant::now() + period, period);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        };
        Ok(Follower {
            control: self.clone(),
            changes,
            seq,
            first: true,
            ended: false,
            behind: false,
            held: None,
            usage: every(FOLLOW_USAGE_EVERY),
            beat: every(FOLLOW_BEAT),
        })
    }
}

impl Follower {
    /// The next line; `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<News> {
        if self.ended {
            return None;
        }
        if std::mem::take(&mut self.first) {
            return Some(self.snapshot());
        }
        if let Some(change) = self.held.take() {
            return Some(self.change(&change));
        }
        if std::mem::take(&mut self.behind) {
            return Some(self.catch_up());
        }
        let mut stopping = self.control.ctx.stopping.subscribe();
        let news = tokio::select! {
            biased;
            change = self.changes.recv() => match change {
                Ok(change) => {
                    let change = self.newest_of_sessions(change);
                    self.change(&change)
                }
                Err(RecvError::Lagged(_)) => self.catch_up(),
                Err(RecvError::Closed) => self.end(),
            },
            _ = stopping.wait_for(|stopping| *stopping) => self.end(),
            _ = self.usage.tick() => News::Usage {
                seq: self.seq,
                status: Box::new(self.control.status()),
                isolates: self.control.isolates(),
            },
            _ = self.beat.tick() => News::Beat { seq: self.seq },
        };
        self.beat.reset();
        Some(news)
    }

    /// Sessions are told of all at once, so of a crowd that registers one line is enough.
    fn newest_of_sessions(&mut self, mut change: Arc<Change>) -> Arc<Change> {
        while matches!(change.who, Who::Session(_)) {
            match self.changes.try_recv() {
                Ok(next) if matches!(next.who, Who::Session(_)) => change = next,
                Ok(next) => {
                    self.held = Some(next);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => {
                    self.behind = true;
                    break;
                }
            }
        }
        change
    }

    fn end(&mut self) -> News {
        self.ended = true;
        News::End { seq: self.seq }
    }

    fn catch_up(&mut self) -> News {
        // Followed anew before the picture is taken: nothing falls in between.
        (self.seq, self.changes) = self.control.ctx.changes.follow();
        self.snapshot()
    }

    fn snapshot(&self) -> News {
        News::Snapshot {
            seq: self.seq,
            status: Box::new(self.control.status()),
            tree: Box::new(self.control.tree()),
        }
    }

    fn change(&mut self, change: &Change) -> News {
        self.seq = change.seq;
        let shown = self.control.shown(&change.who);
        News::Change {
            seq: change.seq,
            actor: shown.actor,
            to: change.to.to_owned(),
            cause: change.cause.clone(),
            parent: shown.parent,
            place: shown.place,
            node: shown.node.map(Box::new),
            keep_children: shown.keep_children,
        }
    }
}

/// Where a change is to be seen.
struct Shown {
    actor: String,
    parent: String,
    place: String,
    node: Option<TreeNode>,
    keep_children: bool,
}

impl Control {
    fn shown(&self, who: &Who) -> Shown {
        match who {
            Who::Service(name) => {
                let service = Service::ORDER.into_iter().find(|one| one.name() == *name);
                let id = format!("service/{name}");
                Shown {
                    actor: id.clone(),
                    parent: "root".to_owned(),
                    place: id,
                    node: service.map(|service| self.service(service)),
                    keep_children: true,
                }
            }
            Who::User(user) => self.shown_user(user, format!("user/{user}")),
            Who::Isolate(key, id) => self.shown_isolate(key, id),
            Who::Session(session) => {
                let mut sessions = self.service(Service::Sessions);
                sessions.children = self.session_nodes();
                Shown {
                    actor: format!("session/{session}"),
                    parent: "root".to_owned(),
                    place: sessions.id.clone(),
                    node: Some(sessions),
                    keep_children: false,
                }
            }
        }
    }

    /// A user's isolates are few, so a user is told of as a whole.
    fn shown_user(&self, user: &UserId, actor: String) -> Shown {
        Shown {
            actor,
            parent: "service/users".to_owned(),
            place: format!("user/{user}"),
            node: self.user(user),
            keep_children: false,
        }
    }

    fn shown_isolate(&self, key: &SlotKey, id: &IsolateId) -> Shown {
        let actor = format!("isolate/{id}");
        if let Some(user) = key.principal.user() {
            return self.shown_user(user, actor);
        }
        let slot = self.ctx.slots.pin().get(key).cloned();
        Shown {
            parent: "service/shared".to_owned(),
            place: actor.clone(),
            actor,
            // Another slot may have taken its place under the same key.
            node: slot.filter(|slot| slot.id == *id).map(|slot| node(&slot)),
            keep_children: false,
        }
    }
}
