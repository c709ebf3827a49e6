//! The five calls of the standard client, as it makes them, and requests nobody should make.

use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tools;
use crate::world::client::{Answer, read, request};
use crate::world::{PATIENCE, World};

/// A server in shell that answers every call with its last argument, byte for byte.
pub(crate) const CANNED: &str = r#"
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%[,\}]*}
  case $line in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"canned","version":"1"}}}\n' "$id" ;;
    *'"method":"ping"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
    *'"method":"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"canned","inputSchema":{"type":"object"}}]}}\n' "$id" ;;
    *'"method":"tools/call"'*) printf '{"id": %s , "x":1, "result" :%s , "jsonrpc":"2.0"}\n' "$id" "$1" ;;
  esac
done"#;

fn flat(answer: &Answer, status: u16, code: &str) {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{body}"
    );
    assert!(
        !answer.json()["message"].as_str().unwrap().is_empty(),
        "{body}"
    );
}

#[test]
fn the_five_calls_are_answered_as_the_client_needs_them() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let http = crate::world::Http::new(&world.url);

    let registered = http.register_with(&key);
    assert_eq!(registered.status, 201);
    let body = registered.json();
    for field in [
        "session_id",
        "session_token",
        "connection_id",
        "expires_at",
        "profile_id",
    ] {
        assert!(
            body[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {body}"
        );
    }
    assert!(
        body["session_token"]
            .as_str()
            .unwrap()
            .starts_with("amb_st_")
    );
    assert_eq!(
        world.isolates(),
        [] as [Value; 0],
        "registering starts nothing"
    );

    let session = http.register(&key);
    let listed = session.send("GET", "/v1/tools", None);
    assert_eq!(listed.status, 200, "{listed:?}");
    let listed = listed.json();
    assert_eq!(listed["api_version"], "1.0");
    assert!(listed["timestamp"].is_string());
    let echo = listed["tools"]
        .as_array()
        .unwrap()
        .iter()
        .find(|tool| tool["name"] == "echo")
        .unwrap();
    assert_eq!(echo["input_schema"]["required"], json!(["text"]));
    assert_eq!(echo["metadata"]["mcp_server"], "demo");
    assert!(
        echo["description"]
            .as_str()
            .unwrap()
            .contains("Give the text back")
    );
    assert_eq!(world.isolates(), [] as [Value; 0], "nor does listing");

    let called = session.call("echo", json!({"text": "hi"}));
    assert_eq!(called.status, 200);
    let called = called.json();
    assert_eq!(called["result"], json!([{"type": "text", "text": "hi"}]));
    assert_eq!(called["metadata"]["is_error"], false);
    assert_eq!(called["metadata"]["mcp_server"], "demo");
    assert!(called["metadata"]["duration_ms"].is_u64());
    assert!(
        called["request_id"].is_string() && called["timestamp"].is_string(),
        "{called}"
    );
    assert_eq!(world.isolate("demo", Some("ada"))["state"], "ready");

    let beat = session.send("POST", "/v1/sessions/heartbeat", Some(b"{}"));
    assert_eq!(
        (beat.status, beat.json()["status"].as_str()),
        (200, Some("ok"))
    );

    let path = format!("/v1/sessions/connections/{}", session.connection);
    let left = session.send("DELETE", &path, None);
    assert_eq!(left.status, 200);
    assert_eq!(left.json()["status"], "disconnected");
    assert_eq!(
        session.ask("echo", json!({"text": "still"})),
        "still",
        "the session lives on"
    );
}

#[test]
fn a_call_without_arguments_reaches_its_tool() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    for body in [
        r#"{"tool":"whoami"}"#,
        r#"{"tool":"whoami","arguments":null}"#,
        r#"{"tool":"demo.whoami","arguments":{}}"#,
    ] {
        let answer = ada.send("POST", "/v1/tools/invoke", Some(body.as_bytes()));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (200, ""),
            "{body}: {answer:?}"
        );
    }
    let failed = ada.call("fail", json!({"message": "no such file"})).json();
    assert_eq!(failed["metadata"]["is_error"], true);
    assert_eq!(
        failed["metadata"]["error"],
        Value::Null,
        "a tool's own error is not ours"
    );
    assert_eq!(failed["result"][0]["text"], "no such file");
}

#[test]
fn a_result_passes_byte_for_byte() {
    let content = r#"[ {"type" :"text","text":"\u00e4ä \ud83d\ude00 😀 \/ \u0000","n":123456789012345678901234567890.10e+5,"k":1,"k":2} ,{"type":"audio","_meta":{"ä":[]}},	7]"#;
    let world = World::new();
    let result =
        format!(r#"{{"_meta":{{"a":1}}, "content":{content},"isError" : false,"new":[null]}}"#);
    world.mcp("canned", &[], &["sh", "-c", CANNED, "sh", &result]);
    let answer = world.client("ada").call("canned", json!({}));
    let body = String::from_utf8(answer.body).unwrap();
    assert!(
        body.starts_with(&format!(r#"{{"result":{content},"request_id":"#)),
        "{body}"
    );
}

#[test]
fn arguments_pass_whatever_is_in_them() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let mut odd = vec![
        "\u{0}\u{1f}\u{7f}\u{2028}\u{2029}".to_owned(),
        "ä語😀\u{feff}\u{fffd}".to_owned(),
        "\"\\/\r\n\t{}[]".to_owned(),
        String::new(),
    ];
    odd.push("x".repeat(1 << 20));
    odd.push("語".repeat(300_000));
    for text in odd {
        let answer = ada
            .call("echo", json!({"text": text, "nonce": "n\u{0}1"}))
            .json();
        let want = json!([{"type": "text", "text": text}, {"type": "text", "text": "n\u{0}1"}]);
        assert!(answer["result"] == want, "{:.300}", answer.to_string());
    }
    // Escaped by the client in its own way.
    let body = br#"{"tool":"e\u0063ho","arguments":{"te\u0078t":"\u00e4\ud83d\ude00\/"}}"#;
    let answer = ada.send("POST", "/v1/tools/invoke", Some(body));
    assert_eq!(answer.text(), "ä😀/");
}

#[test]
fn one_connection_carries_many_calls() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let mut stream = BufReader::new(ada.http.connect());
    for n in 0..200 {
        let body = json!({"tool": "echo", "arguments": {"text": n.to_string()}}).to_string();
        let bytes = match n % 4 {
            0 => request("GET", "/v1/tools", Some(&ada.token), None),
            1 => request(
                "POST",
                "/v1/sessions/heartbeat",
                Some(&ada.token),
                Some(b"{}"),
            ),
            2 => request(
                "POST",
                "/v1/tools/invoke",
                Some("amb_st_wrong"),
                Some(body.as_bytes()),
            ),
            _ => request(
                "POST",
                "/v1/tools/invoke",
                Some(&ada.token),
                Some(body.as_bytes()),
            ),
        };
        stream.get_mut().write_all(&bytes).unwrap();
        let answer = read(&mut stream);
        match n % 4 {
            2 => assert_eq!(answer.status, 401),
            3 => assert_eq!(answer.text(), n.to_string()),
            _ => assert_eq!(answer.status, 200),
        }
    }
}

#[test]
fn the_token_is_checked_before_anything_is_looked_up() {
    let world = World::new();
    let http = crate::world::Http::new(&world.url);
    for (method, path, body) in [
        ("GET", "/v1/tools", None),
        ("POST", "/v1/tools/invoke", Some(&b"not json"[..])),
        ("POST", "/v1/sessions/heartbeat", Some(b"{}")),
        ("DELETE", "/v1/sessions/connections/con_x", None),
    ] {
        flat(&http.send(method, path, None, body), 401, "unauthorized");
        flat(
            &http.send(method, path, Some("nonsense"), body),
            401,
            "unauthorized",
        );
    }
}

#[test]
fn bad_requests_get_flat_errors_that_say_what_is_bad() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let post = |body: &[u8]| ada.send("POST", "/v1/tools/invoke", Some(body));
    for bad in [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"\"x\"",
        b"{\"tool\":\"echo\",\"arguments\":{\"text\":}}",
        b"{\"tool\":\"echo\",\"arguments\":[\"x\"]}",
        b"{\"tool\":\"echo\",\"arguments\":\"{}\"}",
        b"{\"tool\":\"echo\",\"args\":{}}",
        b"{\"arguments\":{}}",
        b"{\"tool\":7}",
        b"{\"tool\":\"\"}",
        b"{\"tool\":\"echo\"}}",
        b"{\"tool\":\"\xff\"}",
        b"{\"tool\":\"echo\",\"tool\":\"echo\"}",
    ] {
        flat(&post(bad), 400, "invalid_request");
    }
    let nested = format!(
        r#"{{"tool":"echo","arguments":{{"text":{}1{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let answer = post(nested.as_bytes());
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    let unknown = post(br#"{"tool":"echo","arguments":{"text":"x"},"surprise":1}"#);
    flat(&unknown, 400, "invalid_request");
    assert!(
        unknown.json()["message"]
            .as_str()
            .unwrap()
            .contains("surprise")
    );

    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        let raw = format!(
            "POST /v1/tools/invoke HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nX-Session-Token: {}\r\nContent-Length: 2\r\n\r\n{{}}",
            ada.token
        );
        flat(&ada.http.raw(raw.as_bytes()), 415, "unsupported_media_type");
    }
    let with_charset = format!(
        "POST /v1/sessions/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Type: Application/JSON; charset=utf-8\r\nX-Session-Token: {}\r\nContent-Length: 2\r\n\r\n{{}}",
        ada.token
    );
    assert_eq!(ada.http.raw(with_charset.as_bytes()).status, 200);

    let long = json!({"tool": "echo", "arguments": {"text": "x".repeat(5 << 20)}}).to_string();
    flat(&post(long.as_bytes()), 413, "body_too_large");
    let declared = format!(
        "POST /v1/tools/invoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Session-Token: {}\r\nContent-Length: 99999999999\r\n\r\n{{}}",
        ada.token
    );
    let mut stream = ada.http.connect();
    stream.write_all(declared.as_bytes()).unwrap();
    flat(&read(&mut BufReader::new(stream)), 413, "body_too_large");

    flat(&ada.send("GET", "/v1/nothing", None), 404, "not_found");
    flat(&ada.send("GET", "/", None), 404, "not_found");
    flat(
        &ada.send("PUT", "/v1/tools", None),
        405,
        "method_not_allowed",
    );
    flat(
        &ada.send("GET", "/v1/tools/invoke", None),
        405,
        "method_not_allowed",
    );

    let register = |body: Value| {
        ada.http.send(
            "POST",
            "/v1/sessions/register",
            None,
            Some(body.to_string().as_bytes()),
        )
    };
    flat(&register(json!({})), 400, "invalid_request");
    flat(
        &register(json!({"preshared_key": 1})),
        400,
        "invalid_request",
    );
    flat(
        &register(json!({"preshared_key": "x", "friendly_name": "\u{1b}[2J"})),
        400,
        "invalid_request",
    );
    flat(
        &register(json!({"preshared_key": "x", "friendly_name": "y".repeat(1 << 20)})),
        413,
        "body_too_large",
    );
    flat(
        &register(json!({"preshared_key": "amb_pk_nonsense"})),
        401,
        "key_unknown",
    );
    assert_eq!(ada.ask("echo", json!({"text": "well"})), "well");
}

#[test]
fn tools_that_are_not_there_or_not_ours_are_named_apart() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let unknown = ada.call("no_such_tool", json!({}));
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (200, "tool_unknown")
    );
    assert!(
        unknown.text().contains("no_such_tool"),
        "{}",
        unknown.text()
    );
    assert_eq!(unknown.json()["metadata"]["is_error"], true);

    // Published later: granted to the group, but this key was made before.
    world.mcp(
        "canned",
        &[],
        &["sh", "-c", CANNED, "sh", r#"{"content":[]}"#],
    );
    let foreign = ada.call("canned", json!({}));
    assert_eq!(
        (foreign.status, foreign.code().as_str()),
        (200, "not_subscribed")
    );
    let text = foreign.text();
    assert!(text.contains("`canned`"), "{text}");
    assert!(!ada.tools().contains(&"canned".to_owned()));
    assert!(world.isolates().is_empty(), "neither started anything");

    // What the text tells the operator to type works.
    let command = text
        .split("legation ")
        .nth(1)
        .unwrap()
        .trim_end_matches('.')
        .to_owned();
    world.cli(&command.split(' ').collect::<Vec<_>>());
    assert_eq!(ada.call("canned", json!({})).code(), "");
    assert!(ada.tools().contains(&"canned".to_owned()));
}

#[test]
fn what_is_not_http_ends_only_its_own_connection() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let huge_head = format!(
        "GET /v1/tools HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00"[..],
        b"\0\0\0\0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET /v1/tools HTTP/9.9\r\n\r\n",
        b"POST /v1/tools/invoke HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
        b"GET /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        huge_head.as_bytes(),
    ] {
        let mut stream = ada.http.connect();
        // It may be closed on us while we still write.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let shown = String::from_utf8_lossy(&answer);
        assert!(!shown.starts_with("HTTP/1.1 2") && !shown.starts_with("HTTP/1.1 5"), "{shown}");
    }
    assert_eq!(ada.ask("echo", json!({"text": "well"})), "well");
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let world = World::new();
    let http = crate::world::Http::new(&world.url);
    let mut stream = http.connect();
    stream
        .write_all(b"GET /v1/tools HTTP/1.1\r\nHost: x\r\n")
        .unwrap();
    let since = Instant::now();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // Either an answer or a close; but an end.
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "still open after {:?}",
            since.elapsed()
        ),
    }
    assert!(
        since.elapsed() > Duration::from_millis(500),
        "a slow link is not an attack"
    );
}

#[test]
fn tls_with_its_own_certificate_answers() {
    let Some(curl) = tools::on_path("curl") else {
        return tools::skip("TLS by curl", "no curl on PATH");
    };
    let mut world = World::with_client("tls = \"self\"\n", "");
    world.demo("demo", &[]);
    let key = world.key("ada");
    assert!(world.url.starts_with("https://"), "{}", world.url);
    let body = json!({"preshared_key": key}).to_string();
    let url = format!("{}/v1/sessions/register", world.url);
    let ran = std::process::Command::new(&curl)
        .args([
            "-sS",
            "-k",
            "-H",
            "Content-Type: application/json",
            "-H",
            "Transfer-Encoding: chunked",
            "-d",
            &body,
            &url,
        ])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&ran.stderr)));
    assert!(answer["session_token"].is_string(), "{answer}");
    // Without -k it is not believed, unless it is named; and a restart keeps it.
    let ask = |url: &str, more: &[&str]| {
        let ran = std::process::Command::new(&curl)
            .args(["-sS", "-o", "/dev/null", url])
            .args(more)
            .output()
            .unwrap();
        ran.status.code()
    };
    assert_eq!(ask(&url, &[]), Some(60));
    let own = std::fs::read_dir(world.data_dir().join("tls")).unwrap();
    let own = own
        .map(|file| file.unwrap().path())
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("BEGIN CERT")))
        .unwrap();
    let kept = world.dir.path().join("kept.pem");
    std::fs::copy(&own, &kept).unwrap();
    world.stop();
    world.start();
    assert_eq!(
        ask(&world.url, &["--cacert", kept.to_str().unwrap()]),
        Some(0)
    );
}

#[test]
fn unusual_but_right_http_is_served() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let body = r#"{"tool":"echo","arguments":{"text":"hi"}}"#;
    let head = |more: &str| {
        format!(
            "POST /v1/tools/invoke HTTP/1.1\r\nHost: x\r\ncontent-TYPE: application/json\r\nx-session-TOKEN: {}\r\n{more}\r\n",
            ada.token
        )
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    for more in [
        length.clone(),
        format!("Expect: 100-continue\r\n{length}"),
        format!("Connection: close\r\n{length}"),
    ] {
        let mut stream = ada.http.connect();
        stream.write_all((head(&more) + body).as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut answer = read(&mut stream);
        if answer.status == 100 {
            answer = read(&mut stream);
        }
        assert_eq!(answer.text(), "hi", "{more}");
    }
    // One byte at a time, in chunks of one.
    let mut slow = head("Transfer-Encoding: chunked\r\n").into_bytes();
    for byte in body.bytes() {
        slow.extend(format!("1;ext=x\r\n{}\r\n", char::from(byte)).as_bytes());
    }
    slow.extend(b"0\r\nTrailer: x\r\n\r\n");
    let mut stream = ada.http.connect();
    for byte in slow.chunks(1) {
        stream.write_all(byte).unwrap();
    }
    assert_eq!(read(&mut BufReader::new(stream)).text(), "hi");
    // Two requests in one write are answered in order.
    let two = (head(&length) + body).repeat(2);
    let mut stream = ada.http.connect();
    stream.write_all(two.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    for _ in 0..2 {
        assert_eq!(read(&mut stream).text(), "hi");
    }
}
