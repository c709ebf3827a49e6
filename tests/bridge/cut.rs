//! Connections that are cut between the bridge and its server, while both stay.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::fake::{Fake, begun};
use super::host::{Host, initialize, text};
use super::{home, until_a_call_is_under_way};
use crate::questions::{self, ALL, accepts, asker, can_all, said};
use crate::world::{World, free_port};

/// A line to a server that can be cut.
struct Line {
    url: String,
    /// Nobody else gets through.
    shut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    fn to(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let server = world.url.strip_prefix("http://").unwrap().to_owned();
        let open = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&open);
        let shut = Arc::new(AtomicBool::new(false));
        let is_shut = Arc::clone(&shut);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_shut.load(Ordering::Relaxed) {
                    continue;
                }
                let server = TcpStream::connect(&server).unwrap();
                let both = [&client, &server].map(|end| end.try_clone().unwrap());
                kept.lock().unwrap().extend(both);
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut up, &mut down));
                let (mut from, mut to) = (server, client);
                thread::spawn(move || {
                    _ = io::copy(&mut from, &mut to);
                    _ = to.shutdown(Shutdown::Both);
                });
            }
        });
        Self { url, shut, open }
    }

    fn cut(&self) {
        for end in self.open.lock().unwrap().drain(..) {
            _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_call_whose_connection_is_cut_is_answered_and_was_made_once() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, line) = (home(), Line::to(&world));
    let mut host = Host::start(home.path(), &line.url, &world.key("ada"));
    host.begin();
    let id = host.call("sleep", json!({"ms": 4000}));
    until_a_call_is_under_way(&world);
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(500));
        line.cut();
    }
    let answer = host.answer(&id);
    assert_eq!(answer["result"]["isError"], json!(false), "{answer}");
    assert!(text(&answer).contains("4000"), "{answer}");
    let records = crate::kill::audit(&world);
    let made = |one: &&Value| one["event"] == "call.start" && one["tool"] == "sleep";
    assert_eq!(records.iter().filter(made).count(), 1, "{records:?}");
    let log = host.log();
    assert!(log.contains("is taken up again"), "{log}");
    // The stream of news as well: what comes after the cut is told.
    world.demo("second", &[]);
    let key = world.cli(&["key", "list"])[0]["id"].clone();
    world.cli(&["subscription", "add", key.as_str().unwrap(), "second"]);
    host.told("notifications/tools/list_changed");
}

#[test]
fn an_answer_to_a_servers_question_waits_for_a_server_that_is_away() {
    let (world, key) = asker(ALL);
    let (home, line) = (home(), Line::to(&world));
    let mut host = Host::start(home.path(), &line.url, &key);
    let mut begin = initialize();
    begin["capabilities"] = can_all();
    let begun = host.ask("initialize", begin);
    host.answer(&begun);
    let call = host.call("ask", json!({"kinds": ["elicitation"]}));
    let asked = host.find("it is asked", |one| one["method"] == "elicitation/create");
    line.shut.store(true, Ordering::Relaxed);
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": accepts("late")});
    host.write(&answer.to_string());
    thread::sleep(Duration::from_millis(1500));
    line.shut.store(false, Ordering::Relaxed);
    assert_eq!(said(&host.answer(&call)), json!([accepts("late")]));
}

#[test]
fn what_the_ai_tool_subscribed_to_is_subscribed_to_again_after_a_restart() {
    let mut world = World::at_port(free_port());
    questions::add(&world, &[]);
    let (home, url) = (home(), format!("{}/mcp/asker", world.url));
    let mut host = Host::start(home.path(), &url, &world.key("ada"));
    host.begin();
    for (method, params) in [
        ("resources/subscribe", json!({"uri": "a:1"})),
        ("resources/subscribe", json!({"uri": "a:2"})),
        ("resources/unsubscribe", json!({"uri": "a:2"})),
        ("logging/setLevel", json!({"level": "error"})),
    ] {
        let id = host.ask(method, params);
        assert_eq!(host.answer(&id)["result"], json!({}), "{method}");
    }
    world.kill_9();
    world.start();
    let touched = |host: &mut Host| said(&host.done("touch", json!({"uris": ["a:1"]})));
    world.until("it is subscribed again", |_| {
        (touched(&mut host) == json!(["a:1"])).then_some(())
    });
    let told = host.told("notifications/resources/updated");
    assert_eq!(told["params"]["uri"], "a:1");
}

#[test]
fn a_server_that_ends_each_stream_is_asked_for_the_rest_until_it_has_an_answer() {
    let event = |id: u32, data: &str| {
        let text = format!("id: {id}\nretry: 10\ndata: {data}\n\n");
        Some((200, "text/event-stream", text))
    };
    let asked = Arc::new(Mutex::new(0));
    let server = Fake::start(move |verb, message| {
        if let Some(answer) = begun(message) {
            return Some(answer);
        }
        match (verb, message["method"].as_str()) {
            ("POST", Some("tools/call")) => event(1, ""),
            ("GET", _) => {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                match *asked {
                    // The listener's.
                    0..5 => event(*asked + 1, ""),
                    _ => {
                        let result = json!({"content": [{"type": "text", "text": "at last"}]});
                        let answer = json!({"jsonrpc": "2.0", "id": 2, "result": result});
                        event(9, &answer.to_string())
                    }
                }
            }
            _ => Some((202, "text/plain", String::new())),
        }
    });
    let home = home();
    let mut host = Host::start(home.path(), &server.url, "amb_pk_any");
    host.begin();
    let answer = host.done("slow", json!({}));
    assert_eq!(text(&answer), "at last", "{answer}");
    assert_eq!(server.count("tools/call"), 1);
}
