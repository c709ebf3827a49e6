//! What servers tell of themselves: lists that change, and resources that somebody subscribed to.

use serde_json::{Value, json};

use crate::face::{Client, listen};
use crate::questions::{add, asker, said};
use crate::stateless::Client as Stateless;
use crate::world::World;

const OURS: &str = "io.modelcontextprotocol/";

/// What a stream tells next, in short: of which resource, or which list.
fn next(lines: &mut impl Iterator<Item = String>) -> String {
    let data = lines.find_map(|line| {
        let data: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
        let uri = data["params"]["uri"].as_str().map(str::to_owned);
        Some(uri.unwrap_or_else(|| data["method"].as_str().unwrap().to_owned()))
    });
    data.expect("the stream has ended")
}

fn watch(client: &Client, method: &str, uri: &str) -> Value {
    let method = format!("resources/{method}");
    client.ask("w", &method, json!({"uri": uri})).json()
}

/// Has the server tell of these; gives what it is subscribed to.
fn touch(client: &Client, uris: &[&str]) -> Value {
    said(&client.call("t", "touch", json!({"uris": uris})))
}

#[test]
fn who_subscribed_hears_of_a_resource_and_who_listens_of_lists() {
    let (world, key) = asker(&[]);
    let bob = world.key("bob");
    let begin = |key: &str| Client::that_can(&world, "/mcp/asker", key, json!({}));
    let (first, second, other) = (begin(&key), begin(&key), begin(&bob));
    let mut heard: Vec<_> = [&first, &second, &other].map(listen).into_iter().collect();
    for (client, uri) in [
        (&first, "a:1"),
        (&second, "a:1"),
        (&second, "a:2"),
        (&other, "a:2"),
    ] {
        assert_eq!(watch(client, "subscribe", uri)["result"], json!({}));
    }
    assert_eq!(watch(&first, "subscribe", "b:1")["error"]["code"], -32601);
    assert_eq!(
        watch(&first, "subscribe", &"a".repeat(9000))["error"]["data"]["error"],
        "invalid_request"
    );
    // Each hears of its own: the order shows that nothing else came.
    assert_eq!(touch(&first, &["a:2", "a:1"]), json!(["a:1", "a:2"]));
    assert_eq!(next(&mut heard[0]), "a:1");
    assert_eq!([next(&mut heard[1]), next(&mut heard[1])], ["a:2", "a:1"]);
    // The server is told only when nobody is left.
    assert_eq!(watch(&first, "unsubscribe", "a:1")["result"], json!({}));
    assert_eq!(touch(&first, &["a:1"]), json!(["a:1", "a:2"]));
    assert_eq!(next(&mut heard[1]), "a:1");
    assert_eq!(watch(&second, "unsubscribe", "a:1")["result"], json!({}));
    assert_eq!(touch(&first, &["a:1", "a:2"]), json!(["a:2"]));
    assert_eq!(next(&mut heard[1]), "a:2");
    // Lists are told to all that the isolate serves, and to nobody else.
    first.call("c", "change", json!({}));
    for stream in &mut heard[..2] {
        assert_eq!(next(stream), "notifications/resources/list_changed");
        assert_eq!(next(stream), "notifications/prompts/list_changed");
        assert_eq!(next(stream), "notifications/elicitation/complete");
    }
    touch(&other, &["a:2"]);
    assert_eq!(next(&mut heard[2]), "a:2");
    // A run that is new is subscribed to what the one before it was.
    let isolate = world.isolate("asker", Some("ada"));
    world.cli(&["isolate", "restart", isolate["id"].as_str().unwrap()]);
    world.until("the new run is subscribed", |_| {
        (touch(&first, &[]) == json!(["a:2"])).then_some(())
    });
    touch(&first, &["a:2"]);
    assert_eq!(next(&mut heard[1]), "a:2");
}

#[test]
fn a_subscription_without_a_session_names_its_resources() {
    let (world, key) = asker(&[]);
    let client = Stateless::new(&world, "/mcp/asker", &key);
    let wanted = json!({"notifications": {"resourcesListChanged": true, "resourceSubscriptions": ["a:1", "b:1"]}});
    let mut told = client.stream("subscriptions/listen", wanted);
    let first = told.next().unwrap();
    assert_eq!(
        first["params"]["notifications"],
        json!({"resourcesListChanged": true, "resourceSubscriptions": ["a:1"]})
    );
    let call = |tool: &str, arguments: Value| {
        client.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    };
    assert_eq!(
        said(&call("touch", json!({"uris": ["a:1"]}))),
        json!(["a:1"])
    );
    call("change", json!({}));
    let updated = told.next().unwrap();
    assert_eq!(updated["method"], "notifications/resources/updated");
    assert_eq!(updated["params"]["uri"], "a:1");
    assert_eq!(
        updated["params"]["_meta"][format!("{OURS}subscriptionId")],
        "s"
    );
    let changed = told.next().unwrap();
    assert_eq!(changed["method"], "notifications/resources/list_changed");
    // The stream goes, and its subscriptions with it.
    drop(told);
    world.until("the server is not subscribed to", |_| {
        (said(&call("touch", json!({"uris": []}))) == json!([])).then_some(())
    });
    // Without a session nothing else subscribes.
    let refused = client.send("resources/subscribe", json!({"uri": "a:1"}), &[]);
    assert_eq!(refused.status, 404, "{refused:?}");
}

/// Who was in a group no more went on hearing what a shared server told the others.
#[test]
fn who_may_not_hear_a_server_any_more_hears_nothing() {
    let (world, key) = asker(&["--sharing", "shared"]);
    let bob = Client::new(&world, "/mcp/asker", &world.key("bob"));
    let keys = world.cli(&["key", "list", "--user", "ada"]);
    let client = Client::new(&world, "/mcp/asker", &key);
    let mut heard = listen(&client);
    let modern = Stateless::new(&world, "/mcp/asker", &key);
    let wanted = json!({"notifications": {"resourceSubscriptions": ["a:1"]}});
    let mut told = modern.stream("subscriptions/listen", wanted);
    assert!(told.next().is_some());
    assert_eq!(watch(&client, "subscribe", "a:1")["result"], json!({}));
    touch(&bob, &["a:1"]);
    assert_eq!(next(&mut heard), "a:1");
    assert_eq!(told.next().unwrap()["params"]["uri"], "a:1");
    world.cli(&["group", "member", "remove", "all", "ada"]);
    world.until("it is told that its tools are gone", |_| {
        (next(&mut heard) == "notifications/tools/list_changed").then_some(())
    });
    touch(&bob, &["a:1"]);
    // With the key both streams end: what comes until then is all.
    world.cli(&["key", "revoke", keys[0]["id"].as_str().unwrap()]);
    let rest: Vec<String> = heard.filter(|line| line.contains("updated")).collect();
    assert!(rest.is_empty(), "{rest:?}");
    let rest: Vec<Value> = told
        .filter(|line| line["params"]["uri"].is_string())
        .collect();
    assert!(rest.is_empty(), "{rest:?}");
}

/// Whoever has a stream open at an address hears the server that is there, whenever it came and under whichever id.
#[test]
fn a_stream_hears_the_mcp_that_has_the_addresss_name_now() {
    const DONE: &str = "notifications/elicitation/complete";
    let (world, key) = asker(&[]);
    let client = Client::that_can(&world, "/mcp/asker", &key, json!({}));
    let mut heard = listen(&client);
    let id = world.cli(&["key", "list", "--user", "ada"])[0]["id"].clone();
    let subscribe = |how: &str| {
        world.cli(&["subscription", how, id.as_str().unwrap(), "asker"]);
    };
    world.cli(&["mcp", "archive", "asker"]);
    add(&world, &[]);
    subscribe("add");
    // The stream turns to it a moment after calls do.
    let hears = |stream: &mut dyn Iterator<Item = String>| {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100 {
                    if done.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    client.call("c", "change", json!({}));
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            });
            let mut told = std::iter::repeat_with(|| next(&mut &mut *stream));
            assert!(told.any(|told| told == DONE));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    };
    hears(&mut heard);
    // One that was opened before its key saw anything.
    drop(heard);
    subscribe("remove");
    let mut early = listen(&client);
    subscribe("add");
    hears(&mut early);
}

#[test]
fn what_a_server_says_again_and_again_is_gathered() {
    const LISTS: [&str; 2] = ["resources", "prompts"];
    let world = World::new();
    let shelf = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/shelf.py");
    world.mcp("shelf", &[], &["python3", shelf, "shelf"]);
    let client = Client::new(&world, "/mcp/shelf", &world.key("ada"));
    let mut heard = listen(&client);
    assert_eq!(
        watch(&client, "subscribe", "file:///same")["result"],
        json!({})
    );
    let since = std::time::Instant::now();
    let many: Vec<&str> = LISTS.into_iter().cycle().take(400).collect();
    client.call(1, "retell", json!({"of": many}));
    std::thread::sleep(std::time::Duration::from_millis(300));
    client.call(2, "touch", json!({"uris": ["file:///same"]}));
    let told: Vec<String> = std::iter::repeat_with(|| next(&mut heard))
        .take_while(|told| told != "file:///same")
        .collect();
    // The first of each goes out at once, what follows once in 100 ms, and the last is not lost.
    for list in LISTS {
        let times = told.iter().filter(|one| one.contains(list)).count() as u128;
        let most = 2 + since.elapsed().as_millis() / 100;
        assert!(
            (2..=most).contains(&times),
            "{list}: {times} of at most {most}"
        );
    }
}

#[test]
fn a_server_that_somebody_listens_to_is_not_idle() {
    let (world, key) = asker(&["--idle", "1s"]);
    let client = Client::that_can(&world, "/mcp/asker", &key, json!({}));
    let stream = listen(&client);
    assert_eq!(watch(&client, "subscribe", "a:1")["result"], json!({}));
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(world.isolate("asker", Some("ada"))["state"], "ready");
    drop(stream);
    stopped(&world);
}

fn stopped(world: &World) {
    world.until("nobody listens any more", |world| {
        (world.isolate("asker", Some("ada"))["state"] != "ready").then_some(())
    });
}
