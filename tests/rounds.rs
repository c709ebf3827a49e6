//! Questions to clients without sessions: a call is held, what is asked comes in place of its result, and the client
//! comes back with answers and what seals them to the call.

use serde_json::{Value, json};

use crate::questions::{ALL, accepts, asker, can_all, said};
use crate::stateless::Client;
use crate::world::World;

const OURS: &str = "io.modelcontextprotocol/";

fn params(tool: &str, arguments: Value, can: &Value) -> Value {
    json!({"name": tool, "arguments": arguments,
        "_meta": {format!("{OURS}clientCapabilities"): can}})
}

/// The same request with what the client brings.
fn again(params: &Value, asked: &Value, answers: Value) -> Value {
    let mut params = params.clone();
    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = answers;
    params
}

fn asked(answer: &Value) -> Vec<(String, String)> {
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    assert!(answer["result"]["requestState"].is_string(), "{answer}");
    let requests = answer["result"]["inputRequests"].as_object().unwrap();
    let pair = |(key, request): (&String, &Value)| {
        assert!(request["params"]["elicitationId"].is_null(), "{request}");
        (request["method"].as_str().unwrap().to_owned(), key.clone())
    };
    let mut all: Vec<_> = requests.iter().map(pair).collect();
    all.sort();
    all
}

#[test]
fn a_held_call_goes_on_with_the_answers_that_its_client_brings() {
    let (world, key) = asker(ALL);
    let client = Client::new(&world, "/mcp/asker", &key);
    // All at once, in one round.
    let first = params(
        "ask",
        json!({"kinds": ["elicitation", "sampling", "url"]}),
        &can_all(),
    );
    let answer = client.ask("tools/call", first.clone());
    let keys = asked(&answer);
    let methods: Vec<_> = keys.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "elicitation/create",
            "elicitation/create",
            "sampling/createMessage"
        ]
    );
    let form = &answer["result"]["inputRequests"]["q1"];
    assert_eq!(form["params"]["message"], "your name?", "{answer}");
    // What is left out is asked again, what nobody asked is ignored.
    let brought = json!({"q1": accepts("ada"), "q9": {"x": 1}});
    let rest = client.ask("tools/call", again(&first, &answer, brought));
    assert_eq!(asked(&rest).len(), 2, "{rest}");
    let brought = json!({"q2": {"role": "assistant"}, "q3": {"action": "accept"}});
    let done = client.ask("tools/call", again(&first, &rest, brought));
    assert_eq!(done["result"]["resultType"], "complete", "{done}");
    assert_eq!(
        said(&done),
        json!([accepts("ada"), {"role": "assistant"}, {"action": "accept"}])
    );
    // One after the other, in two rounds.
    let two = params("two", json!({}), &can_all());
    let one = client.ask("tools/call", two.clone());
    let (_, key) = asked(&one).remove(0);
    let other = client.ask(
        "tools/call",
        again(&two, &one, json!({key: accepts("bob")})),
    );
    let (method, key) = asked(&other).remove(0);
    assert_eq!(method, "sampling/createMessage");
    let done = client.ask(
        "tools/call",
        again(&two, &other, json!({key: {"role": "x"}})),
    );
    assert_eq!(said(&done), json!([accepts("bob"), {"role": "x"}]));
    // A prompt asks as well.
    let mut prompt = params("who", json!({}), &can_all());
    prompt.as_object_mut().unwrap().remove("arguments");
    let answer = client.ask("prompts/get", prompt.clone());
    let (_, key) = asked(&answer).remove(0);
    let done = client.ask(
        "prompts/get",
        again(&prompt, &answer, json!({key: accepts("eve")})),
    );
    assert!(
        done["result"]["messages"][0]["content"]["text"]
            .as_str()
            .unwrap()
            .contains("eve"),
        "{done}"
    );
    // Progress before the question is told on the stream that ends with it.
    let mut news = params("progress", json!({}), &can_all());
    news["_meta"]["progressToken"] = json!(7);
    let told: Vec<Value> = client.stream("tools/call", news.clone()).collect();
    assert_eq!(told[0]["params"]["progress"], 1, "{told:?}");
    let (_, key) = asked(&told[1]).remove(0);
    let told: Vec<Value> = client
        .stream(
            "tools/call",
            again(&news, &told[1], json!({key: accepts("x")})),
        )
        .collect();
    assert_eq!(
        told[0]["params"],
        json!({"progressToken": 7, "progress": 2}),
        "{told:?}"
    );
    assert_eq!(said(&told[1]), accepts("x"));
}

#[test]
fn what_is_brought_back_is_good_for_its_call_alone() {
    let (mut world, key) = asker(ALL);
    let client = Client::new(&world, "/mcp/asker", &key);
    let first = params("ask", json!({"kinds": ["elicitation"]}), &can_all());
    let answer = client.ask("tools/call", first.clone());
    let good = again(&first, &answer, json!({"q1": accepts("ada")}));
    let refused = |client: &Client, params: Value| {
        let answer = client.send("tools/call", params, &[]).json();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    // Another key, another address, other arguments, another text, no text.
    let other = Client::new(&world, "/mcp/asker", &world.key("bob"));
    refused(&other, good.clone());
    let own = Client::new(&world, "/mcp", &key);
    refused(&own, good.clone());
    let mut changed = good.clone();
    changed["arguments"]["kinds"] = json!(["elicitation", "sampling"]);
    refused(&client, changed);
    for state in [
        json!("x"),
        json!(""),
        json!(7),
        json!({}),
        json!("A".repeat(90)),
    ] {
        let mut changed = good.clone();
        changed["requestState"] = state;
        refused(&client, changed);
    }
    // An answer that is none leaves the call waiting.
    let told = refused(&client, again(&first, &answer, json!({"q1": "ada"})));
    assert!(told.contains("q1"), "{told}");
    refused(&client, again(&first, &answer, json!([])));
    let done = client.ask("tools/call", good.clone());
    assert_eq!(said(&done), json!([accepts("ada")]));
    // Once.
    let told = refused(&client, good.clone());
    assert!(told.contains("already"), "{told}");
    // Answers to nothing are ignored.
    let mut idle = params("declared", json!({}), &can_all());
    idle["inputResponses"] = json!({"q1": accepts("ada")});
    assert_eq!(said(&client.ask("tools/call", idle)), can_all());
    // A call that waits does not outlive its gateway, and its client hears so.
    let answer = client.ask("tools/call", first.clone());
    asked(&answer);
    world.stop();
    world.start();
    let client = Client::new(&world, "/mcp/asker", &key);
    let told = refused(
        &client,
        again(&first, &answer, json!({"q1": accepts("ada")})),
    );
    assert!(told.contains("call again"), "{told}");
}

#[test]
fn a_call_that_nobody_comes_back_for_ends_and_frees_its_place() {
    let world = World::new();
    crate::questions::add(&world, &["--ask", "elicitation", "--call-timeout", "2s"]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/asker", &key);
    let first = params("ask", json!({"kinds": ["elicitation"]}), &can_all());
    // A key's calls that wait are few; one more goes on without an answer. A tool that asks takes turns, so what
    // waits first is the first.
    let answer = client.ask("tools/call", first.clone());
    asked(&answer);
    world.until("it is over", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    let late = again(&first, &answer, json!({"q1": accepts("ada")}));
    let late = client.send("tools/call", late, &[]).json();
    assert_eq!(late["error"]["code"], -32602, "{late}");
    let again = client.ask("tools/call", first);
    asked(&again);
}

#[test]
fn a_question_that_nobody_answers_keeps_no_other_call_waiting() {
    let (world, key) = asker(ALL);
    let client = Client::new(&world, "/mcp/asker", &key);
    let first = params("ask", json!({"kinds": ["elicitation"]}), &can_all());
    let left = client.ask("tools/call", first.clone());
    asked(&left);
    // The same tool, one that was never called, and one with a session.
    let other = params("ask", json!({"kinds": ["sampling"]}), &can_all());
    let answer = client.ask("tools/call", other.clone());
    let (_, name) = asked(&answer).remove(0);
    let plain = params("declared", json!({}), &can_all());
    assert!(said(&client.ask("tools/call", plain)).is_object());
    let done = client.ask(
        "tools/call",
        again(&other, &answer, json!({name: {"role": "x"}})),
    );
    assert_eq!(said(&done), json!([{"role": "x"}]));
    let session = crate::face::Client::that_can(&world, "/mcp/asker", &key, can_all());
    let mut open = session.messages(&crate::questions::call(
        1,
        "ask",
        json!({"kinds": ["elicitation"]}),
    ));
    let question = open.next().unwrap();
    let answer = client.ask("tools/call", other.clone());
    let (_, name) = asked(&answer).remove(0);
    session.send(json!({"jsonrpc": "2.0", "id": question["id"], "result": accepts("bob")}));
    assert_eq!(said(&open.next().unwrap()), json!([accepts("bob")]));
    let done = client.ask(
        "tools/call",
        again(&other, &answer, json!({name: {"role": "y"}})),
    );
    assert_eq!(said(&done), json!([{"role": "y"}]));
    // And the one that was left is still there.
    let done = client.ask(
        "tools/call",
        again(&first, &left, json!({"q1": accepts("ada")})),
    );
    assert_eq!(said(&done), json!([accepts("ada")]));
}

#[test]
fn a_held_call_that_has_ended_leaves_no_question_open() {
    let (world, key) = asker(ALL);
    let client = Client::new(&world, "/mcp/asker", &key);
    let first = params("impatient", json!({}), &can_all());
    let held = client.ask("tools/call", first.clone());
    asked(&held);
    // Nobody comes back; the server hears so when its call has ended.
    let last = params("last", json!({}), &can_all());
    let last = said(&client.ask("tools/call", last));
    assert!(last["error"]["code"].is_i64(), "{last}");
    // Whoever comes back then gets what it ended with.
    let done = client.ask(
        "tools/call",
        again(&first, &held, json!({"q1": accepts("x")})),
    );
    assert_eq!(said(&done), "ended");
}

#[test]
fn who_cannot_answer_is_told_what_it_takes() {
    let (world, key) = asker(ALL);
    let client = Client::new(&world, "/mcp/asker", &key);
    let needs = params("needs", json!({}), &json!({"elicitation": {}}));
    let refused = client.send("tools/call", needs, &[]);
    assert_eq!(refused.status, 400, "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(error["code"], -32021, "{error}");
    assert_eq!(
        error["data"]["requiredCapabilities"],
        json!({"sampling": {}})
    );
    // A server that gets along without: its result.
    let asks = params(
        "ask",
        json!({"kinds": ["sampling"]}),
        &json!({"elicitation": {}}),
    );
    let done = client.ask("tools/call", asks);
    assert_eq!(said(&done)[0]["error"]["code"], -32601, "{done}");
    // One that has the other question answered gets the result, whatever it is.
    let both = params(
        "ask",
        json!({"kinds": ["sampling", "elicitation"]}),
        &json!({"elicitation": {}}),
    );
    let answer = client.ask("tools/call", both.clone());
    let done = client.ask(
        "tools/call",
        again(&both, &answer, json!({"q1": accepts("x")})),
    );
    assert_eq!(said(&done)[1], accepts("x"));
}

#[test]
fn calls_of_many_are_answered_each_with_its_own() {
    let (world, key) = asker(ALL);
    let bob = world.key("bob");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (world, key) = (&world, if n % 2 == 0 { &key } else { &bob });
            scope.spawn(move || {
                let client = Client::new(world, "/mcp/asker", key);
                for round in 0..3 {
                    let first = params("two", json!({"n": n}), &can_all());
                    let mut answer = client.ask("tools/call", first.clone());
                    let name = format!("{n}-{round}");
                    for _ in 0..2 {
                        let (_, key) = asked(&answer).remove(0);
                        let brought = json!({key: accepts(&name)});
                        answer = client.ask("tools/call", again(&first, &answer, brought));
                    }
                    assert_eq!(said(&answer), json!([accepts(&name), accepts(&name)]));
                }
            });
        }
    });
}
