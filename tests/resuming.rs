//! Streams that are taken up again where they were cut: what was missed comes, and nothing else, to nobody else.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Value, json};

use crate::face::{Client, text};
use crate::questions::{ALL, accepts, asker, call, can_all, said};
use crate::world::World;

/// One event of a stream.
#[derive(Debug, Default, Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) retry: String,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("no message: {self:?}"))
    }
}

/// The body of an answer in chunks, as one.
struct Body<R> {
    reader: BufReader<R>,
    left: usize,
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut size = String::new();
            // The end of the chunk before, and the size of this one.
            while size.trim().is_empty() {
                size.clear();
                if self.reader.read_line(&mut size)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.left);
        let read = self.reader.read(&mut into[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// The status of an answer, and its events as they come.
pub(crate) fn events(stream: impl Read) -> (u16, impl Iterator<Item = Event>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = Body { reader, left: 0 };
    let mut lines = BufReader::new(body).lines().map_while(Result::ok);
    let events = std::iter::from_fn(move || {
        let mut event = Event::default();
        for line in lines.by_ref() {
            match line.split_once(": ").or_else(|| line.split_once(':')) {
                Some(("id", value)) => event.id = value.to_owned(),
                Some(("retry", value)) => event.retry = value.to_owned(),
                Some(("event", value)) => event.name = value.to_owned(),
                Some(("data", value)) => event.data = value.to_owned(),
                None if line.is_empty() && !(event.id.is_empty() && event.data.is_empty()) => {
                    return Some(event);
                }
                _ => {}
            }
        }
        None
    });
    (status, events)
}

const CLOSE: (&str, &str) = ("Connection", "close");
const OLD: (&str, &str) = ("MCP-Protocol-Version", "2025-06-18");

/// Begins a request; its events.
fn begun(
    client: &Client,
    message: &Value,
    more: &[(&str, &str)],
) -> impl Iterator<Item = Event> + use<> {
    let headers = [&[CLOSE], more].concat();
    let (status, events) = events(client.sent("POST", &headers, &message.to_string()));
    assert_eq!(status, 200);
    events
}

/// Takes a stream up again.
fn again(client: &Client, last: &str) -> impl Iterator<Item = Event> + use<> {
    let headers = [CLOSE, ("Last-Event-ID", last)];
    let (status, events) = events(client.sent("GET", &headers, ""));
    assert_eq!(status, 200, "{last}");
    events
}

fn status(client: &Client, last: &str) -> u16 {
    let answer = client.raw("GET", &[CLOSE, ("Last-Event-ID", last)], "");
    if answer.status == 400 {
        let why = answer.json()["error"]["message"].to_string();
        assert!(why.contains("Last-Event-ID"), "{why}");
    }
    answer.status
}

fn sleep(id: &str, ms: u32) -> Value {
    call(id, "sleep", json!({"ms": ms}))
}

#[test]
fn the_answer_to_a_call_whose_connection_was_lost_is_fetched() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/demo", &key);
    client.call(0, "echo", json!({"text": "warm"}));
    let mut stream = begun(&client, &sleep("lost", 1000), &[]);
    let first = stream.next().unwrap();
    assert_eq!((first.data.as_str(), first.retry.as_str()), ("", "1000"));
    drop(stream);
    // Once while it is under way, once when it is over: the same answer, and the tool was called once.
    for _ in 0..2 {
        let mut stream = again(&client, &first.id);
        let answer = stream.next().unwrap();
        assert_eq!(answer.json()["id"], "lost", "{answer:?}");
        assert!(answer.id != first.id && stream.next().is_none());
        // Whoever has it has nothing to come back for.
        assert_eq!(status(&client, &answer.id), 204);
    }
    let records = crate::kill::audit(&world);
    let calls = records
        .iter()
        .filter(|one| one["tool"] == "sleep" && one["event"] == "call.start");
    assert_eq!(calls.count(), 1);
    // A warm call that is answered at once is plain JSON.
    let quick = client.ask(1, "ping", json!({}));
    assert!(quick.headers.to_lowercase().contains("application/json"));
    // A newer reader takes the place of an older one.
    let mut older = begun(&client, &sleep("two", 1500), &[]);
    let first = older.next().unwrap();
    let mut newer = again(&client, &first.id);
    assert!(older.next().is_none());
    assert_eq!(newer.next().unwrap().json()["id"], "two");
    // One that was cancelled has no answer, and none is waited for.
    let mut stream = begun(&client, &sleep("off", 60_000), &[]);
    let first = stream.next().unwrap();
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "off"}});
    assert_eq!(client.send(cancel).status, 202);
    assert!(stream.next().is_none());
    assert_eq!(status(&client, &first.id), 204);
}

#[test]
fn what_was_missed_comes_in_order_and_questions_come_again() {
    let (world, key) = asker(ALL);
    let client = Client::that_can(&world, "/mcp/asker", &key, can_all());
    client.call(0, "declared", json!({}));
    for old in [false, true] {
        let headers: &[_] = if old { &[OLD] } else { &[] };
        let mut stream = begun(&client, &call("p", "progress", json!({})), headers);
        let mut first = stream.next().unwrap();
        if old {
            // One that does not know events without a message has none.
            assert_eq!(first.json()["method"], "notifications/progress");
        } else {
            assert_eq!(first.data, "");
            assert_eq!(
                stream.next().unwrap().json()["params"]["progressToken"],
                "p"
            );
        }
        assert_eq!(
            stream.next().unwrap().json()["method"],
            "elicitation/create"
        );
        drop(stream);
        let mut stream = again(&client, &first.id);
        if !old {
            first = stream.next().unwrap();
            let progress = first.json();
            assert_eq!(
                progress["params"],
                json!({"progressToken": "p", "progress": 1})
            );
        }
        let asked = stream.next().unwrap();
        let question = asked.json();
        assert_eq!(question["method"], "elicitation/create", "{question}");
        // Again from the same place: the same question.
        drop(stream);
        let mut stream = again(&client, &first.id);
        assert_eq!(stream.next().unwrap().json(), question);
        let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": accepts("ada")});
        assert_eq!(client.send(answer).status, 202);
        let progress = stream.next().unwrap();
        assert_eq!(progress.json()["params"]["progress"], 2);
        assert_eq!(said(&stream.next().unwrap().json()), accepts("ada"));
        assert!(stream.next().is_none());
    }
}

#[test]
fn what_is_about_no_request_is_kept_as_well() {
    let (world, key) = asker(&[]);
    let client = Client::new(&world, "/mcp/asker", &key);
    let listen = |headers: &[(&str, &str)]| {
        let (status, events) = events(client.sent("GET", &[&[CLOSE], headers].concat(), ""));
        assert_eq!(status, 200);
        events
    };
    let mut stream = listen(&[]);
    let first = stream.next().unwrap();
    assert_eq!((first.data.as_str(), first.retry.as_str()), ("", "1000"));
    client.call(1, "change", json!({}));
    let changed = stream.next().unwrap();
    assert_eq!(
        changed.json()["method"],
        "notifications/resources/list_changed"
    );
    drop(stream);
    // What changes again at once is gathered (LIST_SETTLE).
    std::thread::sleep(std::time::Duration::from_millis(200));
    client.call(2, "change", json!({}));
    let mut stream = again(&client, &changed.id);
    let methods: Vec<_> = stream
        .by_ref()
        .take(5)
        .map(|event| event.json()["method"].clone())
        .collect();
    let (resources, prompts) = (
        "notifications/resources/list_changed",
        "notifications/prompts/list_changed",
    );
    let complete = "notifications/elicitation/complete";
    assert_eq!(methods, [prompts, complete, resources, prompts, complete]);
    // A new one takes its place; whoever names the old one then has a new one, without what was before.
    let mut newer = listen(&[OLD]);
    assert!(stream.next().is_none());
    client.call(3, "change", json!({}));
    assert_eq!(
        newer.next().unwrap().json()["method"],
        resources,
        "no event without a message"
    );
    let mut newest = again(&client, &changed.id);
    assert_eq!(newest.next().unwrap().data, "", "it begins");
    // What was told meanwhile is lost, so everything is looked at again.
    let told = newest.by_ref().take(3);
    let told: Vec<_> = told.map(|event| event.json()["method"].clone()).collect();
    assert_eq!(
        told,
        ["notifications/tools/list_changed", resources, prompts]
    );
    client.call(4, "change", json!({}));
    assert_eq!(newest.next().unwrap().json()["method"], resources);
}

#[test]
fn nobody_takes_up_the_stream_of_another_session() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, bob) = (world.key("ada"), world.key("bob"));
    let client = Client::new(&world, "/mcp/demo", &ada);
    let second = Client::new(&world, "/mcp/demo", &ada);
    let other = Client::new(&world, "/mcp/demo", &bob);
    let first = begun(&client, &sleep("s", 300), &[]).next().unwrap();
    for thief in [&second, &other] {
        assert_eq!(status(thief, &first.id), 400);
    }
    let (name, _) = first.id.split_once('-').unwrap();
    let far = format!("{name}-7");
    for wrong in [
        "x",
        "1",
        "a-1",
        far.as_str(),
        &format!("{name}-"),
        &first.id.replace('a', "b"),
    ] {
        assert_eq!(status(&client, wrong), 400, "{wrong}");
    }
    assert_eq!(again(&client, &first.id).next().unwrap().json()["id"], "s");
    // Nor is the news of another session told.
    let (_, mut listening) = events(client.sent("GET", &[CLOSE], ""));
    let begins = listening.next().unwrap();
    let mut theirs = again(&other, &begins.id);
    assert_ne!(theirs.next().unwrap().id, begins.id, "a stream of its own");
    let mut own = again(&client, &begins.id);
    let deny = ["--scope", "tool", "--target", "demo/echo", "--reason", "no"];
    world.cli(&[&["kill-switch", "on"], &deny[..]].concat());
    let changed = "notifications/tools/list_changed";
    assert_eq!(own.next().unwrap().json()["method"], changed);
    assert_eq!(theirs.next().unwrap().json()["method"], changed);
    // With the session everything goes.
    assert_eq!(client.raw("DELETE", &[], "").status, 204);
    assert!(own.next().is_none());
    assert_eq!(
        client
            .raw("GET", &[("Last-Event-ID", &first.id)], "")
            .status,
        404
    );
    world.cli(&["user", "suspend", "bob", "--reason", "left us"]);
    theirs.for_each(drop);
    assert_eq!(
        other
            .raw("GET", &[("Last-Event-ID", &begins.id)], "")
            .status,
        401
    );
}

/// Streams that nobody reads (`MCP_KEPT_STREAMS_MAX`).
const KEPT: usize = 64;

#[test]
fn so_many_lost_streams_are_kept_and_no_more() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    client.call(0, "echo", json!({"text": "warm"}));
    let lost: Vec<_> = (0..KEPT + 3)
        .map(|n| {
            begun(&client, &sleep(&format!("n{n}"), 200), &[])
                .next()
                .unwrap()
                .id
        })
        .collect();
    world.until("the oldest have made room", |_| {
        (status(&client, &lost[0]) == 400).then_some(())
    });
    let last = again(&client, lost.last().unwrap()).next().unwrap().json();
    assert_eq!(last["id"], format!("n{}", KEPT + 2));
    assert!(text(&client.call(1, "echo", json!({"text": "on"}))) == "on");
}

/// A large answer is kept until it is sent, and comes whole to who takes its stream up again.
#[test]
fn a_large_answer_is_kept_until_it_is_sent() {
    let (world, key) = asker(&[]);
    let client = Client::new(&world, "/mcp/asker", &key);
    client.call(0, "declared", json!({}));
    let first = begun(&client, &call("l", "large", json!({})), &[])
        .next()
        .unwrap();
    // Its connection is lost in the middle.
    let half = client.sent("GET", &[CLOSE, ("Last-Event-ID", &first.id)], "");
    let mut body = BufReader::new(half);
    body.read_exact(&mut vec![0; 100_000]).unwrap();
    drop(body);
    let answer = again(&client, &first.id).next().unwrap();
    assert_eq!(said(&answer.json()).as_str().unwrap().len(), 8 << 20);
    assert_eq!(status(&client, &first.id), 400, "it was sent");
}
