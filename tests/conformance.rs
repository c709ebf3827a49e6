//! The official conformance suite, against a gateway in front of a server of 2025-11-25 (`servers/conformance.py`).
//!
//! `conformance/expected` says of every scenario how it ends. One that ends otherwise, for better or worse, fails
//! the test, which prints the line that would be true.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::newer;
use crate::remote::{PRIVATE, remote};
use crate::tools;
use crate::world::{LEGATION, World};

#[path = "conformance/inject.rs"]
mod inject;

const EXPECTED: &str = include_str!("conformance/expected");
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");

/// How each scenario ended: `pass`, or `fail` or `warn` and the checks that did; those that only warned have a `?`.
type Outcomes = BTreeMap<String, String>;

/// What the table says of a face; each line is face, scenario, outcome, the checks if it is not `pass`, and why.
fn expected(face: &str) -> Outcomes {
    let mut all = Outcomes::new();
    for line in EXPECTED.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_else(|| panic!("too short: {line}"));
        let (of, scenario, outcome) = (word(), word(), word());
        if of != face {
            continue;
        }
        let told = match outcome {
            "pass" => outcome.to_owned(),
            "fail" | "warn" => {
                let told = format!("{outcome} {}", word());
                word();
                told
            }
            // Nobody runs it, and the rest of the line says why.
            "left" => {
                word();
                continue;
            }
            _ => panic!("neither pass, warn, fail nor left: {line}"),
        };
        let twice = all.insert(scenario.to_owned(), told);
        assert!(twice.is_none(), "twice: {line}");
    }
    all
}

/// How a scenario ended by its `checks.json`.
fn outcome(checks: &Value) -> String {
    let checks = checks.as_array().unwrap();
    let of = |status: &str| {
        let mut ids: Vec<_> = checks
            .iter()
            .filter(|check| check["status"] == status)
            .map(|check| check["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let (failed, warned) = (of("FAILURE"), of("WARNING"));
    let verdict = match (failed.is_empty(), warned.is_empty()) {
        (true, true) if of("SUCCESS").is_empty() => return "fail nothing-was-checked".to_owned(),
        (true, true) => return "pass".to_owned(),
        (true, false) => "warn",
        (false, _) => "fail",
    };
    let warned = warned.into_iter().map(|id| format!("{id}?"));
    let checks: Vec<_> = failed.into_iter().chain(warned).collect();
    format!("{verdict} {}", checks.join(","))
}

/// What the checks that did not pass said.
fn complaints(checks: &Value) -> String {
    let lines = checks.as_array().unwrap().iter().filter_map(|check| {
        let status = check["status"].as_str()?;
        let bad = ["FAILURE", "WARNING"].contains(&status);
        bad.then(|| {
            format!(
                "    {status} {}: {}\n    {}\n",
                check["id"], check["errorMessage"], check["details"]
            )
        })
    });
    lines.collect()
}

/// Runs a suite; how each scenario ended, and what was complained of.
fn run(suite: &tools::Program, url: &str, arguments: &[&str]) -> (Outcomes, String) {
    let results = tempfile::tempdir().unwrap();
    let ran = Command::new(&suite.program)
        .args(&suite.args)
        .args(["server", "--url", url, "--output-dir"])
        .arg(results.path())
        .args(arguments)
        .output()
        .unwrap();
    let mut outcomes = Outcomes::new();
    let mut told = String::new();
    for dir in std::fs::read_dir(results.path()).unwrap() {
        let dir = dir.unwrap();
        let text = std::fs::read_to_string(dir.path().join("checks.json")).unwrap();
        let checks: Value = serde_json::from_str(&text).unwrap();
        let scenario = scenario(&dir.path());
        told.push_str(&format!("{scenario}\n{}", complaints(&checks)));
        outcomes.insert(scenario, outcome(&checks));
    }
    assert!(
        !outcomes.is_empty(),
        "nothing ran: {}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    (outcomes, told)
}

/// `server-NAME-2026-11-27T05-13-48-636Z` is of NAME.
fn scenario(dir: &Path) -> String {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let end = name.len() - "-2026-11-27T05-13-48-636Z".len();
    let name = name.get(..end).unwrap();
    name.strip_prefix("server-").unwrap().to_owned()
}

/// Runs a suite against a gateway, and holds how it ended against the table.
fn prove(face: &str, version: &str, arguments: &[&str]) {
    let (Some(suite), Some(python)) = (tools::conformance(version), tools::python_sdk()) else {
        return;
    };
    let world = World::new();
    let script = format!("{SERVERS}/conformance.py");
    world.mcp(
        "fixture",
        &["--ask", "sampling,elicitation,roots", "--read", SERVERS],
        &[python.to_str().unwrap(), &script],
    );
    held(&world, &suite, face, arguments);
}

/// The same with the fixture behind HTTP: clients find no difference.
fn prove_remote(face: &str, arguments: &[&str]) {
    let (Some(suite), Some(python)) = (tools::conformance("0.2"), tools::python_sdk()) else {
        return;
    };
    let (_fixture, url) = Direct::start(&python);
    let world = World::with(PRIVATE);
    let options = ["--ask", "sampling,elicitation,roots"];
    remote(&world, "fixture", &url, &options);
    held(&world, &suite, face, arguments);
}

/// The same with a fixture that speaks 2026-07-28 alone, over stdio.
fn prove_newer(face: &str, arguments: &[&str]) {
    let Some(suite) = tools::conformance("0.2") else {
        return;
    };
    let world = World::new();
    let options = ["--ask", "sampling,elicitation,roots"];
    newer::stdio(&world, "fixture", &options, &["--conformance"]);
    held(&world, &suite, face, arguments);
}

/// And over HTTP.
fn prove_newer_remote(face: &str, arguments: &[&str]) {
    let Some(suite) = tools::conformance("0.2") else {
        return;
    };
    let (_fixture, url) = newer::Http::start(&["--conformance"]);
    let world = World::with(PRIVATE);
    let options = ["--ask", "sampling,elicitation,roots"];
    remote(&world, "fixture", &url, &options);
    held(&world, &suite, face, arguments);
}

/// What the suite plays as a server, for our outbound side; what needs a login is not among it.
const PLAYED: [(&str, &[&str]); 2] = [
    (
        "2025-11-25",
        &[
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        ],
    ),
    (
        "2026-07-28",
        &[
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
            "json-schema-2020-12-preservation",
        ],
    ),
];

/// Times that a scenario may run until it ends as it should: some hold us against a clock, and the machine may be
/// busy with other tests. Who is wrong is wrong each time.
const PLAYED_AT_MOST: usize = 3;

#[test]
fn servers_of_both_eras_behind_http_meet_what_they_expect() {
    let Some(suite) = tools::conformance("0.2") else {
        return;
    };
    let world = World::with(PRIVATE);
    world.run(&["group", "add", "all"]);
    let driver = format!("python3 {SERVERS}/conformance_client.py");
    let mut wrong = Vec::new();
    let mut all = String::new();
    for (version, scenarios) in PLAYED {
        let face = format!("server/{version}");
        let expected = expected(&face);
        let mut ended = Outcomes::new();
        for scenario in scenarios {
            for _ in 0..PLAYED_AT_MOST {
                let (outcome, told) = play(&suite, &world, &driver, version, scenario);
                all.push_str(&told);
                let is_right = expected.get(*scenario) == Some(&outcome);
                ended.insert((*scenario).to_owned(), outcome);
                if is_right {
                    break;
                }
            }
        }
        compared(&face, &ended, &mut wrong);
    }
    assert!(
        wrong.is_empty(),
        "tests/conformance/expected says otherwise:\n{}\n\n{all}",
        wrong.join("\n")
    );
}

/// Has the suite play a server for our outbound side; how it ended, and what was complained of.
fn play(
    suite: &tools::Program,
    world: &World,
    driver: &str,
    version: &str,
    scenario: &str,
) -> (String, String) {
    let results = tempfile::tempdir().unwrap();
    let ran = Command::new(&suite.program)
        .args(&suite.args)
        .args(["client", "--command", driver, "--scenario", scenario])
        .args(["--spec-version", version, "--timeout", "120000"])
        .arg("--output-dir")
        .arg(results.path())
        .env("LEGATION", LEGATION)
        .env("LEGATION_DATA_DIR", world.data_dir())
        .env("LEGATION_FACE", &world.url)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    let Some(dir) = std::fs::read_dir(results.path()).unwrap().next() else {
        return ("fail nothing-was-played".to_owned(), told.into_owned());
    };
    let text = std::fs::read_to_string(dir.unwrap().path().join("checks.json")).unwrap();
    let checks: Value = serde_json::from_str(&text).unwrap();
    let told = format!("{scenario}\n{}{told}\n", complaints(&checks));
    (outcome(&checks), told)
}

fn compared(face: &str, ended: &Outcomes, wrong: &mut Vec<String>) {
    let expected = expected(face);
    for (scenario, outcome) in ended {
        if expected.get(scenario) != Some(outcome) {
            wrong.push(format!("{face} {scenario} {outcome}"));
        }
    }
    for scenario in expected.keys().filter(|one| !ended.contains_key(*one)) {
        wrong.push(format!("{face} {scenario} was not run"));
    }
}

/// Runs a suite against a gateway that has the fixture, and holds how it ended against the table.
fn held(world: &World, suite: &tools::Program, face: &str, arguments: &[&str]) {
    let url = format!(
        "{}/mcp/fixture",
        inject::inject(&world.url, &world.key("ada"))
    );
    let (ended, told) = run(suite, &url, arguments);
    let mut wrong = Vec::new();
    compared(face, &ended, &mut wrong);
    assert!(
        wrong.is_empty(),
        "tests/conformance/expected says otherwise:\n{}\n\n{told}",
        wrong.join("\n")
    );
}

#[test]
fn clients_of_2025_11_25_meet_what_they_expect() {
    prove("2025-11-25", "0.2", &["--requirements", "2025-11-25"]);
}

#[test]
fn clients_of_2026_07_28_meet_what_they_expect() {
    prove("2026-07-28", "0.2", &["--requirements", "2026-07-28"]);
}

#[test]
fn clients_of_2025_11_25_meet_the_same_before_a_server_behind_http() {
    prove_remote("2025-11-25", &["--requirements", "2025-11-25"]);
}

#[test]
fn clients_of_2026_07_28_meet_the_same_before_a_server_behind_http() {
    prove_remote("2026-07-28", &["--requirements", "2026-07-28"]);
}

const OLD: [&str; 2] = ["--requirements", "2025-11-25"];
const NEW: [&str; 2] = ["--requirements", "2026-07-28"];

#[test]
fn clients_of_2025_11_25_meet_a_server_of_2026_07_28() {
    prove_newer("2025-11-25/newer", &OLD);
}

#[test]
fn clients_of_2026_07_28_meet_a_server_of_2026_07_28() {
    prove_newer("2026-07-28/newer", &NEW);
}

#[test]
fn clients_of_2025_11_25_meet_a_server_of_2026_07_28_behind_http() {
    prove_newer_remote("2025-11-25/newer", &OLD);
}

#[test]
fn clients_of_2026_07_28_meet_a_server_of_2026_07_28_behind_http() {
    prove_newer_remote("2026-07-28/newer", &NEW);
}

#[test]
fn the_older_suite_meets_what_it_expects() {
    prove("0.1.16", "0.1.16", &[]);
}

/// The fixture by itself, over HTTP of its own.
struct Direct(Child);

impl Direct {
    /// Starts it; gives its address as well.
    fn start(python: &Path) -> (Self, String) {
        let child = Command::new(python)
            .args([&format!("{SERVERS}/conformance.py"), "--http", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut direct = Self(child);
        let mut port = String::new();
        BufReader::new(direct.0.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let url = format!("http://localhost:{}/mcp", port.trim());
        (direct, url)
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that is new in the suite and in no set of requirements would not be run, and nobody would know. Logins are
/// none of the gateway's yet.
#[test]
fn every_scenario_of_the_suite_is_in_the_table() {
    let Some(suite) = tools::conformance("0.2") else {
        return;
    };
    let listed = Command::new(&suite.program)
        .args(&suite.args)
        .arg("list")
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let named: HashSet<&str> = EXPECTED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    let scenarios: Vec<&str> = listed
        .lines()
        .take_while(|line| !line.starts_with("Authorization"))
        .filter_map(|line| line.strip_prefix("  - ")?.split_whitespace().next())
        .filter(|scenario| !scenario.starts_with("auth/"))
        .collect();
    assert!(scenarios.len() > 70, "{listed}");
    let unknown: Vec<&&str> = scenarios
        .iter()
        .filter(|scenario| !named.contains(**scenario))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// What the gateway does not pass is its own fault only if the fixture passes it.
#[test]
fn the_fixture_itself_is_right() {
    let (Some(suite), Some(python)) = (tools::conformance("0.2"), tools::python_sdk()) else {
        return;
    };
    let (_fixture, url) = Direct::start(&python);
    let (mut ended, told) = run(&suite, &url, &["--requirements", "2025-11-25"]);
    // Streams that are polled are a matter of the transport, which is not what the fixture is for.
    ended.remove("server-sse-polling");
    assert_eq!(ended.len(), 32, "{ended:?}");
    assert!(ended.values().all(|one| one == "pass"), "{ended:?}\n{told}");
}
