//! Servers of MCP 2026-07-28 alone, over stdio and over HTTP, for clients of both eras.

mod eras;
mod extensions;
mod listening;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::face::{Client, text};
use crate::questions::{accepts, answered, asker, call, can_all, said};
use crate::remote::{PRIVATE, remote};
use crate::stateless::Client as Stateless;
use crate::world::World;

#[path = "newer/tasks.rs"]
mod tasks;

const OURS: &str = "io.modelcontextprotocol/";
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");
const ASK: [&str; 2] = ["--ask", "sampling,elicitation,roots"];

/// The fixture by itself, over HTTP of its own.
pub(crate) struct Http(Child);

impl Http {
    /// Starts it; gives its address as well.
    pub(crate) fn start(options: &[&str]) -> (Self, String) {
        Self::of("modern.py", &[&["--http", "0"], options].concat())
    }

    /// The same of another fixture, which prints its port.
    fn of(script: &str, options: &[&str]) -> (Self, String) {
        let child = Command::new("python3")
            .arg(format!("{SERVERS}/{script}"))
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut http = Self(child);
        let mut port = String::new();
        BufReader::new(http.0.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let url = format!("http://localhost:{}/mcp", port.trim());
        (http, url)
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Adds the fixture over stdio.
pub(crate) fn stdio(world: &World, name: &str, options: &[&str], more: &[&str]) {
    let script = format!("{SERVERS}/modern.py");
    let mut all = vec!["--read", SERVERS];
    all.extend(options);
    let mut command = vec!["python3", script.as_str()];
    command.extend(more);
    world.mcp(name, &all, &command);
}

/// A gateway with the fixture, on each transport.
fn both(options: &[&str], prove: impl Fn(&World)) {
    let world = World::new();
    stdio(&world, "newer", options, &[]);
    prove(&world);
    drop(world);
    let (_http, url) = Http::start(&[]);
    let world = World::with(PRIVATE);
    remote(&world, "newer", &url, options);
    prove(&world);
}

fn params(tool: &str, arguments: Value, can: &Value) -> Value {
    json!({"name": tool, "arguments": arguments,
        "_meta": {format!("{OURS}clientCapabilities"): can}})
}

/// The same request with what the client brings.
fn again(params: &Value, asked: &Value, answers: Value) -> Value {
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let mut params = params.clone();
    if let Some(state) = asked["result"].get("requestState") {
        params["requestState"] = state.clone();
    }
    params["inputResponses"] = answers;
    params
}

#[test]
fn each_request_says_who_asks_and_what_they_can() {
    both(&ASK, |world| {
        let key = world.key("ada");
        let client = Client::that_can(
            world,
            "/mcp/newer",
            &key,
            json!({"elicitation": {}, "roots": {}}),
        );
        let meta = said(&client.call(1, "meta", json!({})));
        assert_eq!(meta[format!("{OURS}protocolVersion")], "2026-07-28");
        assert_eq!(meta[format!("{OURS}clientInfo")]["name"], "legation");
        let can = &meta[format!("{OURS}clientCapabilities")];
        assert_eq!(*can, json!({"elicitation": {}, "roots": {}}));
        let modern = Stateless::new(world, "/mcp/newer", &key);
        let mut own = params("meta", json!({}), &json!({"sampling": {}}));
        own["_meta"]["traceparent"] = json!("t");
        own["_meta"][format!("{OURS}logLevel")] = json!("error");
        let meta = said(&modern.ask("tools/call", own));
        assert_eq!(
            meta[format!("{OURS}clientCapabilities")],
            json!({"sampling": {}})
        );
        assert_eq!(meta["traceparent"], "t");
        assert_eq!(meta[format!("{OURS}logLevel")], "error");
        // One isolate serves them all, whatever they can.
        let isolates = world.isolates();
        let own = isolates.iter().filter(|one| one["user"] == "ada");
        assert_eq!(own.count(), 1, "{isolates:?}");
        // The standard client as well, which cannot be asked.
        let standard = world.client_of_key(&key);
        let told = standard.ask("meta", json!({}));
        assert!(
            told.contains("2026-07-28") && told.contains("clientCapabilities\": {}"),
            "{told}"
        );
    });
}

#[test]
fn a_client_of_the_same_era_is_asked_in_the_answer_and_nothing_is_held() {
    both(&ASK, |world| {
        let key = world.key("ada");
        let client = Stateless::new(world, "/mcp/newer", &key);
        let first = params(
            "ask",
            json!({"kinds": ["elicitation", "sampling"]}),
            &can_all(),
        );
        let answer = client.ask("tools/call", first.clone());
        let asked = answer["result"]["inputRequests"].as_object().unwrap();
        assert_eq!(
            asked.keys().collect::<Vec<_>>(),
            ["own 1", "own 2"],
            "{answer}"
        );
        // It asks for nothing that needs a state, so there is none.
        assert!(answer["result"].get("requestState").is_none(), "{answer}");
        assert_eq!(world.cli(&["call", "list"]), json!([]));
        let brought = json!({"own 1": accepts("ada"), "own 2": {"role": "x"}, "more": {}});
        let done = client.ask("tools/call", again(&first, &answer, brought));
        assert_eq!(done["result"]["resultType"], "complete", "{done}");
        assert_eq!(said(&done), json!([accepts("ada"), {"role": "x"}]));
        // Two rounds, the second with a state.
        let two = params("two", json!({}), &can_all());
        let one = client.ask("tools/call", two.clone());
        let other = client.ask(
            "tools/call",
            again(&two, &one, json!({"own 1": accepts("bob")})),
        );
        let state = other["result"]["requestState"].as_str().unwrap().to_owned();
        let good = again(&two, &other, json!({"own 2": {"role": "y"}}));
        // It is good for this key, this address and this request alone, as it was given.
        let refused = |client: &Stateless, params: Value| {
            let answer = client.send("tools/call", params, &[]).json();
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
        };
        refused(
            &Stateless::new(world, "/mcp/newer", &world.key("eve")),
            good.clone(),
        );
        refused(&Stateless::new(world, "/mcp", &key), good.clone());
        let mut changed = good.clone();
        changed["arguments"] = json!({"x": 1});
        refused(&client, changed);
        let mut changed = good.clone();
        // Not its last letter, of which some bits may mean nothing.
        let other = if state.starts_with('A') { "B" } else { "A" };
        let rest: String = state.chars().skip(1).collect();
        changed["requestState"] = json!(format!("{other}{rest}"));
        refused(&client, changed);
        let done = client.ask("tools/call", good);
        assert_eq!(said(&done), json!([accepts("bob"), {"role": "y"}]));
        // What the client does not declare, the server says itself; it is never asked.
        let lacks = params("two", json!({}), &json!({"sampling": {}}));
        let lacks = client.send("tools/call", lacks, &[]);
        assert_eq!(lacks.status, 400, "{lacks:?}");
        assert_eq!(
            lacks.json()["error"]["data"]["requiredCapabilities"],
            json!({"elicitation": {}})
        );
        let greedy = params("greedy", json!({}), &json!({"elicitation": {}}));
        let greedy = client.ask("tools/call", greedy);
        assert_eq!(greedy["result"]["isError"], true, "{greedy}");
        let unknown = client.call("unknown", json!({}));
        assert!(unknown["error"]["code"] == -32603, "{unknown}");
        // Prompts, resources, and how long they are kept.
        let mut prompt = params("who", json!({}), &can_all());
        prompt.as_object_mut().unwrap().remove("arguments");
        let answer = client.ask("prompts/get", prompt.clone());
        let done = client.ask(
            "prompts/get",
            again(&prompt, &answer, json!({"own 1": accepts("eve")})),
        );
        assert!(done.to_string().contains("eve"), "{done}");
        let listed = client.ask("resources/list", json!({}));
        assert_eq!(
            (&listed["result"]["ttlMs"], &listed["result"]["cacheScope"]),
            (&json!(77), &json!("private"))
        );
        let gone = client
            .send("resources/read", json!({"uri": "b:1"}), &[])
            .json();
        assert_eq!(gone["error"]["code"], -32602, "{gone}");
    });
}

/// A state of anybody's own making would be the server's to find out: the seal is looked at whatever way its name is
/// written.
#[test]
fn an_escaped_name_brings_no_state_past_the_seal() {
    let world = World::new();
    stdio(&world, "newer", &ASK, &[]);
    let client = Stateless::new(&world, "/mcp/newer", &world.key("ada"));
    let mut prompt = params("who", json!({}), &can_all());
    prompt["requestState"] = json!("forged");
    for name in ["requestState", "requestStat\\u0065", "\\u0072equestState"] {
        let refused = client.send_as("prompts/get", prompt.clone(), |body| {
            body.replace("requestState", name)
        });
        let why = refused["error"]["message"].to_string();
        assert!(why.contains("does not belong to this request"), "{refused}");
    }
    // Answers are answers as well.
    prompt.as_object_mut().unwrap().remove("requestState");
    prompt["inputResponses"] = json!({"own 1": accepts("eve")});
    let done = client.send_as("prompts/get", prompt, |body| {
        body.replace("inputResponses", "inputResponse\\u0073")
    });
    assert!(done["result"].to_string().contains("eve"), "{done}");
}

#[test]
fn a_client_with_a_session_is_asked_on_its_stream_and_the_call_is_sent_again() {
    both(&ASK, |world| {
        let key = world.key("ada");
        let client = Client::that_can(world, "/mcp/newer", &key, can_all());
        let all = json!({"kinds": ["elicitation", "sampling", "roots", "url"]});
        let mut visits = 0;
        let answer = answered(
            &client,
            &call("a", "ask", all),
            |asked| match asked["method"].as_str().unwrap() {
                "elicitation/create" if asked["params"]["mode"] == "url" => {
                    assert!(asked["params"]["elicitationId"].is_string(), "{asked}");
                    visits += 1;
                    json!({"action": "decline"})
                }
                "elicitation/create" => json!({"code": -1, "message": "no"}),
                "sampling/createMessage" => json!({"role": "assistant"}),
                _ => json!({"roots": []}),
            },
        );
        assert_eq!(visits, 1);
        // A form that fails is one that was not filled in.
        assert_eq!(
            said(&answer),
            json!([{"action": "cancel"}, {"role": "assistant"}, {"roots": []}, {"action": "decline"}])
        );
        for gone in ["resultType", "ttlMs", "cacheScope", "_meta"] {
            assert!(answer["result"].get(gone).is_none(), "{answer}");
        }
        let answer = answered(&client, &call("b", "two", json!({})), |_| accepts("bob"));
        assert_eq!(said(&answer), json!([accepts("bob"), accepts("bob")]));
        // Progress of both rounds, with the client's token.
        let told: Vec<_> = client
            .messages(&call("c", "progress", json!({})))
            .inspect(|message| {
                if message["method"] == "elicitation/create" {
                    client.send(
                        json!({"jsonrpc": "2.0", "id": message["id"], "result": accepts("x")}),
                    );
                }
            })
            .take(4)
            .map(|message| message["params"]["progress"].clone())
            .collect();
        assert_eq!(told, [json!(1), Value::Null, json!(2), Value::Null]);
        // A model that does not answer leaves nothing to go on with.
        let failed = answered(
            &client,
            &call("d", "ask", json!({"kinds": ["sampling"]})),
            |_| json!({"code": -1, "message": "the user says no"}),
        );
        assert_eq!(failed["result"]["isError"], true, "{failed}");
        assert_eq!(failed["result"]["_meta"]["legation/error"], "unanswered");
        // Who cannot be asked is not, and hears why.
        let mute = Client::new(world, "/mcp/newer", &key);
        let failed = mute.call(1, "two", json!({}));
        assert_eq!(failed["error"]["code"], -32603, "{failed}");
        let greedy = mute.call(2, "greedy", json!({}));
        assert!(text(&greedy).contains("sampling"), "{greedy}");
        // A server that asks without end is left.
        let endless = client.call(3, "endless", json!({}));
        assert!(text(&endless).contains("without end"), "{endless}");
        // Logs come as they are asked for, and resources that are not there have their old code.
        let levels = |client: &Client, id: i64| -> Vec<Value> {
            let told = client.messages(&call(id, "log", json!({}))).take(4);
            told.filter_map(|message| message["params"].get("level").cloned())
                .collect()
        };
        assert_eq!(
            levels(&client, 4),
            [json!("debug"), json!("info"), json!("error")]
        );
        client.ask(5, "logging/setLevel", json!({"level": "error"}));
        let told: Vec<_> = client
            .messages(&call(6, "log", json!({})))
            .take(2)
            .collect();
        assert_eq!(told[0]["params"]["level"], "error", "{told:?}");
        assert_eq!(said(&told[1]), "error");
        let gone = client
            .ask(7, "resources/read", json!({"uri": "b:1"}))
            .json();
        assert_eq!(gone["error"]["code"], -32002, "{gone}");
        // Every question was one call in the log.
        let calls = said(&client.call(8, "calls", json!({})));
        assert!(calls.as_u64() > Some(10), "{calls}");
    });
}

/// A round of so much ended a remote server's run for everybody.
#[test]
fn answers_too_large_for_one_round_fail_their_call_alone() {
    both(&ASK, |world| {
        let key = world.key("ada");
        let client = Client::that_can(world, "/mcp/newer", &key, can_all());
        let calls = || said(&client.call(8, "calls", json!({}))).as_u64().unwrap();
        let before = calls();
        let three = json!({"kinds": ["elicitation", "elicitation", "elicitation"]});
        let refused = answered(&client, &call("a", "ask", three), |_| {
            accepts(&"x".repeat(3 << 20))
        });
        let code = &refused["result"]["_meta"]["legation/error"];
        assert_eq!(code, "unanswered", "{refused}");
        assert!(
            text(&refused).contains("larger than 8388608 bytes"),
            "{refused}"
        );
        // The same run goes on; it saw the first round alone.
        assert_eq!(calls(), before + 2);
    });
}

#[test]
fn what_an_older_server_wants_visited_is_asked_for_in_the_answer() {
    let (world, key) = asker(&ASK);
    let client = Stateless::new(&world, "/mcp/asker", &key);
    let first = params("visit", json!({}), &can_all());
    let answer = client.ask("tools/call", first.clone());
    let asked = &answer["result"]["inputRequests"]["q1"];
    assert_eq!(asked["params"]["url"], "https://example.org/", "{answer}");
    assert!(asked["params"].get("elicitationId").is_none(), "{answer}");
    let state = answer["result"]["requestState"].as_str().unwrap();
    let mut other = again(&first, &answer, json!({"q1": {"action": "accept"}}));
    other["requestState"] = json!(format!("{state}x"));
    let refused = client.send("tools/call", other, &[]).json();
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let good = again(&first, &answer, json!({"q1": {"action": "accept"}}));
    assert_eq!(said(&client.ask("tools/call", good)), "was there");
    // Who cannot be asked hears of an error that its version has.
    let failed = client.ask("tools/call", params("visit", json!({}), &json!({})));
    assert_eq!(failed["error"]["code"], -32603, "{failed}");
}

#[test]
fn a_visit_that_no_operator_permits_is_not_asked_for() {
    let (world, key) = asker(&[]);
    let client = Stateless::new(&world, "/mcp/asker", &key);
    let failed = client.ask("tools/call", params("visit", json!({}), &can_all()));
    assert_eq!(failed["error"]["code"], -32603, "{failed}");
    assert!(failed.get("result").is_none(), "{failed}");
}

#[test]
fn an_operator_permits_what_is_asked_in_this_era_as_well() {
    let world = World::new();
    stdio(&world, "newer", &["--ask", "elicitation"], &[]);
    let key = world.key("ada");
    let client = Stateless::new(&world, "/mcp/newer", &key);
    let answer = client.ask(
        "tools/call",
        params("ask", json!({"kinds": ["sampling"]}), &can_all()),
    );
    assert_eq!(said(&answer)[0]["code"], -32021, "{answer}");
    let answer = client
        .send("tools/call", params("two", json!({}), &can_all()), &[])
        .json();
    let other = again(
        &params("two", json!({}), &can_all()),
        &answer,
        json!({"own 1": accepts("x")}),
    );
    let refused = client.send("tools/call", other, &[]).json();
    assert_eq!(refused["error"]["code"], -32603, "{refused}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("permit"),
        "{refused}"
    );
}

#[test]
fn a_call_between_two_rounds_is_seen_cancelled_and_denied() {
    let world = World::new();
    stdio(&world, "newer", &ASK, &[]);
    let key = world.key("ada");
    let client = Client::that_can(&world, "/mcp/newer", &key, can_all());
    let mut messages = client.messages(&call("a", "two", json!({})));
    let asked = messages.next().unwrap();
    assert_eq!(asked["method"], "elicitation/create");
    let listed = world.cli(&["call", "list"]);
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    world.cli(&["call", "cancel", &id, "--reason", "enough"]);
    let told: Vec<_> = messages.collect();
    assert!(
        told.iter()
            .any(|one| one["method"] == "notifications/cancelled"),
        "{told:?}"
    );
    assert!(text(told.last().unwrap()).contains("enough"), "{told:?}");
    let mut messages = client.messages(&call("b", "two", json!({})));
    messages.next().unwrap();
    world.cli(&[
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "newer",
        "--reason",
        "shut",
    ]);
    let told: Vec<_> = messages.collect();
    assert!(text(told.last().unwrap()).contains("shut"), "{told:?}");
    // Whose key is revoked is told that, and not that somebody cancelled the call.
    world.cli(&["kill-switch", "off", "--scope", "mcp", "--target", "newer"]);
    let mut messages = client.messages(&call("c", "two", json!({})));
    messages.next().unwrap();
    let keys = world.cli(&["key", "list", "--user", "ada"]);
    world.cli(&["key", "revoke", keys[0]["id"].as_str().unwrap()]);
    let told = messages.last().unwrap().to_string();
    assert!(
        told.contains("revoked") && !told.contains("administrator"),
        "{told}"
    );
}

#[test]
fn what_its_tools_want_in_headers_is_said_there() {
    let (_http, url) = Http::start(&[]);
    let world = World::with(PRIVATE);
    remote(&world, "newer", &url, &[]);
    let tools = world.cli(&["mcp", "show", "newer"])["tools"].to_string();
    assert!(
        tools.contains("header") && !tools.contains("wrong"),
        "{tools}"
    );
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/newer", &key);
    for region in ["eu", " ü\n", ""] {
        let answer = client.call(1, "header", json!({"region": region}));
        assert_eq!(said(&answer), region, "{answer}");
    }
    // Over stdio there are no headers, so the tool is as good as others.
    stdio(&world, "local", &[], &[]);
    let tools = world.cli(&["mcp", "show", "local"])["tools"].to_string();
    assert!(tools.contains("wrong"), "{tools}");
}
