//! What the AI tool's session held is asked for again, and a server that hangs.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fake::{Fake, OPEN, begun, refused, result};
use super::home;
use super::host::Host;
use crate::world::PATIENCE;

/// A request of the bridge's own: its id, its method, what it is about.
type Own = (String, String, String);

/// What a server has seen, and what it waits for.
#[derive(Debug, Default)]
struct State {
    streams: usize,
    own: Vec<Own>,
    /// The first stream, which was asked for before there was anything to ask for again, is refused.
    refuses: bool,
    /// It answers what it hung on.
    goes_on: bool,
}

#[derive(Debug, Default, Clone)]
struct Seen(Arc<Mutex<State>>);

impl Seen {
    fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !self.look(|state| is_so(state)) {
            assert!(Instant::now() < end, "never: {what}: {self:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A server whose first stream of news is refused when it is told so, and which answers the bridge's own requests so.
    fn server(&self, own: impl Fn(&Self, &Own) -> Result<(), ()> + Send + Sync + 'static) -> Fake {
        let seen = self.clone();
        Fake::start(move |verb, message| {
            if let Some(answer) = begun(message) {
                return Some(answer);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let id = text(&message["id"]);
            if verb == "GET" {
                let nth = seen.look(|state| {
                    state.streams += 1;
                    state.streams
                });
                if nth > 1 {
                    return Some((200, OPEN, String::new()));
                }
                seen.until("the first stream is refused", |state| state.refuses);
                return refused(503, "it is starting");
            }
            if !id.starts_with("legation-bridge-") {
                return result(message, json!({}));
            }
            let uri = text(&message["params"]["uri"]);
            let one = (id, text(&message["method"]), uri);
            seen.look(|state| state.own.push(one.clone()));
            match own(&seen, &one) {
                Ok(()) => result(message, json!({})),
                Err(()) => {
                    let error = json!({"code": -32603, "message": "it is starting"});
                    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
                    Some((200, "application/json", answer.to_string()))
                }
            }
        })
    }
}

/// An AI tool with two subscriptions, whose stream of news is opened anew.
fn opened_anew(server: &Fake, seen: &Seen, home: &std::path::Path) -> Host {
    let mut host = Host::start(home, &server.url, "amb_pk_any");
    host.begin();
    for uri in ["a:1", "a:2"] {
        let id = host.ask("resources/subscribe", json!({"uri": uri}));
        assert_eq!(host.answer(&id)["result"], json!({}));
    }
    seen.look(|state| state.refuses = true);
    host
}

fn about<'a>(own: &'a [Own], uri: &str) -> Vec<&'a str> {
    let about = own.iter().filter(|one| one.2 == uri);
    about.map(|one| one.1.as_str()).collect()
}

#[test]
fn what_is_not_granted_again_at_once_is_asked_for_until_it_is() {
    let (home, seen) = (home(), Seen::default());
    let server = seen.server(|seen, (_, _, uri)| {
        let first = seen.look(|state| about(&state.own, uri).len() == 1);
        if first && uri == "a:1" {
            Err(())
        } else {
            Ok(())
        }
    });
    let _host = opened_anew(&server, &seen, home.path());
    seen.until("it is granted", |state| about(&state.own, "a:1").len() == 2);
    let own = seen.look(|state| state.own.clone());
    assert_eq!(about(&own, "a:2"), ["resources/subscribe"]);
    let mut ids: Vec<_> = own.iter().map(|one| &one.0).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), own.len(), "one may be under way still: {own:?}");
}

#[test]
fn what_is_taken_back_while_it_is_asked_for_again_stays_taken_back() {
    let (home, seen) = (home(), Seen::default());
    let server = seen.server(|seen, _| {
        seen.until("it goes on", |state| state.goes_on);
        Ok(())
    });
    let mut host = opened_anew(&server, &seen, home.path());
    seen.until("it is asked again", |state| !state.own.is_empty());
    for uri in ["a:1", "a:2"] {
        let id = host.ask("resources/unsubscribe", json!({"uri": uri}));
        assert_eq!(host.answer(&id)["result"], json!({}));
    }
    seen.look(|state| state.goes_on = true);
    seen.until("it is settled", |state| about(&state.own, "a:1").len() == 2);
    let own = seen.look(|state| state.own.clone());
    let both = ["resources/subscribe", "resources/unsubscribe"];
    assert_eq!(about(&own, "a:1"), both);
    assert!(about(&own, "a:2").is_empty(), "{own:?}");
}

#[test]
fn a_server_that_hangs_does_not_keep_the_list_that_is_known() {
    let (home, seen) = (home(), Seen::default());
    let hangs = seen.clone();
    let server = Fake::start(move |verb, message| {
        if let Some(answer) = begun(message) {
            return Some(answer);
        }
        if verb == "GET" {
            return Some((200, OPEN, String::new()));
        }
        if message["method"] == "tools/list" {
            let nth = hangs.look(|state| {
                state.streams += 1;
                state.streams
            });
            if nth > 1 {
                hangs.until("it goes on", |state| state.goes_on);
            }
            return result(message, json!({"tools": [{"name": "known"}]}));
        }
        result(message, json!({}))
    });
    let mut host = Host::start(home.path(), &server.url, "amb_pk_any");
    host.begin();
    assert_eq!(host.tools(), ["known"]);
    host.before();
    assert_eq!(host.tools(), ["known"], "as it was, after ten seconds");
    assert_eq!(server.count("tools/list"), 2);
    seen.look(|state| state.goes_on = true);
    // Once it is back, what was told is asked for anew.
    host.done("any", json!({}));
    host.told("notifications/tools/list_changed");
}
