//! Tasks of servers of 2026-07-28, which make them as they like: for clients that take them, and for all others, for
//! whom the gateway waits.

use serde_json::{Value, json};

use super::{ASK, Http, OURS, again, stdio};
use crate::face::{Client, text};
use crate::questions::{accepts, answered, call, can_all};
use crate::remote::{PRIVATE, remote};
use crate::stateless::Client as Stateless;
use crate::world::World;

const SUITE: [&str; 1] = ["--conformance"];

/// A gateway with the fixture that has tasks, on each transport.
fn both(prove: impl Fn(&World)) {
    let world = World::new();
    stdio(&world, "newer", &ASK, &SUITE);
    prove(&world);
    drop(world);
    let (_http, url) = Http::start(&SUITE);
    let world = World::with(PRIVATE);
    remote(&world, "newer", &url, &ASK);
    prove(&world);
}

/// Parameters of a client that takes tasks, and can answer what is asked.
fn takes(mut params: Value) -> Value {
    let mut can = can_all();
    can["extensions"] = json!({format!("{OURS}tasks"): {}});
    params["_meta"] = json!({format!("{OURS}clientCapabilities"): can});
    params
}

fn calls(tool: &str, arguments: Value) -> Value {
    takes(json!({"name": tool, "arguments": arguments}))
}

/// A client that takes them.
struct Taker<'a> {
    world: &'a World,
    client: Stateless,
}

impl<'a> Taker<'a> {
    fn new(world: &'a World, key: &str) -> Self {
        let client = Stateless::new(world, "/mcp/newer", key);
        Self { world, client }
    }

    fn about(&self, method: &str, id: &str, more: Value) -> Value {
        let mut params = takes(json!({"taskId": id}));
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        self.client.send(method, params, &[("Mcp-Name", id)]).json()
    }

    fn begin(&self, tool: &str, arguments: Value) -> String {
        let answer = self.client.ask("tools/call", calls(tool, arguments));
        begun(&answer)
    }

    fn until(&self, id: &str, status: &str) -> Value {
        self.world.until(status, |_| {
            let task = self.about("tasks/get", id, json!({}));
            let task = task["result"].clone();
            (task["status"] == status).then_some(task)
        })
    }
}

/// What a task is called that was made in the place of a result.
fn begun(answer: &Value) -> String {
    let made = &answer["result"];
    assert_eq!(
        (&made["resultType"], &made["status"]),
        (&json!("task"), &json!("working")),
        "{answer}"
    );
    let id = made["taskId"].as_str().unwrap();
    assert!(
        id.starts_with("tsk_"),
        "its server's name is not told: {id}"
    );
    id.to_owned()
}

#[test]
fn its_server_decides_and_the_gateway_keeps_it() {
    both(|world| {
        let key = world.key("ada");
        let taker = Taker::new(world, &key);
        let found = taker.client.ask("server/discover", json!({}));
        let extensions = &found["result"]["capabilities"]["extensions"];
        assert_eq!(*extensions, json!({format!("{OURS}tasks"): {}}), "{found}");
        let plain = taker
            .client
            .ask("tools/call", calls("greet", json!({"name": "ada"})));
        assert_eq!(plain["result"]["resultType"], "complete", "{plain}");
        assert_eq!(text(&plain), "Hello, ada!");
        let id = taker.begin("slow_compute", json!({"seconds": 1, "label": "it"}));
        let listed = world.cli(&["call", "list"]);
        assert_eq!(listed[0]["tool"], "slow_compute", "{listed}");
        // It is of the key that made it.
        let foreign = Taker::new(world, &world.key("eve"));
        for method in ["tasks/get", "tasks/cancel"] {
            let refused = foreign.about(method, &id, json!({}));
            assert_eq!(refused["error"]["code"], -32602, "{refused}");
        }
        let done = taker.until(&id, "completed");
        assert_eq!(
            done["result"]["content"][0]["text"], "it: computed",
            "{done}"
        );
        assert!(done["result"]["resultType"].is_null(), "{done}");
        assert_eq!(world.cli(&["call", "list"]), json!([]));
        // A tool that fails, and one that breaks.
        let id = taker.begin("failing_job", json!({}));
        assert_eq!(taker.until(&id, "completed")["result"]["isError"], true);
        let id = taker.begin("protocol_error_job", json!({}));
        let failed = taker.until(&id, "failed");
        assert_eq!(failed["error"]["code"], -32603, "{failed}");
        // At the address of all as well.
        let all = Stateless::new(world, "/mcp", &key);
        let made = all.ask("tools/call", calls("slow_compute", json!({"seconds": 0})));
        begun(&made);
        let plain = all.ask("tools/call", calls("greet", json!({"name": "eve"})));
        assert_eq!(text(&plain), "Hello, eve!");
        // Who takes none gets none; what works only as one says so, in its own words.
        let client = Stateless::new(world, "/mcp/newer", &key);
        let plain = client.call("slow_compute", json!({"seconds": 0, "label": "it"}));
        assert_eq!(text(&plain), "it: computed");
        let params = json!({"name": "failing_job", "arguments": {}});
        let refused = client.send("tools/call", params, &[]);
        assert_eq!(refused.status, 400, "{refused:?}");
        let required = &refused.json()["error"]["data"]["requiredCapabilities"];
        assert_eq!(required["extensions"], json!({format!("{OURS}tasks"): {}}));
    });
}

#[test]
fn what_it_asks_is_answered_at_the_task() {
    both(|world| {
        let key = world.key("ada");
        let taker = Taker::new(world, &key);
        let id = taker.begin("multi_input", json!({}));
        let asks = taker.until(&id, "input_required");
        let asked = asks["inputRequests"].as_object().unwrap();
        let names: Vec<_> = asked.keys().cloned().collect();
        assert_eq!(names.len(), 2, "{asks}");
        let answer = |name: &str, value: &str| {
            let more = json!({"inputResponses": {name: accepts(value)}});
            let told = taker.about("tasks/update", &id, more);
            assert_eq!(told["result"]["resultType"], "complete", "{told}");
        };
        answer(&names[0], "ada");
        let asks = taker.about("tasks/get", &id, json!({}));
        let left = asks["result"]["inputRequests"].as_object().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), [&names[1]], "{asks}");
        answer(&names[1], "bob");
        let done = taker.until(&id, "completed");
        assert_eq!(done["result"]["content"][0]["text"], "ada, bob", "{done}");
        // What is asked before there is a task is asked in the answer, under its server's name.
        let first = calls("test_tool_with_task", json!({}));
        let asks = taker.client.ask("tools/call", first.clone());
        assert!(
            asks["result"]["inputRequests"]["user_name"].is_object(),
            "{asks}"
        );
        let brought = again(&first, &asks, json!({"user_name": accepts("eve")}));
        let id = begun(&taker.client.ask("tools/call", brought));
        let done = taker.until(&id, "completed");
        assert_eq!(
            done["result"]["content"][0]["text"], "Hello, eve!",
            "{done}"
        );
    });
}

#[test]
fn for_others_the_gateway_waits() {
    both(|world| {
        let key = world.key("ada");
        let client = Client::that_can(world, "/mcp/newer", &key, can_all());
        let began = client.ask(0, "tools/list", json!({})).json();
        assert!(!began.to_string().contains("taskSupport"), "{began}");
        let failed = client.call(1, "failing_job", json!({}));
        assert_eq!(failed["result"]["isError"], true, "{failed}");
        assert!(text(&failed).contains("fails"), "{failed}");
        for (id, tool) in [("a", "test_ask_as_task"), ("b", "test_tool_with_task")] {
            let said = answered(&client, &call(id, tool, json!({})), |asked| {
                assert_eq!(asked["method"], "elicitation/create", "{asked}");
                accepts("ada")
            });
            assert_eq!(text(&said), "Hello, ada!", "{tool}: {said}");
        }
        let standard = world.client_of_key(&key);
        assert!(standard.ask("failing_job", json!({})).contains("fails"));
        assert_eq!(world.cli(&["call", "list"]), json!([]));
    });
}

#[test]
fn it_is_taken_away_like_a_call_and_its_server_is_told() {
    both(|world| {
        let taker = Taker::new(world, &world.key("ada"));
        let slow = || taker.begin("slow_compute", json!({"seconds": 60, "label": "it"}));
        let id = slow();
        let told = taker.about("tasks/cancel", &id, json!({}));
        assert_eq!(told["result"]["resultType"], "complete", "{told}");
        taker.until(&id, "cancelled");
        // One that asks is not asked any more.
        let id = taker.begin("confirm_delete", json!({"filename": "x"}));
        taker.until(&id, "input_required");
        taker.about("tasks/cancel", &id, json!({}));
        let gone = taker.until(&id, "cancelled");
        assert!(gone["inputRequests"].is_null(), "{gone}");
        let id = slow();
        let listed = world.cli(&["call", "list"]);
        let call = listed[0]["id"].as_str().unwrap();
        world.cli(&["call", "cancel", call, "--reason", "enough"]);
        let gone = taker.until(&id, "cancelled");
        assert!(gone.to_string().contains("enough"), "{gone}");
        let id = slow();
        let switch = |to: &str| {
            let all = ["kill-switch", to, "--scope", "mcp", "--target", "newer"];
            let more: &[&str] = if to == "on" {
                &["--reason", "shut"]
            } else {
                &[]
            };
            world.cli(&[&all[..], more].concat());
        };
        switch("on");
        // While it is on, it is not told what was.
        let denied = taker.until(&id, "failed");
        assert!(denied.to_string().contains("shut"), "{denied}");
        switch("off");
        let gone = taker.until(&id, "cancelled");
        assert!(gone.to_string().contains("shut"), "{gone}");
        // And it ends with its run.
        let id = slow();
        let isolates = world.isolates();
        let own = isolates.iter().find(|one| one["user"] == "ada").unwrap();
        let isolate = own["id"].as_str().unwrap();
        world.cli(&["isolate", "kill", isolate, "--reason", "a test"]);
        let gone = taker.until(&id, "cancelled");
        assert!(gone.to_string().contains("a test"), "{gone}");
    });
}
