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
    for (url, key, why) in [
        (url.as_str(), "amb_pk_wrong", "refuses this key"),
        (nobody.as_str(), key.as_str(), "not reachable"),
        (url.as_str(), "", "no key is given"),
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
        assert!(home.path().join(".mcp.json").exists());
    }
    let print = connect(home.path(), &url, &key, &["vscode", "--print"]);
    assert_eq!(print.status.code(), Some(0), "{}", told(&print));
    let form: Value = serde_json::from_slice(&print.stdout).unwrap();
    assert_eq!(form["servers"]["legation"]["url"], url);
    assert!(!home.path().join(".vscode").exists(), "nothing is written");
}
