//! Tasks of a run's server: what it says of one reaches who waits for it, by the server's name of the task or by the
//! token of the call that made it. What it asks for a task says for which, so there is nothing to guess
//! (see [`super::questions`]).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::limits::{QUESTIONS_OPEN_MAX, TASK_PARKED_MAX};
use crate::domain::talk::{Level, Questions};
use crate::protocol::{envelope, tasks};

use super::super::calls::News;
use super::super::sync::Mutex;
use super::questions::tell;
use super::{Asked, Handle};

/// What a run knows of them. As many as there are calls in flight.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    ears: Vec<Ear>,
    /// Asked for a task before its server said that there is one.
    parked: Vec<(Box<str>, Asked)>,
}

/// One who waits.
#[derive(Debug, Clone)]
struct Ear {
    /// Our id of the call that made it.
    token: u64,
    news: Option<mpsc::Sender<News>>,
    /// From which level on it hears what the server logs.
    level: Option<Level>,
    /// What the server calls the task.
    name: Option<Box<str>>,
    /// What its client calls it, if it knows of it.
    shown: Option<Box<str>>,
    until: Instant,
}

/// A place among those who wait, for as long as the task is waited for.
#[derive(Debug)]
pub(in crate::actors) struct TaskEar {
    handle: Arc<Handle>,
    token: u64,
}

impl Known {
    /// Who hears of the progress of the call with this id, which made a task.
    pub(super) fn of_token(&self, token: u64) -> Option<mpsc::Sender<News>> {
        let state = self.0.lock();
        let ear = state.ears.iter().find(|ear| ear.token == token)?;
        ear.news.clone()
    }

    fn of_name(&self, name: &str) -> Option<Ear> {
        let state = self.0.lock();
        let is = |ear: &&Ear| ear.name.as_deref() == Some(name);
        state.ears.iter().find(is).cloned()
    }
}

impl Ear {
    /// Passes a question on. Who does not read, or is gone: the question goes, and its server is told.
    fn ask(&self, mut asked: Asked) {
        let Some(news) = &self.news else { return };
        if let Some(params) = tasks::relate(&asked.params, self.shown.as_deref()) {
            asked.params = params;
        }
        asked.until = self.until;
        let _ = news.try_send(News::Asked(Box::new(asked)));
    }
}

impl TaskEar {
    /// The server said what it calls the task. `false`: it calls another one so.
    pub(in crate::actors) fn know(&self, name: &str, shown: Option<&str>, until: Instant) -> bool {
        let (ear, parked) = {
            let mut state = self.handle.asking.tasks.0.lock();
            let taken = |ear: &Ear| ear.name.as_deref() == Some(name);
            if state.ears.iter().any(taken) {
                return false;
            }
            let own = state.ears.iter_mut().find(|ear| ear.token == self.token);
            let Some(ear) = own else { return false };
            ear.name = Some(name.into());
            ear.shown = shown.map(Into::into);
            ear.until = until;
            let ear = ear.clone();
            let meant = |(task, _): &mut (Box<str>, Asked)| **task == *name;
            let parked: Vec<_> = state.parked.extract_if(.., meant).collect();
            (ear, parked)
        };
        for (_, asked) in parked {
            ear.ask(asked);
        }
        true
    }
}

impl Drop for TaskEar {
    fn drop(&mut self) {
        let mut state = self.handle.asking.tasks.0.lock();
        state.ears.retain(|ear| ear.token != self.token);
    }
}

impl Handle {
    /// Somebody waits for the task that the call with this id may become.
    pub(in crate::actors) fn hear_task(
        self: &Arc<Self>,
        token: u64,
        news: Option<mpsc::Sender<News>>,
        level: Option<Level>,
    ) -> TaskEar {
        let ear = Ear {
            token,
            news,
            level,
            name: None,
            shown: None,
            until: Instant::now(),
        };
        self.asking.tasks.0.lock().ears.push(ear);
        TaskEar {
            handle: Arc::clone(self),
            token,
        }
    }

    /// The server says how a task stands.
    pub(in crate::actors) fn task_stands(&self, line: &[u8]) {
        let Some(seen) = tasks::told(line) else {
            return;
        };
        let ear = self.asking.tasks.of_name(&seen.id);
        if let Some(news) = ear.and_then(|ear| ear.news) {
            tell(&news, News::Stands(seen));
        }
    }

    /// The server logs for a task; `false` if it does not say for which, or nobody knows it.
    pub(super) fn logged_for_task(&self, line: &Bytes, level: Level) -> bool {
        let Some(ear) = tasks::related_line(line).and_then(|name| self.asking.tasks.of_name(&name))
        else {
            return false;
        };
        let hears = ear.level.is_some_and(|least| least <= level);
        if let Some(news) = ear.news.filter(|_| hears) {
            // Who knows of no task is told as of its call.
            if let Some(line) = tasks::relate_line(line, ear.shown.as_deref()) {
                tell(&news, News::Log(line));
            }
        }
        true
    }

    /// The server asks for a task. One that nobody knows yet may have been made in this moment.
    pub(super) fn ask_for_task(self: &Arc<Self>, name: &str, asked: Asked) {
        // One lock for both: whoever learns of it finds what is parked.
        let known = {
            let mut state = self.asking.tasks.0.lock();
            let is = |ear: &&Ear| ear.name.as_deref() == Some(name);
            match state.ears.iter().find(is).cloned() {
                Some(ear) => Err((Some(ear), asked)),
                None if state.parked.len() >= QUESTIONS_OPEN_MAX => Err((None, asked)),
                None => {
                    state.parked.push((name.into(), asked));
                    Ok(())
                }
            }
        };
        match known {
            Ok(()) => {}
            Err((Some(ear), asked)) => return ear.ask(asked),
            // Dropped, which answers.
            Err((None, _)) => return,
        }
        let (handle, name) = (Arc::downgrade(self), Box::<str>::from(name));
        tokio::spawn(async move {
            tokio::time::sleep(TASK_PARKED_MAX).await;
            let Some(handle) = handle.upgrade() else {
                return;
            };
            let meant = |(task, _): &mut (Box<str>, Asked)| *task == name;
            let late: Vec<_> = {
                let mut state = handle.asking.tasks.0.lock();
                state.parked.extract_if(.., meant).collect()
            };
            drop(late);
        });
    }

    /// Tells the server to stop working on a task.
    pub(in crate::actors) async fn cancel_task(self: &Arc<Self>, name: &str, deadline: Instant) {
        let params = match self.is_modern() {
            true => tasks::newer::params(name, Questions::NONE, b""),
            false => tasks::named(name),
        };
        // Whatever it answers, nobody waits for the task any more.
        let _ = self.ask("tasks/cancel", &params, deadline).await;
    }

    /// What a server of 2025-11-25 says of a task.
    pub(in crate::actors) async fn look_at_task(
        self: &Arc<Self>,
        name: &str,
        deadline: Instant,
    ) -> Option<tasks::Seen> {
        let reply = self.ask("tasks/get", &tasks::named(name), deadline).await;
        let reply = reply.ok()?;
        let body = reply.line.get(reply.body.clone())?;
        (reply.kind == envelope::ReplyKind::Result)
            .then(|| tasks::seen(body))
            .flatten()
    }
}
