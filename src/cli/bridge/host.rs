//! What the AI tool says, line by line: requests go their own ways, the rest in its order.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::flights::Flights;
use super::http::OPEN;
use super::input::{Line, Lines};
use super::link::Link;
use super::relay::{self, Request};
use super::wire;
use crate::domain::code::Code;
use crate::domain::limits::{
    BRIDGE_BEGIN_WAIT, BRIDGE_GRACE, BRIDGE_LINE_BYTES_MAX, BRIDGE_NOTICES_MAX, BRIDGE_REQUESTS_MAX,
};
use crate::protocol::jsonrpc::{self, INTERNAL_ERROR, INVALID_REQUEST, Message};

/// One AI tool.
#[derive(Debug)]
pub(super) struct Host {
    link: Arc<Link>,
    flights: Flights,
    places: Arc<Semaphore>,
    /// Answers on their way: as many as there can be requests.
    replies: Arc<Semaphore>,
    tasks: JoinSet<()>,
    notices: mpsc::Sender<Bytes>,
}

// === impl Host ===

impl Host {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let (notices, waiting) = mpsc::channel(BRIDGE_NOTICES_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(send_notices(Arc::clone(&link), waiting));
        Self {
            link,
            flights: Flights::default(),
            places: Arc::new(Semaphore::new(BRIDGE_REQUESTS_MAX)),
            replies: Arc::new(Semaphore::new(BRIDGE_REQUESTS_MAX)),
            tasks,
            notices,
        }
    }

    /// Takes line after line until there are no more or `over` says so.
    pub(super) async fn serve(&mut self, stdin: impl AsyncRead + Unpin, over: &CancellationToken) {
        let mut lines = Lines::new(stdin, BRIDGE_LINE_BYTES_MAX);
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = over.cancelled() => return,
            };
            match line {
                Ok(Some(Line::Whole(message))) => self.take(message).await,
                Ok(Some(Line::TooLong)) => {
                    let text = format!("a line of more than {BRIDGE_LINE_BYTES_MAX} bytes");
                    self.refuse("null", INVALID_REQUEST, &text, Code::BodyTooLarge)
                        .await;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "stdin cannot be read");
                    return;
                }
            }
            // Those that are done leave the set.
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// Gives what is under way a little time, then ends it.
    pub(super) async fn leave(mut self) {
        drop(self.notices);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(BRIDGE_GRACE, all).await.is_err() {
            tracing::info!(left = self.tasks.len(), "requests under way are given up");
        }
        self.tasks.shutdown().await;
    }

    async fn take(&mut self, message: Bytes) {
        if message.first() == Some(&b'[') {
            let text = "batches are not taken; send each message on a line of its own";
            return self
                .refuse("null", INVALID_REQUEST, text, Code::InvalidRequest)
                .await;
        }
        match jsonrpc::read(&message) {
            Ok(Message::Request { id, method, params }) => {
                let request = Request {
                    id: id.to_owned(),
                    method: method.into_owned(),
                    params: params.map(ToOwned::to_owned),
                    message: message.clone(),
                };
                self.request(request).await;
            }
            Ok(Message::Notification { method, params }) => match &*method {
                // The bridge says so itself, whenever it begins a session.
                "notifications/initialized" => {}
                "notifications/cancelled" => self.cancel(params, message.clone()),
                _ => self.notice(message.clone()),
            },
            Ok(Message::Response { .. }) => self.reply(message.clone()).await,
            Err(malformed) => {
                let (code, why) = (malformed.code, &malformed.why);
                self.refuse("null", code, why, Code::InvalidRequest).await;
            }
        }
    }

    async fn request(&mut self, request: Request) {
        // The bridge lives; whether the server does is not what is asked.
        if request.method == "ping" {
            let nothing = Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#,
                request.id
            ));
            return self.link.output.write(nothing).await;
        }
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            let text =
                format!("busy: {BRIDGE_REQUESTS_MAX} requests are under way; wait for one of them");
            return self
                .refuse(&request.id, INTERNAL_ERROR, &text, Code::Busy)
                .await;
        };
        let Some(place) = self.flights.enter(&request.id) else {
            let text = "a request with this id is under way already";
            let code = Code::InvalidRequest;
            return self.refuse(&request.id, INVALID_REQUEST, text, code).await;
        };
        if request.method == "initialize" {
            let nothing = || RawValue::from_string("{}".to_owned()).unwrap_or_default();
            self.link
                .set_params(request.params.clone().unwrap_or_else(nothing));
        }
        let link = Arc::clone(&self.link);
        self.tasks.spawn(async move {
            let _permit = permit;
            relay::answer(link, request, place).await;
        });
    }

    /// At most one of each request under way.
    fn cancel(&mut self, params: Option<&RawValue>, message: Bytes) {
        let found = self.flights.cancel(params.map_or("", RawValue::get));
        if let Some(flight) = found {
            let link = Arc::clone(&self.link);
            self.tasks
                .spawn(async move { flight.let_go(&link, message).await });
        }
    }

    /// Sends an answer on. None is dropped for want of room: then the AI tool waits.
    async fn reply(&mut self, message: Bytes) {
        let Ok(permit) = Arc::clone(&self.replies).acquire_owned().await else {
            return;
        };
        let link = Arc::clone(&self.link);
        self.tasks.spawn(async move {
            let _permit = permit;
            relay::reply(&link, message).await;
        });
    }

    fn notice(&self, message: Bytes) {
        if self.notices.try_send(message).is_err() {
            tracing::warn!("too many notifications wait for the server; one is dropped");
        }
    }

    async fn refuse(&self, id: &str, code: i64, text: &str, ours: Code) {
        tracing::warn!(text, "a message of the AI tool is refused");
        let message = wire::error(id, code, text, ours.as_str());
        self.link.output.write(message).await;
    }
}

/// Sends notifications on, in their order. One that fails is told in the log: nobody waits for an answer.
async fn send_notices(link: Arc<Link>, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(message) = waiting.recv().await {
        let sent = match link.session().await {
            Ok(session) => link.post(&session, message, BRIDGE_BEGIN_WAIT, OPEN).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = sent {
            tracing::warn!(%failure, "a notification of the AI tool was not sent on");
        }
    }
}
