//! What goes wrong on the way to a server and back: each has a verdict, and nobody else loses anything.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::Server;
use super::{PRIVATE, remote, verdict};
use crate::kill::audit;
use crate::world::{Session, World};

/// A world with the server that does wrong, and a user of it whose session has begun.
fn begun(server: &Server, options: &[&str]) -> (World, Session) {
    let world = World::with(PRIVATE);
    remote(&world, "crm", &server.url("/mcp"), options);
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "warm"})), "warm");
    (world, ada)
}

/// Calls of the tool that the server saw with this text.
fn calls(server: &Server, text: &str) -> usize {
    let seen = server.seen();
    let with = |one: &&serde_json::Value| one["params"]["arguments"]["text"] == text;
    seen.iter().filter(with).count()
}

#[test]
fn a_lost_session_is_begun_again_and_the_call_is_carried_once_more() {
    for (told, status) in [
        (json!({"forget": true}), 404),
        (json!({"forget": true, "lost_is_400": true}), 400),
    ] {
        let server = Server::faulty();
        let (world, ada) = begun(&server, &[]);
        let before = server.count("initialize");
        server.command(&told);
        if status == 404 {
            // The server refused it, so it had no effect, so it is carried to the next session.
            assert_eq!(ada.ask("echo", json!({"text": "again"})), "again");
            assert_eq!(calls(&server, "again"), 2, "refused once, taken once");
        } else {
            // A tool may say the same of what it did.
            let told = ada.call("echo", json!({"text": "again"}));
            assert_eq!(told.code(), "run_ended", "{}", told.text());
            assert_eq!(calls(&server, "again"), 1, "it is not repeated");
            assert_eq!(ada.ask("echo", json!({"text": "next"})), "next");
        }
        assert_eq!(server.count("initialize"), before + 1);
        let why = verdict(&world, "crm", Some("ada"));
        assert!(why.contains("lost its session"), "{why}");
        assert!(why.contains(&format!("status {status}")), "{why}");
        let metrics = crate::world::Http::new(&world.ops_url);
        let page = metrics.send("GET", "/metrics", None, None);
        let page = String::from_utf8(page.body).unwrap();
        assert!(
            page.lines()
                .any(|line| line.contains("session_lost") && line.ends_with(" 1")),
            "{page}"
        );
    }
}

#[test]
fn a_call_that_may_have_had_its_effect_is_not_carried_again() {
    let server = Server::faulty();
    let (_world, ada) = begun(&server, &[]);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| ada.call("slow", json!({"seconds": 20, "text": "effect"})));
        while calls(&server, "effect") == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        server.command(&json!({"forget": true}));
        assert_eq!(ada.ask("echo", json!({"text": "again"})), "again");
        let told = slow.join().unwrap();
        assert_eq!(told.code(), "run_ended", "{}", told.text());
        assert!(told.text().contains("lost its session"), "{}", told.text());
        assert!(told.text().contains("not repeated"), "{}", told.text());
    });
    assert_eq!(calls(&server, "effect"), 1);
}

#[test]
fn as_many_calls_as_there_may_be_go_side_by_side() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    let since = Instant::now();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| ada.ask("slow", json!({"seconds": 3}))))
            .collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), "late");
        }
    });
    // One after the other they would take five minutes.
    assert!(
        since.elapsed() < Duration::from_secs(60),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(world.isolate("crm", Some("ada"))["restarts"], 0);
}

#[test]
fn a_redirect_is_not_followed() {
    let inside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    inside.set_nonblocking(true).unwrap();
    let target = format!("http://{}/secret", inside.local_addr().unwrap());
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    for status in [307, 302] {
        server.command(&json!({"status": status, "headers": {"Location": target}}));
        let told = ada.call("echo", json!({"text": "x"}));
        assert_eq!(told.json()["metadata"]["is_error"], true, "{}", told.text());
        let why = verdict(&world, "crm", Some("ada"));
        assert!(why.contains("pointed elsewhere"), "{why}");
        assert!(why.contains(&target), "{why}");
        assert_eq!(world.isolate("crm", Some("ada"))["state"], "quarantined");
        let id = world.isolate("crm", Some("ada"))["id"]
            .as_str()
            .unwrap()
            .to_owned();
        server.command(&json!({}));
        world.cli(&["isolate", "restart", &id]);
        assert_eq!(ada.ask("echo", json!({"text": "back"})), "back");
    }
    assert!(inside.accept().is_err(), "nobody went there");
}

#[test]
fn a_name_that_leads_inside_is_not_connected_to() {
    let inside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    inside.set_nonblocking(true).unwrap();
    let url = format!(
        "https://localhost:{}/mcp",
        inside.local_addr().unwrap().port()
    );
    let world = World::with(PRIVATE);
    world.cli(&["mcp", "add", "crm", "--url", &url]);
    let ran = world.run(&["mcp", "publish", "crm"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("not connected to"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--allow-private"), "{}", ran.stderr);
    assert!(inside.accept().is_err(), "nobody went there");
    let denied: Vec<_> = audit(&world)
        .into_iter()
        .filter(|record| record["event"] == "isolate.egress_denied")
        .collect();
    assert!(!denied.is_empty(), "it is recorded");
}

#[test]
fn what_one_call_meets_ends_that_call_alone() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    for (tool, arguments, word) in [
        ("fail", json!({"status": 422}), "status 422: it is broken"),
        ("fail", json!({"status": 403}), "status 403"),
        ("fail", json!({"status": 404}), "status 404"),
        (
            "fail",
            json!({"status": 400, "message": "no such session of a meeting"}),
            "status 400",
        ),
        ("fail", json!({"status": 500}), "status 500: it is broken"),
        ("cut", json!({}), "ended before the answer"),
    ] {
        let told = ada.call(tool, arguments.clone());
        assert!(
            told.text().contains(word),
            "{tool} {arguments}: {}",
            told.text()
        );
        assert_eq!(told.json()["metadata"]["is_error"], true);
    }
    assert_eq!(ada.ask("echo", json!({"text": "on"})), "on");
    let detail = world.isolate_detail("crm", Some("ada"));
    assert_eq!(detail["runs"].as_array().unwrap().len(), 1, "{detail}");
    let remarks = detail["runs"][0]["stderr_tail"].to_string();
    assert!(remarks.contains("status 500"), "{remarks}");
}

#[test]
fn a_server_that_fails_again_and_again_is_left_alone_for_a_while() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    server.command(&json!({"status": 503}));
    let told: Vec<String> = (0..6)
        .map(|_| ada.call("echo", json!({"text": "x"})).text())
        .collect();
    let why = verdict(&world, "crm", Some("ada"));
    assert!(why.contains("could not be reached"), "{why}\n{told:#?}");
    let state = world.isolate("crm", Some("ada"))["state"].clone();
    assert!(
        ["backoff", "quarantined", "starting"].contains(&state.as_str().unwrap()),
        "{state}"
    );
    server.command(&json!({}));
    world.until("it is served again", |_| {
        let answer = ada.call("echo", json!({"text": "back"}));
        (answer.code().is_empty() && answer.text() == "back").then_some(())
    });
}

#[test]
fn a_server_that_went_away_is_met_again() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    let port = server.port;
    drop(server);
    let told = ada.call("echo", json!({"text": "x"}));
    assert_ne!(told.code(), "", "{}", told.text());
    let why = verdict(&world, "crm", Some("ada"));
    assert!(why.contains("could not be reached"), "{why}");
    let server = Server::faulty_at(port);
    world.until("it is met again", |_| {
        let answer = ada.call("echo", json!({"text": "back"}));
        (answer.code().is_empty() && answer.text() == "back").then_some(())
    });
    assert_eq!(server.count("initialize"), 1);
}

#[test]
fn an_answer_without_end_ends_the_run_and_no_other() {
    let server = Server::faulty();
    let world = World::with(&format!(
        "{PRIVATE}[calls]\nline_bytes_max = 1048576\nresponse_bytes_max = 1048576\n"
    ));
    remote(&world, "crm", &server.url("/mcp"), &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ben.ask("echo", json!({"text": "warm"}));
    let fits = ada.ask("huge", json!({"bytes": 512 << 10}));
    assert_eq!(fits.len(), 512 << 10);
    let told = ada.call("huge", json!({"bytes": 64 << 20}));
    assert_eq!(told.json()["metadata"]["is_error"], true);
    let why = verdict(&world, "crm", Some("ada"));
    assert!(why.contains("more than 1048576 bytes"), "{why}");
    assert_eq!(ben.ask("echo", json!({"text": "on"})), "on");
    assert_eq!(ada.ask("echo", json!({"text": "back"})), "back");
}

#[test]
fn a_flood_of_messages_keeps_nobody_from_their_calls() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    world.demo("demo", &[]);
    let ben = world.client("ben");
    ben.ask("demo.echo", json!({"text": "warm"}));
    server.command(&json!({"stream": "yes", "flood": true}));
    let id = world.isolate("crm", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.cli(&["isolate", "restart", &id]);
    world.until("it floods", |world| {
        let detail = world.isolate_detail("crm", Some("ada"));
        (detail["egress"]["received_bytes"].as_u64()? > 1 << 20).then_some(())
    });
    for n in 0..5 {
        let said = format!("m{n}");
        assert_eq!(ada.ask("crm.echo", json!({"text": said})), said);
        assert_eq!(ben.ask("demo.echo", json!({"text": said})), said);
    }
    // 10,000 messages of about 110 bytes in a second, and what lies in buffers.
    let received = |world: &World| {
        let detail = world.isolate_detail("crm", Some("ada"));
        detail["egress"]["received_bytes"].as_u64().unwrap()
    };
    let (before, since) = (received(&world), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let rate = (received(&world) - before) as f64 / since.elapsed().as_secs_f64();
    assert!(rate < 4e6, "{rate} bytes in a second");
    assert_eq!(world.isolate("crm", Some("ada"))["state"], "ready");
}

#[test]
fn how_an_answer_is_cut_and_laid_out_changes_nothing() {
    let server = Server::faulty();
    let (_world, ada) = begun(&server, &[]);
    server.command(&json!({"bytewise": true}));
    assert_eq!(ada.ask("echo", json!({"text": "one by one"})), "one by one");
    assert_eq!(ada.ask("progress", json!({})), "progress");
    server.command(&json!({}));
    assert_eq!(ada.ask("pretty", json!({})), "two\nlines");
}

#[test]
fn a_stream_that_was_cut_is_taken_up_again_where_it_was() {
    let server = Server::faulty();
    let (_world, ada) = begun(&server, &[]);
    let since = Instant::now();
    assert_eq!(ada.ask("later", json!({})), "after the cut");
    assert!(
        since.elapsed() >= Duration::from_millis(200),
        "it waits as it is told"
    );
    let seen = server.seen();
    let again = seen
        .iter()
        .find(|one| !one["last_event"].is_null())
        .unwrap();
    assert!(again["session"].as_str().is_some(), "{again}");
    assert_eq!(
        seen.iter()
            .filter(|one| one["params"]["name"] == "later")
            .count(),
        1,
        "it is asked once"
    );
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &["--start-timeout", "1s"]);
    server.command(&json!({"silent": true}));
    let id = world.isolate("crm", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.run(&["isolate", "restart", &id]);
    world.until("it is given up", |world| {
        verdict(world, "crm", Some("ada"))
            .contains("no answer to initialize within 1 s")
            .then_some(())
    });
    drop(ada);
}

#[test]
fn a_call_that_takes_too_long_is_cancelled_at_the_server() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &["--call-timeout", "1s"]);
    let told = ada.call("slow", json!({"seconds": 20}));
    assert_eq!(told.code(), "call_timeout", "{}", told.text());
    let cancelled = world.until("the server is told", |_| {
        let seen = server.seen();
        seen.into_iter()
            .find(|one| one["method"] == "notifications/cancelled")
    });
    let seen = server.seen();
    let slow = seen
        .iter()
        .find(|one| one["params"]["name"] == "slow")
        .unwrap();
    assert_eq!(cancelled["params"]["requestId"], slow["id"]);
    assert_eq!(ada.ask("echo", json!({"text": "on"})), "on");
    let one = world.isolate("crm", Some("ada"));
    assert_eq!(
        (&one["in_flight"], &one["restarts"]),
        (&json!(0), &json!(0)),
        "{one}"
    );
}

#[test]
fn what_is_no_mcp_is_said_to_be_none() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    let url = server.url("/mcp");
    world.cli(&["mcp", "add", "crm", "--url", &url, "--allow-private"]);
    for (told, word) in [
        (json!({"html": true}), "neither JSON nor events"),
        (json!({"status": 404}), "--transport sse"),
        (json!({"status": 403}), "did not take the credentials"),
        (
            json!({"status": 400, "message": "nope"}),
            "status 400: nope",
        ),
        (json!({"close": true}), "the connection was lost"),
    ] {
        server.command(&told);
        let ran = world.run(&["mcp", "discover", "crm"]);
        assert_ne!(ran.code, 0, "{told}");
        assert!(ran.stderr.contains(word), "{told}: {}", ran.stderr);
    }
    let gone = format!("http://127.0.0.1:{}/mcp", super::server::free_port());
    world.cli(&["mcp", "update", "crm", "--url", &gone]);
    let ran = world.run(&["mcp", "discover", "crm"]);
    assert!(ran.stderr.contains("refused"), "{}", ran.stderr);
    world.cli(&[
        "mcp",
        "update",
        "crm",
        "--url",
        "http://no-such-host.invalid/mcp",
    ]);
    let ran = world.run(&["mcp", "discover", "crm"]);
    assert!(ran.stderr.contains("cannot be looked up"), "{}", ran.stderr);
}

#[test]
fn the_older_transport_is_held_to_its_own_host_and_its_stream() {
    let server = Server::faulty();
    server.command(&json!({"old": "elsewhere"}));
    let world = World::with(PRIVATE);
    let url = server.url("/sse");
    world.cli(&[
        "mcp",
        "add",
        "crm",
        "--url",
        &url,
        "--allow-private",
        "--transport",
        "sse",
    ]);
    let ran = world.run(&["mcp", "publish", "crm"]);
    assert!(
        ran.stderr.contains("another host, port or scheme"),
        "{}",
        ran.stderr
    );
    server.command(&json!({}));
    world.cli(&["mcp", "publish", "crm"]);
    world.cli(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", "crm"]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "one"})), "one");
    server.command(&json!({"hang_up": true}));
    world.until("its end is noticed", |world| {
        verdict(world, "crm", Some("ada"))
            .contains("the stream of")
            .then_some(())
    });
    assert_eq!(ada.ask("echo", json!({"text": "two"})), "two");
}

/// It ran four times: a ping that was not answered counted as proof that nothing had been done.
#[test]
fn a_call_with_effects_is_not_run_again_when_a_ping_tells_nothing() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &[]);
    for ping in [503, 429, 401, 400] {
        for status in [400, 404] {
            server.command(&json!({"ping_status": ping}));
            let once = format!("once-{ping}-{status}");
            let told = ada.call(
                "fail",
                json!({"status": status, "message": "your session of yoga is full", "text": once}),
            );
            let word = format!("status {status}");
            assert!(told.text().contains(&word), "{}", told.text());
            assert_eq!(calls(&server, &once), 1, "{once}");
        }
    }
    assert_eq!(world.isolate("crm", Some("ada"))["restarts"], 0);
}

#[test]
fn a_call_that_is_refused_in_every_session_is_carried_once_and_no_more() {
    let server = Server::faulty();
    let (_world, ada) = begun(&server, &[]);
    server.command(&json!({"ping_status": 404}));
    let told = ada.call("fail", json!({"status": 404, "text": "always"}));
    assert_eq!(told.code(), "run_ended", "{}", told.text());
    assert!(told.text().contains("twice"), "{}", told.text());
    assert_eq!(calls(&server, "always"), 2);
}

#[test]
fn a_cancel_that_a_server_has_no_ears_for_ends_nobody_else_s_call() {
    let server = Server::faulty();
    let (world, ada) = begun(&server, &["--sharing", "shared", "--call-timeout", "3s"]);
    let ben = world.client("ben");
    server.command(&json!({"deaf": true}));
    std::thread::scope(|scope| {
        let late = scope.spawn(|| ada.call("slow", json!({"seconds": 20})));
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(ben.ask("slow", json!({"seconds": 2.3})), "late");
        assert_eq!(late.join().unwrap().code(), "call_timeout");
    });
    world.until("the cancel is refused", |_| {
        (server.count("notifications/cancelled") > 0).then_some(())
    });
    assert_eq!(ben.ask("echo", json!({"text": "on"})), "on");
    let one = world.isolate("crm", None);
    assert_eq!(one["restarts"], 0, "{one}");
}

#[test]
fn on_the_older_transport_an_answer_of_json_ends_a_row_of_failures() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    remote(&world, "crm", &server.url("/sse"), &["--transport", "sse"]);
    let ada = world.client("ada");
    for _ in 0..4 {
        server.command(&json!({"old_json": true}));
        assert_eq!(ada.ask("echo", json!({"text": "well"})), "well");
        server.command(&json!({"status": 503}));
        let told = ada.call("echo", json!({"text": "x"}));
        assert!(told.text().contains("status 503"), "{}", told.text());
    }
    let one = world.isolate("crm", Some("ada"));
    assert_eq!(one["restarts"], 0, "{one}");
}

#[test]
fn a_stream_that_is_refused_for_a_moment_is_asked_for_again() {
    let server = Server::faulty();
    server.command(&json!({"stream_status": 503}));
    let (world, _ada) = begun(&server, &[]);
    let of_run = |server: &Server| {
        let seen = server.seen();
        let call = seen.iter().find(|one| one["method"] == "tools/call");
        let session = call.unwrap()["session"].clone();
        let gets = |one: &&serde_json::Value| one["verb"] == "GET" && one["session"] == session;
        seen.iter().filter(gets).count()
    };
    let before = world.until("it is refused", |_| {
        Some(of_run(&server)).filter(|gets| *gets > 0)
    });
    server.command(&json!({"stream": "yes"}));
    world.until("it is asked for again", |_| {
        (of_run(&server) > before).then_some(())
    });
}

#[test]
fn a_key_in_an_address_is_not_told_to_clients() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    let url = server.url("/mcp?key=of-the-query");
    remote(&world, "crm", &url, &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    server.command(&json!({"status": 503}));
    for _ in 0..5 {
        let told = ada.call("echo", json!({"text": "x"})).text();
        assert!(!told.contains("of-the-query"), "{told}");
    }
    let why = verdict(&world, "crm", Some("ada"));
    assert!(why.contains("/mcp"), "{why}");
    assert!(!why.contains("of-the-query"), "{why}");
}
