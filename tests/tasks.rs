//! Tasks: calls whose client does not wait for them, in both eras, before a server of 2025-11-25 whose tools work as
//! tasks; and what becomes of them when its run ends, when they are taken away, or when somebody asks wrongly.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::face::{Client, listen, text};
use crate::questions::accepts;
use crate::stateless::Client as Stateless;
use crate::world::World;

const OURS: &str = "io.modelcontextprotocol/";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/tasker.py");
const ASKS: &[&str] = &["--ask", "elicitation"];

/// A gateway with the server, and a key that may use it.
fn tasker(options: &[&str], more: &[&str]) -> (World, String) {
    let world = World::new();
    add(&world, "tasker", options, more);
    let key = world.key("ada");
    (world, key)
}

fn add(world: &World, name: &str, options: &[&str], more: &[&str]) {
    let command: Vec<&str> = ["python3", SCRIPT].iter().chain(more).copied().collect();
    world.mcp(name, options, &command);
}

fn can() -> Value {
    json!({"elicitation": {}})
}

/// The request of a call that is to be a task.
fn request(id: impl Into<Value>, tool: &str, arguments: Value, task: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "task": task, "_meta": {"progressToken": "p"}}})
}

/// Makes one, and gives what it is called.
fn begin(client: &Client, tool: &str, arguments: Value) -> String {
    let answer = client.send(request("t", tool, arguments, json!({}))).json();
    let task = &answer["result"]["task"];
    assert_eq!(task["status"], "working", "{answer}");
    task["taskId"].as_str().unwrap().to_owned()
}

/// The answer to a request about a task, after whatever is told before it.
fn ask(client: &Client, method: &str, task: &str) -> Value {
    let request =
        json!({"jsonrpc": "2.0", "id": method, "method": method, "params": {"taskId": task}});
    let mut messages = client.messages(&request);
    messages.find(|one| one["id"] == method).unwrap()
}

fn get(client: &Client, task: &str) -> Value {
    let answer = ask(client, "tasks/get", task);
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

fn ended(client: &Client, task: &str) -> Value {
    let since = Instant::now();
    loop {
        let task = get(client, task);
        if !["working", "input_required"].contains(&task["status"].as_str().unwrap()) {
            return task;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{task}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"]
        .as_i64()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_call_is_a_task_and_its_client_comes_back_for_the_result() {
    let (world, key) = tasker(&["--idle", "1s"], &[]);
    let client = Client::new(&world, "/mcp/tasker", &key);
    let begun = client.ask(
        9,
        "initialize",
        json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"}}),
    );
    let whole = json!({"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}});
    assert_eq!(begun.json()["result"]["capabilities"]["tasks"], whole);
    let mut heard = listen(&client);
    let answer = client.send(request(
        "a",
        "slow",
        json!({"ms": 5000, "steps": 10, "text": "it"}),
        json!({"ttl": 60000}),
    ));
    let answer = answer.json();
    let task = &answer["result"]["task"];
    let id = task["taskId"].as_str().unwrap();
    assert!(id.starts_with("tsk_"), "{answer}");
    assert_eq!(
        (&task["status"], &task["ttl"], &task["pollInterval"]),
        (&json!("working"), &json!(60000), &json!(100))
    );
    assert_eq!(
        answer["result"]["_meta"][format!("{OURS}model-immediate-response")],
        "wait for it"
    );
    // It says how far it is to who asks, without being asked, and with the token of its call.
    world.until("it says how far it is", |_| {
        let task = get(&client, id);
        assert_ne!(task["status"], "completed", "{task}");
        task["statusMessage"]
            .as_str()
            .unwrap()
            .starts_with("step")
            .then_some(())
    });
    let status = heard
        .find(|line| line.contains("notifications/tasks/status"))
        .unwrap();
    assert!(
        status.contains(id) && status.contains("\"working\""),
        "{status}"
    );
    let progress = heard
        .find(|line| line.contains("notifications/progress"))
        .unwrap();
    assert!(
        progress.contains(id) && progress.contains("\"p\"") && !progress.contains("task-"),
        "{progress}"
    );
    // Who waits for the result hears the rest, in its place.
    let wait =
        json!({"jsonrpc": "2.0", "id": "r", "method": "tasks/result", "params": {"taskId": id}});
    let said: Vec<Value> = client.messages(&wait).collect();
    let (last, news) = said.split_last().unwrap();
    let methods: Vec<_> = news
        .iter()
        .filter_map(|one| one["method"].as_str())
        .collect();
    for method in ["progress", "tasks/status", "message"] {
        assert!(
            methods.contains(&format!("notifications/{method}").as_str()),
            "{methods:?}"
        );
    }
    assert_eq!(
        (text(last), &last["result"]["_meta"]),
        (
            "it",
            &json!({format!("{OURS}related-task"): {"taskId": id}, "own": 1})
        )
    );
    // As often as it is asked for, and for another client of the key; its isolate was not idle meanwhile.
    assert_eq!(get(&client, id)["status"], "completed");
    let other = Client::new(&world, "/mcp/tasker", &key);
    assert_eq!(text(&ask(&other, "tasks/result", id)), "it");
    let list = other.ask(1, "tasks/list", json!({})).json();
    assert_eq!(list["result"]["tasks"][0]["taskId"], id, "{list}");
    assert!(
        text(&client.call(1, "seen", json!({}))).contains("tasks/result"),
        "it is the same process"
    );
    // A tool that failed, one whose call has an error, and one that may not.
    let failed = begin(&client, "fails", json!({}));
    assert_eq!(ended(&client, &failed)["status"], "failed");
    assert_eq!(
        ask(&client, "tasks/result", &failed)["result"]["isError"],
        true
    );
    let errs = begin(&client, "errs", json!({}));
    assert_eq!(ended(&client, &errs)["status"], "failed");
    assert_eq!(code(&ask(&client, "tasks/result", &errs)), -32050);
    let plain = client
        .send(request("n", "plain", json!({}), json!({})))
        .json();
    assert_eq!(code(&plain), -32601, "{plain}");
    for wrong in [json!(7), json!({"ttl": "x"}), json!({"ttl": -1})] {
        let answer = client.send(request("w", "slow", json!({}), wrong)).json();
        assert_eq!(code(&answer), -32602, "{answer}");
    }
    // What was made is on record, with its end.
    assert_eq!(outcome(&world, id), "answered");
    // One ends with its result before anybody waits: idle then.
    world.until("the isolate is idle", |world| {
        (world.isolate("tasker", Some("ada"))["state"] != "ready").then_some(())
    });
    assert_eq!(text(&ask(&client, "tasks/result", id)), "it");
}

/// How the log says that the call of a task ended.
fn outcome(world: &World, task: &str) -> String {
    world.until("the end is on record", |world| {
        let segments = crate::audit::segments(&world.data_dir().join("audit"));
        let records: Vec<Value> = segments
            .iter()
            .flat_map(|path| {
                let text = std::fs::read_to_string(path).unwrap();
                let lines = text.lines().map(serde_json::from_str).collect::<Vec<_>>();
                // The last line may be half-written.
                lines.into_iter().filter_map(Result::ok)
            })
            .collect();
        let start = records.iter().find(|one| one["task"] == task)?;
        assert_eq!(start["event"], "call.start", "{start}");
        let is_end = |one: &&Value| one["event"] == "call.end" && one["call"] == start["call"];
        let end = records.iter().find(is_end)?;
        Some(end["outcome"].as_str()?.to_owned())
    })
}

#[test]
fn a_task_is_its_key_s_and_ends_once() {
    let (world, key) = tasker(&[], &["--odd"]);
    let client = Client::new(&world, "/mcp/tasker", &key);
    let id = begin(&client, "slow", json!({"ms": 60000}));
    let others = [
        Client::new(&world, "/mcp/tasker", &world.key("bob")),
        // Another key of the same user.
        Client::new(&world, "/mcp/tasker", &world.key("ada")),
    ];
    for other in &others {
        for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
            assert_eq!(code(&ask(other, method, &id)), -32602);
        }
        assert_eq!(
            other.ask(1, "tasks/list", json!({})).json()["result"],
            json!({"tasks": []})
        );
    }
    for odd in [
        "",
        "n \"1\"\\é/../\n",
        "task-1",
        "tsk_",
        "tsk_0000000000000000",
        "../../x",
        &"x".repeat(5000),
    ] {
        assert_eq!(code(&ask(&client, "tasks/get", odd)), -32602, "{odd}");
    }
    for wrong in [json!({}), json!({"taskId": 7}), json!([id]), Value::Null] {
        assert_eq!(code(&client.ask(1, "tasks/get", wrong).json()), -32602);
    }
    for cursor in [json!("x"), json!("from-"), json!(7), json!("from--1")] {
        assert_eq!(
            code(
                &client
                    .ask(1, "tasks/list", json!({"cursor": cursor}))
                    .json()
            ),
            -32602
        );
    }
    assert_eq!(
        code(&client.ask(1, "tasks/update", json!({"taskId": id})).json()),
        -32601
    );
    // Letting go of who waits for it changes nothing; cancelling it does, once.
    let wait =
        json!({"jsonrpc": "2.0", "id": "r", "method": "tasks/result", "params": {"taskId": id}});
    drop(client.messages(&wait));
    assert_eq!(get(&client, &id)["status"], "working");
    let cancelled = ask(&client, "tasks/cancel", &id);
    assert_eq!(cancelled["result"]["status"], "cancelled", "{cancelled}");
    assert_eq!(code(&ask(&client, "tasks/cancel", &id)), -32602);
    let result = ask(&client, "tasks/result", &id);
    assert_eq!(
        result["result"]["_meta"]["legation/error"], "cancelled",
        "{result}"
    );
    assert_eq!(
        result["result"]["_meta"][format!("{OURS}related-task")]["taskId"],
        id.as_str()
    );
    world.until("the server was told", |_| {
        let seen = client.call(1, "seen", json!({}));
        text(&seen).contains("tasks/cancel").then_some(())
    });
    world.until("the call is over", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
    assert_eq!(
        outcome(&world, &id),
        "cancelled",
        "it is no caller that left"
    );
    // One whose time is over is forgotten.
    let short = client
        .send(request(
            "s",
            "slow",
            json!({"ms": 60000}),
            json!({"ttl": 1500}),
        ))
        .json();
    let short = short["result"]["task"]["taskId"].as_str().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let gone = ask(&client, "tasks/get", short);
    assert!(
        code(&gone) == -32602 && gone.to_string().contains("expired"),
        "{gone}"
    );
}

#[test]
fn a_run_that_ends_fails_its_tasks_and_what_is_taken_away_is_not_read() {
    let (world, key) = tasker(&[], &[]);
    let client = Client::new(&world, "/mcp/tasker", &key);
    let done = begin(&client, "slow", json!({"text": "secret"}));
    ended(&client, &done);
    let crash = begin(&client, "crash", json!({"ms": 300}));
    let beside = begin(&client, "slow", json!({"ms": 60000}));
    for id in [&crash, &beside] {
        let task = ended(&client, id);
        assert_eq!(task["status"], "failed", "{task}");
        assert!(
            task["statusMessage"]
                .as_str()
                .unwrap()
                .contains("the last words"),
            "{task}"
        );
        let result = ask(&client, "tasks/result", id);
        assert_eq!(
            result["result"]["_meta"]["legation/error"], "run_ended",
            "{result}"
        );
    }
    // An end by an administrator: of the call, of the tool, of the mcp.
    let one = begin(&client, "slow", json!({"ms": 60000}));
    let calls = world.cli(&["call", "list"]);
    let call = calls[0]["id"].as_str().unwrap_or_else(|| panic!("{calls}"));
    let report = world.cli(&["call", "cancel", call, "--reason", "enough of it"]);
    assert_eq!(report["recycled"], false, "{report}");
    let task = ended(&client, &one);
    assert!(
        task["status"] == "cancelled" && task.to_string().contains("enough of it"),
        "{task}"
    );
    for (scope, target) in [("tool", "tasker/slow"), ("mcp", "tasker")] {
        let id = begin(&client, "slow", json!({"ms": 60000}));
        let switch = |on: &str| {
            [
                "kill-switch",
                on,
                "--scope",
                scope,
                "--target",
                target,
                "--yes",
            ]
            .map(str::to_owned)
        };
        let mut on = switch("on").to_vec();
        on.extend(["--reason".to_owned(), "token leak".to_owned()]);
        world.cli(&on.iter().map(String::as_str).collect::<Vec<_>>());
        let task = ended(&client, &id);
        assert!(
            task["status"] == "cancelled" && task.to_string().contains("token leak"),
            "{scope} {task}"
        );
        // What had ended before is not read either.
        let denied = ask(&client, "tasks/result", &done);
        assert!(
            !denied.to_string().contains("secret") && denied.to_string().contains("token leak"),
            "{denied}"
        );
        let off = switch("off");
        world.cli(&off.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(text(&ask(&client, "tasks/result", &done)), "secret");
    }
    // A suspended user reads nothing.
    let id = begin(&client, "slow", json!({"ms": 60000}));
    world.cli(&["user", "suspend", "ada", "--reason", "left us"]);
    let refused = client.ask(1, "tasks/get", json!({"taskId": id}));
    assert_eq!(refused.status, 401, "{refused:?}");
    world.until("the call is over", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
}

/// A server that answers at once and wants to be asked again in a minute was out of everybody's reach meanwhile.
#[test]
fn a_task_that_is_not_asked_about_in_this_minute_is_a_call_all_the_same() {
    let (world, key) = tasker(&[], &["--eager", "--rare"]);
    let client = Client::new(&world, "/mcp/tasker", &key);
    let one = begin(&client, "slow", json!({"ms": 60000}));
    std::thread::sleep(Duration::from_secs(1));
    let calls = world.cli(&["call", "list"]);
    assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
    let call = calls[0]["id"].as_str().unwrap();
    let report = world.cli(&["call", "cancel", call, "--reason", "enough of it"]);
    assert_eq!(report["recycled"], false, "{report}");
    let since = Instant::now();
    let task = ended(&client, &one);
    assert!(
        task["status"] == "cancelled" && task.to_string().contains("enough of it"),
        "{task}"
    );
    let two = begin(&client, "slow", json!({"ms": 60000}));
    std::thread::sleep(Duration::from_secs(1));
    let on = [
        "kill-switch",
        "on",
        "--scope",
        "tool",
        "--target",
        "tasker/slow",
    ];
    let why = ["--reason", "token leak", "--yes"];
    world.cli(&[on.as_slice(), why.as_slice()].concat());
    let task = ended(&client, &two);
    assert!(
        task["status"] == "cancelled" && task.to_string().contains("token leak"),
        "{task}"
    );
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(world.cli(&["call", "list"]), json!([]));
}

/// A task goes on for hours; its key may be gone by then.
#[test]
fn a_task_ends_with_what_its_key_may() {
    let (world, key) = tasker(&[], &[]);
    let client = Client::new(&world, "/mcp/tasker", &key);
    let keys = world.cli(&["key", "list"]);
    let id = keys[0]["id"].as_str().unwrap_or_else(|| panic!("{keys}"));
    let is_over = |what: &str| {
        world.until(what, |world| {
            (world.cli(&["call", "list"]) == json!([])).then_some(())
        });
    };
    let one = begin(&client, "slow", json!({"ms": 60000}));
    world.cli(&["subscription", "remove", id, "tasker"]);
    is_over("a task whose tool its key does not have any more is over");
    assert_eq!(outcome(&world, &one), "not_subscribed");
    world.cli(&["subscription", "add", id, "tasker"]);
    let task = get(&client, &one);
    assert_eq!(task["status"], "cancelled", "{task}");
    let two = begin(&client, "slow", json!({"ms": 60000}));
    world.cli(&["key", "revoke", id]);
    is_over("a task whose key was revoked is over");
    assert_eq!(outcome(&world, &two), "session_suspended");
}

fn asked(messages: &mut impl Iterator<Item = Value>) -> Value {
    let asked = messages.find(|one| one["method"] == "elicitation/create");
    asked.unwrap()
}

#[test]
fn what_a_task_asks_is_put_to_who_waits_for_its_result() {
    let (world, key) = tasker(ASKS, &[]);
    let client = Client::that_can(&world, "/mcp/tasker", &key, can());
    let first = begin(&client, "asks", json!({"names": ["a", "b"]}));
    let second = begin(&client, "asks", json!({"names": ["c"]}));
    for id in [&first, &second] {
        world.until("it asks", |_| {
            (get(&client, id)["status"] == "input_required").then_some(())
        });
    }
    let count = std::cell::Cell::new(0);
    let wait = |id: &str| {
        count.set(count.get() + 1);
        json!({"jsonrpc": "2.0", "id": count.get(), "method": "tasks/result", "params": {"taskId": id}})
    };
    let answer = |asked: &Value, name: &str| {
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": accepts(name)});
        assert_eq!(client.send(answer).status, 202);
    };
    // Each is asked for its own task, and no server is told that its question could be a task.
    let mut waits = client.messages(&wait(&first));
    let one = asked(&mut waits);
    assert_eq!(one["params"]["message"], "a?", "{one}");
    assert_eq!(
        one["params"]["_meta"],
        json!({format!("{OURS}related-task"): {"taskId": first}})
    );
    assert!(one["params"]["task"].is_null(), "{one}");
    // Letting go of the stream loses nothing: it is put again, and answered beside it.
    drop(waits);
    let mut waits = client.messages(&wait(&first));
    assert_eq!(asked(&mut waits)["id"], one["id"]);
    answer(&one, "ada");
    let two = asked(&mut waits);
    assert_eq!(two["params"]["message"], "b?");
    drop(waits);
    // Another client of the key may be the one who answers; the late one does no harm.
    let other = Client::that_can(&world, "/mcp/tasker", &key, can());
    let mut theirs = other.messages(&wait(&first));
    let same = asked(&mut theirs);
    let reply = json!({"jsonrpc": "2.0", "id": same["id"], "result": accepts("bob")});
    assert_eq!(other.send(reply).status, 202);
    answer(&two, "late");
    let last = theirs.find(|one| one["result"].is_object()).unwrap();
    assert_eq!(
        crate::questions::said(&last),
        json!([accepts("ada"), accepts("bob")])
    );
    // A plain call beside a task that asks is asked for itself.
    let call = crate::questions::call("p", "asks", json!({"names": ["d"]}));
    let said = crate::questions::answered(&client, &call, |asked| {
        assert_eq!(asked["params"]["message"], "d?", "{asked}");
        accepts("eve")
    });
    assert!(text(&said).contains("eve"), "{said}");
    // What is cancelled while it asks: nobody is asked any more.
    let mut waits = client.messages(&wait(&second));
    let three = asked(&mut waits);
    ask(&client, "tasks/cancel", &second);
    let last = waits.find(|one| one["result"].is_object()).unwrap();
    assert_eq!(
        last["result"]["_meta"]["legation/error"], "cancelled",
        "{last}"
    );
    answer(&three, "late");
}

#[test]
fn a_tool_that_works_only_as_a_task_works_for_every_client() {
    let (world, key) = tasker(ASKS, &["--eager"]);
    let client = Client::that_can(&world, "/mcp/tasker", &key, can());
    let list = client.ask(1, "tools/list", json!({})).json();
    let support = |name: &str| {
        let tools = list["result"]["tools"].as_array().unwrap();
        let tool = tools.iter().find(|tool| tool["name"] == name).unwrap();
        tool["execution"]["taskSupport"].clone()
    };
    assert_eq!(
        (support("must"), support("slow"), support("plain")),
        (json!("optional"), json!("optional"), Value::Null)
    );
    // Its progress is the call's, and of the task it hears nothing.
    let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "must",
        "arguments": {"ms": 400, "steps": 2, "text": "held"}, "_meta": {"progressToken": 7}}});
    let said: Vec<Value> = client.messages(&call).collect();
    let (last, news) = said.split_last().unwrap();
    assert_eq!(text(last), "held", "{last}");
    assert_eq!(last["result"]["_meta"], json!({"own": 1}));
    assert!(
        news.iter().any(|one| one["params"]["progressToken"] == 7),
        "{news:?}"
    );
    assert!(
        !news.iter().any(|one| one.to_string().contains("task-")),
        "{news:?}"
    );
    // An older version, one without sessions, and the standard client.
    let stateless = Stateless::new(&world, "/mcp/tasker", &key);
    let said = stateless.call("must", json!({"text": "new"}));
    assert_eq!(
        (text(&said), &said["result"]["resultType"]),
        ("new", &json!("complete"))
    );
    let standard = world.client_of_key(&key);
    assert!(
        standard
            .ask("must", json!({"text": "standard"}))
            .contains("standard")
    );
    // As a task as well, whose server does not wait to answer.
    let id = begin(&client, "must", json!({"ms": 400, "text": "kept"}));
    assert_eq!(text(&ask(&client, "tasks/result", &id)), "kept");
    // Who lets go of such a call cancels the task of it.
    let call = json!({"jsonrpc": "2.0", "id": "gone", "method": "tools/call", "params": {"name": "must", "arguments": {"ms": 60000}}});
    let open = client.messages(&call);
    world.until("it is under way", |world| {
        (world.cli(&["call", "list"]) != json!([])).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    client.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "gone"}}));
    drop(open);
    world.until("the server was told", |_| {
        text(&client.call(1, "seen", json!({})))
            .contains("tasks/cancel")
            .then_some(())
    });
}

#[test]
fn there_are_so_many_tasks_and_no_more() {
    let (world, key) = tasker(&[], &[]);
    let client = Client::new(&world, "/mcp/tasker", &key);
    let mut made = Vec::new();
    let refused = loop {
        let answer = client
            .send(request("m", "slow", json!({"ms": 60000}), json!({})))
            .json();
        match answer["result"]["task"]["taskId"].as_str() {
            Some(id) => made.push(id.to_owned()),
            None => break answer,
        }
        assert!(made.len() <= 1000);
    };
    assert_eq!(made.len(), 32);
    assert_eq!(refused["error"]["data"]["error"], "tasks_max", "{refused}");
    // Nobody else is affected; nor is a call.
    let other = Client::new(&world, "/mcp/tasker", &world.key("bob"));
    begin(&other, "slow", json!({"ms": 60000}));
    assert_eq!(text(&client.call(1, "plain", json!({}))), "done");
    ask(&client, "tasks/cancel", &made[0]);
    begin(&client, "slow", json!({"ms": 60000}));
    // Those that have ended are kept as long as there is room, and listed page by page.
    for id in &made[1..] {
        ask(&client, "tasks/cancel", id);
    }
    for _ in 0..40 {
        let id = begin(&client, "slow", json!({"ms": 1}));
        ended(&client, &id);
    }
    let first = client.ask(1, "tasks/list", json!({})).json();
    assert_eq!(
        first["result"]["tasks"].as_array().unwrap().len(),
        50,
        "{first}"
    );
    let cursor = first["result"]["nextCursor"].clone();
    let second = client
        .ask(1, "tasks/list", json!({"cursor": cursor}))
        .json();
    assert_eq!(
        second["result"]["tasks"].as_array().unwrap().len(),
        73 - 50,
        "{second}"
    );
    assert!(second["result"]["nextCursor"].is_null());
}

#[test]
fn tasks_of_all_servers_are_at_one_address() {
    let world = World::new();
    add(&world, "one", &[], &[]);
    add(&world, "two", &[], &["--bare"]);
    add(&world, "same", &[], &["--same"]);
    let key = world.key("ada");
    let all = Client::new(&world, "/mcp", &key);
    let (of_one, of_two) = (
        Client::new(&world, "/mcp/one", &key),
        Client::new(&world, "/mcp/two", &key),
    );
    // Their servers give both the same name.
    let first = begin(&all, "one.slow", json!({"ms": 60000}));
    let second = begin(&all, "two.slow", json!({"ms": 300, "text": "of two"}));
    assert_ne!(first, second);
    assert_eq!(text(&ask(&all, "tasks/result", &second)), "of two");
    assert_eq!(get(&all, &first)["status"], "working");
    // Each at its own address, and at no other's.
    assert_eq!(get(&of_one, &first)["status"], "working");
    assert_eq!(code(&ask(&of_one, "tasks/get", &second)), -32602);
    assert_eq!(get(&of_two, &second)["status"], "completed");
    // One whose server cannot be told is let go of.
    let bare = begin(&of_two, "slow", json!({"ms": 60000}));
    assert_eq!(
        ask(&of_two, "tasks/cancel", &bare)["result"]["status"],
        "cancelled"
    );
    // A server that gives two tasks one name gets one.
    let same = Client::new(&world, "/mcp/same", &key);
    begin(&same, "slow", json!({"ms": 60000}));
    let refused = same
        .send(request("x", "slow", json!({"ms": 60000}), json!({})))
        .json();
    assert_eq!(
        refused["error"]["data"]["error"], "server_error",
        "{refused}"
    );
}

/// Parameters of a client without sessions that takes tasks.
fn takes(mut params: Value) -> Value {
    params["_meta"][format!("{OURS}clientCapabilities")] =
        json!({"elicitation": {}, "extensions": {format!("{OURS}tasks"): {}}});
    params
}

#[test]
fn a_client_without_a_session_gets_a_task_where_it_takes_one() {
    let (world, key) = tasker(ASKS, &[]);
    let client = Stateless::new(&world, "/mcp/tasker", &key);
    let discovered = client.ask("server/discover", json!({}));
    assert_eq!(
        discovered["result"]["capabilities"]["extensions"],
        json!({format!("{OURS}tasks"): {}}),
        "{discovered}"
    );
    let ask = |method: &str, id: &str, more: Value| {
        let mut params = takes(json!({"taskId": id}));
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        client.send(method, params, &[("Mcp-Name", id)])
    };
    let get = |id: &str| ask("tasks/get", id, json!({})).json()["result"].clone();
    let begin = |tool: &str, arguments: Value| {
        let answer = client.ask(
            "tools/call",
            takes(json!({"name": tool, "arguments": arguments})),
        );
        assert_eq!(answer["result"]["resultType"], "task", "{answer}");
        assert!(
            answer["result"]["ttlMs"].is_u64() && answer["result"]["status"] == "working",
            "{answer}"
        );
        answer["result"]["taskId"].as_str().unwrap().to_owned()
    };
    let until = |id: &str, status: &str| {
        world.until(status, |_| {
            let task = get(id);
            assert_eq!(task["resultType"], "complete", "{task}");
            (task["status"] == status).then_some(task)
        })
    };
    let id = begin("slow", json!({"ms": 400, "text": "it"}));
    let done = until(&id, "completed");
    assert_eq!(
        (
            &done["result"]["content"][0]["text"],
            &done["result"]["_meta"]
        ),
        (&json!("it"), &json!({"own": 1}))
    );
    // That a tool failed is no failure of the task here; an error is.
    let id = begin("fails", json!({}));
    assert_eq!(until(&id, "completed")["result"]["isError"], true);
    let id = begin("errs", json!({}));
    let failed = until(&id, "failed");
    assert_eq!(
        (
            &failed["error"]["code"],
            &failed["error"]["data"]["legation/code"]
        ),
        (&json!(-32603), &json!(-32050)),
        "{failed}"
    );
    let id = begin("crash", json!({"ms": 100}));
    let failed = until(&id, "failed");
    assert_eq!(failed["error"]["data"]["error"], "run_ended", "{failed}");
    // What it asks is in its state, and answered by name.
    let id = begin("asks", json!({"names": ["a", "b"]}));
    let asks = until(&id, "input_required");
    let question = &asks["inputRequests"]["q1"];
    assert_eq!(
        (&question["method"], &question["params"]["message"]),
        (&json!("elicitation/create"), &json!("a?"))
    );
    assert!(question["params"]["_meta"].is_null(), "{question}");
    for (wrong, is) in [
        (json!({}), -32602),
        (json!({"inputResponses": {"q1": 7}}), -32602),
    ] {
        assert_eq!(code(&ask("tasks/update", &id, wrong).json()), is);
    }
    let ignored = ask("tasks/update", &id, json!({"inputResponses": {"q9": {}}})).json();
    assert_eq!(ignored["result"]["resultType"], "complete", "{ignored}");
    assert_eq!(get(&id)["inputRequests"]["q1"], *question);
    ask(
        "tasks/update",
        &id,
        json!({"inputResponses": {"q1": accepts("ada")}}),
    );
    // Its changes are told to who listens.
    let listening = takes(json!({"notifications": {"taskIds": [id, "tsk_0000000000000000"]}}));
    let mut told = client.stream("subscriptions/listen", listening.clone());
    assert_eq!(
        told.next().unwrap()["params"]["notifications"],
        json!({"taskIds": [id]})
    );
    let asks = world.until("it asks again", |_| {
        Some(get(&id)).filter(|task| task["inputRequests"]["q2"].is_object())
    });
    assert!(asks["inputRequests"]["q1"].is_null(), "{asks}");
    ask(
        "tasks/update",
        &id,
        json!({"inputResponses": {"q1": accepts("twice"), "q2": accepts("bob")}}),
    );
    let last = told
        .find(|one| one["params"]["status"] == "completed")
        .unwrap();
    assert_eq!(
        (&last["method"], &last["params"]["taskId"]),
        (&json!("notifications/tasks"), &json!(id))
    );
    assert!(
        last["params"]["result"].to_string().contains("ada") && last.to_string().contains("bob"),
        "{last}"
    );
    // Cancelled, as often as one likes.
    let id = begin("slow", json!({"ms": 60000}));
    for _ in 0..2 {
        let answer = ask("tasks/cancel", &id, json!({})).json();
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    }
    assert_eq!(get(&id)["status"], "cancelled");
    // Who does not take tasks is told so, and has them waited for.
    for (method, params) in [
        ("tasks/get", json!({"taskId": id})),
        (
            "subscriptions/listen",
            json!({"notifications": {"taskIds": [id]}}),
        ),
    ] {
        let name = params["taskId"].as_str().unwrap_or_default().to_owned();
        let answer = client.send(method, params, &[("Mcp-Name", name.as_str())]);
        assert_eq!(
            (answer.status, code(&answer.json())),
            (400, -32021),
            "{answer:?}"
        );
    }
    let plain = client.call("slow", json!({"text": "waited"}));
    assert_eq!(text(&plain), "waited");
    assert_eq!(
        client.ask("tools/call", takes(json!({"name": "plain"})))["result"]["resultType"],
        "complete"
    );
    // Headers and ids that are none.
    let other = client.send(
        "tasks/get",
        takes(json!({"taskId": id})),
        &[("Mcp-Name", "tsk_x")],
    );
    assert_eq!(
        (other.status, code(&other.json())),
        (400, -32020),
        "{other:?}"
    );
    assert_eq!(code(&ask("tasks/get", "task-1", json!({})).json()), -32602);
    let removed = ask("tasks/result", &id, json!({}));
    assert_eq!(
        (removed.status, code(&removed.json())),
        (404, -32601),
        "{removed:?}"
    );
    let foreign = Stateless::new(&world, "/mcp/tasker", &world.key("bob"));
    let answer = foreign.send(
        "tasks/get",
        takes(json!({"taskId": id})),
        &[("Mcp-Name", id.as_str())],
    );
    assert_eq!(code(&answer.json()), -32602);
    // Where nothing works as a task, there are none.
    world.demo("demo", &[]);
    let demo = Stateless::new(&world, "/mcp/demo", &world.key("eve"));
    assert!(
        demo.ask("server/discover", json!({}))["result"]["capabilities"]["extensions"].is_null()
    );
    let none = demo.send(
        "tasks/get",
        takes(json!({"taskId": id})),
        &[("Mcp-Name", id.as_str())],
    );
    assert_eq!((none.status, code(&none.json())), (404, -32601));
}

#[test]
fn the_typescript_sdk_drives_tasks() {
    let Some((node, home)) = crate::tools::typescript_sdk() else {
        return;
    };
    let (world, key) = tasker(ASKS, &[]);
    let script = format!(
        "{}/tests/clients/typescript_tasks.mjs",
        env!("CARGO_MANIFEST_DIR")
    );
    let url = format!("{}/mcp/tasker", world.url);
    let saw = crate::face::saw(std::process::Command::new(&node).args([
        &script,
        home.to_str().unwrap(),
        &url,
        &key,
    ]));
    assert_eq!(saw["slow"]["result"], "streamed", "{saw}");
    let kinds = saw["slow"]["kinds"].as_array().unwrap();
    assert_eq!(
        (&kinds[0], kinds.last().unwrap()),
        (&json!("taskCreated"), &json!("result")),
        "{saw}"
    );
    assert!(saw["slow"]["progress"].as_u64().unwrap() >= 1, "{saw}");
    assert!(
        saw["asks"]["result"].as_str().unwrap().contains("Ada"),
        "{saw}"
    );
    assert_eq!(saw["must"], "plainly", "{saw}");
    assert_eq!(saw["cancelled"], "cancelled", "{saw}");
    assert!(saw["listed"].as_u64().unwrap() >= 3, "{saw}");
    assert!(saw["unknown"].as_str().unwrap().contains("-32602"), "{saw}");
}
