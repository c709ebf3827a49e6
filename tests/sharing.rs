//! Many sessions of several users in one shared process, in both eras, all with the same ids, tokens and names: each is
//! told its own, and one that cancels cancels its own.

use serde_json::{Value, json};

use crate::face::{Client, text};
use crate::resuming::events;
use crate::stateless::Client as Stateless;
use crate::world::World;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/shared.py");
const CLIENTS: usize = 12;
const CALLS: usize = 6;

fn call(id: usize, words: &str, steps: usize) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": "steps", "arguments": {"words": words, "steps": steps}, "_meta": {"progressToken": id}}})
}

/// What a call with this id and token heard, which must all be its own.
fn own(messages: impl Iterator<Item = Value>, id: usize, words: &str) -> usize {
    let mut heard = 0;
    for message in messages {
        if message["method"] == "notifications/progress" {
            let params = &message["params"];
            assert_eq!(
                (&params["message"], &params["progressToken"]),
                (&json!(words), &json!(id))
            );
            heard += 1;
        } else {
            assert_eq!(
                (&message["id"], text(&message)),
                (&json!(id), words),
                "{message}"
            );
            return heard;
        }
    }
    panic!("no answer to {words}")
}

#[test]
fn sessions_of_one_process_with_equal_ids_hear_their_own() {
    let world = World::new();
    world.mcp("steps", &["--sharing", "shared"], &["python3", SCRIPT]);
    let keys: Vec<_> = ["ada", "bob", "eve"].map(|user| world.key(user)).into();
    let begin = |n: usize| Client::new(&world, "/mcp/steps", &keys[n % keys.len()]);
    let clients: Vec<_> = (0..CLIENTS).map(begin).collect();
    let modern: Vec<_> = keys
        .iter()
        .map(|key| Stateless::new(&world, "/mcp/steps", key))
        .collect();
    std::thread::scope(|scope| {
        for (n, client) in clients.iter().enumerate() {
            for id in 1..=CALLS {
                scope.spawn(move || {
                    let words = format!("{n} says {id}");
                    if id == CALLS {
                        // All cancel this one; whoever cancels another's would miss an answer.
                        let mut begun = client.messages(&call(id, &words, 500));
                        let first = begun.next().expect("it is under way");
                        assert!(first.get("id").is_none(), "{first}");
                        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                            "params": {"requestId": id}});
                        assert_eq!(client.send(cancel).status, 202);
                        let answers = begun.filter(|message| message.get("id").is_some());
                        assert_eq!(answers.count(), 0);
                        return;
                    }
                    let heard = own(client.messages(&call(id, &words, 10)), id, &words);
                    assert!(heard <= 10);
                });
            }
        }
        for (n, client) in modern.iter().enumerate() {
            for id in 1..=CALLS {
                scope.spawn(move || {
                    let words = format!("modern {n} says {id}");
                    let params = json!({"name": "steps", "arguments": {"words": words, "steps": 10},
                        "_meta": {"progressToken": id}});
                    for message in client.stream("tools/call", params) {
                        let told = &message["params"]["message"];
                        assert!(told.is_null() || *told == json!(words), "{message}");
                        if message.get("result").is_some() {
                            assert_eq!(text(&message), words);
                        }
                    }
                });
            }
        }
    });
    assert_eq!(world.isolates().len(), 1, "one process");
    world.until("what was cancelled has ended", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
    // Equal subscriptions: each hears of its own resource, on its own stream.
    let mut streams: Vec<_> = clients
        .iter()
        .map(|client| events(client.sent("GET", &[("Connection", "close")], "")).1)
        .collect();
    for (n, client) in clients.iter().enumerate() {
        let uri = format!("own:{n}");
        assert_eq!(
            client
                .ask("s", "resources/subscribe", json!({"uri": uri}))
                .json()["result"],
            json!({})
        );
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let updated = stream.find(|event| !event.data.is_empty()).unwrap().json();
        assert_eq!(updated["params"]["uri"], format!("own:{n}"), "{updated}");
    }
}
