//! How many calls a key's clients may make: a bound for each key, at every door.

use serde_json::json;

use crate::bridge::host::Host;
use crate::metrics::scrape;
use crate::world::World;
use crate::{face, kill, stateless};

#[test]
fn a_key_that_calls_too_often_is_told_when_to_try_again_and_nobody_else_is() {
    // One at once, and then one in ten seconds.
    let world = World::with("[calls]\nper_key_minute_max = 6\n");
    world.demo("demo", &[]);
    let (ada, ben) = (world.key("ada"), world.key("ben"));
    let echo = json!({"text": "x"});
    let standard = world.client_of_key(&ada);
    assert_eq!(standard.ask("echo", echo.clone()), "x");

    let answer = standard.call("echo", echo.clone());
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (200, "rate_limited")
    );
    let told = answer.json()["metadata"].clone();
    assert_eq!(told["retryable"], true, "{told}");
    let wait = told["retry_after_ms"].as_u64().unwrap();
    assert!((1_000..=10_000).contains(&wait), "{told}");
    assert!(
        answer.text().contains("more than 6 calls a minute"),
        "{}",
        answer.text()
    );

    // Other clients of the key are the same key's.
    for path in ["/mcp", "/mcp/demo"] {
        let mut answers = vec![face::Client::new(&world, path, &ada).call(1, "echo", echo.clone())];
        answers.push(stateless::Client::new(&world, path, &ada).call("echo", echo.clone()));
        for answer in answers {
            let result = &answer["result"];
            assert_eq!(result["isError"], true, "{answer}");
            assert_eq!(
                result["_meta"]["legation/error"], "rate_limited",
                "{answer}"
            );
            assert!(result["_meta"]["legation/retry_after_ms"].as_u64().unwrap() >= 1_000);
        }
    }
    let home = tempfile::tempdir().unwrap();
    let mut host = Host::start(home.path(), &format!("{}/mcp", world.url), &ada);
    host.begin();
    let answer = host.done("echo", echo.clone());
    assert_eq!(
        answer["result"]["_meta"]["legation/error"], "rate_limited",
        "{answer}"
    );
    host.leave();

    // Listing is no call, and another key is another key.
    assert!(standard.tools().contains(&"echo".to_owned()));
    assert_eq!(world.client_of_key(&ben).ask("echo", echo), "x");

    let page = scrape(&world, "/metrics");
    assert!((page.value("legation_calls_over_rate_total", &[]) - 6.0).abs() < f64::EPSILON);
    let records = kill::audit(&world);
    let refused: Vec<_> = records
        .iter()
        .filter(|one| one["event"] == "call.refused" && one["code"] == "rate_limited")
        .collect();
    assert_eq!(refused.len(), 1, "the rest is counted: {refused:?}");
}

#[test]
fn beginning_where_a_server_does_not_start_is_no_door_beside_it() {
    let world = World::with("[calls]\nper_key_minute_max = 6\n");
    world.demo("demo", &[]);
    world.cli(&["mcp", "update", "demo", "--", "sh", "-c", "exit 3"]);
    let ada = world.key("ada");
    // What it can do is not known, so each looks; the first may.
    for _ in 0..4 {
        face::Client::new(&world, "/mcp/demo", &ada);
    }
    let page = scrape(&world, "/metrics");
    assert!((page.value("legation_calls_over_rate_total", &[]) - 3.0).abs() < f64::EPSILON);
}

#[test]
fn without_the_setting_nobody_is_held_up() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = world.client("ada");
    for _ in 0..300 {
        assert_eq!(client.ask("echo", json!({"text": "x"})), "x");
    }
    let page = scrape(&world, "/metrics");
    assert!(page.value("legation_calls_over_rate_total", &[]).abs() < f64::EPSILON);
}
