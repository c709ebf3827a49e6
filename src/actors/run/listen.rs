//! What a server without sessions is to tell of itself: one `subscriptions/listen`, open for what anybody listens to,
//! and opened anew when others are to be told of other things. To a change of its tools the gateway itself listens
//! ([`super::retold`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::domain::limits::{LISTEN_AGAIN_MAX, LISTEN_AGAIN_WAIT, LISTEN_OPEN_WAIT};
use crate::protocol::handshake::Abilities;
use crate::protocol::outbound;

use super::super::ears::{Ears, Told, Watched};
use super::super::handle::Handle;
use super::super::slot::SlotKey;
use super::{RunArgs, Tasks};

/// As good as for ever.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

struct Listener {
    handle: Arc<Handle>,
    ears: Arc<Ears>,
    watched: Arc<Watched>,
    key: SlotKey,
    able: Abilities,
}

/// Begins to listen, as far as there is anything to hear.
pub(super) fn begin(args: &RunArgs, tasks: &mut Tasks) {
    if args.slot.key.is_probe() {
        return;
    }
    let server = args.occupant.record.facts().server;
    let able = server.map(|server| server.abilities).unwrap_or_default();
    if !(able.tools_change || able.subscribe || able.resources_change || able.prompts_change) {
        return;
    }
    let listener = Listener {
        handle: Arc::clone(&args.occupant.handle),
        ears: Arc::clone(&args.ctx.ears),
        watched: Arc::clone(&args.slot.watched),
        key: args.slot.key.clone(),
        able,
    };
    tasks.spawn(async move { listener.run().await });
}

/// How long to wait before it is listened to again: longer each time that it did not last as long as the wait.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(LISTEN_AGAIN_WAIT)
    }
}

impl Pauses {
    /// After one that lasted so long.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived > self.0 {
            *self = Self::default();
        }
        let pause = self.0;
        self.0 = (pause * 2).min(LISTEN_AGAIN_MAX);
        pause
    }
}

/// What a server is to tell of.
#[derive(PartialEq, Eq)]
struct Wanted {
    /// In the words of the request.
    members: String,
    uris: Vec<Box<str>>,
}

type Listening<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Listener {
    async fn run(&self) {
        let (mut opened, mut watched) = (self.ears.changes(), self.watched.changes());
        let mut before: Option<Listening<'_>> = None;
        let mut last = None;
        let mut pauses = Pauses::default();
        // Whether one that lasted was cut, so that what its server tells until there is another is not heard.
        let mut missed = false;
        loop {
            // What changes from here on is seen below.
            opened.borrow_and_update();
            watched.borrow_and_update();
            let wanted = self.wanted();
            if wanted != last {
                pauses = Pauses::default();
            }
            let began = Instant::now();
            let (open, mut opens) = oneshot::channel();
            let mut listening: Listening<'_> = match &wanted {
                Some(wanted) => {
                    let members = wanted.members.clone();
                    Box::pin(async move { self.listen(&members, open).await })
                }
                None => Box::pin(std::future::pending()),
            };
            missed &= wanted.is_some();
            // Until its server has it, or for a while: what else changes meanwhile waits, and goes into the next.
            let mut is_opening = wanted.is_some();
            let mut is_unsaid = is_opening;
            let mut again = None;
            loop {
                if !is_opening {
                    // Not before: nothing that is told in between is missed.
                    drop(before.take());
                }
                tokio::select! {
                    biased;
                    () = &mut listening, if again.is_none() => {
                        let lived = began.elapsed();
                        missed |= lived >= LISTEN_AGAIN_WAIT;
                        again = Some(Instant::now() + pauses.after(lived));
                        is_opening = false;
                        self.watched.are_told(&[]);
                    }
                    open = &mut opens, if is_unsaid => {
                        (is_unsaid, is_opening) = (false, false);
                        if let (Ok(()), Some(wanted)) = (open, &wanted) {
                            self.watched.are_told(&wanted.uris);
                        }
                    }
                    () = sleep_until(began + LISTEN_OPEN_WAIT), if is_opening => is_opening = false,
                    // It lasts: it is no server that only refuses.
                    () = sleep_until(began + LISTEN_AGAIN_WAIT), if missed && again.is_none() => {
                        missed = false;
                        self.tell_anew();
                    }
                    () = sleep_until(again.unwrap_or(began)), if again.is_some() => break,
                    told = opened.changed() => if told.is_err() { return },
                    told = watched.changed() => if told.is_err() { return },
                }
                if !is_opening && self.wanted() != wanted {
                    drop(before.take());
                    before = again.is_none().then_some(listening);
                    break;
                }
            }
            last = wanted;
        }
    }

    /// Nobody knows what changed while it was not listened to: lists are to be looked at again.
    fn tell_anew(&self) {
        if self.able.tools_change {
            self.handle.tells_of_tools();
        }
        let lists = [
            (self.able.resources_change, Told::Resources),
            (self.able.prompts_change, Told::Prompts),
        ];
        for (_, told) in lists.iter().filter(|(able, _)| *able) {
            self.ears.tell(&self.key, told);
        }
    }

    /// What to ask for now, if there is anything.
    fn wanted(&self) -> Option<Wanted> {
        let mut kinds = Vec::new();
        if self.able.tools_change {
            kinds.push("\"toolsListChanged\":true".to_owned());
        }
        let heard = self.ears.listen(&self.key);
        if self.able.resources_change && heard {
            kinds.push("\"resourcesListChanged\":true".to_owned());
        }
        if self.able.prompts_change && heard {
            kinds.push("\"promptsListChanged\":true".to_owned());
        }
        let mut uris = match self.able.subscribe && heard {
            true => self.watched.uris(),
            false => Vec::new(),
        };
        if !uris.is_empty() {
            uris.sort();
            let uris = serde_json::to_string(&uris).unwrap_or_default();
            kinds.push(format!("\"resourceSubscriptions\":{uris}"));
        }
        let members = format!("\"notifications\":{{{}}}", kinds.join(","));
        (!kinds.is_empty()).then_some(Wanted { members, uris })
    }

    /// Listens until the server ends it, which it is told of when this is dropped.
    async fn listen(&self, wanted: &str, open: oneshot::Sender<()>) {
        let params = outbound::own_params(wanted);
        let until = Instant::now() + LONG;
        let _ = self.handle.listen(&params, open, until).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.watched.are_told(&[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that something on the way cuts every few minutes was listened to again later and later.
    #[test]
    fn who_is_cut_off_now_and_then_is_listened_to_at_once() {
        let mut pauses = Pauses::default();
        for _ in 0..9 {
            assert_eq!(pauses.after(Duration::from_secs(310)), LISTEN_AGAIN_WAIT);
        }
        for _ in 0..9 {
            pauses.after(Duration::from_secs(1));
        }
        assert_eq!(pauses.after(Duration::from_secs(1)), LISTEN_AGAIN_MAX);
        assert_eq!(pauses.after(LISTEN_AGAIN_MAX * 2), LISTEN_AGAIN_WAIT);
    }
}
