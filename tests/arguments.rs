//! Arguments held against the schemas of their tools, at every door, and schemas that mean harm.

use serde_json::{Value, json};

use crate::bridge::host::Host;
use crate::metrics::scrape;
use crate::world::{Http, World};
use crate::{face, kill, stateless};

/// Lists the tools of its second argument, and answers every call with its first.
const DECLARES: &str = r#"
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%[,\}]*}
  case $line in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"declares","version":"1"}}}\n' "$id" ;;
    *'"method":"ping"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
    *'"method":"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":%s}}\n' "$id" "$2" ;;
    *'"method":"tools/call"'*) printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1" ;;
  esac
done"#;
const ENFORCED: [&str; 2] = ["--check-arguments", "enforce"];

fn declares(world: &World, name: &str, options: &[&str], tools: &[(&str, Value)]) {
    let tools: Vec<_> = tools
        .iter()
        .map(|(name, schema)| json!({"name": name, "inputSchema": schema}))
        .collect();
    let answer = json!({"content": [{"type": "text", "text": "served"}]}).to_string();
    let tools = Value::from(tools).to_string();
    world.mcp(
        name,
        options,
        &["sh", "-c", DECLARES, "sh", &answer, &tools],
    );
}

fn counted(world: &World, mcp: &str, result: &str) -> f64 {
    let labels = [("mcp", mcp), ("result", result)];
    scrape(world, "/metrics").value("legation_call_arguments_total", &labels)
}

/// Whether an answer of a door refuses, and says what is to be known.
fn refuses(answer: &Value, told: &[&str]) {
    let error = &answer["error"];
    assert_eq!(error["code"], -32602, "{answer}");
    assert_eq!(error["data"]["error"], "arguments_invalid", "{answer}");
    let text = error["message"].as_str().unwrap();
    for part in told {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn what_does_not_fit_is_refused_at_every_door_before_its_server_hears_of_it() {
    let world = World::new();
    world.demo("demo", &ENFORCED);
    let key = world.key("ada");
    let wrong = json!({"a": "s3cret", "b": 1});
    let told = [
        "`add`",
        "`demo`",
        "`/a`",
        "of type number",
        "(`type`)",
        "inputSchema",
    ];

    let standard = world.client_of_key(&key);
    let answer = standard.call("add", wrong.clone());
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (200, "arguments_invalid")
    );
    assert!(
        told.iter().all(|part| answer.text().contains(part)),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["metadata"]["retryable"], false);
    for path in ["/mcp", "/mcp/demo"] {
        let legacy = face::Client::new(&world, path, &key);
        refuses(&legacy.call(1, "add", wrong.clone()), &told);
        let modern = stateless::Client::new(&world, path, &key);
        refuses(&modern.call("add", wrong.clone()), &told);
    }
    let home = tempfile::tempdir().unwrap();
    let mut host = Host::start(home.path(), &format!("{}/mcp", world.url), &key);
    host.begin();
    refuses(&host.done("add", wrong.clone()), &told);
    assert!(world.isolates().is_empty(), "nothing was started for it");

    // What fits passes at each of them, and a name that comes twice does not.
    assert_eq!(standard.ask("add", json!({"a": 1, "b": 2.5})), "3.5");
    let legacy = face::Client::new(&world, "/mcp", &key);
    let right = legacy.call(2, "add", json!({"a": 1, "b": 1}));
    assert_eq!(right["result"]["content"][0]["text"], "2", "{right}");
    let right = stateless::Client::new(&world, "/mcp", &key).call("add", json!({"a": 1, "b": 1}));
    assert_eq!(right["result"]["content"][0]["text"], "2", "{right}");
    let right = host.done("add", json!({"a": 2, "b": 2}));
    assert_eq!(right["result"]["content"][0]["text"], "4", "{right}");
    let twice = r#"{"tool":"add","arguments":{"a":1,"b":1,"a":2}}"#;
    let answer = standard.send("POST", "/v1/tools/invoke", Some(twice.as_bytes()));
    assert_eq!(answer.code(), "arguments_invalid", "{answer:?}");
    assert!(answer.text().contains("a name twice"), "{}", answer.text());
    host.leave();

    let records = kill::audit(&world);
    let refused: Vec<_> = records
        .iter()
        .filter(|one| one["event"] == "call.refused")
        .collect();
    assert_eq!(refused.len(), 7, "{refused:?}");
    assert!(
        refused.iter().all(|one| one["code"] == "arguments_invalid"),
        "{refused:?}"
    );
    assert!(
        refused
            .iter()
            .any(|one| one["rule"] == "type at /properties/a/type"),
        "{refused:?}"
    );
    let begun = records.iter().filter(|one| one["event"] == "call.start");
    assert_eq!(begun.filter(|one| one["tool"] == "add").count(), 4);
    assert!(!world.log().contains("s3cret") && !format!("{records:?}").contains("s3cret"));
    assert!((counted(&world, "demo", "refused") - 7.0).abs() < f64::EPSILON);
    assert!((counted(&world, "demo", "fit") - 4.0).abs() < f64::EPSILON);
}

#[test]
fn the_setting_says_what_becomes_of_it_and_holds_from_the_next_call_on() {
    let world = World::new();
    let echo = ("echo", json!({"type": "object", "required": ["text"]}));
    declares(&world, "loose", &["--check-arguments", "warn"], &[echo]);
    let client = world.client("ada");
    for _ in 0..3 {
        assert_eq!(client.ask("echo", json!({"other": "s3cret"})), "served");
    }
    assert_eq!(client.ask("echo", json!({"text": "x"})), "served");
    assert!((counted(&world, "loose", "warned") - 3.0).abs() < f64::EPSILON);
    assert!((counted(&world, "loose", "fit") - 1.0).abs() < f64::EPSILON);
    let log = world.log();
    assert_eq!(
        log.matches("do not fit the schema").count(),
        1,
        "now and then: {log}"
    );
    assert!(
        log.contains("required at /required") && !log.contains("s3cret"),
        "{log}"
    );

    world.cli(&["mcp", "update", "loose", "--check-arguments", "enforce"]);
    let answer = client.call("echo", json!({}));
    assert_eq!(answer.code(), "arguments_invalid", "{answer:?}");
    world.cli(&["mcp", "update", "loose", "--check-arguments", "off"]);
    assert_eq!(client.ask("echo", json!({})), "served");
    assert!((counted(&world, "loose", "refused") - 1.0).abs() < f64::EPSILON);
    assert!((counted(&world, "loose", "fit") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn schemas_that_mean_harm_are_named_and_keep_nobody_from_calling() {
    let world = World::new();
    let string = |more: Value| json!({"type": "object", "properties": {"t": more}});
    let options = vec![0; 20_100];
    let mut defs = serde_json::Map::new();
    for level in 0..30 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        defs.insert(format!("d{level}"), json!({"allOf": [next, next]}));
    }
    defs.insert("d30".to_owned(), json!({"type": "object"}));
    let harm = [
        (
            "fetch",
            string(json!({"$ref": "http://127.0.0.1:1/x.json"})),
            "nothing else is ever fetched",
        ),
        (
            "file",
            string(json!({"$ref": "file:///etc/passwd"})),
            "nothing else is ever fetched",
        ),
        (
            "loop",
            json!({"type": "object", "allOf": [{"$ref": "#"}]}),
            "leads back to itself",
        ),
        (
            "bomb",
            json!({"type": "object", "$defs": defs, "$ref": "#/$defs/d0"}),
            "written out",
        ),
        (
            "pattern",
            string(json!({"pattern": "(?=x)((a{999}){999}){999}"})),
            "linear time",
        ),
        (
            "options",
            string(json!({"enum": options})),
            "more than 20000 values",
        ),
        ("wrong", string(json!({"type": 7})), "no valid schema"),
    ];
    let mut tools: Vec<_> = harm
        .iter()
        .map(|(name, schema, _)| (*name, schema.clone()))
        .collect();
    // Of these, only what they are asked is too much.
    let slow = string(json!({"pattern": "^(a+)+$"}));
    let node = json!({"$ref": "#/$defs/n"});
    let doubling = json!({"type": "object", "$ref": "#/$defs/n", "$defs": {"n": {"properties":
        {"a": {"allOf": [node, node]}}}}});
    tools.extend([("slow", slow), ("doubling", doubling)]);
    declares(&world, "harm", &ENFORCED, &tools);
    let key = world.key("ada");

    for command in ["show", "discover"] {
        let shown = world.cli(&["mcp", command, "harm"]);
        let unfit = shown["unfit"].as_array().unwrap();
        assert_eq!(unfit.len(), harm.len(), "{unfit:?}");
        for (name, _, why) in &harm {
            let told = unfit.iter().find(|one| one["tool"] == *name).unwrap();
            assert!(told["why"].as_str().unwrap().contains(why), "{told}");
        }
    }
    let text = world.run(&["mcp", "show", "harm"]).stdout;
    assert!(
        text.contains("unchecked: bomb, whose schema is not used"),
        "{text}"
    );

    let client = Http::new(&world.url).register(&key);
    for (name, _, _) in &harm {
        assert_eq!(client.ask(name, json!({"t": 1})), "served", "{name}");
    }
    let unchecked = counted(&world, "harm", "unchecked");
    assert!((unchecked - 7.0).abs() < f64::EPSILON, "{unchecked}");
    assert!(world.log().contains("calls go on unchecked"));

    let long = "a".repeat(1 << 20);
    assert_eq!(client.ask("slow", json!({"t": long})), "served");
    let answer = client.call("slow", json!({"t": format!("{long}!")}));
    assert_eq!(answer.code(), "arguments_invalid");
    assert!(answer.text().len() < 500, "{}", answer.text());
    let nested = |depth: usize| {
        let body = format!(
            r#"{{"tool":"doubling","arguments":{}1{}}}"#,
            r#"{"a":"#.repeat(depth),
            "}".repeat(depth)
        );
        client.send("POST", "/v1/tools/invoke", Some(body.as_bytes()))
    };
    assert_eq!(nested(5).text(), "served");
    let answer = nested(60);
    assert!(
        answer.text().contains("steps to check"),
        "{}",
        answer.text()
    );
    let answer = nested(20_000);
    assert!(answer.text().contains("nests deeper"), "{}", answer.text());
    let many = json!({"t": vec![1; 250_000]});
    let answer = client.call("slow", many);
    assert!(
        answer.text().contains("more than 200000 values"),
        "{}",
        answer.text()
    );
}
