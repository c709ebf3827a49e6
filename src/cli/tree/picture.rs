//! The picture a follower keeps: the last snapshot with all changes since put in place.

use crate::actors::control::News;
use crate::actors::views::{IsolateView, Status, TreeNode};

/// The tree and the server as they are now, as far as they were told.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) tree: TreeNode,
    pub(super) status: Status,
    pub(super) seq: u64,
}

impl Picture {
    /// Lets time pass: ages grow and waits shrink by so many milliseconds.
    pub(super) fn advance(&mut self, ms: u64) {
        advance(&mut self.tree, ms);
        self.status.up_ms += ms;
    }

    /// Puts news in place. Call [`Picture::advance`] first: what is new is of this moment.
    pub(super) fn put(&mut self, news: News) {
        match news {
            News::Snapshot { seq, status, tree } => {
                (self.seq, self.status, self.tree) = (seq, *status, *tree);
            }
            News::Change {
                seq,
                parent,
                place,
                node,
                keep_children,
                ..
            } => {
                self.seq = seq;
                self.replace(&parent, &place, node.map(|node| *node), keep_children);
            }
            News::Usage {
                seq,
                status,
                isolates,
            } => {
                (self.seq, self.status) = (seq, *status);
                for one in isolates {
                    self.refresh(one);
                }
            }
            News::Beat { seq } | News::End { seq } => self.seq = seq,
        }
    }

    fn replace(&mut self, parent: &str, place: &str, node: Option<TreeNode>, keep: bool) {
        // A parent that is not there is below what was cut off, or the next snapshot brings it.
        let Some(parent) = self.tree.find_mut(parent) else {
            return;
        };
        let at = parent.children.iter().position(|child| child.id == place);
        match (at, node) {
            (Some(at), Some(mut node)) => {
                let Some(old) = parent.children.get_mut(at) else {
                    return;
                };
                if keep {
                    node.children = std::mem::take(&mut old.children);
                }
                *old = node;
            }
            (Some(at), None) => {
                parent.children.remove(at);
            }
            (None, Some(node)) => {
                let key = |node: &TreeNode| (node.name.clone(), node.id.clone());
                let new = key(&node);
                let at = parent.children.partition_point(|child| key(child) < new);
                parent.children.insert(at, node);
            }
            (None, None) => {}
        }
    }

    fn refresh(&mut self, figures: IsolateView) {
        if let Some(node) = self.tree.find_mut(&format!("isolate/{}", figures.id)) {
            node.isolate = Some(Box::new(figures));
        }
    }
}

fn advance(node: &mut TreeNode, ms: u64) {
    node.since_ms_ago = node.since_ms_ago.saturating_add(ms);
    node.backoff_ms = node.backoff_ms.map(|left| left.saturating_sub(ms));
    for step in &mut node.transitions {
        step.ms_ago = step.ms_ago.saturating_add(ms);
    }
    for child in &mut node.children {
        advance(child, ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, children: Vec<TreeNode>) -> TreeNode {
        TreeNode {
            id: id.into(),
            name: id.into(),
            since_ms_ago: 5,
            children,
            ..TreeNode::default()
        }
    }

    fn picture() -> Picture {
        let users = node(
            "service/users",
            vec![node("user/b", vec![node("isolate/1", vec![])])],
        );
        Picture {
            tree: node("root", vec![node("service/audit", vec![]), users]),
            ..Picture::default()
        }
    }

    fn change(parent: &str, place: &str, node: Option<TreeNode>, keep_children: bool) -> News {
        News::Change {
            seq: 9,
            actor: place.into(),
            to: "up".into(),
            cause: String::new(),
            parent: parent.into(),
            place: place.into(),
            node: node.map(Box::new),
            keep_children,
        }
    }

    fn ids(picture: &Picture) -> Vec<&str> {
        let mut ids = Vec::new();
        picture.tree.walk(&mut |node| ids.push(node.id.as_str()));
        ids
    }

    #[test]
    fn nodes_come_change_and_go_in_their_order() {
        let mut picture = picture();
        picture.put(change(
            "service/users",
            "user/a",
            Some(node("user/a", vec![])),
            false,
        ));
        picture.put(change(
            "service/users",
            "user/c",
            Some(node("user/c", vec![])),
            false,
        ));
        picture.put(change(
            "service/users",
            "user/b",
            Some(node("user/b", vec![])),
            false,
        ));
        let all = [
            "root",
            "service/audit",
            "service/users",
            "user/a",
            "user/b",
            "user/c",
        ];
        assert_eq!(ids(&picture), all);
        picture.put(change("service/users", "user/b", None, false));
        picture.put(change("service/users", "user/b", None, false));
        assert_eq!(ids(&picture).len(), all.len() - 1);
        assert_eq!(picture.seq, 9);
    }

    #[test]
    fn a_service_that_changes_keeps_what_is_below_it() {
        let mut picture = picture();
        picture.put(change(
            "root",
            "service/users",
            Some(node("service/users", vec![])),
            true,
        ));
        assert!(ids(&picture).contains(&"isolate/1"));
        picture.put(change("nowhere", "x", Some(node("x", vec![])), false));
        assert!(!ids(&picture).contains(&"x"));
    }

    #[test]
    fn time_passes_for_what_was_there() {
        let mut picture = picture();
        picture.advance(1000);
        picture.put(change(
            "service/users",
            "user/a",
            Some(node("user/a", vec![])),
            false,
        ));
        assert_eq!(picture.tree.since_ms_ago, 1005);
        assert_eq!(picture.tree.find_mut("user/a").unwrap().since_ms_ago, 5);
    }
}
