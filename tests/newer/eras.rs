//! How it is found out which era a server speaks, and whom that concerns.

use serde_json::{Value, json};

use super::{Http, SERVERS, stdio};
use crate::face::Client;
use crate::questions::said;
use crate::remote::{PRIVATE, remote};
use crate::vault::try_set;
use crate::world::World;

/// What is known of an mcp's servers.
fn speaks(world: &World, name: &str) -> Value {
    world.cli(&["mcp", "show", name])["spoken"].clone()
}

#[test]
fn its_era_is_found_kept_and_shown() {
    let mut world = World::new();
    stdio(&world, "newer", &[], &[]);
    world.demo("older", &[]);
    let found = speaks(&world, "newer");
    assert_eq!(
        (&found["era"], &found["version"]),
        (&json!("modern"), &json!("2026-07-28"))
    );
    assert_eq!(speaks(&world, "older")["era"], "legacy");
    let told = world.run(&["mcp", "show", "newer"]);
    assert!(told.stdout.contains("2026-07-28"), "{}", told.stdout);
    let found = world.cli(&["mcp", "discover", "newer"]);
    assert_eq!(found["protocol_version"], "2026-07-28", "{found}");
    // It is known after a restart, so that nobody is asked in the wrong way.
    world.stop();
    world.start();
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/newer", &key);
    assert_eq!(said(&client.call(1, "calls", json!({}))), json!(1));
    let isolate = world.isolate_detail("newer", Some("ada"));
    let phases = isolate.to_string();
    assert!(
        phases.contains("discover") && !phases.contains("initialize"),
        "{isolate}"
    );
    // Another definition is asked anew; until it is discovered, as one of the older era first.
    world.cli(&["mcp", "update", "newer", "--call-timeout", "30s"]);
    assert_eq!(speaks(&world, "newer"), Value::Null);
    assert_eq!(said(&client.call(2, "calls", json!({}))), json!(1));
    assert_eq!(speaks(&world, "newer"), Value::Null);
    world.cli(&["mcp", "discover", "newer"]);
    assert_eq!(speaks(&world, "newer")["era"], "modern");
    assert_eq!(said(&client.call(3, "calls", json!({}))), json!(2));
}

/// An old server that ends on what it does not know; with the credential `newer`, one of the newer era alone, and
/// with `broken`, none.
const OF_ITS_CREDENTIAL: &str = r#"import json, os, sys
token = os.environ.get("TOKEN")
if token == "broken": sys.exit(1)
newer, n = token == "newer", 0
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    n += m["method"] == "tools/call"
    known = {"tools/list": {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": json.dumps([newer, n])}]}}
    if newer: known["server/discover"] = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    else: known["initialize"] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
        "serverInfo": {"name": "old", "version": "1"}}
    if m["method"] in known: answer = {"result": {"resultType": "complete", **known[m["method"]]} if newer else known[m["method"]]}
    elif newer: answer = {"error": {"code": -32601, "message": "no"}}
    else: sys.exit(3)
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **answer}), flush=True)
"#;

/// Adds a server whose users' credentials decide what it is.
fn of_its_credential(world: &World, name: &str, command: &[&str]) {
    let options = ["--ask", "elicitation", "--credential", "TOKEN=env:TOKEN"];
    let mut add = vec!["mcp", "add", name, "--read", SERVERS];
    add.extend(options);
    add.push("--");
    add.extend(command);
    world.cli(&add);
    for (whose, token) in [
        (&["--shared"][..], "as it is"),
        (&["--user", "ada"], "as it is"),
        (&["--user", "eve"], "broken"),
        (&["--user", "bob"], "newer"),
    ] {
        if let Some(user) = whose.get(1) {
            world.run(&["user", "add", user]);
        }
        let set = try_set(world, whose, name, "TOKEN", token.as_bytes());
        assert_eq!(set.code, 0, "{}", set.stderr);
    }
    world.cli(&["mcp", "publish", name]);
    world.run(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", name]);
    for user in ["ada", "eve", "bob"] {
        world.cli(&["group", "member", "add", "all", user]);
    }
}

#[test]
fn a_users_own_server_does_not_decide_which_era_those_of_others_speak() {
    let mut world = World::new();
    of_its_credential(&world, "own", &["python3", "-c", OF_ITS_CREDENTIAL]);
    let before = speaks(&world, "own");
    let can = || json!({"elicitation": {}});
    let (ada, bob) = (world.key("ada"), world.key("bob"));
    let of_ada = Client::that_can(&world, "/mcp/own", &ada, can());
    let of_bob = Client::that_can(&world, "/mcp/own", &bob, can());
    let count = |client: &Client, id: i64| said(&client.call(id, "count", json!({})));
    assert_eq!(count(&of_ada, 1), json!([false, 1]));
    assert_eq!(count(&of_bob, 1), json!([true, 1]));
    assert_eq!(count(&of_ada, 2), json!([false, 2]));
    assert_eq!(count(&of_bob, 2), json!([true, 2]));
    assert_eq!(speaks(&world, "own"), before);
    let isolates = world.isolates();
    let of = |user: &str| isolates.iter().filter(|one| one["user"] == user).count();
    assert_eq!((of("ada"), of("bob")), (1, 1), "{isolates:?}");
    // Nor after a restart.
    world.stop();
    world.start();
    assert_eq!(speaks(&world, "own"), before);
    let of_ada = Client::that_can(&world, "/mcp/own", &ada, can());
    assert_eq!(count(&of_ada, 1), json!([false, 1]));
}

#[test]
fn a_users_failing_server_makes_nobody_forget_which_era_others_speak() {
    let world = World::new();
    let script = format!(
        "import os, runpy, sys\nif os.environ.get('TOKEN') == 'broken': sys.exit(1)\n\
         sys.path.insert(0, '{SERVERS}')\nrunpy.run_path('{SERVERS}/modern.py', run_name='__main__')"
    );
    of_its_credential(&world, "newer", &["python3", "-c", &script]);
    let before = speaks(&world, "newer");
    assert_eq!(before["era"], "modern");
    let (ada, eve) = (world.key("ada"), world.key("eve"));
    let of_ada = Client::that_can(&world, "/mcp/newer", &ada, json!({"elicitation": {}}));
    let of_eve = Client::new(&world, "/mcp/newer", &eve);
    let subscribes = |id: i64, uri: &str| {
        let answer = of_ada.ask(id, "resources/subscribe", json!({"uri": uri}));
        assert_eq!(answer.json()["result"], json!({}), "{answer:?}");
    };
    assert_eq!(said(&of_ada.call(1, "calls", json!({}))), json!(1));
    subscribes(2, "a:1");
    let failed = of_eve.call(1, "calls", json!({}));
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    assert_eq!(speaks(&world, "newer"), before);
    subscribes(3, "a:2");
    assert_eq!(said(&of_ada.call(4, "calls", json!({}))), json!(2));
    let isolates = world.isolates();
    let of_ada = isolates.iter().filter(|one| one["user"] == "ada");
    assert_eq!(of_ada.count(), 1, "{isolates:?}");
}

#[test]
fn one_that_refuses_initialize_before_it_says_what_it_is_is_waited_for() {
    let world = World::new();
    let slow = r#"import json, sys, threading, time
time.sleep(4)
def answer(m):
    known = {"server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
        "tools/list": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}}
    if m["method"] == "server/discover": time.sleep(0.3)
    said = {"error": {"code": -32601, "message": "no"}}
    if m["method"] in known: said = {"result": {"resultType": "complete", **known[m["method"]]}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **said}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if "id" in m: threading.Thread(target=answer, args=(m,)).start()
"#;
    world.mcp("slow", &[], &["python3", "-c", slow]);
    assert_eq!(speaks(&world, "slow")["era"], "modern");
}

#[test]
fn one_that_was_broken_or_cold_when_it_was_discovered_is_not_kept_as_an_old_one() {
    for first in ["503", "cold"] {
        let (_http, url) = Http::of("dual.py", &["--first", first]);
        let mut world = World::with(PRIVATE);
        remote(&world, "dual", &url, &[]);
        assert_eq!(speaks(&world, "dual"), Value::Null, "{first}");
        let key = world.key("ada");
        let era = |world: &World| {
            let client = Client::new(world, "/mcp/dual", &key);
            said(&client.call(1, "era", json!({})))
        };
        assert_eq!(era(&world), "modern", "{first}");
        world.stop();
        world.start();
        assert_eq!(era(&world), "modern", "{first}");
        world.cli(&["mcp", "discover", "dual"]);
        assert_eq!(speaks(&world, "dual")["era"], "modern", "{first}");
    }
}

#[test]
fn one_that_dies_or_is_silent_on_what_it_does_not_know_is_asked_as_it_expects() {
    let world = World::new();
    let server = |unknown: &str| {
        format!(
            r#"import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    known = {{"initialize": {{"protocolVersion": "2025-06-18", "capabilities": {{"tools": {{}}}},
        "serverInfo": {{"name": "old", "version": "1"}}}}, "tools/list": {{"tools": [{{"name": "a",
        "inputSchema": {{"type": "object"}}}}]}}, "tools/call": {{"content": []}}}}
    if m["method"] not in known: {unknown}
    print(json.dumps({{"jsonrpc": "2.0", "id": m["id"], "result": known[m["method"]]}}), flush=True)
"#
        )
    };
    for (name, unknown) in [("dies", "sys.exit(3)"), ("silent", "continue")] {
        world.mcp(name, &[], &["python3", "-c", &server(unknown)]);
        // It did not say so itself.
        assert_eq!(speaks(&world, name), Value::Null);
        let key = world.key("ada");
        let client = Client::new(&world, &format!("/mcp/{name}"), &key);
        let answer = client.call(1, "a", json!({}));
        assert_eq!(answer["result"]["content"], json!([]), "{answer}");
    }
}
