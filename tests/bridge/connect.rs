//! `legation connect`: a file of each kind, and a real gateway behind it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{free_port, home, mcp};
use crate::world::{LEGATION, World};

fn connect(home: &Path, url: &str, key: &str, args: &[&str]) -> Output {
    Command::new(LEGATION)
        .arg("connect")
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("LEGATION_URL", url)
        .env("LEGATION_KEY", key)
        .current_dir(home)
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_json_file_keeps_what_is_in_it_and_a_second_time_changes_nothing() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key, url) = (home(), world.key("ada"), mcp(&world));
    let path = home.path().join(".gemini/settings.json");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let before = "{\n    \"theme\": \"dark\",\n    \"mcpServers\": {\"mine\": {\"command\": \"x\"}},\n    \"a\": 1.50\n}\n";
    std::fs::write(&path, before).unwrap();
    let first = connect(home.path(), &url, &key, &["gemini"]);
    assert_eq!(first.status.code(), Some(0), "{}", told(&first));
    let text = told(&first);
    assert!(
        text.contains("tools") && text.contains("export LEGATION_KEY="),
        "{text}"
    );
    assert!(!text.contains(&key), "{text}");
    let after = std::fs::read_to_string(&path).unwrap();
    assert!(
        after.starts_with("{\n    \"theme\": \"dark\",") && after.ends_with("\"a\": 1.50\n}\n")
    );
    assert!(!after.contains(&key), "{after}");
    let json: Value = serde_json::from_str(&after).unwrap();
    assert_eq!(json["mcpServers"]["mine"]["command"], "x");
    assert_eq!(
        json["mcpServers"]["legation"],
        json!({"httpUrl": url, "headers": {"Authorization": "Bearer ${LEGATION_KEY}"}})
    );
    let all = files(path.parent().unwrap());
    assert_eq!(all.len(), 2, "{all:?}");
    let backup = all.iter().find(|file| **file != path).unwrap();
    assert_eq!(std::fs::read_to_string(backup).unwrap(), before);

    let second = connect(home.path(), &url, &key, &["gemini"]);
    assert_eq!(second.status.code(), Some(0), "{}", told(&second));
    assert!(told(&second).contains("right already"), "{}", told(&second));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
    assert_eq!(files(path.parent().unwrap()).len(), 2);
}

#[test]
fn a_toml_file_keeps_what_is_in_it_and_a_second_time_changes_nothing() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key, url) = (home(), world.key("ada"), mcp(&world));
    let path = home.path().join(".codex/config.toml");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let before = "model = \"x\" # mine\n\n[mcp_servers.other]\ncommand = \"y\"\n";
    std::fs::write(&path, before).unwrap();
    for _ in 0..2 {
        let output = connect(home.path(), &url, &key, &["codex"]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let after = std::fs::read_to_string(&path).unwrap();
        let own = format!(
            "\n[mcp_servers.legation]\nurl = \"{url}\"\nbearer_token_env_var = \"LEGATION_KEY\"\n"
        );
        assert_eq!(after, format!("{before}{own}"));
        assert_eq!(files(path.parent().unwrap()).len(), 2);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_left_as_it_is_and_the_line_told() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key, url) = (home(), world.key("ada"), mcp(&world));
    for (client, text) in [
        ("claude-code", "{\n  // mine\n}"),
        ("cursor", "{\n  \"mcpServers\": []\n}"),
        ("codex", "x = 1\ny ="),
    ] {
        let path = home.path().join(client);
        std::fs::write(&path, text).unwrap();
        let output = connect(
            home.path(),
            &url,
            &key,
            &[client, "--file", path.to_str().unwrap()],
        );
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(told(&output).contains("line 2"), "{}", told(&output));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(files(home.path()).len(), 3);
}

#[test]
fn what_is_not_seen_to_work_is_written_and_said_so() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key, url) = (home(), world.key("ada"), mcp(&world));
    let nobody = format!("http://127.0.0.1:{}/mcp", free_port());
    let https = url.replace("http://", "https://");
    let elsewhere = url.replace("/mcp", "/mcq");
    // Each cause with its own cure.
    for (url, key, why, cure) in [
        (
            url.as_str(),
            "amb_pk_wrong",
            "refuses this key",
            "legation key create",
        ),
        (
            nobody.as_str(),
            key.as_str(),
            "not reachable",
            "a server listens",
        ),
        (
            https.as_str(),
            key.as_str(),
            "TLS failed",
            "http:// in --url",
        ),
        (
            elsewhere.as_str(),
            key.as_str(),
            "status 404",
            "whose path is /mcp",
        ),
        (
            url.as_str(),
            "",
            "no key is given",
            "LEGATION_KEY or --key-file",
        ),
    ] {
        let output = connect(home.path(), url, key, &["claude-code"]);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(8), "{text}");
        for part in [why, ".mcp.json is written", "try: "] {
            assert!(
                text.contains(part) || part.contains("written") && text.contains("right already"),
                "{part}: {text}"
            );
        }
        let cured = text.lines().find(|line| line.starts_with("try: "));
        assert!(cured.is_some_and(|line| line.contains(cure)), "{text}");
        assert!(home.path().join(".mcp.json").exists());
    }
    let print = connect(home.path(), &url, &key, &["vscode", "--print"]);
    assert_eq!(print.status.code(), Some(0), "{}", told(&print));
    let form: Value = serde_json::from_slice(&print.stdout).unwrap();
    assert_eq!(form["servers"]["legation"]["url"], url);
    assert!(!home.path().join(".vscode").exists(), "nothing is written");
}

#[test]
fn what_the_ai_tool_needs_to_trust_the_certificate_is_said() {
    let world = World::with_client("tls = \"self\"\n", "");
    world.demo("demo", &[]);
    let (home, key, url) = (home(), world.key("ada"), mcp(&world));
    let cert = world.data_dir().join("tls/cert.pem").display().to_string();
    let trusting = |client: &str, flags: &[&str]| {
        let args: Vec<&str> = [client].iter().chain(flags).copied().collect();
        let output = connect(home.path(), &url, &key, &args);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        told(&output)
    };
    for client in ["claude-code", "opencode", "gemini"] {
        let text = trusting(client, &["--ca-file", &cert]);
        let line = format!("export NODE_EXTRA_CA_CERTS={cert} ");
        assert!(text.contains(&line), "{text}");
    }
    let text = trusting("claude-code", &["--allow-self-signed"]);
    assert!(
        text.contains("export NODE_EXTRA_CA_CERTS=DATA_DIR/tls/cert.pem"),
        "{text}"
    );
    let text = trusting("codex", &["--ca-file", &cert]);
    assert!(
        text.contains("must trust") && !text.contains("NODE_EXTRA"),
        "{text}"
    );

    let plain = url.replace("https://", "http://");
    for (url, why, cure) in [
        (plain.as_str(), "HTTPS only", "https:// in --url"),
        (url.as_str(), "not trusted", "--ca-file PEM"),
    ] {
        // Authorities that have nothing to do with it.
        let other = home.path().join("other.pem");
        let made = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
        std::fs::write(&other, made.cert.pem()).unwrap();
        let flags = ["claude-code", "--ca-file", other.to_str().unwrap()];
        let output = connect(home.path(), url, &key, &flags);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(8), "{text}");
        let cured = text.lines().find(|line| line.starts_with("try: "));
        assert!(
            text.contains(why) && cured.is_some_and(|line| line.contains(cure)),
            "{text}"
        );
    }
}
