//! What is heard of a task, and who is told of it: the stream of who waits for its end, or the one that is about no
//! request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::domain::limits::{MCP_QUESTIONS_MAX, MCP_ROUNDS_MAX};
use crate::protocol::tasks::{self, Seen};

use super::super::calls::{News, Progress};
use super::super::ears::Told;
use super::super::handle::Asked;
use super::{Task, TaskQuestion};

impl Task {
    /// What its server says meanwhile.
    pub(in crate::actors) fn heard(self: &Arc<Self>, news: News) {
        match news {
            News::Progress(progress) => self.progress(&progress),
            // Beyond the first call's answer nothing is told to who has no sessions.
            News::Log(line) => self.say(line),
            News::Asked(asked) => self.asked(vec![*asked]),
            News::Stands(seen) => self.stands(&seen),
            News::AskedForTask(_) | News::Lacks(_) => {}
        }
    }

    fn progress(&self, progress: &Progress) {
        let Some(token) = &self.maker.token else {
            return;
        };
        let line = progress.with(token);
        if let Some(line) = tasks::relate_line(&line, Some(self.id.as_str())) {
            self.say(line);
        }
    }

    /// What its server asks, all of it at once: nobody sees a part of what is asked.
    pub(in crate::actors) fn asked(self: &Arc<Self>, all: Vec<Asked>) {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        {
            let mut state = self.state.lock();
            state.questions.retain(|question| question.is_open());
            for asked in all {
                let is_full =
                    state.questions.len() >= MCP_QUESTIONS_MAX || state.asked >= MCP_ROUNDS_MAX;
                if is_full || state.end.is_some() {
                    refused.push(asked);
                    continue;
                }
                state.asked += 1;
                let question = Arc::new(TaskQuestion::new(
                    format!("q{}", state.asked),
                    Box::new(asked),
                    Arc::downgrade(self),
                ));
                state.questions.push(Arc::clone(&question));
                taken.push(question);
            }
        }
        // Their server is told that nobody answers.
        drop(refused);
        if taken.is_empty() {
            return;
        }
        self.settle();
        for question in taken {
            self.watch(&question);
        }
    }

    /// It stands differently when its server does not want an answer any more.
    fn watch(self: &Arc<Self>, question: &TaskQuestion) {
        let (task, over) = (Arc::downgrade(self), self.over.clone());
        let withdrawn = question.withdrawn();
        tokio::spawn(async move {
            tokio::select! {
                () = withdrawn => if let Some(task) = task.upgrade() { task.settle() },
                () = over.cancelled() => {}
            }
        });
    }

    /// What its server says of how it stands. That it has ended is true when what it ended with is here.
    pub(in crate::actors) fn stands(&self, seen: &Seen) {
        {
            let mut state = self.state.lock();
            if state.end.is_some() {
                return;
            }
            state.poll = seen.poll;
            state.looked = Instant::now();
            if state.message == seen.message {
                return;
            }
            state.message.clone_from(&seen.message);
            if seen.status.is_last() {
                return;
            }
            state.updated_at = self.clock.wall_ms();
        }
        self.tell_status();
        self.changed();
    }

    /// Tells who waits for its end what happens meanwhile. `false`: its time was over first, or nobody waits any more.
    pub(in crate::actors) async fn attend(
        &self,
        tell: Option<&mpsc::Sender<News>>,
        until: Instant,
    ) -> bool {
        let mut lines = tell.map(|_| self.lines.subscribe());
        let mut changes = self.changes.subscribe();
        let mut told: Vec<Box<str>> = Vec::new();
        loop {
            changes.borrow_and_update();
            if self.has_ended() {
                // What was said before its end comes before it.
                while let (Some(lines), Some(tell)) = (&mut lines, tell)
                    && let Ok(line) = lines.try_recv()
                {
                    let _ = tell.try_send(News::Log(line));
                }
                return true;
            }
            let mut is_behind = false;
            if let Some(tell) = tell {
                for question in self.questions() {
                    if told.contains(&question.key) {
                        continue;
                    }
                    let key = question.key.clone();
                    match tell.try_send(News::AskedForTask(question)) {
                        Ok(()) => told.push(key),
                        Err(_) => is_behind = true,
                    }
                }
            }
            tokio::select! {
                biased;
                // Who let go of its stream hears nothing any more, and keeps nothing from others.
                () = gone(tell) => return false,
                () = sleep_until(until) => return false,
                line = next(&mut lines) => if let (Ok(line), Some(tell)) = (line, tell) {
                    // Whatever is logged, there is room for what is asked.
                    if tell.capacity() > MCP_QUESTIONS_MAX {
                        let _ = tell.try_send(News::Log(line));
                    }
                },
                _ = changes.changed() => {}
                () = room(tell), if is_behind => {}
            }
        }
    }

    /// Waits a moment for its end.
    pub(in crate::actors) async fn ends_within(&self, wait: Duration) {
        self.attend(None, Instant::now() + wait).await;
    }

    /// Tells who knows of it how it stands.
    pub(super) fn tell_status(&self) {
        if !self.has_begun() {
            return;
        }
        if self.maker.stateless {
            let told = Told::Task(self.id.clone());
            self.ears.tell_session(&self.session, &self.mcp, &told);
            return;
        }
        let (shown, _) = self.look();
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tasks/status\",\"params\":{{{}}}}}",
            shown.core()
        );
        self.say(line.into());
    }

    /// Says something to a client with a session: on the stream of who waits for the end, or on the one that is
    /// about no request.
    fn say(&self, line: Bytes) {
        if self.maker.stateless
            || self.lines.receiver_count() > 0 && self.lines.send(line.clone()).is_ok()
        {
            return;
        }
        self.ears
            .tell_session(&self.session, &self.mcp, &Told::OfTask(line));
    }
}

async fn gone(tell: Option<&mpsc::Sender<News>>) {
    match tell {
        Some(tell) => tell.closed().await,
        None => std::future::pending().await,
    }
}

/// There is room for one more.
async fn room(tell: Option<&mpsc::Sender<News>>) {
    if let Some(tell) = tell {
        drop(tell.reserve().await);
    }
}

async fn next(
    lines: &mut Option<broadcast::Receiver<Bytes>>,
) -> Result<Bytes, broadcast::error::RecvError> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::task;
    use super::*;
    use crate::domain::limits::MCP_NEWS_MAX;

    #[tokio::test(start_paused = true)]
    async fn whatever_is_logged_there_is_room_for_what_is_asked() {
        let task = task(1, 1);
        let (tell, _told) = mpsc::channel(MCP_NEWS_MAX);
        let attending = {
            let (task, tell) = (Arc::clone(&task), tell.clone());
            let until = Instant::now() + Duration::from_secs(60);
            tokio::spawn(async move { task.attend(Some(&tell), until).await })
        };
        while task.lines.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 * MCP_NEWS_MAX {
            task.lines.send(Bytes::from_static(b"{}")).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(tell.capacity(), MCP_QUESTIONS_MAX);
        assert!(!attending.await.unwrap(), "nor is its time forgotten");
    }
}
