//! The other end of a question that is no server's to wait for: what its client answers goes into the next request.

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::domain::talk::Question;

use super::Answered;

/// An answer to come. Dropped before it is there, the question is taken back.
#[derive(Debug)]
pub(in crate::actors) struct Awaited {
    question: Question,
    told: oneshot::Receiver<Answered>,
    withdrawn: CancellationToken,
}

impl Awaited {
    pub(super) fn new(
        question: Question,
        told: oneshot::Receiver<Answered>,
        withdrawn: CancellationToken,
    ) -> Self {
        Self {
            question,
            told,
            withdrawn,
        }
    }

    /// What was asked.
    pub(in crate::actors) const fn question(&self) -> Question {
        self.question
    }

    /// Waits for it. Who does not want to fill in a form has said so; without other answers there is nothing to go on
    /// with.
    ///
    /// # Errors
    /// Which kind of question it is, and why it has no answer.
    pub(in crate::actors) async fn answer(mut self) -> Result<Bytes, (Question, String)> {
        let question = self.question;
        match ((&mut self.told).await, question) {
            (Ok(Ok(answer)), _) => Ok(answer),
            (_, Question::Elicitation | Question::ElicitationUrl) => {
                Ok(Bytes::from_static(b"{\"action\":\"cancel\"}"))
            }
            (Ok(Err(error)), _) => {
                let text = String::from_utf8_lossy(&error);
                let text: String = text.chars().take(300).collect();
                Err((
                    question,
                    format!("the client answered with an error: {text}"),
                ))
            }
            (Err(_), _) => Err((question, "the client did not answer".to_owned())),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let is_open = matches!(
            self.told.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        );
        if is_open {
            self.withdrawn.cancel();
        }
    }
}
