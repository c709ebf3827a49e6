//! Tasks: calls whose client does not wait for them. What a task is lives here, and not with its server: it stays when
//! the server's run ends, so that whoever asks hears how it ended; it is found by whose key made it, and by nobody else.
//!
//! Invariant: a task that can be found has one end, and keeps it until its time is over or it makes room for others.

mod looking;
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
    /// Takes a new task in. It makes room for itself only when it begins: what is not admitted costs nobody a task.
    pub(super) fn enter(&self, task: &Arc<Task>) -> Result<(), Full> {
        let mut all = self.0.lock();
        let own = all.of.get(&task.user);
        let living = own.into_iter().flat_map(BTreeMap::values);
        if living.filter(|task| !task.has_ended()).count() >= TASKS_LIVING_MAX {
            return Err(Full::User);
        }
        // Beyond the bound only those that make room in a moment, or go.
        if all.ids.len() >= TASKS_MAX + TASKS_LIVING_MAX {
            return Err(Full::All);
        }
        let number = all.next;
        all.next += 1;
        let place = (task.user.clone(), number);
        all.ids.insert(task.id.clone(), place);
        let own = all.of.entry(task.user.clone()).or_default();
        own.insert(number, Arc::clone(task));
        Ok(())
    }

    /// A task begins: of too many, those that ended first are forgotten.
    pub(super) fn make_room(&self, task: &Task) {
        let mut gone = Vec::new();
        let mut all = self.0.lock();
        let counts = |one: &&Arc<Task>| one.id == task.id || one.has_begun();
        let own = all.of.get(&task.user).into_iter();
        let own = own.flat_map(BTreeMap::values).filter(counts).count();
        for _ in TASKS_USER_MAX..own {
            gone.extend(all.forget_one(&task.user));
        }
        while all.ids.len() > TASKS_MAX {
            let most = all.of.iter().max_by_key(|(_, own)| own.len());
            let user = most.map(|(user, _)| user.clone());
            let Some(one) = user.and_then(|user| all.forget_one(&user)) else {
                break;
            };
            gone.push(one);
        }
        drop(all);
        drop(gone);
    }

    /// Those under way.
    pub(super) fn living(&self) -> Vec<Arc<Task>> {
        let all = self.0.lock();
        let living = all.of.values().flat_map(BTreeMap::values);
        let living = living.filter(|task| task.has_begun() && !task.has_ended());
        living.cloned().collect()
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

    /// Makes room for what a task ended with; `false` if there is none for that much, and then nothing is forgotten
    /// for it. Where all have too much, it is who has the most that forgets.
    pub(super) fn keep(&self, task: &Task, bytes: usize) -> bool {
        let mut gone = Vec::new();
        let mut all = self.0.lock();
        let mut held: HashMap<UserId, Load> = HashMap::new();
        for (user, own) in &all.of {
            let bytes = own.values().map(|task| Load::of(task)).sum();
            held.insert(user.clone(), bytes);
        }
        let fixed = |held: &Load| held.all - held.ended;
        let fixed_all: usize = held.values().map(fixed).sum();
        let own = held.entry(task.user.clone()).or_default();
        let could =
            fixed(own) + bytes <= TASK_BYTES_USER_MAX && fixed_all + bytes <= TASK_BYTES_ALL_MAX;
        while could && own.all + bytes > TASK_BYTES_USER_MAX {
            let Some(one) = all.forget_large(&task.user) else {
                break;
            };
            own.lose(one.kept());
            gone.push(one);
        }
        while could && all.bytes + bytes > TASK_BYTES_ALL_MAX {
            let most = held.iter_mut().max_by_key(|(_, held)| held.ended);
            let Some((user, most)) = most else { break };
            let Some(one) = all.forget_large(user) else {
                break;
            };
            most.lose(one.kept());
            gone.push(one);
        }
        if could && all.ids.contains_key(&task.id) {
            all.bytes += bytes;
            task.keeps(bytes);
        }
        drop(all);
        drop(gone);
        could
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

/// What tasks hold of what they ended with.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    all: usize,
    /// Of those that can be forgotten.
    ended: usize,
}

impl Load {
    fn of(task: &Task) -> Self {
        let all = task.kept();
        let ended = if task.has_ended() { all } else { 0 };
        Self { all, ended }
    }

    fn lose(&mut self, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        self.ended = self.ended.saturating_sub(bytes);
    }
}

impl std::iter::Sum for Load {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            all: sum.all + one.all,
            ended: sum.ended + one.ended,
        })
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
        self.forget_first(user, |_| true)
    }

    /// The same, of those that ended with something.
    fn forget_large(&mut self, user: &UserId) -> Option<Arc<Task>> {
        self.forget_first(user, |task| task.kept() > 0)
    }

    fn forget_first(&mut self, user: &UserId, meant: fn(&Task) -> bool) -> Option<Arc<Task>> {
        let own = self.of.get(user)?.values().filter(|task| meant(task));
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
    pub(super) fn task(user: u8, number: u8) -> Arc<Task> {
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
            living[number].state.lock().begun = true;
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
            assert!(number < TASKS_USER_MAX || tasks.find(&first.id).is_some());
            tasks.make_room(&more);
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
        end(&two);
        let three = task(1, 3);
        tasks.enter(&three).unwrap();
        assert!(!tasks.keep(&three, TASK_BYTES_USER_MAX + 1));
        assert!(
            tasks.find(&two.id).is_some(),
            "for nothing none is forgotten"
        );
        tasks.forget(&two.id);
        assert_eq!(tasks.0.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_have_too_much_who_has_the_most_forgets() {
        let tasks = Tasks::default();
        let users = u8::try_from(TASK_BYTES_ALL_MAX / TASK_BYTES_USER_MAX).unwrap();
        let mut last = Vec::new();
        for user in 1..=users {
            // The last one has a little less, in two.
            let bytes = TASK_BYTES_USER_MAX / 2 - usize::from(user == users);
            for number in 1..=2 {
                let one = task(user, number);
                tasks.enter(&one).unwrap();
                assert!(tasks.keep(&one, bytes));
                end(&one);
                if user == users {
                    last.push(one);
                }
            }
        }
        let small = task(200, 1);
        tasks.enter(&small).unwrap();
        assert!(tasks.keep(&small, 3));
        assert!(last.iter().all(|one| tasks.find(&one.id).is_some()));
        assert_eq!(tasks.count().1, usize::from(users) * 2);
    }
}
