//! Tasks: calls whose client does not wait for them. What a task is lives here, and not with its server: it stays when
//! the server's run ends, so that whoever asks hears how it ended; it is found by whose key made it, and by nobody else.
//!
//! Invariant: a task that can be found has one end, and keeps it until its time is over or it makes room for others.

mod question;
mod task;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::ids::{TaskId, UserId};
use crate::domain::limits::{
    TASK_BYTES_ALL_MAX, TASK_BYTES_USER_MAX, TASKS_LIVING_MAX, TASKS_MAX, TASKS_USER_MAX,
};

use super::sync::Mutex;
pub use question::TaskQuestion;
pub use task::{End, Maker, Task};

/// All of them.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    next: u64,
    of: HashMap<UserId, BTreeMap<u64, Arc<Task>>>,
    ids: HashMap<TaskId, (UserId, u64)>,
    bytes: usize,
}

/// There is no room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Its user has enough under way.
    User,
    /// All users together have.
    All,
}

impl Tasks {
    /// Takes a new task in. Of too many of one user, the one that ended first is forgotten.
    pub(super) fn enter(&self, task: &Arc<Task>) -> Result<(), Full> {
        let mut all = self.0.lock();
        let mut gone = Vec::new();
        let own = all.of.get(&task.user);
        let living = own.into_iter().flat_map(BTreeMap::values);
        if living.filter(|task| !task.has_ended()).count() >= TASKS_LIVING_MAX {
            return Err(Full::User);
        }
        if own.is_some_and(|own| own.len() >= TASKS_USER_MAX) {
            let user = task.user.clone();
            gone.extend(all.forget_one(&user));
        }
        if all.ids.len() >= TASKS_MAX {
            let most = all.of.iter().max_by_key(|(_, own)| own.len());
            let user = most.map(|(user, _)| user.clone());
            gone.extend(user.and_then(|user| all.forget_one(&user)));
        }
        if all.ids.len() >= TASKS_MAX {
            return Err(Full::All);
        }
        let number = all.next;
        all.next += 1;
        let place = (task.user.clone(), number);
        all.ids.insert(task.id.clone(), place);
        let own = all.of.entry(task.user.clone()).or_default();
        own.insert(number, Arc::clone(task));
        drop(all);
        drop(gone);
        Ok(())
    }

    /// The task of this id.
    #[must_use]
    pub fn find(&self, id: &TaskId) -> Option<Arc<Task>> {
        let all = self.0.lock();
        let (user, number) = all.ids.get(id)?;
        all.of.get(user)?.get(number).cloned()
    }

    /// Those of a user from this number on, oldest first, with their numbers.
    #[must_use]
    pub fn of(&self, user: &UserId, from: u64) -> Vec<(u64, Arc<Task>)> {
        let all = self.0.lock();
        let own = all.of.get(user).into_iter();
        own.flat_map(|own| own.range(from..))
            .map(|(number, task)| (*number, Arc::clone(task)))
            .collect()
    }

    /// How many are under way, and how many are kept.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let all = self.0.lock();
        let living = all.of.values().flat_map(BTreeMap::values);
        let living = living.filter(|task| !task.has_ended()).count();
        (living, all.ids.len())
    }

    pub(super) fn forget(&self, id: &TaskId) {
        let gone = self.0.lock().forget(id);
        drop(gone);
    }

    /// Makes room for what a task ended with; `false` if there is none for that much.
    pub(super) fn keep(&self, task: &Task, bytes: usize) -> bool {
        let mut gone = Vec::new();
        let mut all = self.0.lock();
        let is_kept = loop {
            let own = all
                .of
                .get(&task.user)
                .into_iter()
                .flat_map(BTreeMap::values);
            let own: usize = own.map(|task| task.kept()).sum();
            let fits =
                own + bytes <= TASK_BYTES_USER_MAX && all.bytes + bytes <= TASK_BYTES_ALL_MAX;
            if fits {
                break true;
            }
            match all.forget_one(&task.user) {
                Some(one) => gone.push(one),
                None => break false,
            }
        };
        if is_kept && all.ids.contains_key(&task.id) {
            all.bytes += bytes;
            task.keeps(bytes);
        }
        drop(all);
        drop(gone);
        is_kept
    }

    /// Forgets those whose time is over.
    pub(super) fn sweep(&self, now: Instant) {
        let mut all = self.0.lock();
        let over: Vec<TaskId> = all
            .of
            .values()
            .flat_map(BTreeMap::values)
            .filter(|task| task.is_over(now))
            .map(|task| task.id.clone())
            .collect();
        let gone: Vec<_> = over.iter().filter_map(|id| all.forget(id)).collect();
        drop(all);
        drop(gone);
    }
}

impl All {
    fn forget(&mut self, id: &TaskId) -> Option<Arc<Task>> {
        let (user, number) = self.ids.remove(id)?;
        let own = self.of.get_mut(&user)?;
        let task = own.remove(&number);
        if own.is_empty() {
            self.of.remove(&user);
        }
        let kept = task.as_ref().map_or(0, |task| task.kept());
        self.bytes = self.bytes.saturating_sub(kept);
        task
    }

    /// Forgets the one of a user that ended first.
    fn forget_one(&mut self, user: &UserId) -> Option<Arc<Task>> {
        let own = self.of.get(user)?.values();
        let ended = own.filter_map(|task| Some((task.ended_at()?, task.id.clone())));
        let (_, first) = ended.min_by(|(a, _), (b, _)| a.cmp(b))?;
        self.forget(&first)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::calls::Tag;
    use super::super::clock::SetClock;
    use super::*;
    use crate::domain::ids::{ID_BYTES, McpId};

    /// The task with this number, of this user.
    fn task(user: u8, number: u8) -> Arc<Task> {
        let tag = Tag::for_tests([user; ID_BYTES]);
        let mut bits = [user; ID_BYTES];
        bits[0] = number;
        let what = (McpId::from_random(bits), tag.tool);
        let own = (
            TaskId::from_random(bits),
            Arc::new(SetClock::at(1)) as _,
            Arc::default(),
        );
        Task::new(&tag.session, what, Maker::default(), own).0
    }

    fn end(task: &Task) {
        let result = Bytes::from_static(b"{}");
        let is_error = false;
        assert!(task.end(End::Result { result, is_error }));
        assert!(!task.end(End::Result {
            result: Bytes::new(),
            is_error: true
        }));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_of_a_user_are_under_way_and_those_that_ended_first_make_room() {
        let tasks = Tasks::default();
        let mut living = Vec::new();
        for number in 0..TASKS_LIVING_MAX {
            living.push(task(1, u8::try_from(number).unwrap()));
            assert_eq!(tasks.enter(&living[number]), Ok(()));
        }
        assert_eq!(tasks.enter(&task(1, 200)), Err(Full::User));
        assert_eq!(
            tasks.enter(&task(2, 200)),
            Ok(()),
            "others are not affected"
        );
        end(&living[7]);
        let first = Arc::clone(&living[7]);
        for number in TASKS_LIVING_MAX..=TASKS_USER_MAX {
            let more = task(1, u8::try_from(number).unwrap());
            assert_eq!(tasks.enter(&more), Ok(()));
            assert!(tasks.find(&more.id).is_some());
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
            end(&more);
        }
        assert!(tasks.find(&first.id).is_none(), "it ended first");
        assert!(tasks.find(&living[0].id).is_some(), "one under way stays");
        assert_eq!(tasks.count(), (TASKS_LIVING_MAX, TASKS_USER_MAX + 1));
        tokio::time::advance(crate::domain::limits::TASK_TTL).await;
        tasks.sweep(Instant::now());
        assert_eq!(tasks.count(), (TASKS_LIVING_MAX, TASKS_LIVING_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn what_they_ended_with_has_its_bound() {
        let tasks = Tasks::default();
        let (one, two) = (task(1, 1), task(1, 2));
        for task in [&one, &two] {
            tasks.enter(task).unwrap();
        }
        assert!(tasks.keep(&one, TASK_BYTES_USER_MAX));
        assert!(!tasks.keep(&two, 1), "one that has not ended makes no room");
        end(&one);
        assert!(tasks.keep(&two, 1));
        assert!(tasks.find(&one.id).is_none());
        assert!(!tasks.keep(&two, TASK_BYTES_USER_MAX + 1));
        tasks.forget(&two.id);
        assert_eq!(tasks.0.lock().bytes, 0);
    }
}
