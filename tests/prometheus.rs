//! A real Prometheus beside a real gateway under load: what is in `packaging/prometheus` is read by
//! the program it is for, and answers.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tools::{on_path, skip};
use crate::world::{Http, PATIENCE, Session, World, am_root};

/// Where the shipped files are.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/prometheus")
        .join(name)
}

/// Debian's package has both programs.
fn programs() -> Option<(PathBuf, PathBuf)> {
    match (on_path("promtool"), on_path("prometheus")) {
        (Some(promtool), Some(prometheus)) => Some((promtool, prometheus)),
        _ => {
            skip("prometheus", "not installed; run scripts/test.sh --tools");
            None
        }
    }
}

fn run(program: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(shipped(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

/// A Prometheus that scrapes one gateway every second, on loopback.
struct Prometheus {
    child: Child,
    http: Http,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; nobody else here asks for fixed ports.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let target = world.ops_url.strip_prefix("http://localhost").unwrap();
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
             rule_files:\n  - {}\n  - {}\n\
             scrape_configs:\n\
             - job_name: legation\n  static_configs: [{{targets: ['127.0.0.1{target}']}}]\n\
             - job_name: legation-isolates\n  metrics_path: /metrics/isolates\n  \
             static_configs: [{{targets: ['127.0.0.1{target}']}}]\n",
            shipped("legation.rules.yml").display(),
            shipped("legation.alerts.yml").display(),
        );
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child,
            http: Http::new(&format!("http://127.0.0.1:{port}")),
            _dir: dir,
        };
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
            || prometheus.http.send("GET", "/-/ready", None, None).status != 200
        {
            assert!(
                prometheus.child.try_wait().unwrap().is_none(),
                "prometheus ended"
            );
            assert!(since.elapsed() < PATIENCE, "prometheus is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    fn api(&self, path: &str) -> Value {
        let answer = self
            .http
            .send("GET", &format!("/api/v1/{path}"), None, None);
        let json = answer.json();
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].clone()
    }

    /// How many series an expression gives now.
    fn ask(&self, expression: &str) -> usize {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded.push(char::from(byte)),
                byte => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        let data = self.api(&format!("query?query={encoded}"));
        data["result"].as_array().unwrap().len()
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rules Prometheus loaded, by their kind.
fn rules(prometheus: &Prometheus, kind: &str) -> Vec<Value> {
    let data = prometheus.api("rules");
    let groups = data["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .filter(|rule| rule["type"] == kind)
        .collect()
}

/// Every query of the dashboard, with its variables filled in.
fn dashboard() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(shipped("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$job", "legation")
                .replace("$instance", ".+")
                .replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// Calls of all kinds until it is told to stop.
fn load(clients: &[Session], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for client in clients {
            client.call("echo", json!({"text": "x"}));
            client.call("fail", json!({}));
            client.call("no_such_tool", json!({}));
        }
    }
}

#[test]
fn every_rule_alert_and_panel_is_answered_by_a_real_prometheus() {
    let Some((promtool, program)) = programs() else {
        return;
    };
    let world = World::new();
    world.demo("notes", &["--cpu", "0.1"]);
    let clients = [world.client("ada"), world.client("ben")];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whatever fails below, the load ends.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        scope.spawn(|| load(&clients, &stop));
        let prometheus = Prometheus::start(&program, &world);

        for path in ["/metrics", "/metrics/isolates"] {
            let page = Http::new(&world.ops_url).send("GET", path, None, None);
            let linted = run(&promtool, &["check", "metrics"], &page.body);
            assert!(linted.status.success(), "{path}: {}", text(&linted));
            assert_eq!(text(&linted), "", "{path}");
        }

        let recorded = rules(&prometheus, "recording");
        let alerts = rules(&prometheus, "alerting");
        assert!(recorded.len() >= 5 && alerts.len() >= 17);
        for rule in &recorded {
            let name = rule["name"].as_str().unwrap();
            // Cgroup numbers need cgroups.
            if am_root() || !name.contains("cpu") && !name.contains("memory") {
                prometheus.until(name, |prometheus| prometheus.ask(name) > 0);
            }
        }
        for (title, query) in dashboard() {
            let what = format!("data of the panel {title}: {query}");
            prometheus.until(&what, |prometheus| prometheus.ask(&query) > 0);
        }
        for rule in &alerts {
            prometheus.ask(rule["query"].as_str().unwrap());
        }
        for rule in rules(&prometheus, "recording")
            .iter()
            .chain(&rules(&prometheus, "alerting"))
        {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        let targets = prometheus.api("targets");
        for target in targets["activeTargets"].as_array().unwrap() {
            assert_eq!(target["health"], "up", "{target}");
        }
        // A gateway that is merely busy wakes nobody.
        let firing = prometheus.api("alerts");
        let firing: Vec<&Value> = firing["alerts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .collect();
        assert!(firing.is_empty(), "{firing:?}");
        let isolates =
            "legation_isolate_info * on (isolate) group_right (mcp) legation_isolate_calls_total";
        assert!(prometheus.ask(isolates) > 0, "the info joins");
    });
}

#[test]
fn rules_check_and_their_tests_pass() {
    let Some((promtool, _)) = programs() else {
        return;
    };
    let checked = run(
        &promtool,
        &[
            "check",
            "rules",
            "legation.rules.yml",
            "legation.alerts.yml",
        ],
        b"",
    );
    assert!(checked.status.success(), "{}", text(&checked));
    let tested = run(&promtool, &["test", "rules", "legation.test.yml"], b"");
    assert!(tested.status.success(), "{}", text(&tested));
    let scrape = std::fs::read_to_string(shipped("scrape.yml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, format!("scrape_configs:\n{scrape}")).unwrap();
    let path = file.display().to_string();
    let checked = run(&promtool, &["check", "config", &path], b"");
    assert!(checked.status.success(), "{}", text(&checked));
}

/// What follows a key in a YAML file of ours, line by line.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key))
        .map(str::trim)
        .collect()
}

#[test]
fn every_alert_is_tested_and_has_its_section_in_the_runbook() {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let alerts = read(shipped("legation.alerts.yml"));
    let tests = read(shipped("legation.test.yml"));
    let runbook = read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md"));
    let names = values(&alerts, "alert:");
    let urls = values(&alerts, "runbook_url:");
    assert!(names.len() >= 17 && names.len() == urls.len());
    assert_eq!(values(&alerts, "severity:").len(), names.len());
    assert_eq!(values(&alerts, "summary:").len(), names.len());
    let sections: Vec<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(sections, names, "the runbook has them in the same order");
    for (name, url) in names.iter().zip(urls) {
        assert_eq!(url, format!("docs/runbook.md#{}", name.to_lowercase()));
        assert!(
            values(&tests, "alertname:").contains(name),
            "{name} has no test"
        );
    }
}
