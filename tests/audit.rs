//! The audit log of a real gateway: what is in it, whether it is whole, and what happens when the
//! disk, the files or the process are taken away.

mod acts;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use legation::actors::audit::{Audit, Durability, Entry, Setup, Verify};
use serde_json::{Value, json};

use crate::lifecycle::Disk;
use crate::tools;
use crate::world::{Http, LEGATION, PATIENCE, Ran, World, am_root};

/// Says to this very test binary that it is the process to be killed, and where it writes.
const VICTIM: &str = "LEGATION_TEST_AUDIT_VICTIM";
/// How often it is killed.
const KILLS: u64 = 40;

pub(crate) fn dir(world: &World) -> PathBuf {
    world.data_dir().join("audit")
}

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_stem().is_some_and(|name| name.len() == 20))
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    found.sort();
    found
}

fn records(dir: &Path) -> Vec<Value> {
    segments(dir)
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<Value>>()
        })
        .collect()
}

/// `audit verify` on files alone, with another process than the gateway.
fn verify(dir: &Path, more: &[&str]) -> (i32, Value) {
    let output = Command::new(LEGATION)
        .args(["-o", "json", "audit", "verify", "--dir"])
        .arg(dir)
        .args(more)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), report)
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

/// The lines of a command's output as JSON.
fn lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn search(world: &World, args: &[&str]) -> Value {
    let mut all = vec!["audit", "search"];
    all.extend(args);
    world.cli(&all)
}

fn events(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["event"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_happens_is_on_record_with_who_and_how() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "x"})), "x");
    ada.call("no_such_tool", json!({}));
    ada.call("crash", json!({}));
    assert_eq!(
        Http::new(&world.url)
            .register_with("amb_pk_nonsense")
            .status,
        401
    );
    for _ in 0..30 {
        let token = ada.token.replace('a', "b");
        ada.http.send("GET", "/v1/tools", Some(&token), None);
    }
    let key = ada_key(&world);
    world.cli(&["key", "revoke", &key]);
    assert_eq!(ada.send("GET", "/v1/tools", None).status, 401);
    world.stop();
    let all = records(&dir(&world));
    let of = |event: &str| -> Vec<&Value> {
        all.iter()
            .filter(|record| record["event"] == event)
            .collect()
    };
    let one = |event: &str| -> &Value {
        let found = of(event);
        assert_eq!(found.len(), 1, "{event}: {found:?}");
        found[0]
    };
    assert_eq!(all[0]["event"], "system.genesis");
    let installation = std::fs::read_to_string(world.data_dir().join("installation")).unwrap();
    assert_eq!(all[0]["installation"], installation.trim());
    assert_eq!(one("system.started")["durability"], "durable");
    assert_eq!(one("system.stopped")["orderly"], "yes");
    let call = of("call.start")
        .into_iter()
        .find(|call| call["tool"] == "echo")
        .unwrap();
    for field in ["user", "key", "session", "mcp", "call"] {
        assert!(call[field].as_str().unwrap().len() > 10, "{field}: {call}");
    }
    assert_eq!(call["arguments_bytes"], 12);
    assert_eq!(call["arguments_sha256"].as_str().unwrap().len(), 64);
    assert!(call.get("arguments").is_none(), "{call}");
    let end = of("call.end")
        .into_iter()
        .find(|end| end["call"] == call["call"])
        .unwrap();
    assert_eq!(end["outcome"], "answered");
    assert_eq!(one("call.refused")["code"], "tool_unknown");
    assert!(
        of("isolate.started").len() >= 2,
        "discovery, and the user's own"
    );
    assert!(
        of("isolate.ready")
            .iter()
            .all(|ready| ready["pid"].as_u64() > Some(0))
    );
    assert!(
        of("isolate.ended")
            .iter()
            .any(|end| end["verdict"] == "exited"),
        "{:?}",
        of("isolate.ended")
    );
    let registered = of("auth.register");
    assert_eq!(registered.len(), 2);
    assert_eq!(registered[0]["outcome"], "ok");
    assert_eq!(registered[1]["outcome"], "key_unknown");
    assert_eq!(one("auth.session_ended")["outcome"], "revoked");
    // Thirty wrong tokens are one record and a count, and the revoked one is another's.
    let refused = of("auth.refused");
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(refused[1]["outcome"], "session_suspended");
    assert_eq!(one("auth.refused_more")["count"], 29);
    let actions: HashSet<&str> = of("admin.action")
        .iter()
        .map(|action| action["action"].as_str().unwrap())
        .collect();
    for action in [
        "mcp.add",
        "mcp.publish",
        "group.add",
        "group.grant",
        "user.add",
        "key.create",
        "key.revoke",
    ] {
        assert!(actions.contains(action), "{action}: {actions:?}");
    }
    assert!(
        of("admin.action")
            .iter()
            .all(|action| action["actor"].as_str().unwrap().starts_with("uid:"))
    );
    let text = std::fs::read_to_string(&segments(&dir(&world))[0]).unwrap();
    assert!(
        !text.contains("nonsense") && !text.contains(&ada.token),
        "no secret is repeated"
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir(&world)), 0o700);
    assert_eq!(mode(&segments(&dir(&world))[0]), 0o600);
    assert_eq!(mode(&world.data_dir().join("keys/audit.key")), 0o600);
    assert_eq!(verify(&dir(&world), &[]).0, 0);
}

fn ada_key(world: &World) -> String {
    let keys = world.cli(&["key", "list", "--user", "ada"]);
    keys[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn every_way_to_change_the_log_is_found_and_the_first_bad_record_named() {
    let mut world = World::with("[audit]\nsegment_bytes_max = 8192\n");
    world.demo("demo", &[]);
    let ada = world.client("ada");
    for n in 0..40 {
        ada.ask("echo", json!({"text": format!("{n}")}));
    }
    let (code, online) = {
        let ran = world.run(&["-o", "json", "audit", "verify"]);
        (
            ran.code,
            serde_json::from_str::<Value>(&ran.stdout).unwrap(),
        )
    };
    assert_eq!((code, &online["whole"]), (0, &json!(true)), "{online}");
    assert_eq!(world.status()["audit"]["chain_ok"], true);
    let known = world.until("the index has caught up", |world| {
        let audit = &world.status()["audit"];
        (audit["index_lag"] == 0).then(|| audit["seq"].as_u64().unwrap())
    });
    let public = world.data_dir().join("keys/audit.pub");
    let printed = world.run(&["audit", "key"]);
    assert_eq!(printed.stdout, std::fs::read_to_string(&public).unwrap());
    let public = public.to_str().unwrap().to_owned();
    world.stop();
    let whole = dir(&world);
    let (code, report) = verify(&whole, &[]);
    assert_eq!(code, 0, "{report}");
    assert!(report["segments"].as_u64() > Some(3), "{report}");
    let last = report["last_seq"].as_u64().unwrap();
    let (code, output) = python(&whole);
    assert_eq!(code, 0, "{output}");
    assert!(
        output.contains(&format!("whole: records 1 to {last}")),
        "{output}"
    );

    let broken = |name: &str, tamper: &dyn Fn(&Path, &[PathBuf]), python_too: bool| -> u64 {
        let copy = copy(&whole);
        tamper(copy.path(), &segments(copy.path()));
        let (code, report) = verify(copy.path(), &["--public-key", &public]);
        assert_eq!(code, 1, "{name}: {report}");
        if python_too {
            let (code, output) = python(copy.path());
            assert_eq!(code, 1, "{name}: {output}");
        }
        report["fault"]["seq"].as_u64().unwrap_or(0)
    };
    let edit = |path: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(from));
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    let first_of = |segment: usize| -> u64 {
        segments(&whole)[segment]
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let take = |path: &Path, change: &dyn Fn(&mut Vec<String>)| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
        change(&mut lines);
        std::fs::write(path, lines.concat()).unwrap();
    };
    assert_eq!(
        broken(
            "edit",
            &|_, all| edit(&all[1], "\"answered\"", "\"answerer\""),
            true
        ),
        {
            let text = std::fs::read_to_string(&segments(&whole)[1]).unwrap();
            let line = text
                .lines()
                .position(|line| line.contains("\"answered\""))
                .unwrap();
            first_of(1) + line as u64
        }
    );
    assert_eq!(
        broken(
            "drop",
            &|_, all| take(&all[1], &|lines| drop(lines.remove(2))),
            true
        ),
        first_of(1) + 2
    );
    assert_eq!(
        broken(
            "swap",
            &|_, all| take(&all[1], &|lines| lines.swap(2, 3)),
            true
        ),
        first_of(1) + 2
    );
    assert_eq!(
        broken(
            "double",
            &|_, all| take(&all[1], &|lines| lines.insert(3, lines[2].clone())),
            true
        ),
        first_of(1) + 3
    );
    assert_eq!(
        broken(
            "missing segment",
            &|_, all| std::fs::remove_file(&all[1]).unwrap(),
            true
        ),
        first_of(1)
    );
    assert_eq!(
        broken(
            "missing beginning",
            &|_, all| std::fs::remove_file(&all[0]).unwrap(),
            true
        ),
        1
    );
    assert_eq!(
        broken(
            "missing end",
            &|_, all| std::fs::remove_file(all.last().unwrap()).unwrap(),
            false
        ),
        { first_of(segments(&whole).len() - 1) }
    );
    let cut = |_: &Path, all: &[PathBuf]| {
        take(all.last().unwrap(), &|lines| {
            lines.truncate(lines.len() - 3)
        })
    };
    assert_eq!(broken("cut end", &cut, false), last - 2);
    // Even with the checkpoint's file gone: the index knows, and without it the missing file tells.
    let hidden = |dir: &Path, all: &[PathBuf]| {
        for (number, path) in all.iter().enumerate() {
            let first = first_of(number);
            let left = usize::try_from(known.saturating_sub(first)).unwrap();
            take(path, &|lines| lines.truncate(left));
            if left == 0 {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::remove_file(dir.join("checkpoint")).unwrap();
    };
    let found = broken("cut end, no checkpoint", &hidden, false);
    assert_eq!(found, known);
    let bare = |dir: &Path, all: &[PathBuf]| {
        hidden(dir, all);
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            let _ = std::fs::remove_file(dir.join(name));
        }
    };
    assert_eq!(broken("cut end, no checkpoint, no index", &bare, false), 0);
    // And with all of it gone a copy that somebody kept elsewhere.
    let kept = copy(&whole);
    let kept = kept.path().join("checkpoint");
    let copied = copy(&whole);
    cut(copied.path(), &segments(copied.path()));
    let (code, _) = verify(copied.path(), &["--checkpoint", kept.to_str().unwrap()]);
    assert_eq!(code, 1);
    let other = World::new();
    let foreign = segments(&dir(&other))[0].clone();
    let named = |_: &Path, all: &[PathBuf]| {
        std::fs::copy(&foreign, &all[1]).unwrap();
    };
    assert_eq!(broken("foreign segment", &named, true), first_of(1));
    let foreign_key = other.data_dir().join("keys/audit.pub");
    let (code, report) = verify(&whole, &["--public-key", foreign_key.to_str().unwrap()]);
    assert_eq!(code, 1, "{report}");

    let usage = Command::new(LEGATION)
        .args(["audit", "verify", "--nonsense"])
        .output()
        .unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify(empty.path(), &[]), (1, Value::Null));
}

/// The verifier for auditors, in another language.
fn python(dir: &Path) -> (i32, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify_audit.py");
    match Command::new("python3").arg(script).arg(dir).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            (
                output.status.code().unwrap(),
                String::from_utf8(text).unwrap(),
            )
        }
        Err(_) => {
            tools::skip("the verifier in Python", "there is no python3");
            (0, String::new())
        }
    }
}

#[test]
fn a_search_shows_what_events_are_about_and_refuses_words_that_are_none() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "x"}));
    let isolate = world.isolate("demo", Some("ada"))["id"].clone();
    let isolate = isolate.as_str().unwrap();
    let key = world.cli(&["key", "list"])[0]["id"].clone();
    let key = key.as_str().unwrap();
    let part = |id: &'static str, whole: &str| {
        let short = whole.strip_prefix(id).unwrap();
        short.get(..8).unwrap().to_owned()
    };
    world.cli(&["isolate", "kill", &part("iso_", isolate), "--reason", "r"]);
    world.cli(&["key", "suspend", &part("key_", key), "--reason", "r"]);
    world.cli(&["key", "resume", &part("key_", key)]);
    let page = search(&world, &["--event", "admin.action"]);
    let target = |action: &str| {
        let mut items = page["items"].as_array().unwrap().iter();
        let of = |item: &&Value| item["record"]["action"] == action;
        items.find(of).unwrap()["record"]["target"].clone()
    };
    assert_eq!(target("isolate.kill"), isolate);
    assert_eq!(
        (target("key.suspend"), target("key.resume")),
        (key.into(), key.into())
    );
    let on = ["kill-switch", "on", "--scope", "mcp", "--target", "demo"];
    world.cli(&[&on[..], &["--reason", "it leaks"]].concat());
    let table = world.run(&["audit", "search", "--event", "kill"]).stdout;
    assert!(table.contains("scope=mcp label=demo"), "{table}");
    assert!(table.contains("reason=\"it leaks\""), "{table}");
    let calls = world.run(&["audit", "search", "--event", "call"]).stdout;
    assert!(!calls.contains("DETAIL"), "{calls}");
    // An empty page would pass for "it never happened".
    for (word, near) in [
        ("isolat", "--event isolate?"),
        ("kill.no", "--event kill.on?"),
        ("registers", "--event auth.register?"),
        ("bogus", "auth.register, "),
    ] {
        for command in ["search", "tail", "export"] {
            let ran = world.run(&["audit", command, "--event", word]);
            assert_eq!(ran.code, 2, "{command} {word}: {}", ran.stdout);
            assert!(ran.stderr.contains(near), "{word}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_search_finds_calls_by_everything_and_pages_never_shift() {
    let world = World::new();
    world.demo("demo", &[]);
    world.demo("other", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for n in 0..6 {
        ada.ask("demo.echo", json!({"text": format!("{n}")}));
    }
    ben.ask("other.echo", json!({"text": "x"}));
    ben.call("other.fail", json!({}));
    let all = search(&world, &["--event", "call"]);
    assert_eq!(events(&all), vec!["call"; 8], "{all}");
    let newest = &all["items"][0];
    assert_eq!(newest["record"]["tool"], "fail");
    assert_eq!(newest["end"]["event"], "call.end");
    let user = newest["record"]["user"].as_str().unwrap();
    assert_eq!(all["names"][user], "ben");
    let count = |args: &[&str]| search(&world, args)["items"].as_array().unwrap().len();
    assert_eq!(count(&["--user", "ada", "--event", "call"]), 6);
    assert_eq!(count(&["--user", user, "--event", "call"]), 2);
    assert_eq!(count(&["--mcp", "other", "--event", "call"]), 2);
    assert_eq!(count(&["--tool", "echo"]), 7);
    assert_eq!(count(&["--tool", "echo", "--user", "ben"]), 1);
    assert_eq!(count(&["--outcome", "answered"]), 8);
    assert_eq!(count(&["--client", &ada_key(&world), "--event", "call"]), 6);
    assert_eq!(count(&["--text", "\"tool\":\"fail\""]), 1);
    assert_eq!(count(&["--since", "1h", "--event", "call"]), 8);
    assert_eq!(count(&["--until", "1h", "--event", "call"]), 0);
    assert_eq!(
        count(&["--event", "admin.action", "--text", "mcp.publish"]),
        2
    );
    assert_eq!(count(&["--unfinished"]), 0);
    let call = newest["record"]["call"].as_str().unwrap();
    assert_eq!(count(&["--call", call]), 1);
    assert_eq!(world.run(&["audit", "search", "--user", "nobody"]).code, 5);

    let slow = ada.clone();
    let sleeping = std::thread::spawn(move || slow.call("demo.sleep", json!({"ms": 1500})));
    world.until("a call is unfinished", |world| {
        (search(world, &["--unfinished"])["items"][0]["record"]["tool"] == "sleep").then_some(())
    });
    // Three pages, with calls coming in between.
    let mut seen = Vec::new();
    let mut cursor: Option<u64> = None;
    loop {
        let at = cursor.map(|cursor| cursor.to_string());
        let mut args = vec!["--event", "call", "--user", "ada", "--limit", "3"];
        if let Some(at) = &at {
            args.extend(["--cursor", at]);
        }
        let page = search(&world, &args);
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["seq"].as_u64().unwrap()));
        ada.ask("demo.echo", json!({"text": "more"}));
        cursor = page["cursor"].as_u64();
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    sleeping.join().unwrap();
    assert_eq!(count(&["--unfinished"]), 0);
}

#[test]
fn an_index_that_is_lost_or_damaged_is_made_anew_and_never_missed() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    for n in 0..10 {
        ada.ask("echo", json!({"text": format!("{n}")}));
    }
    let whole = search(&world, &["--limit", "1000"])["items"].clone();
    let indexed = |world: &World| {
        world.until("the index has caught up", |world| {
            (world.status()["audit"]["index_lag"] == 0).then_some(())
        });
    };
    indexed(&world);
    let damages: [&dyn Fn(&Path); 2] = [&|index| std::fs::remove_file(index).unwrap(), &|index| {
        std::fs::write(index, "nonsense".repeat(9999)).unwrap()
    }];
    for damage in damages {
        world.stop();
        let index = dir(&world).join("index.db");
        damage(&index);
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", index.display()));
        }
        world.start();
        let oldest = whole.as_array().unwrap()[0]["seq"].as_u64().unwrap() + 1;
        let again = search(
            &world,
            &["--limit", "1000", "--cursor", &oldest.to_string()],
        );
        assert_eq!(again["items"], whole);
        indexed(&world);
        let again = search(
            &world,
            &["--limit", "1000", "--cursor", &oldest.to_string()],
        );
        assert_eq!(again["items"], whole);
    }
    assert_eq!(
        search(&world, &["--event", "system.damaged"])["items"],
        json!([])
    );
}

#[test]
fn names_are_known_while_the_store_is_away() {
    let world = World::new();
    world.demo("demo", &[]);
    world.client("ada").ask("echo", json!({"text": "x"}));
    let moved = |from: &str, to: &str| {
        for end in ["", "-wal", "-shm"] {
            let at = |name: &str| world.data_dir().join(format!("{name}{end}"));
            // The log may not be there at the moment.
            let _ = std::fs::rename(at(from), at(to));
        }
    };
    moved("legation.db", "away.db");
    world.until("the store is away", |world| {
        (world.run(&["user", "list"]).code != 0).then_some(())
    });
    let page = search(&world, &["--user", "ada", "--mcp", "demo"]);
    assert!(events(&page).contains(&"call".to_owned()), "{page}");
    let export = world.run(&["audit", "export", "--user", "ada", "--event", "call"]);
    assert_eq!(lines(&export).len(), 2, "{}", export.stderr);
    let tail = world.run(&["audit", "tail", "-n", "2"]);
    assert_eq!(
        (tail.code, tail.stdout.lines().count()),
        (0, 2),
        "{}",
        tail.stderr
    );
    // Who may be somebody that only the store knows is not said to be nobody.
    let other = world.run(&["-o", "json", "audit", "search", "--user", "ben"]);
    assert!(
        other.stderr.contains("store_unavailable"),
        "{}",
        other.stderr
    );
    assert!(other.stderr.contains("by its id"), "{}", other.stderr);
    moved("away.db", "legation.db");
    world.until("the store is back", |world| {
        (world.run(&["user", "list"]).code == 0).then_some(())
    });
    assert_eq!(world.run(&["audit", "search", "--user", "ben"]).code, 5);
}

#[test]
fn tail_follows_and_export_gives_the_bytes_of_the_log() {
    let world = World::with("[audit]\nsegment_bytes_max = 4096\n");
    world.demo("demo", &[]);
    let ada = world.client("ada");
    for n in 0..20 {
        ada.ask("echo", json!({"text": format!("{n}")}));
    }
    let last = world.run(&["-o", "json", "audit", "tail", "-n", "4", "--event", "call"]);
    let last = lines(&last);
    assert_eq!(last.len(), 4);
    assert_eq!(last[3]["event"], "call.end");
    let text = world
        .run(&["audit", "tail", "-n", "1", "--event", "call"])
        .stdout;
    assert!(
        text.contains("call.end") && text.contains("outcome=answered"),
        "{text}"
    );

    let mut follower = Command::new(LEGATION)
        .args([
            "-o", "json", "audit", "tail", "-n", "0", "-f", "--user", "ada",
        ])
        .env("LEGATION_DATA_DIR", world.data_dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = BufReader::new(follower.stdout.take().unwrap()).lines();
    let (send, receive) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(Ok(line)) = seen.next() {
            let record: Value = serde_json::from_str(&line).unwrap();
            if send.send(record).is_err() {
                return;
            }
        }
    });
    let since = Instant::now();
    let mut found = Vec::new();
    while found.len() < 4 {
        assert!(since.elapsed() < PATIENCE, "never followed: {found:?}");
        ada.ask("echo", json!({"text": "live"}));
        while let Ok(record) = receive.recv_timeout(Duration::from_millis(200)) {
            found.push(record);
        }
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
    assert!(
        found.iter().any(|record| record["event"] == "call.end"),
        "{found:?}"
    );

    let export = world.run(&["audit", "export"]);
    let stored: Vec<u8> = segments(&dir(&world))
        .iter()
        .flat_map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(export.stdout.len() > 4096 && stored.starts_with(export.stdout.as_bytes()));
    let csv = world.run(&[
        "audit", "export", "--format", "csv", "--user", "ada", "--event", "call",
    ]);
    let rows: Vec<&str> = csv
        .stdout
        .split("\r\n")
        .filter(|row| !row.is_empty())
        .collect();
    assert!(
        rows[0].starts_with("seq,time,event") && rows.len() > 40,
        "{}",
        rows.len()
    );
    assert!(
        rows[1..].iter().all(|row| row.contains(",call.")),
        "{rows:?}"
    );
}

#[test]
fn arguments_are_kept_as_their_mcp_says() {
    let world = World::new();
    world.demo("none", &["--audit-arguments", "none"]);
    world.demo("full", &["--audit-arguments", "full"]);
    let ada = world.client("ada");
    ada.ask("none.echo", json!({"text": "x"}));
    let run = || -> Value {
        let me: Value = serde_json::from_str(&ada.ask("full.whoami", json!({}))).unwrap();
        me["run"].clone()
    };
    let before = run();
    ada.ask("full.echo", json!({"text": "what was asked"}));
    ada.call("full.echo", json!({"text": "y".repeat(100_000)}));
    world.cli(&["mcp", "update", "full", "--audit-arguments", "digest"]);
    ada.ask("full.echo", json!({"text": "not kept"}));
    assert_eq!(run(), before, "the isolate is the same");
    let starts: Vec<Value> = records(&dir(&world))
        .into_iter()
        .filter(|record| record["event"] == "call.start" && record["tool"] == "echo")
        .collect();
    assert!(starts[0].get("arguments_sha256").is_none(), "{}", starts[0]);
    assert_eq!(starts[1]["arguments"], r#"{"text":"what was asked"}"#);
    let long = starts[2]["arguments"].as_str().unwrap();
    assert_eq!(
        (long.len(), &starts[2]["arguments_truncated"]),
        (16 << 10, &json!(1))
    );
    assert!(starts[3].get("arguments").is_none() && starts[3].get("arguments_sha256").is_some());
    assert_eq!(
        world.cli(&["mcp", "show", "full"])["audit_arguments"],
        "digest"
    );
}

#[test]
fn a_full_disk_refuses_what_is_required_and_only_that() {
    if !am_root() {
        return tools::skip(
            "a full disk under the audit log",
            "not root, so nothing can be mounted",
        );
    }
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(place.path()) else {
        return tools::skip("a full disk under the audit log", "mount is refused here");
    };
    let path = place.path().display();
    let config = format!("[audit]\ndir = \"{path}\"\nrequired = [\"admin\", \"auth\"]\n");
    let world = World::with(&config);
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let key = world.key("ada");
    disk.fill();
    world.until("the log fails", |world| {
        ada.call("echo", json!({"text": "x"}));
        let ran = world.run(&["-o", "json", "status"]);
        let status: Value = serde_json::from_str(&ran.stdout).unwrap();
        (status["audit"]["failing"] == true).then_some(())
    });
    assert_eq!(
        ada.ask("echo", json!({"text": "calls go on"})),
        "calls go on"
    );
    let refused = world.run(&["-o", "json", "user", "add", "eve"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("audit_unavailable"),
        "{}",
        refused.stderr
    );
    assert_eq!(Http::new(&world.url).register_with(&key).status, 503);
    let status = world.run(&["status"]);
    assert_eq!(status.code, 2, "{}", status.stdout);
    assert!(status.stdout.contains("No space left"), "{}", status.stdout);
    assert!(world.log().contains("cannot be written"));
    // What takes away is done all the same.
    world.cli(&["user", "suspend", "ada", "--reason", "leak"]);
    disk.free();
    world.until("it is written again", |world| {
        (world.run(&["user", "add", "eve"]).code == 0).then_some(())
    });
    assert_eq!(world.cli(&["audit", "verify"])["whole"], true);
    let actions = search(
        &world,
        &["--event", "admin.action", "--text", "user.suspend"],
    );
    assert_eq!(actions["items"].as_array().unwrap().len(), 1, "{actions}");
}

#[test]
fn files_taken_away_under_a_running_server_heal_or_are_named() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "before"}));
    let before = records(&dir(&world)).len();
    std::fs::remove_dir_all(dir(&world)).unwrap();
    assert_eq!(ada.ask("echo", json!({"text": "after"})), "after");
    let report = world.cli(&["audit", "verify"]);
    assert_eq!(report["whole"], true, "{report}");
    assert!(records(&dir(&world)).len() > before, "nothing is lost");
    assert!(world.log().contains("put back"), "{}", world.log());
    let segment = segments(&dir(&world)).pop().unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    assert_eq!(ada.ask("echo", json!({"text": "goes on"})), "goes on");
    let ran = world.run(&["-o", "json", "audit", "verify"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("audit_broken"), "{}", ran.stderr);
    let status = world.run(&["status"]);
    assert!(
        status.code == 2 && status.stdout.contains("not whole"),
        "{}",
        status.stdout
    );
}

#[test]
fn a_crash_shows_as_a_call_without_an_end_and_is_counted_at_the_next_start() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "ends"}));
    let slow = ada.clone();
    let call = std::thread::spawn(move || {
        let body = json!({"tool": "sleep", "arguments": {"ms": 60_000}}).to_string();
        std::panic::catch_unwind(|| slow.send("POST", "/v1/tools/invoke", Some(body.as_bytes())))
    });
    world.until("it is in flight", |world| {
        (world.isolates()[0]["in_flight"] == 1).then_some(())
    });
    world.kill_9();
    assert!(call.join().unwrap().is_err());
    world.start();
    let open = search(&world, &["--unfinished"]);
    assert_eq!(open["items"].as_array().unwrap().len(), 1, "{open}");
    let recovered = search(&world, &["--event", "system.recovered"]);
    assert_eq!(
        recovered["items"][0]["record"]["unfinished"], 1,
        "{recovered}"
    );
    assert_eq!(
        recovered["items"][0]["record"]["calls"],
        open["items"][0]["record"]["call"]
    );
    assert_eq!(world.cli(&["audit", "verify"])["whole"], true);
}

#[test]
fn answered_calls_survive_kill_9_of_the_gateway() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let mut answered: Vec<String> = Vec::new();
    for round in 0..5u64 {
        let http = Http::new(&world.url);
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let session = crate::world::Session {
                    http: http.clone(),
                    ..ada.clone()
                };
                std::thread::spawn(move || {
                    let mut ids = Vec::new();
                    let body = json!({"tool": "echo", "arguments": {"text": "x"}}).to_string();
                    while let Ok(answer) = std::panic::catch_unwind(|| {
                        session.send("POST", "/v1/tools/invoke", Some(body.as_bytes()))
                    }) {
                        let Ok(json) = serde_json::from_slice::<Value>(&answer.body) else {
                            break;
                        };
                        ids.extend(json["request_id"].as_str().map(str::to_owned));
                    }
                    ids
                })
            })
            .collect();
        // Some calls in, at no moment in particular.
        let calls = 20 + round * 17;
        world.until("calls are made", |world| {
            (world.run(&["-o", "json", "status"]).code >= 0
                && records_count(&dir(world)) as u64 > (round + 1) * calls)
                .then_some(())
        });
        world.kill_9();
        for caller in callers {
            answered.extend(caller.join().unwrap());
        }
        world.start();
    }
    assert!(answered.len() > 50, "{}", answered.len());
    let report = world.cli(&["audit", "verify"]);
    assert_eq!(report["whole"], true, "{report}");
    let all = records(&dir(&world));
    let with = |event: &str| -> HashSet<&str> {
        let of = all.iter().filter(|record| record["event"] == event);
        of.filter_map(|record| record["call"].as_str()).collect()
    };
    let (starts, ends) = (with("call.start"), with("call.end"));
    for id in &answered {
        assert!(
            starts.contains(id.as_str()) && ends.contains(id.as_str()),
            "{id} is missing"
        );
    }
}

fn records_count(dir: &Path) -> usize {
    let count = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.iter().filter(|byte| **byte == b'\n').count()
    };
    segments(dir).iter().map(count).sum()
}

fn small(dir: &Path) -> Setup {
    Setup {
        segment_bytes_max: 20_000,
        checkpoint_records: 50,
        retention_bytes_max: Some(10 << 20),
        ..Setup::new(dir, Durability::Durable)
    }
}

/// Not a test of its own: what `no_acknowledged_record_is_lost_by_kill_9` kills.
#[test]
fn victim() {
    let Some(place) = std::env::var_os(VICTIM) else {
        return;
    };
    let audit = Audit::start(small(Path::new(&place))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let audit = audit.clone();
                tokio::spawn(async move {
                    for n in 0u64.. {
                        let id = format!("{}-{task}-{n}", std::process::id());
                        let entry = Entry::new("call.refused", 1).field("call", &id);
                        audit.commit(entry).await.unwrap();
                        // One write: a line is told whole or not at all.
                        let line = format!("ack {id}\n");
                        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn no_acknowledged_record_is_lost_by_kill_9() {
    let place = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut luck = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "audit::victim",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(VICTIM, place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // At a random moment, counted in records so that no machine is too slow for it.
        luck ^= luck << 13;
        luck ^= luck >> 7;
        luck ^= luck << 17;
        let mut left = 1 + luck % 300;
        while let Some(Ok(line)) = lines.next() {
            // The harness says a line of its own, before there is any log.
            let Some(id) = line.strip_prefix("ack ") else {
                continue;
            };
            acknowledged.push(id.to_owned());
            left -= 1;
            if left == 0 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said and nobody had read yet.
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("ack ").map(str::to_owned)),
        );
        let report = Verify::of(place.path(), None).unwrap().run().unwrap();
        assert!(report.whole, "{report:?}");
    }
    let audit = Audit::start(small(place.path())).unwrap();
    drop(audit);
    let kept: HashSet<String> = records(place.path())
        .iter()
        .filter_map(|record| record["call"].as_str().map(str::to_owned))
        .collect();
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|id| !kept.contains(*id))
        .collect();
    assert!(acknowledged.len() > 1000, "{}", acknowledged.len());
    assert!(
        lost.is_empty(),
        "{} of {} lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    assert!(segments(place.path()).len() > 10, "rotation was in it");
}
