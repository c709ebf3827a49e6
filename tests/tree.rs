//! The live tree: a snapshot, then numbered changes; and any actor's last transitions.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::world::{LEGATION, World};

/// `tree --watch` of a gateway, as a program reads it.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    seq: u64,
}

impl Watch {
    fn new(world: &World, args: &[&str]) -> Self {
        Self::with_stderr(world, args, Stdio::inherit())
    }

    fn with_stderr(world: &World, args: &[&str], stderr: Stdio) -> Self {
        let mut child = Command::new(LEGATION)
            .args(["tree", "--watch"])
            .args(args)
            .env("LEGATION_DATA_DIR", world.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            seq: 0,
        }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the stream goes on").unwrap()
    }

    /// The next line; numbers never go back, and every change has a new one.
    fn next(&mut self) -> Value {
        let news: Value = serde_json::from_str(&self.line()).unwrap();
        let seq = news["seq"].as_u64().unwrap();
        if news["kind"] == "change" {
            assert!(seq > self.seq, "{news} after {}", self.seq);
        }
        assert!(seq >= self.seq, "{news} after {}", self.seq);
        self.seq = seq;
        news
    }

    fn until(&mut self, what: impl Fn(&Value) -> bool) -> Value {
        loop {
            let news = self.next();
            if what(&news) {
                return news;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_change(news: &Value, to: &str) -> bool {
    news["kind"] == "change"
        && news["to"] == to
        && news["actor"].as_str().unwrap().starts_with("isolate/")
}

#[test]
fn a_follower_sees_a_snapshot_and_then_every_change_in_order() {
    let world = World::new();
    world.demo("demo", &[]);
    let mut watch = Watch::new(&world, &["-o", "json"]);
    let first = watch.next();
    assert_eq!(first["kind"], "snapshot");
    assert_eq!(first["tree"]["id"], "root");
    assert_eq!(first["status"]["ready"], true);
    let ada = world.client("ada");
    ada.call("echo", json!({"text": "x"}));
    watch.until(|news| is_change(news, "starting"));
    let ready = watch.until(|news| is_change(news, "ready"));
    assert_eq!(ready["cause"], "usable");
    // The whole user comes, with the isolate as it is now.
    let user = &ready["node"];
    assert_eq!(user["name"], "ada");
    assert_eq!(ready["place"], user["id"]);
    let isolate = &user["children"][0];
    assert_eq!(isolate["id"], ready["actor"]);
    assert_eq!(isolate["isolate"]["mcp"], "demo");
    // A crash is told with its verdict, and then the way back.
    ada.call("crash", json!({"code": 3}));
    let backoff = watch.until(|news| is_change(news, "backoff"));
    assert!(
        backoff["cause"].as_str().unwrap().contains("code 3"),
        "{backoff}"
    );
    let isolate = &backoff["node"]["children"][0];
    assert!(isolate["backoff_ms"].as_u64().is_some());
    assert_eq!(isolate["isolate"]["verdicts"][0]["kind"], "exited");
    watch.until(|news| is_change(news, "ready"));
    // The isolates' counters come by themselves.
    let usage = watch.until(|news| news["kind"] == "usage");
    assert_eq!(usage["isolates"][0]["mcp"], "demo");
}

#[test]
fn the_stream_ends_with_a_word_when_the_server_stops() {
    let mut world = World::new();
    let mut watch = Watch::new(&world, &["-o", "json"]);
    let mut plain = Watch::new(&world, &[]);
    assert_eq!(watch.next()["kind"], "snapshot");
    assert!(plain.line().contains("snapshot: legation"));
    assert_eq!(world.stop(), 0);
    watch.until(|news| news["kind"] == "end");
    assert!(watch.lines.next().is_none());
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
}

#[test]
fn followers_are_bounded_and_make_room_when_they_go() {
    let world = World::new();
    let mut all: Vec<_> = (0..16)
        .map(|_| {
            let mut watch = Watch::new(&world, &["-o", "json"]);
            assert_eq!(watch.next()["kind"], "snapshot");
            watch
        })
        .collect();
    let refused = world.run(&["tree", "--watch", "-o", "json"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("E0306"), "{}", refused.stderr);
    all.pop();
    // It goes with the next line nobody reads, at the latest with a beat.
    world.until("there is room", |world| {
        let mut watch = Watch::with_stderr(world, &["-o", "json"], Stdio::null());
        watch.lines.next().map(|line| line.unwrap())
    });
}

#[test]
fn any_actor_tells_its_last_transitions_with_causes() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.call("crash", json!({"code": 7}));
    ada.call("echo", json!({"text": "x"}));
    let isolate = world.isolate("demo", Some("ada"));
    let id = isolate["id"].as_str().unwrap();
    let causes = |actor: &str| -> Vec<String> {
        let node = world.cli(&["tree", actor]);
        let steps = node["transitions"].as_array().unwrap();
        steps
            .iter()
            .map(|step| {
                format!(
                    "{} {}",
                    step["to"].as_str().unwrap(),
                    step["cause"].as_str().unwrap()
                )
            })
            .collect()
    };
    let own = causes(id);
    assert_eq!(own.first().unwrap(), "ready usable");
    assert!(
        own.iter()
            .any(|step| step.starts_with("backoff") && step.contains("code 7")),
        "{own:?}"
    );
    assert!(own.len() <= 10);
    assert_eq!(causes("audit").first().unwrap(), "up started");
    assert_eq!(causes("root"), ["up started"]);
    assert_eq!(causes("ada").first().unwrap(), "up a call wants an isolate");
    let run = causes(&format!("run/{id}/2"));
    assert!(run.first().unwrap().starts_with("ready"), "{run:?}");
    assert!(
        run.iter().any(|step| step.contains("initialize done")),
        "{run:?}"
    );
    let tree = world.cli(&["tree"]);
    let sessions = tree["children"].as_array().unwrap();
    let sessions = sessions
        .iter()
        .find(|one| one["name"] == "sessions")
        .unwrap();
    let session = sessions["children"][0]["name"].as_str().unwrap();
    assert!(
        causes(session)
            .iter()
            .any(|step| step.contains("registered with key"))
    );
    // For people, and for who mistypes.
    let shown = world.run(&["tree", id]);
    assert!(
        shown.stdout.contains("CAUSE") && shown.stdout.contains("code 7"),
        "{}",
        shown.stdout
    );
    let unknown = world.run(&["tree", "nobody"]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    let several = world.run(&["tree", "s"]);
    assert_eq!(several.code, 6, "{}", several.stderr);
}
