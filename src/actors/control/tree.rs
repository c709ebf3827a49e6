//! The supervision tree as a picture: every actor with its state, its last transitions and what it
//! supervises. Drawn from cells; asks no actor and reads no file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::account::User;
use crate::domain::ids::UserId;
use crate::domain::name::Name;

use super::super::record::RunRecord;
use super::super::root::Service;
use super::super::session::SessionHandle;
use super::super::slot::{self, Occupant, Slot};
use super::super::tree::Branch;
use super::super::views::{Transition, TreeNode};
use super::view::{isolate, ms};
use super::{Control, ControlError};
use crate::domain::code::Code;

/// Sessions shown in the tree, newest first; `session list` has them all.
const SESSIONS_SHOWN: usize = 20;

impl Control {
    /// The supervision tree as it stands.
    #[must_use]
    pub fn tree(&self) -> TreeNode {
        let services = Service::ORDER
            .into_iter()
            .map(|service| {
                let mut node = self.service(service);
                node.children = self.below(service);
                node
            })
            .collect();
        let up = self.ctx.wall_ms().saturating_sub(self.ctx.started_at);
        let up = u64::try_from(up).unwrap_or(0);
        TreeNode {
            id: "root".to_owned(),
            name: "root".to_owned(),
            kind: "root".to_owned(),
            state: if self.ctx.is_stopping() {
                "stopping"
            } else {
                "up"
            }
            .to_owned(),
            since_ms_ago: up,
            note: "one_for_one, ordered start, reverse stop".to_owned(),
            // It is never restarted: when it ends, so does the server.
            transitions: vec![Transition {
                ms_ago: up,
                to: "up".to_owned(),
                cause: "started".to_owned(),
            }],
            children: services,
            ..TreeNode::default()
        }
    }

    /// The one actor of that id, name, or beginning of an id, with all below it.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn actor(&self, wanted: &str) -> Result<TreeNode, ControlError> {
        let tree = self.tree();
        let mut exact = Vec::new();
        let mut begun = Vec::new();
        tree.walk(&mut |node| {
            let own = node
                .id
                .rsplit_once('/')
                .map_or(node.id.as_str(), |(kind, id)| {
                    // `run/iso_…/3` is found by its whole id only.
                    if kind.contains('/') {
                        node.id.as_str()
                    } else {
                        id
                    }
                });
            let bare = own.split_once('_').map_or(own, |(_, bare)| bare);
            if [node.id.as_str(), own, node.name.as_str()].contains(&wanted) {
                exact.push(node);
            } else if !wanted.is_empty() && (own.starts_with(wanted) || bare.starts_with(wanted)) {
                begun.push(node);
            }
        });
        let hits = if exact.is_empty() { begun } else { exact };
        match hits.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(
                ControlError::new(Code::NotFound, format!("no actor is called `{wanted}`"))
                    .next("legation tree -o name"),
            ),
            [first, second, ..] => {
                let message = format!(
                    "several actors fit `{wanted}`: {}, {}, …",
                    first.id, second.id
                );
                Err(ControlError::new(Code::Conflict, message).next("give the whole id"))
            }
        }
    }

    /// One service, without what is below it.
    pub(super) fn service(&self, service: Service) -> TreeNode {
        let note = match service {
            Service::Sessions => format!("{} live", self.live_sessions().len()),
            Service::Listeners => self.ctx.client_url(),
            _ => String::new(),
        };
        let mut node = TreeNode {
            id: format!("service/{}", service.name()),
            name: service.name().to_owned(),
            kind: "service".to_owned(),
            state: "down".to_owned(),
            note,
            ..TreeNode::default()
        };
        if let Some(branch) = self.ctx.tree.get(service.name()) {
            grow(&mut node, &branch);
        }
        node
    }

    fn below(&self, service: Service) -> Vec<TreeNode> {
        match service {
            Service::Shared => {
                let mut nodes: Vec<_> = self
                    .ctx
                    .slots_of(None)
                    .iter()
                    .map(|one| node(one))
                    .collect();
                sort(&mut nodes);
                nodes
            }
            Service::Users => self.users(),
            Service::Sessions => self.session_nodes(),
            _ => Vec::new(),
        }
    }

    fn users(&self) -> Vec<TreeNode> {
        let mut users: BTreeMap<(Name, UserId), Vec<Arc<Slot>>> = BTreeMap::new();
        for slot in self.ctx.slots.pin().values() {
            if let Some(owner) = &slot.owner {
                let key = (owner.name.clone(), owner.id.clone());
                users.entry(key).or_default().push(Arc::clone(slot));
            }
        }
        users
            .into_iter()
            .map(|((name, id), slots)| self.user_node(&id, &name, &slots))
            .collect()
    }

    /// A user with all its isolates; `None` once it has no slot.
    pub(super) fn user(&self, user: &UserId) -> Option<TreeNode> {
        let slots = self.ctx.slots_of(Some(user));
        let owner: &User = slots.first()?.owner.as_ref()?;
        Some(self.user_node(user, &owner.name, &slots))
    }

    fn user_node(&self, user: &UserId, name: &Name, slots: &[Arc<Slot>]) -> TreeNode {
        let mut children: Vec<_> = slots.iter().map(|slot| node(slot)).collect();
        sort(&mut children);
        let mut made = TreeNode {
            id: format!("user/{user}"),
            name: name.to_string(),
            kind: "user".to_owned(),
            state: "down".to_owned(),
            children,
            ..TreeNode::default()
        };
        if let Some(branch) = self.ctx.tree.user(user) {
            grow(&mut made, &branch);
        }
        made
    }

    fn live_sessions(&self) -> Vec<Arc<SessionHandle>> {
        let sessions = self.ctx.sessions.pin();
        sessions
            .values()
            .filter(|session| !session.is_revoked())
            .cloned()
            .collect()
    }

    /// The newest sessions.
    pub(super) fn session_nodes(&self) -> Vec<TreeNode> {
        let now = self.ctx.wall_ms();
        let mut live = self.live_sessions();
        live.sort_by(|a, b| {
            b.row
                .created_at
                .cmp(&a.row.created_at)
                .then(a.id().cmp(b.id()))
        });
        live.iter()
            .take(SESSIONS_SHOWN)
            .map(|session| session_node(session, now))
            .collect()
    }
}

/// What is known of a supervised actor.
fn grow(node: &mut TreeNode, branch: &Branch) {
    node.state = branch.state.to_owned();
    node.since_ms_ago = ms(branch.since.elapsed());
    node.restarts = branch.restarts;
    node.transitions = branch.transitions.iter().rev().map(transition).collect();
}

fn sort(nodes: &mut [TreeNode]) {
    nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
}

fn transition(step: &slot::Transition) -> Transition {
    Transition {
        ms_ago: ms(step.at.elapsed()),
        to: step.to.to_owned(),
        cause: step.cause.clone(),
    }
}

fn session_node(session: &SessionHandle, now: i64) -> TreeNode {
    let ago = |at: i64| u64::try_from(now.saturating_sub(at)).unwrap_or(0);
    let step = |at: i64, to: &str, cause: String| Transition {
        ms_ago: ago(at),
        to: to.to_owned(),
        cause,
    };
    let registered = format!("registered with key {}", session.key);
    let mut transitions = vec![step(session.row.created_at, "up", registered)];
    if session.seen_at() > session.row.created_at {
        let heard = step(session.seen_at(), "up", "its last request".to_owned());
        transitions.insert(0, heard);
    }
    TreeNode {
        id: format!("session/{}", session.id()),
        name: session.id().to_string(),
        kind: "session".to_owned(),
        state: "up".to_owned(),
        since_ms_ago: ago(session.row.created_at),
        note: format!("{} on {}", session.user.name, session.row.host_tool),
        transitions,
        ..TreeNode::default()
    }
}

/// An isolate or instance with its run.
pub(super) fn node(slot: &Slot) -> TreeNode {
    let view = isolate(slot);
    let children = slot.occupant().map(|run| run_node(slot, &run, &view.state));
    TreeNode {
        id: format!("isolate/{}", view.id),
        name: format!("{} {}", view.mcp, view.id),
        kind: if slot.owner.is_some() {
            "isolate"
        } else {
            "instance"
        }
        .to_owned(),
        state: view.state.clone(),
        since_ms_ago: view.since_ms_ago,
        restarts: view.restarts,
        pid: None,
        backoff_ms: view.backoff_ms,
        last_verdict: view.last_verdict.clone(),
        note: String::new(),
        transitions: slot.transitions().iter().rev().map(transition).collect(),
        isolate: Some(Box::new(view)),
        children: children.into_iter().collect(),
    }
}

fn run_node(slot: &Slot, run: &Occupant, state: &str) -> TreeNode {
    TreeNode {
        id: format!("run/{}/{}", slot.id, run.epoch),
        name: format!("run {}", run.epoch),
        kind: "run".to_owned(),
        state: state.to_owned(),
        since_ms_ago: ms(run.record.started.elapsed()),
        pid: run.record.facts().pid,
        note: format!(
            "{} calls, {} in flight",
            run.handle.calls(),
            run.handle.in_flight()
        ),
        transitions: steps(&run.record),
        ..TreeNode::default()
    }
}

/// What a run went through, newest first.
fn steps(record: &RunRecord) -> Vec<Transition> {
    let facts = record.facts();
    let lived = facts.lived.unwrap_or_else(|| record.started.elapsed());
    let since = |at: Duration| ms(lived.saturating_sub(at));
    let mut steps = vec![Transition {
        ms_ago: ms(lived),
        to: "starting".to_owned(),
        cause: "started by its isolate".to_owned(),
    }];
    let mut at = Duration::ZERO;
    for (name, took) in &facts.phases {
        at += *took;
        steps.push(Transition {
            ms_ago: since(at),
            to: "starting".to_owned(),
            cause: format!("{name} done in {} ms", took.as_millis()),
        });
    }
    if let Some(ready) = facts.ready_after {
        steps.push(Transition {
            ms_ago: since(ready),
            to: "ready".to_owned(),
            cause: "the handshake is done and its tools are listed".to_owned(),
        });
    }
    if let Some(verdict) = &facts.verdict {
        steps.push(Transition {
            ms_ago: 0,
            to: "ending".to_owned(),
            cause: verdict.to_string(),
        });
    }
    steps.reverse();
    steps
}
