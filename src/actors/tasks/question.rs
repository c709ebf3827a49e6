//! What a server asks for a task: it waits until somebody who may answers, whichever way and however often that one
//! was told of it.

use std::sync::Weak;

use bytes::Bytes;

use crate::domain::talk::Question;

use super::super::handle::Asked;
use super::super::sync::Mutex;
use super::Task;

/// One question. Its server is told that nobody answers when this is dropped, or closed.
#[derive(Debug)]
pub struct TaskQuestion {
    /// Its name among those of the task; never used twice.
    pub key: Box<str>,
    /// Which kind it is.
    pub question: Question,
    /// Its method.
    pub method: &'static str,
    /// Its parameters, raw; an object.
    pub params: Bytes,
    asked: Mutex<Option<Box<Asked>>>,
    task: Weak<Task>,
}

impl TaskQuestion {
    pub(super) fn new(key: String, asked: Box<Asked>, task: Weak<Task>) -> Self {
        Self {
            key: key.into(),
            question: asked.question,
            method: asked.method,
            params: asked.params.clone(),
            asked: Mutex::new(Some(asked)),
            task,
        }
    }

    /// Whether it waits for an answer still.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let asked = self.asked.lock();
        asked.as_ref().is_some_and(|asked| !asked.is_withdrawn())
    }

    /// Resolves when its server does not want an answer any more; never, if it has one.
    pub fn withdrawn(&self) -> impl Future<Output = ()> + Send + use<> {
        let withdrawn = self.asked.lock().as_ref().map(|asked| asked.withdrawn());
        async move {
            match withdrawn {
                Some(withdrawn) => withdrawn.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes it, to answer it. One only gets it.
    #[must_use]
    pub fn take(&self) -> Option<Box<Asked>> {
        let asked = self.asked.lock().take();
        if let Some(task) = self.task.upgrade() {
            task.settle();
        }
        asked
    }
}
