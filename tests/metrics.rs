//! Health and metrics of a running gateway, as a load balancer and a scraper see them.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;

use legation::telemetry::metrics::families::{self, ALL};
use legation::telemetry::metrics::family::{Family, Kind, Shown, Values};
use serde_json::json;

use crate::processes::{inhabitants, kill_9};
use crate::world::{Answer, Http, World, am_root};

/// One sample: its labels and its value.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// A parsed page.
#[derive(Debug)]
pub(crate) struct Page {
    types: HashMap<String, String>,
    helps: HashMap<String, String>,
    pub(crate) samples: Vec<Sample>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self {
            types: HashMap::new(),
            helps: HashMap::new(),
            samples: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                let twice = page.helps.insert(name.to_owned(), help.to_owned());
                assert!(twice.is_none(), "{name} is there twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                page.types.insert(name.to_owned(), kind.to_owned());
            } else {
                page.samples.push(sample(line));
            }
        }
        page
    }

    /// The value of one series.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|is| is == value))
        };
        let found: Vec<&Sample> = self.samples.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].value
    }
}

/// Label values here never hold a quote or a backslash, which is a promise of its own.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
        None => (series, ""),
    };
    let labels = labels
        .split("\",")
        .filter(|one| !one.is_empty())
        .map(|one| {
            let (key, value) = one.split_once("=\"").unwrap();
            let value = value.strip_suffix('"').unwrap_or(value);
            assert!(!value.contains(['"', '\\']), "{line}");
            (key.to_owned(), value.to_owned())
        })
        .collect();
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().unwrap_or_else(|_| panic!("{line}")),
    };
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}

pub(crate) fn get(world: &World, path: &str) -> Answer {
    Http::new(&world.ops_url).send("GET", path, None, None)
}

pub(crate) fn scrape(world: &World, path: &str) -> Page {
    let answer = get(world, path);
    assert_eq!(answer.status, 200, "{answer:?}");
    let exact = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(
        answer.headers.to_lowercase().contains(exact),
        "{}",
        answer.headers
    );
    Page::parse(std::str::from_utf8(&answer.body).unwrap())
}

fn family_of(page: &Page, name: &str) -> &'static Family {
    let histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|base| {
            page.types
                .get(*base)
                .is_some_and(|kind| kind == "histogram")
        });
    let base = histogram.unwrap_or(name);
    ALL.iter()
        .find(|family| family.name == base)
        .unwrap_or_else(|| panic!("{name} is in no table"))
}

/// Every family is there once with the table's type and help; every label is in its set; no family
/// has more series than it may.
fn as_documented(page: &Page, mcps: &[&str], shown: &[Shown]) {
    for family in ALL.iter().filter(|family| shown.contains(&family.shown)) {
        // These gateways serve plain HTTP and have no certificate.
        if family.name == families::TLS_EXPIRY.name {
            continue;
        }
        assert_eq!(
            page.types.get(family.name).map(String::as_str),
            Some(family.kind.word()),
            "{}",
            family.name
        );
        assert_eq!(
            page.helps.get(family.name).map(String::as_str),
            Some(family.help)
        );
    }
    let mut series: HashMap<&str, usize> = HashMap::new();
    for sample in &page.samples {
        let family = family_of(page, &sample.name);
        assert!(
            shown.contains(&family.shown),
            "{} is on the wrong page",
            sample.name
        );
        *series.entry(family.name).or_default() += 1;
        let mut labels = sample.labels.clone();
        if let Some(bound) = labels.remove("le") {
            let Kind::Histogram(bounds) = family.kind else {
                panic!("{sample:?}")
            };
            assert!(
                bound == "+Inf" || bounds.contains(&bound.parse().unwrap()),
                "{sample:?}"
            );
        }
        assert_eq!(labels.len(), family.labels.len(), "{sample:?}");
        for label in family.labels {
            let value = labels[label.name].as_str();
            let known = match label.values {
                Values::Of(values) => values.contains(&value),
                Values::Mcp => mcps.contains(&value) || ["other", "none"].contains(&value),
                Values::Few(..) => true,
            };
            assert!(
                known,
                "{value} is not in the set of {}: {sample:?}",
                label.name
            );
        }
    }
    for family in ALL.iter().filter(|family| shown.contains(&family.shown)) {
        let count = series.get(family.name).copied().unwrap_or(0);
        assert!(count <= family.series_max(), "{}: {count}", family.name);
    }
}

const HOUSE: &[Shown] = &[Shown::Exporter, Shown::Page];

#[test]
fn the_page_is_what_the_reference_says_before_and_after_everything_happened() {
    let world = World::new();
    let fresh = scrape(&world, "/metrics");
    as_documented(&fresh, &[], HOUSE);
    // The first failure must be seen as a rise, so its counter is there before it.
    for (name, labels) in [
        (
            "legation_calls_total",
            vec![("mcp", "none"), ("outcome", "denied")],
        ),
        (
            "legation_audit_dropped_total",
            vec![("category", "isolate")],
        ),
        (
            "legation_kill_switch_denied_total",
            vec![("scope", "client")],
        ),
        ("legation_kill_switch_unkillable_total", vec![]),
        (
            "legation_auth_attempts_total",
            vec![("method", "key"), ("outcome", "invalid")],
        ),
        (
            "legation_actor_exits_total",
            vec![("kind", "isolate"), ("reason", "panic")],
        ),
        (
            "legation_metrics_series_dropped_total",
            vec![("family", "mcp")],
        ),
    ] {
        assert!(
            fresh.value(name, &labels).abs() < f64::EPSILON,
            "{name} {labels:?}"
        );
    }
    let ready = fresh.value("legation_ready", &[]);
    assert!((ready - 1.0).abs() < f64::EPSILON);

    world.demo("notes", &[]);
    let client = world.client("ada");
    for _ in 0..5 {
        client.ask("echo", json!({"text": "x"}));
    }
    assert_eq!(
        client.call("nonsense_of_a_user", json!({})).code(),
        "tool_unknown"
    );
    let wrong = Http::new(&world.url).send("GET", "/v1/tools", Some("no-token"), None);
    assert_eq!(wrong.status, 401);
    let lost = Http::new(&world.url).send("GET", "/etc/passwd", None, None);
    assert_eq!(lost.status, 404);
    world.cli(&["key", "create", "ada"]);

    let page = scrape(&world, "/metrics");
    as_documented(&page, &["notes"], HOUSE);
    let notes = ("mcp", "notes");
    let counted = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let value = page.value(name, labels);
        assert!(
            (value - expected).abs() < f64::EPSILON,
            "{name} {labels:?}: {value}"
        );
    };
    counted("legation_calls_total", &[notes, ("outcome", "ok")], 5.0);
    counted(
        "legation_calls_total",
        &[("mcp", "none"), ("outcome", "denied")],
        1.0,
    );
    counted("legation_call_duration_seconds_count", &[notes], 5.0);
    counted("legation_call_server_seconds_count", &[notes], 5.0);
    counted("legation_calls_in_flight", &[notes], 0.0);
    counted(
        "legation_isolate_starts_total",
        &[notes, ("cause", "demand")],
        1.0,
    );
    counted(
        "legation_isolate_starts_total",
        &[notes, ("cause", "discovery")],
        1.0,
    );
    counted(
        "legation_isolate_ready_duration_seconds_count",
        &[notes],
        2.0,
    );
    counted("legation_isolates", &[notes, ("state", "ready")], 1.0);
    counted("legation_actors", &[("kind", "run")], 1.0);
    counted("legation_actors", &[("kind", "session")], 1.0);
    counted("legation_sessions", &[("kind", "standard")], 1.0);
    counted(
        "legation_auth_attempts_total",
        &[("method", "key"), ("outcome", "ok")],
        1.0,
    );
    counted(
        "legation_auth_attempts_total",
        &[("method", "session"), ("outcome", "invalid")],
        1.0,
    );
    let invoke = [("listener", "client"), ("route", "/v1/tools/invoke")];
    counted("legation_http_request_duration_seconds_count", &invoke, 6.0);
    let unmatched = [
        ("listener", "client"),
        ("route", "unmatched"),
        ("class", "4xx"),
    ];
    counted("legation_http_requests_total", &unmatched, 1.0);
    counted("legation_unowned_processes", &[], 0.0);
    let of_user = page.samples.iter().any(|sample| {
        sample
            .labels
            .values()
            .any(|value| value.contains("ada") || value.contains("nonsense"))
    });
    assert!(!of_user, "no label is ever a user's");
    let series = page.value("legation_metrics_series", &[]);
    assert!((series - f64::from(u32::try_from(page.samples.len()).unwrap())).abs() < 1.0);
}

#[test]
fn what_dead_isolates_used_stays_counted() {
    if !am_root() {
        crate::tools::skip("cgroup counters", "no cgroups without root");
        return;
    }
    let world = World::with("[restart]\nfloor_ms = 10\ncap_ms = 10\nfailures_max = 100\n");
    world.demo("work", &[]);
    let client = world.client("ada");
    for _ in 0..50 {
        client.ask("echo", json!({"text": "x"}));
    }
    let mut before = world.until("the sweep has read it", |world| {
        let used = scrape(world, "/metrics")
            .value("legation_cgroup_cpu_seconds_total", &[("mcp", "work")]);
        (used > 0.0).then_some(used)
    });
    for round in 1..=3 {
        for pid in inhabitants(&world.isolate("work", Some("ada"))) {
            kill_9(pid);
        }
        let exits = [("mcp", "work"), ("reason", "signaled")];
        world.until("the run is counted as ended", |world| {
            let page = scrape(world, "/metrics");
            (page.value("legation_isolate_exits_total", &exits) >= f64::from(round)).then_some(())
        });
        client.ask("echo", json!({"text": "x"}));
        let page = scrape(&world, "/metrics");
        let now = page.value("legation_cgroup_cpu_seconds_total", &[("mcp", "work")]);
        assert!(now >= before, "a counter never goes back: {before} {now}");
        assert!(
            now < before + 10.0,
            "and counts nothing twice: {before} {now}"
        );
        before = now;
        let restarts = page.value("legation_isolate_restarts_total", &[("mcp", "work")]);
        assert!((restarts - f64::from(round)).abs() < f64::EPSILON);
    }
}

#[test]
fn single_isolates_have_a_page_that_names_nobody() {
    let world = World::new();
    world.demo("notes", &[]);
    let ada = world.client("ada");
    let ben = world.client("ben");
    for client in [&ada, &ben] {
        client.ask("echo", json!({"text": "x"}));
    }
    let page = world.until("both are read", |world| {
        let page = scrape(world, "/metrics/isolates");
        let read = page
            .samples
            .iter()
            .filter(|s| s.name == "legation_isolate_cpu_seconds_total");
        (read.count() == 2 || !am_root()).then_some(page)
    });
    as_documented(&page, &["notes"], &[Shown::Isolates]);
    let infos: Vec<&Sample> = page
        .samples
        .iter()
        .filter(|s| s.name == "legation_isolate_info")
        .collect();
    assert_eq!(infos.len(), 2, "{infos:?}");
    assert_ne!(infos[0].labels["user_ref"], infos[1].labels["user_ref"]);
    let id = world.isolate("notes", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let ready = page.value("legation_isolate_ready", &[("isolate", &id)]);
    assert!((ready - 1.0).abs() < f64::EPSILON);
    world.cli(&["isolate", "kill", &id]);
    let page = scrape(&world, "/metrics/isolates");
    let gone = !page
        .samples
        .iter()
        .any(|s| s.labels.get("isolate") == Some(&id));
    assert!(gone, "its series end with it");
}

#[test]
fn probes_answer_while_the_house_drains_and_a_stuck_scraper_holds_nothing() {
    let mut world = World::new();
    world.demo("notes", &[]);
    let client = world.client("ada");
    client.ask("echo", json!({"text": "x"}));
    let address = world.ops_url.strip_prefix("http://").unwrap().to_owned();
    // One that never reads, one that never finishes its request, and rubbish.
    let mut never_reads = TcpStream::connect(&address).unwrap();
    for _ in 0..50 {
        never_reads
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
    }
    let mut half = TcpStream::connect(&address).unwrap();
    half.write_all(b"GET /metr").unwrap();
    let mut rubbish = TcpStream::connect(&address).unwrap();
    rubbish.write_all(b"\x16\x03\x01 not http\r\n\r\n").unwrap();
    let _ = rubbish.read(&mut [0; 64]);
    assert_eq!(get(&world, "/livez").status, 200);
    assert_eq!(
        scrape(&world, "/metrics")
            .value("legation_ready", &[])
            .to_bits(),
        1f64.to_bits()
    );
    let verbose = get(&world, "/readyz?verbose");
    let text = String::from_utf8(verbose.body).unwrap();
    for check in [
        "spawn",
        "store",
        "audit",
        "kill",
        "vault",
        "catalog",
        "listeners",
        "root",
        "running",
    ] {
        assert!(text.contains(&format!("[+] {check} ok\n")), "{text}");
    }
    assert_eq!(get(&world, "/readyz").status, 200);
    assert_eq!(
        Http::new(&world.ops_url)
            .send("POST", "/metrics", None, Some(b"{}"))
            .status,
        405
    );

    // A call in flight keeps it draining.
    let ops_url = world.ops_url.clone();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| client.call("sleep", json!({"ms": 60_000})));
        world.until("the call is in flight", |world| {
            (scrape(world, "/metrics").value("legation_calls_in_flight", &[("mcp", "notes")]) > 0.0)
                .then_some(())
        });
        let stopping = scope.spawn(|| world.stop());
        let ask = |path: &str| Http::new(&ops_url).send("GET", path, None, None);
        let since = std::time::Instant::now();
        loop {
            let ready = ask("/readyz?verbose");
            if ready.status == 503 {
                let text = String::from_utf8(ready.body).unwrap();
                assert!(
                    text.contains("[-] running failed: the gateway is draining"),
                    "{text}"
                );
                break;
            }
            assert!(since.elapsed() < crate::world::PATIENCE, "it never drained");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(ask("/livez").status, 200, "it drains, but it lives");
        assert!(slow.join().unwrap().status == 200);
        assert_eq!(stopping.join().unwrap(), 0);
    });
}

#[test]
fn another_address_needs_a_token_or_certificates_and_says_so() {
    let world = World::new();
    let check = |text: &str| {
        let file = world.dir.path().join("other.toml");
        std::fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        world.run(&["config", "check", &path])
    };
    let open = check("[ops]\nlisten = \"0.0.0.0:9464\"\n");
    assert_eq!(open.code, 2, "{}", open.stderr);
    assert!(open.stderr.contains("ops.token_file"), "{}", open.stderr);
    let ca = check("[ops]\nclient_ca_file = \"/etc/ca.pem\"\n");
    assert!(
        ca.code == 2 && ca.stderr.contains("ops.tls"),
        "{}",
        ca.stderr
    );
    let bad = check("[ops]\nlisten = \"everywhere\"\n");
    assert!(
        bad.code == 2 && bad.stderr.contains("127.0.0.1:9464"),
        "{}",
        bad.stderr
    );
    let token = world.dir.path().join("token");
    std::fs::write(&token, "a-token-for-the-scraper\n").unwrap();
    let fine = check(&format!(
        "[ops]\nlisten = \"0.0.0.0:9464\"\ntoken_file = \"{}\"\ntls = \"off\"\n",
        token.display()
    ));
    assert_eq!(fine.code, 0, "{}", fine.stderr);
    assert_eq!(check("[ops]\nlisten = \"off\"\n").code, 0);
}

#[test]
fn a_token_in_clear_text_beyond_loopback_is_served_with_a_warning() {
    let warning = "the ops token travels in clear text";
    let serve = |address: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "a-token-for-the-scraper\n").unwrap();
        let config = format!(
            "[ops]\nlisten = \"{address}\"\ntoken_file = \"{}\"\ntls = \"off\"\n",
            file.display()
        );
        let world = World::with(&config);
        assert_eq!(get(&world, "/readyz").status, 200);
        assert_eq!(get(&world, "/metrics").status, 401);
        world.log()
    };
    let log = serve("0.0.0.0:0");
    assert!(log.contains(warning), "{log}");
    let log = serve("127.0.0.1:0");
    assert!(!log.contains(warning), "{log}");
}

#[test]
fn held_connections_do_not_keep_probes_out_for_long() {
    let world = World::new();
    let address = world.ops_url.strip_prefix("http://").unwrap().to_owned();
    let most = legation::domain::limits::OPS_CONNECTIONS_MAX;
    let mut held: Vec<TcpStream> = (0..most)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    // Half of them were served and stay, the others never say a word.
    for stream in held.iter_mut().step_by(2) {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        assert!(stream.read(&mut [0; 512]).unwrap() > 0);
    }
    let alive = || {
        let mut probe = TcpStream::connect(&address).ok()?;
        let request = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        probe.write_all(request).ok()?;
        let mut answer = String::new();
        probe.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    assert_eq!(alive(), None, "all places are taken");
    world.until("a probe is answered", |_| alive());
    // Whoever holds on has lost its place too.
    for stream in &mut held {
        let patience = std::time::Duration::from_secs(20);
        stream.set_read_timeout(Some(patience)).unwrap();
        let closed = stream.read_to_end(&mut Vec::new());
        let late = closed.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!late, "it is still open");
    }
}

#[test]
fn with_a_token_numbers_need_it_and_a_changed_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "the-first-token-of-all\n").unwrap();
    let config = format!(
        "[ops]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"{}\"\nisolates = \"off\"\n",
        file.display()
    );
    let world = World::with(&config);
    let with = |path: &str, token: &str| {
        let mut stream =
            TcpStream::connect(world.ops_url.strip_prefix("http://").unwrap()).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(get(&world, "/metrics").status, 401);
    assert_eq!(get(&world, "/readyz").status, 200, "probes have no token");
    assert_eq!(with("/metrics", "the-wrong-token-of-all"), 401);
    assert_eq!(with("/metrics", "the-first-token-of-all"), 200);
    assert_eq!(with("/metrics/isolates", "the-first-token-of-all"), 404);
    std::fs::write(&file, "the-second-token-of-all\n").unwrap();
    world.until("the new token counts", |_| {
        (with("/metrics", "the-second-token-of-all") == 200).then_some(())
    });
    assert_eq!(with("/metrics", "the-first-token-of-all"), 401);
}

#[test]
fn hundreds_of_mcps_stay_within_the_bound() {
    let world = World::new();
    let most = legation::domain::limits::METRIC_MCPS_MAX;
    let name = families::SERIES_DROPPED.name;
    for n in 0..most + 3 {
        let mcp = format!("m{n}");
        world.cli(&["mcp", "add", &mcp, "--", crate::world::LEGATION, "demo-mcp"]);
    }
    for n in 0..most + 3 {
        world.cli(&["mcp", "publish", &format!("m{n}")]);
    }
    let page = scrape(&world, "/metrics");
    let names: Vec<String> = (0..most + 3).map(|n| format!("m{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    as_documented(&page, &names, HOUSE);
    assert!(page.value(name, &[("family", "mcp")]) >= 3.0);
    let bound: usize = ALL
        .iter()
        .filter(|family| family.shown != Shown::Isolates)
        .map(|family| family.series_max())
        .sum();
    assert!(
        page.samples.len() <= bound && bound < 25_000,
        "{} of {bound}",
        page.samples.len()
    );
}
