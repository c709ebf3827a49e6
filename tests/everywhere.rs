//! Resources, prompts and completions at `/mcp`, where all servers of a key are: servers of plain Python that have the
//! same URIs and the same names, behind a real gateway, for clients of both eras.

use serde_json::{Value, json};

use crate::face::{Client, listen, text};
use crate::kill::audit;
use crate::stateless::Client as Stateless;
use crate::world::World;

const SHELF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/shelf.py");
const PARTIAL: &str = "legation/partial";

/// Defines and publishes one with this label.
fn shelf(world: &World, name: &str, options: &[&str], words: &[&str]) {
    let mut command = vec!["python3", SHELF, name];
    command.extend(words);
    world.mcp(name, options, &command);
}

/// A key that is subscribed to shelves in this order.
fn in_order(world: &World, shelves: &[(&str, &[&str])]) -> String {
    world.run(&["group", "add", "all"]);
    let key = world.key("ada");
    for (name, words) in shelves {
        shelf(world, name, &[], words);
        world.cli(&["subscription", "add", &id_of(world, "ada"), name]);
    }
    key
}

/// The id of a user's only key.
fn id_of(world: &World, user: &str) -> String {
    let keys = world.cli(&["key", "list", "--user", user]);
    keys[0]["id"].as_str().unwrap().to_owned()
}

/// Two servers with all, and one that has tools only.
fn three() -> (World, String) {
    let world = World::new();
    let key = in_order(&world, &[("first", &[]), ("my_second", &[])]);
    world.demo("demo", &[]);
    world.cli(&["subscription", "add", &id_of(&world, "ada"), "demo"]);
    (world, key)
}

/// A client of either era, at `/mcp`.
enum Either {
    Session(Client),
    Stateless(Stateless),
}

impl Either {
    fn both(world: &World, key: &str) -> [Self; 2] {
        [
            Self::Session(Client::new(world, "/mcp", key)),
            Self::Stateless(Stateless::new(world, "/mcp", key)),
        ]
    }

    fn ask(&self, method: &str, params: Value) -> Value {
        match self {
            Self::Session(client) => client.ask("e", method, params).json(),
            Self::Stateless(client) => client.send(method, params, &[]).json(),
        }
    }

    fn list(&self, method: &str) -> Value {
        let answer = self.ask(method, json!({}));
        assert!(answer["result"].is_object(), "{method}: {answer}");
        answer["result"].clone()
    }
}

/// The values of one member of all items.
fn all(result: &Value, list: &str, member: &str) -> Vec<String> {
    let items = result[list].as_array().unwrap();
    let member = |item: &Value| item[member].as_str().unwrap().to_owned();
    items.iter().map(member).collect()
}

fn missing(result: &Value) -> Vec<(String, String)> {
    let partial = result["_meta"][PARTIAL].as_array();
    let partial = partial.into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    partial
        .map(|one| (text(&one["mcp"]), text(&one["error"])))
        .collect()
}

fn states(world: &World, mcp: &str) -> Vec<Value> {
    let all = world.isolates().into_iter();
    all.filter(|one| one["mcp"] == mcp && one["user"] == "ada")
        .collect()
}

#[test]
fn lists_are_put_together_and_what_they_name_leads_back() {
    let (world, key) = three();
    for client in Either::both(&world, &key) {
        let resources = client.list("resources/list");
        assert_eq!(
            all(&resources, "resources", "uri"),
            [
                "legation://first/file:///same",
                "legation://first/memo:first",
                "legation://my_second/file:///same",
                "legation://my_second/memo:my_second",
            ]
        );
        assert_eq!(
            resources["resources"][2]["x-of"], "my_second",
            "it is whole"
        );
        assert_eq!(missing(&resources), [], "{resources}");
        assert_eq!(resources, client.list("resources/list"), "the order stays");
        let templates = client.list("resources/templates/list");
        assert_eq!(
            all(&templates, "resourceTemplates", "uriTemplate"),
            [
                "legation://first/file:///{name}",
                "legation://my_second/file:///{name}"
            ]
        );
        let prompts = client.list("prompts/list");
        let names = ["who", "of_first", "my_second_who", "of_my_second"];
        assert_eq!(all(&prompts, "prompts", "name"), names);

        for (uri, said) in [
            ("legation://first/file:///same", "file:///same of first"),
            (
                "legation://my_second/file:///same",
                "file:///same of my_second",
            ),
            // An expanded template.
            ("legation://first/file:///a%20b", "file:///a%20b of first"),
            // A server's own, as a text may have it: only one server lists it.
            ("memo:my_second", "memo:my_second of my_second"),
        ] {
            let read = client.ask("resources/read", json!({"uri": uri}));
            let content = &read["result"]["contents"][0];
            assert_eq!(content["text"], said, "{read}");
            let own = uri.starts_with("legation:");
            assert!(!own || content["uri"] == uri, "{read}");
        }
        for (name, said) in [
            ("who", "who of first"),
            ("my_second_who", "who of my_second"),
            ("of_my_second", "of.my_second of my_second"),
            ("first.of.first", "of.first of first"),
        ] {
            let got = client.ask("prompts/get", json!({"name": name}));
            let messages = &got["result"]["messages"];
            assert_eq!(messages[0]["content"]["text"], said, "{got}");
            let uri = messages[1]["content"]["uri"].as_str().unwrap();
            assert!(uri.starts_with("legation://"), "{got}");
            let of = json!({"ref": {"type": "ref/prompt", "name": name},
                "argument": {"name": "a", "value": "x"}});
            let completed = client.ask("completion/complete", of);
            assert_eq!(
                completed["result"]["completion"]["values"][0], said,
                "{completed}"
            );
        }
        let of = json!({"ref": {"type": "ref/resource", "uri": "legation://my_second/file:///{name}"},
            "argument": {"name": "name", "value": "x"}});
        let completed = client.ask("completion/complete", of);
        assert_eq!(
            completed["result"]["completion"]["values"][0],
            "file:///{name} of my_second"
        );
    }
    assert_eq!(
        states(&world, "demo"),
        [] as [Value; 0],
        "it has no such list"
    );
    // What was asked of each server is recorded.
    let records = audit(&world);
    let of = |tool: &str| {
        let starts = records.iter().filter(|one| one["event"] == "call.start");
        starts.filter(|one| one["tool"] == tool).count()
    };
    assert_eq!(of("prompts.get"), 8);
    assert_eq!(of("prompts.list"), 4);
    assert_eq!(of("resources.read"), 8);
}

#[test]
fn what_is_not_there_is_answered_as_the_version_says() {
    let (world, key) = three();
    for client in Either::both(&world, &key) {
        let is_session = matches!(client, Either::Session(_));
        let not_found = if is_session { -32002 } else { -32602 };
        for (uri, error) in [
            ("legation://demo/file:///same", "not_found"),
            ("legation://nothing/x", "not_found"),
            ("legation://first", "resource_unclear"),
            ("file:///same", "resource_unclear"),
            ("other:x", "resource_unclear"),
        ] {
            let read = client.ask("resources/read", json!({"uri": uri}));
            let wrong = &read["error"];
            assert_eq!(wrong["code"], not_found, "{read}");
            assert_eq!(wrong["data"], json!({"error": error, "uri": uri}), "{read}");
        }
        let unclear = client.ask("resources/read", json!({"uri": "file:///same"}));
        let said = unclear["error"]["message"].as_str().unwrap();
        assert!(said.contains("legation://my_second/file:///same"), "{said}");
        // The server's own word is passed on.
        let gone = json!({"uri": "legation://first/nothing:1"});
        assert_eq!(
            client.ask("resources/read", gone)["error"]["code"],
            not_found
        );
        for (method, params) in [
            ("prompts/get", json!({"name": "nothing"})),
            ("prompts/get", json!({"name": 7})),
            ("prompts/get", json!({"name": "demo.x"})),
            (
                "completion/complete",
                json!({"ref": {"type": "x"}, "argument": {}}),
            ),
            (
                "completion/complete",
                json!({"ref": {"type": "ref/prompt", "name": "nothing"}, "argument": {}}),
            ),
            ("resources/list", json!({"cursor": "1"})),
            ("prompts/list", json!({"cursor": ""})),
        ] {
            let headers: &[_] = if params["name"] == 7 {
                &[("Mcp-Name", "7")]
            } else {
                &[]
            };
            let answer = match &client {
                Either::Session(client) => client.ask("e", method, params.clone()).json(),
                Either::Stateless(client) => client.send(method, params.clone(), headers).json(),
            };
            assert_eq!(
                answer["error"]["code"], -32602,
                "{method} {params}: {answer}"
            );
        }
    }
    let records = audit(&world);
    let refused = records.iter().filter(|one| one["event"] == "call.refused");
    assert!(
        refused
            .filter(|one| one["tool"] == "resources/read")
            .count()
            >= 10
    );
}

#[test]
fn what_can_be_asked_is_what_the_servers_behind_can_do() {
    let world = World::new();
    world.demo("demo", &[]);
    shelf(&world, "papers", &[], &["resources"]);
    let key = world.key("ada");
    let mcps = |of: &[&str]| {
        let id = id_of(&world, "ada");
        for mcp in ["demo", "papers"] {
            let verb = if of.contains(&mcp) { "add" } else { "remove" };
            world.run(&["--yes", "subscription", verb, &id, mcp]);
        }
    };
    let begun = |key: &str| {
        let http = crate::face::initialized(&world, "/mcp", key);
        http["result"]["capabilities"].clone()
    };
    let client = Stateless::new(&world, "/mcp", &key);
    let found = || client.ask("server/discover", json!({}))["result"]["capabilities"].clone();
    let tools = json!({"tools": {"listChanged": true}, "logging": {}});
    let mut with = tools.clone();
    with["resources"] = json!({"subscribe": true, "listChanged": true});
    assert_eq!((found(), begun(&key)), (with.clone(), with.clone()));
    // A server without tools is published, and seen at its own address too.
    let own = Client::new(&world, "/mcp/papers", &key);
    let own = own.ask(1, "resources/list", json!({})).json();
    assert_eq!(own["result"]["resources"][0]["uri"], "file:///same");
    let prompts = client.send("prompts/list", json!({}), &[]);
    assert_eq!(
        (prompts.status, &prompts.json()["error"]["code"]),
        (404, &json!(-32601))
    );
    mcps(&["demo"]);
    assert_eq!((found(), begun(&key)), (tools.clone(), tools));
    let session = Client::new(&world, "/mcp", &key);
    let none = session.ask(1, "resources/list", json!({})).json();
    assert_eq!(none["error"]["code"], -32601, "{none}");
    mcps(&["papers"]);
    let listed = session.ask(1, "resources/list", json!({})).json();
    assert_eq!(
        listed["result"]["resources"][0]["uri"],
        "legation://papers/file:///same"
    );
}

#[test]
fn one_server_that_fails_hides_no_other_and_the_list_says_so() {
    let world = World::new();
    let shelves: [(&str, &[&str]); 7] = [
        ("ok", &[]),
        ("slow", &["late=60"]),
        ("dead", &["dies"]),
        ("denied", &[]),
        ("endless", &["endless"]),
        ("much", &["many=3000"]),
        ("last", &["pages", "untemplated"]),
    ];
    let key = in_order(&world, &shelves);
    let denied = ["--scope", "mcp", "--target", "denied", "--reason", "no"];
    world.cli(&[&["kill-switch", "on"], &denied[..]].concat());
    for client in Either::both(&world, &key) {
        let began = std::time::Instant::now();
        let result = client.list("resources/list");
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
        let uris = all(&result, "resources", "uri");
        assert_eq!(uris.first().unwrap(), "legation://ok/file:///same");
        assert_eq!(uris.last().unwrap(), "legation://last/memo:last");
        assert!(!uris.iter().any(|uri| uri.contains("//denied")));
        let mut codes = missing(&result);
        // The one that died is as it is then.
        assert!(["run_ended", "backing_off", "quarantined"].contains(&&*codes.remove(1).1));
        let expected = [
            ("slow", "list_late"),
            ("denied", "kill_switch_active"),
            ("endless", "list_cut"),
            ("much", "list_cut"),
        ];
        let expected = expected.map(|(mcp, code)| (mcp.to_owned(), code.to_owned()));
        assert_eq!(codes, expected, "{}", result["_meta"]);
        let own = uris
            .iter()
            .filter(|uri| uri.starts_with("legation://much/"));
        assert_eq!(own.count(), 2000);
    }
    // Without templates is no failure.
    let session = Client::new(&world, "/mcp/last", &key);
    let none = session.ask(1, "resources/templates/list", json!({})).json();
    assert_eq!(none["error"]["code"], -32601, "{none}");
}

#[test]
fn a_few_servers_of_a_key_are_asked_at_a_time() {
    let world = World::new();
    for n in 0..7 {
        shelf(&world, &format!("s{n}"), &[], &["late=0.4"]);
    }
    let key = world.key("ada");
    let clients = [(); 3].map(|()| Client::new(&world, "/mcp", &key));
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                let result = client.ask(1, "resources/list", json!({})).json();
                assert_eq!(
                    all(&result["result"], "resources", "uri").len(),
                    14,
                    "{result}"
                );
            });
        }
    });
    let (mut open, mut most) = (0, 0);
    let mut records = audit(&world);
    records.sort_by_key(|one| one["seq"].as_u64());
    let mut own = std::collections::HashSet::new();
    for record in records {
        let call = record["call"].as_str().unwrap_or_default().to_owned();
        match record["event"].as_str() {
            Some("call.start") if record["tool"] == "resources.list" => {
                own.insert(call);
                open += 1;
                most = most.max(open);
            }
            Some("call.end") if own.remove(&call) => open -= 1,
            _ => {}
        }
    }
    assert!((2..=4).contains(&most), "{most} at a time");
}

#[test]
fn names_of_prompts_stay_and_only_a_newcomer_is_renamed() {
    let mut world = World::new();
    shelf(&world, "one", &[], &[]);
    let key = world.key("ada");
    let names = |world: &World| {
        let client = Client::new(world, "/mcp", &key);
        all(
            &client.ask(1, "prompts/list", json!({})).json()["result"],
            "prompts",
            "name",
        )
    };
    assert_eq!(names(&world), ["who", "of_one"]);
    shelf(&world, "zero", &[], &[]);
    world.demo("demo", &[]);
    let id = id_of(&world, "ada");
    let subscription = |verb: &str, mcp: &str| {
        world.cli(&["subscription", verb, &id, mcp]);
    };
    subscription("add", "zero");
    subscription("add", "demo");
    let both = ["who", "of_one", "zero_who", "of_zero"];
    assert_eq!(names(&world), both);
    // Another subscription begins anew: its names are a newcomer's.
    subscription("remove", "one");
    assert_eq!(names(&world), ["zero_who", "of_zero"]);
    subscription("add", "one");
    let later = ["zero_who", "of_zero", "who", "of_one"];
    assert_eq!(names(&world), later);
    world.stop();
    world.start();
    // A name that a client kept is good before anything is listed.
    let client = Client::new(&world, "/mcp", &key);
    let got = client
        .ask(1, "prompts/get", json!({"name": "zero_who"}))
        .json();
    assert_eq!(
        got["result"]["messages"][0]["content"]["text"], "who of zero",
        "{got}"
    );
    assert_eq!(names(&world), later);
    assert_eq!(
        states(&world, "one").len(),
        1,
        "what it can do was not forgotten"
    );
}

#[test]
fn a_link_in_a_tool_s_result_can_be_read_where_it_was_seen() {
    let (world, key) = three();
    for client in Either::both(&world, &key) {
        let params = json!({"name": "my_second_link", "arguments": {}});
        let called = client.ask("tools/call", params);
        let content = &called["result"]["content"];
        let uri = "legation://my_second/file:///same";
        assert_eq!(content[0]["text"], "see file:///same", "{called}");
        assert_eq!(content[1]["uri"], uri, "{called}");
        assert_eq!(
            content[2]["resource"]["uri"],
            "legation://my_second/memo:my_second"
        );
        let read = client.ask("resources/read", json!({"uri": content[1]["uri"]}));
        assert_eq!(
            read["result"]["contents"][0]["text"],
            "file:///same of my_second"
        );
    }
    // At its own address nothing is another.
    let own = Client::new(&world, "/mcp/my_second", &key);
    let content = own.call(1, "link", json!({}))["result"]["content"].clone();
    assert_eq!(content[1]["uri"], "file:///same");
}

/// A client that takes tasks was given links as their servers wrote them: `legation://NAME/…` of another mcp among them.
#[test]
fn who_takes_tasks_is_shown_links_as_everybody_is() {
    let (world, key) = three();
    let stateless = Stateless::new(&world, "/mcp", &key);
    let takes = json!({"name": "my_second_link", "arguments": {}, "_meta": {
        "io.modelcontextprotocol/clientCapabilities":
            {"extensions": {"io.modelcontextprotocol/tasks": {}}}}});
    let called = stateless.ask("tools/call", takes);
    let uri = "legation://my_second/file:///same";
    assert_eq!(called["result"]["content"][1]["uri"], uri, "{called}");
}

#[test]
fn limits_and_switches_hold_as_for_tools() {
    let world = World::with("[calls]\nper_key_minute_max = 60\n");
    shelf(&world, "first", &[], &[]);
    shelf(&world, "second", &[], &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp", &key);
    // A list counts as one, however many servers are asked.
    for n in 0..8 {
        let listed = client.ask(n, "resources/list", json!({})).json();
        assert_eq!(
            all(&listed["result"], "resources", "uri").len(),
            4,
            "{listed}"
        );
    }
    let over = (0..9).find_map(|n| {
        let read = client
            .ask(n, "resources/read", json!({"uri": "legation://none/x"}))
            .json();
        (read["error"]["data"]["error"] == "rate_limited").then_some(read)
    });
    assert!(over.is_some(), "what is not there counts as well");
    let list = client.ask(1, "prompts/list", json!({})).json();
    assert_eq!(list["error"]["data"]["error"], "rate_limited", "{list}");
    let bob = Client::new(&world, "/mcp", &world.key("bob"));
    let deny = ["--scope", "mcp", "--target", "first", "--reason", "leak"];
    world.cli(&[&["kill-switch", "on"], &deny[..]].concat());
    let read = bob
        .ask(
            1,
            "resources/read",
            json!({"uri": "legation://first/memo:first"}),
        )
        .json();
    assert_eq!(
        read["error"]["data"]["error"], "kill_switch_active",
        "{read}"
    );
    let listed = bob.ask(2, "prompts/list", json!({})).json();
    let expected = [("first".to_owned(), "kill_switch_active".to_owned())];
    assert_eq!(missing(&listed["result"]), expected);
}

/// What a stream tells next: a list, or a resource.
fn next(lines: &mut impl Iterator<Item = String>) -> String {
    let data = lines.find_map(|line| {
        let data: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
        let uri = data["params"]["uri"].as_str().map(str::to_owned);
        Some(uri.unwrap_or_else(|| short(&data["method"])))
    });
    data.expect("the stream has ended")
}

fn short(method: &Value) -> String {
    let method = method.as_str().unwrap();
    method
        .strip_prefix("notifications/")
        .unwrap_or(method)
        .to_owned()
}

fn three_of(mut next: impl FnMut() -> String) -> Vec<String> {
    let mut told = vec![next(), next(), next()];
    told.sort();
    told
}

const LISTS: [&str; 3] = [
    "prompts/list_changed",
    "resources/list_changed",
    "tools/list_changed",
];

#[test]
fn who_subscribed_where_all_servers_are_hears_of_what_changes() {
    let (world, key) = three();
    let client = Client::new(&world, "/mcp", &key);
    let mut heard = listen(&client);
    let uri = "legation://my_second/file:///same";
    let watch = |method: &str, uri: &str| client.ask("w", method, json!({"uri": uri})).json();
    assert_eq!(watch("resources/subscribe", uri)["result"], json!({}));
    assert_eq!(
        watch("resources/subscribe", "legation://no/x")["error"]["code"],
        -32002
    );
    // The same URI of another server is another resource.
    client.call(1, "touch", json!({"uris": ["file:///same"]}));
    client.call(2, "my_second_touch", json!({"uris": ["file:///same"]}));
    assert_eq!(next(&mut heard), uri);
    assert_eq!(text(&client.call(3, "watched", json!({}))), "[]");
    assert_eq!(
        text(&client.call(3, "my_second_watched", json!({}))),
        r#"["file:///same"]"#
    );
    client.call(
        4,
        "my_second_retell",
        json!({"of": ["prompts", "resources"]}),
    );
    assert_eq!(next(&mut heard), "prompts/list_changed");
    assert_eq!(next(&mut heard), "resources/list_changed");
    assert_eq!(watch("resources/unsubscribe", uri)["result"], json!({}));
    assert_eq!(text(&client.call(5, "my_second_watched", json!({}))), "[]");
    // A new resource is there with the next list.
    client.call(6, "put", json!({"uri": "memo:new"}));
    assert_eq!(next(&mut heard), "resources/list_changed");
    let listed = client.ask(7, "resources/list", json!({})).json();
    let uris = all(&listed["result"], "resources", "uri");
    assert!(
        uris.contains(&"legation://first/memo:new".to_owned()),
        "{uris:?}"
    );
    // Another key of the same user that is not subscribed to the mcp hears nothing of it.
    let first = id_of(&world, "ada");
    let other = world.key("ada");
    let keys = world.cli(&["key", "list", "--user", "ada"]);
    let mut keys = keys.as_array().unwrap().iter();
    let newer = keys.find(|key| key["id"] != first.as_str()).unwrap();
    let newer = newer["id"].as_str().unwrap();
    world.cli(&["subscription", "remove", newer, "my_second"]);
    let other = Client::new(&world, "/mcp", &other);
    let mut unheard = listen(&other);
    client.call(8, "my_second_retell", json!({"of": ["prompts"]}));
    client.call(9, "retell", json!({"of": ["resources"]}));
    assert_eq!(next(&mut unheard), "resources/list_changed");
}

#[test]
fn a_subscription_without_a_session_names_resources_of_several_servers() {
    let (world, key) = three();
    let client = Stateless::new(&world, "/mcp", &key);
    let (one, two) = ("legation://first/a:1", "legation://my_second/a:1");
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourcesListChanged": true,
        "promptsListChanged": true, "resourceSubscriptions": [one, two, "legation://no/x", "a:1"]}});
    let mut told = client.stream("subscriptions/listen", wanted);
    let first = told.next().unwrap();
    let mut honoured = first["params"]["notifications"].clone();
    let uris = honoured["resourceSubscriptions"].as_array_mut().unwrap();
    uris.sort_by_key(Value::to_string);
    assert_eq!(
        honoured,
        json!({"toolsListChanged": true, "resourcesListChanged": true, "promptsListChanged": true,
            "resourceSubscriptions": [one, two]})
    );
    client.call("my_second_touch", json!({"uris": ["a:1"]}));
    let updated = told.next().unwrap();
    assert_eq!(updated["params"]["uri"], two, "{updated}");
    client.call("touch", json!({"uris": ["a:1"]}));
    assert_eq!(told.next().unwrap()["params"]["uri"], one);
    client.call("retell", json!({"of": ["prompts"]}));
    assert_eq!(
        short(&told.next().unwrap()["method"]),
        "prompts/list_changed"
    );
    world.cli(&["mcp", "suspend", "first", "--reason", "no"]);
    assert_eq!(three_of(|| short(&told.next().unwrap()["method"])), LISTS);
    drop(told);
    world.until("the other is not subscribed to", |_| {
        (text(&client.call("my_second_watched", json!({}))) == "[]").then_some(())
    });
}

#[test]
fn whatever_changes_a_view_is_told_of_each_list() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let id = id_of(&world, "ada");
    let client = Client::new(&world, "/mcp", &key);
    let mut heard = listen(&client);
    shelf(&world, "shelf", &[], &[]);
    let mut tells = |what: &str, args: &[&str]| {
        world.cli(args);
        assert_eq!(three_of(|| next(&mut heard)), LISTS, "{what}");
    };
    tells("subscribed", &["subscription", "add", &id, "shelf"]);
    let deny = ["--scope", "mcp", "--target", "shelf"];
    let on = [&["kill-switch", "on"], &deny[..], &["--reason", "no"]].concat();
    tells("switched off", &on);
    tells(
        "switched on",
        &[&["kill-switch", "off"], &deny[..]].concat(),
    );
    tells("not granted", &["group", "revoke", "all", "shelf"]);
    tells("granted", &["group", "grant", "all", "shelf"]);
    tells("archived", &["mcp", "archive", "shelf"]);
    // One that is granted and subscribed before it is published.
    let command = ["mcp", "add", "later", "--", "python3", SHELF, "later"];
    for args in [
        &command[..],
        &["group", "grant", "all", "later"],
        &["subscription", "add", &id, "later"],
    ] {
        world.cli(args);
    }
    tells("published", &["mcp", "publish", "later"]);
}

#[test]
fn tools_that_a_server_announces_are_recorded_and_adopted_if_the_operator_says_so() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    // The isolates' users are others.
    let all_may = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), all_may).unwrap();
    let file = dir.path().join("tools");
    std::fs::write(&file, "one\n").unwrap();
    let given = format!("tools={}", file.display());
    let read = ["--read", dir.path().to_str().unwrap()];
    let key = in_order(&world, &[]);
    for (name, sharing) in [("own", "per_user"), ("all", "shared")] {
        shelf(
            &world,
            name,
            &[&read[..], &["--sharing", sharing]].concat(),
            &[&given],
        );
        world.cli(&["subscription", "add", &id_of(&world, "ada"), name]);
    }
    let client = Client::new(&world, "/mcp", &key);
    let names = || {
        let tools = client.ask(1, "tools/list", json!({})).json();
        all(&tools["result"], "tools", "name")
    };
    let before = names();
    let mut heard = listen(&client);
    std::fs::write(&file, "one\ntwo\n").unwrap();
    // What was discovered stays, and it is on record that its server says otherwise.
    client.call(2, "retell", json!({"of": ["tools"]}));
    let record = world.until("it is recorded", |world| {
        let mut records = audit(world).into_iter();
        records.find(|one| one["event"] == "isolate.tools_changed")
    });
    assert_eq!(
        (&record["policy"], &record["tools"]),
        (&json!("keep"), &json!("+two"))
    );
    assert_eq!(names(), before);
    for mcp in ["own", "all"] {
        world.cli(&["mcp", "update", mcp, "--tool-changes", "adopt"]);
    }
    // The one that all share speaks for all.
    client.call(3, "all_retell", json!({"of": ["tools"]}));
    assert_eq!(next(&mut heard), "tools/list_changed");
    assert!(names().contains(&"two".to_owned()), "{:?}", names());
    assert_eq!(text(&client.call(4, "two", json!({}))), "two of all");
    // One user's own does not: a discovery looks.
    let bob = Client::new(&world, "/mcp/own", &world.key("bob"));
    bob.call(5, "retell", json!({"of": ["tools"]}));
    assert_eq!(next(&mut heard), "tools/list_changed");
    let own = Client::new(&world, "/mcp/own", &key);
    assert_eq!(text(&own.call(6, "two", json!({}))), "two of own");
    assert!(names().contains(&"own_two".to_owned()), "{:?}", names());
    world.until("both are recorded", |world| {
        let records = audit(world).into_iter();
        let adopted = records.filter(|one| one["event"] == "isolate.tools_adopted");
        (adopted.filter(|one| one["outcome"] == "adopted").count() == 2).then_some(())
    });
}
