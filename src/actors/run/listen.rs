//! What a server without sessions is to tell of itself: one `subscriptions/listen`, open for what anybody listens to,
//! and opened anew when others are to be told of other things. To a change of its tools the gateway itself listens
//! ([`super::retold`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::limits::{LISTEN_AGAIN_MAX, LISTEN_AGAIN_WAIT};
use crate::protocol::handshake::Abilities;
use crate::protocol::outbound;

use super::super::ears::{Ears, Watched};
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

impl Listener {
    async fn run(&self) {
        let (mut opened, mut watched) = (self.ears.changes(), self.watched.changes());
        let mut before: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        let mut last = None;
        let mut pause = LISTEN_AGAIN_WAIT;
        loop {
            // What changes from here on is seen below.
            opened.borrow_and_update();
            watched.borrow_and_update();
            let wanted = self.wanted();
            if wanted != last {
                pause = LISTEN_AGAIN_WAIT;
                last.clone_from(&wanted);
            }
            let mut listening: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match wanted.clone()
            {
                Some(wanted) => Box::pin(async move { self.listen(&wanted).await }),
                None => Box::pin(std::future::pending()),
            };
            // The one before ends when this one is on its way, so that nothing told in between is missed.
            let is_over = tokio::select! {
                biased;
                () = &mut listening => true,
                () = tokio::task::yield_now() => false,
            };
            drop(before.take());
            loop {
                tokio::select! {
                    () = &mut listening, if !is_over => {
                        sleep(pause).await;
                        pause = (pause * 2).min(LISTEN_AGAIN_MAX);
                        break;
                    }
                    () = sleep(pause), if is_over => break,
                    told = opened.changed() => if told.is_err() { return },
                    told = watched.changed() => if told.is_err() { return },
                }
                if self.wanted() != wanted {
                    before = Some(listening);
                    break;
                }
            }
        }
    }

    /// What to ask for now, if there is anything.
    fn wanted(&self) -> Option<String> {
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
        (!kinds.is_empty()).then(|| format!("\"notifications\":{{{}}}", kinds.join(",")))
    }

    /// Listens until the server ends it, which it is told of when this is dropped.
    async fn listen(&self, wanted: &str) {
        let params = outbound::own_params(wanted);
        let until = Instant::now() + LONG;
        let _ = self.handle.listen(&params, until).await;
    }
}
