//! The real servers by themselves, without the gateway: what is installed works here, so that a
//! failure behind the gateway is the gateway's.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

#[expect(dead_code, reason = "the gateway's tests use the rest of it")]
mod tools;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tools::Program;

/// Shakes hands over pipes and lists the tools, then closes stdin and waits for the end.
fn tools_of(program: &Program, more: &[&str]) -> Vec<String> {
    let mut child = Command::new(&program.program)
        .args(&program.args)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "legation-tests", "version": "0"}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
    ] {
        stdin.write_all(format!("{message}\n").as_bytes()).unwrap();
    }
    let names = loop {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "stdout ended");
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["id"] == 2 {
            let tools = message["result"]["tools"].as_array().unwrap().clone();
            break tools
                .iter()
                .map(|tool| tool["name"].as_str().unwrap().to_owned())
                .collect();
        }
    };
    drop(stdin);
    let _ = child.kill();
    child.wait().unwrap();
    names
}

#[test]
fn server_everything_lists_echo() {
    if let Some(server) = tools::npm_server("server-everything") {
        assert!(tools_of(&server, &["stdio"]).contains(&"echo".to_owned()));
    }
}

#[test]
fn server_filesystem_lists_read_text_file() {
    if let Some(server) = tools::npm_server("server-filesystem") {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().display().to_string();
        assert!(tools_of(&server, &[&root]).contains(&"read_text_file".to_owned()));
    }
}

#[test]
fn server_memory_lists_create_entities() {
    if let Some(server) = tools::npm_server("server-memory") {
        assert!(tools_of(&server, &[]).contains(&"create_entities".to_owned()));
    }
}

#[test]
fn server_time_lists_convert_time() {
    if let Some(server) = tools::time_server() {
        assert!(tools_of(&server, &[]).contains(&"convert_time".to_owned()));
    }
}

#[test]
fn the_standard_client_starts() {
    if let Some(client) = tools::standard_client() {
        let help = Command::new(&client.program)
            .args(&client.args)
            .arg("--version")
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&help.stdout).contains("mcpambassador-client"));
    }
}
