//! Real servers, of several makers and in two languages, as several users' isolates at once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Barrier;

use serde_json::json;

use crate::processes::{inhabitants, kill_9, no_zombies};
use crate::tools::{self, Program};
use crate::world::{Session, World};

const USERS: [&str; 3] = ["ada", "ben", "cleo"];

/// The words of a program with a test's own after its first ones.
fn words<'a>(program: &'a Program, more: &[&'a str]) -> Vec<&'a str> {
    let path = program.program.to_str().unwrap();
    let first = program.args.iter().map(String::as_str);
    std::iter::once(path)
        .chain(first)
        .chain(more.iter().copied())
        .collect()
}

/// One registered client for each user.
fn clients(world: &World) -> Vec<Session> {
    USERS.iter().map(|user| world.client(user)).collect()
}

/// Runs something as every user in the same moment.
fn at_once(sessions: &[Session], act: impl Fn(usize, &Session) + Sync) {
    let barrier = Barrier::new(sessions.len());
    std::thread::scope(|scope| {
        for (index, session) in sessions.iter().enumerate() {
            let (barrier, act) = (&barrier, &act);
            scope.spawn(move || {
                barrier.wait();
                act(index, session);
            });
        }
    });
}

/// Kills the first user's server. It is told, judged and started again; the others keep their run.
fn crash_of_one_is_nobody_elses(
    world: &World,
    mcp: &str,
    sessions: &[Session],
    call: impl Fn(&Session) + Sync,
) {
    let before = world.isolate(mcp, Some(USERS[0]));
    let runs = |user| {
        world.isolate_detail(mcp, Some(user))["runs"]
            .as_array()
            .unwrap()
            .len()
    };
    let server = inhabitants(&before);
    assert!(!server.is_empty(), "no server beside its init: {before}");
    for pid in server {
        kill_9(pid);
    }
    world.until("the crash has its verdict", |world| {
        let detail = world.isolate_detail(mcp, Some(USERS[0]));
        let verdict = detail["view"]["last_verdict"].as_str()?.to_owned();
        (verdict == "ended by signal 9").then_some(())
    });
    at_once(sessions, |_, session| call(session));
    assert_eq!(runs(USERS[0]), 2, "it was started again, once");
    for user in USERS.iter().skip(1) {
        assert_eq!(runs(user), 1, "{user}'s server went on");
    }
    no_zombies(world);
}

#[test]
fn server_everything_serves_several_users_and_survives_the_crash_of_one() {
    let Some(program) = tools::npm_server("server-everything") else {
        return;
    };
    let world = World::new();
    world.mcp("every", &[], &words(&program, &["stdio"]));
    let sessions = clients(&world);
    at_once(&sessions, |index, session| {
        assert!(
            session.tools().contains(&"echo".to_owned()),
            "{:?}",
            session.tools()
        );
        for n in 0..20 {
            let message = format!("{index}-{n}");
            let told = session.ask("echo", json!({ "message": message }));
            assert!(told.ends_with(&message), "{told}");
        }
    });
    assert_eq!(world.isolates().len(), USERS.len());
    crash_of_one_is_nobody_elses(&world, "every", &sessions, |session| {
        assert!(
            session
                .ask("echo", json!({"message": "again"}))
                .ends_with("again")
        );
    });
}

#[test]
fn server_memory_keeps_what_users_know_apart() {
    let Some(program) = tools::npm_server("server-memory") else {
        return;
    };
    let world = World::new();
    let options = ["--env", "MEMORY_FILE_PATH={home}/memory.jsonl"];
    world.mcp("memory", &options, &words(&program, &[]));
    let sessions = clients(&world);
    let look = |index: usize, session: &Session| {
        let graph = session.ask("read_graph", json!({}));
        for (other, name) in USERS.iter().enumerate() {
            let secret = format!("secret of {name}");
            assert_eq!(
                graph.contains(&secret),
                other == index,
                "{} sees: {graph}",
                USERS[index]
            );
        }
    };
    at_once(&sessions, |index, session| {
        let entity = json!({
            "name": "diary",
            "entityType": "book",
            "observations": [format!("secret of {}", USERS[index])],
        });
        session.ask("create_entities", json!({ "entities": [entity] }));
        look(index, session);
    });
    at_once(&sessions, look);
    // What was in its home is there after a crash, and still nobody else's.
    crash_of_one_is_nobody_elses(&world, "memory", &sessions, |session| {
        session.ask("read_graph", json!({}));
    });
    at_once(&sessions, look);
}

#[test]
fn server_filesystem_shows_each_user_only_their_home() {
    let Some(program) = tools::npm_server("server-filesystem") else {
        return;
    };
    let world = World::new();
    world.mcp("files", &[], &words(&program, &["{home}"]));
    let sessions = clients(&world);
    let homes: Vec<String> = sessions
        .iter()
        .map(|session| {
            let told = session.ask("list_allowed_directories", json!({}));
            told.lines()
                .find(|line| line.starts_with('/'))
                .unwrap()
                .to_owned()
        })
        .collect();
    at_once(&sessions, |index, session| {
        let path = format!("{}/mine.txt", homes[index]);
        session.ask(
            "write_file",
            json!({"path": path, "content": format!("of {}", USERS[index])}),
        );
        for (other, home) in homes.iter().enumerate() {
            let theirs = json!({"path": format!("{home}/mine.txt")});
            if other == index {
                assert_eq!(
                    session.ask("read_text_file", theirs),
                    format!("of {}", USERS[index])
                );
            } else {
                let answer = session.call("read_text_file", theirs);
                assert_eq!(
                    answer.json()["metadata"]["is_error"],
                    true,
                    "{:?}",
                    answer.json()
                );
                assert!(answer.text().contains("Access denied"), "{}", answer.text());
            }
        }
    });
    crash_of_one_is_nobody_elses(&world, "files", &sessions, |session| {
        session.ask("list_allowed_directories", json!({}));
    });
    let path = format!("{}/mine.txt", homes[0]);
    assert_eq!(
        sessions[0].ask("read_text_file", json!({ "path": path })),
        "of ada"
    );
}

#[test]
fn server_time_of_python_serves_several_users_and_survives_the_crash_of_one() {
    let Some(program) = tools::time_server() else {
        return;
    };
    let world = World::new();
    world.mcp("time", &[], &words(&program, &[]));
    let sessions = clients(&world);
    let convert = |session: &Session| {
        let asked = json!({
            "source_timezone": "UTC", "time": "12:30", "target_timezone": "Asia/Kolkata",
        });
        let told = session.ask("convert_time", asked);
        assert!(told.contains("18:00"), "{told}");
    };
    at_once(&sessions, |_, session| {
        assert_eq!(session.tools(), ["convert_time", "get_current_time"]);
        convert(session);
    });
    crash_of_one_is_nobody_elses(&world, "time", &sessions, convert);
}

#[test]
fn server_sequential_thinking_keeps_what_users_think_apart() {
    let Some(program) = tools::npm_server("server-sequential-thinking") else {
        return;
    };
    let world = World::new();
    world.mcp("think", &[], &words(&program, &[]));
    let sessions = clients(&world);
    let think = |session: &Session, number: usize| -> usize {
        let thought = json!({
            "thought": "and then", "nextThoughtNeeded": true, "thoughtNumber": number, "totalThoughts": 9,
        });
        let told = session.ask("sequentialthinking", thought);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        usize::try_from(told["thoughtHistoryLength"].as_u64().unwrap()).unwrap()
    };
    at_once(&sessions, |index, session| {
        for number in 1..=index + 1 {
            assert_eq!(think(session, number), number);
        }
    });
    crash_of_one_is_nobody_elses(&world, "think", &sessions, |session| {
        think(session, 9);
    });
}

#[test]
fn server_git_reads_a_repository_that_it_was_given_to_read() {
    let Some(program) = tools::client_python_server("mcp-server-git") else {
        return;
    };
    let repository = tempfile::tempdir().unwrap();
    std::fs::set_permissions(repository.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = repository.path().to_str().unwrap();
    let git = |arguments: &[&str]| {
        let ran = Command::new("git")
            .args(["-C", path, "-c", "user.name=t", "-c", "user.email=t@t"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "the first words"]);
    let world = World::new();
    // It is another's repository to a server with a uid of its own.
    let safe = ["COUNT=1", "KEY_0=safe.directory", "VALUE_0=*"];
    let safe = safe.map(|one| format!("GIT_CONFIG_{one}"));
    let mut options = vec!["--read", path];
    options.extend(safe.iter().flat_map(|one| ["--env", one]));
    world.mcp("git", &options, &words(&program, &["--repository", path]));
    let sessions = clients(&world);
    at_once(&sessions, |_, session| {
        let log = session.ask("git_log", json!({ "repo_path": path }));
        assert!(log.contains("the first words"), "{log}");
        let branch = json!({"repo_path": path, "branch_name": "mine"});
        let answer = session.call("git_create_branch", branch);
        assert_eq!(answer.json()["metadata"]["is_error"], true, "{answer:?}");
        let outside = session.call("git_log", json!({"repo_path": "/"}));
        assert_eq!(outside.json()["metadata"]["is_error"], true, "{outside:?}");
    });
}

/// A site of one page.
fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let (status, page) = match line.starts_with("GET /page ") {
                true => ("200 OK", "what is to be read"),
                false => ("404 Not Found", ""),
            };
            let length = page.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}"
            );
            let _ =
                stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{page}").as_bytes());
        }
    });
    port
}

#[test]
fn server_fetch_reads_what_it_may_and_the_log_says_what_it_may_not() {
    let Some(program) = tools::client_python_server("mcp-server-fetch") else {
        return;
    };
    let world = World::with("[sandbox]\nallow_network_private = true\n");
    let port = site();
    let rule = format!("127.0.0.1:{port}/private");
    // It guards against private addresses itself.
    let command = words(&program, &["--allow-private-ips"]);
    world.mcp("fetch", &["--host", &rule], &command);
    let session = world.client("ada");
    assert_eq!(session.tools(), ["fetch"]);
    let page = json!({"url": format!("http://127.0.0.1:{port}/page")});
    let told = session.ask("fetch", page);
    assert!(told.contains("what is to be read"), "{told}");
    let answer = session.call("fetch", json!({"url": "https://elsewhere.invalid/page"}));
    assert_eq!(answer.json()["metadata"]["is_error"], true, "{answer:?}");
    let text = answer.text();
    assert!(text.contains("connection issue"), "{text}");
    let event = ["audit", "search", "--event", "isolate.egress_denied"];
    let text = world.cli(&event).to_string();
    assert!(text.contains("elsewhere.invalid:443"), "{text}");
    assert!(text.contains("not on the mcp's list of hosts"), "{text}");
}

#[test]
fn four_real_servers_run_side_by_side_for_every_user() {
    let (Some(every), Some(files), Some(memory), Some(time)) = (
        tools::npm_server("server-everything"),
        tools::npm_server("server-filesystem"),
        tools::npm_server("server-memory"),
        tools::time_server(),
    ) else {
        return;
    };
    let world = World::new();
    world.mcp("every", &[], &words(&every, &["stdio"]));
    world.mcp("files", &[], &words(&files, &["{home}"]));
    world.mcp(
        "memory",
        &["--env", "MEMORY_FILE_PATH={home}/m"],
        &words(&memory, &[]),
    );
    world.mcp("time", &[], &words(&time, &[]));
    let sessions = clients(&world);
    at_once(&sessions, |index, session| {
        let message = USERS[index];
        assert!(
            session
                .ask("every.echo", json!({ "message": message }))
                .ends_with(message)
        );
        session.ask("files.list_allowed_directories", json!({}));
        session.ask("memory.read_graph", json!({}));
        session.ask("time.get_current_time", json!({"timezone": "UTC"}));
    });
    let isolates = world.isolates();
    assert_eq!(isolates.len(), 4 * USERS.len(), "{isolates:?}");
    assert!(
        isolates.iter().all(|isolate| isolate["state"] == "ready"),
        "{isolates:?}"
    );
}

#[test]
fn one_shared_instance_serves_everybody_and_never_gives_a_foreign_reply() {
    let Some(program) = tools::npm_server("server-everything") else {
        return;
    };
    let world = World::new();
    world.mcp(
        "every",
        &["--sharing", "shared"],
        &words(&program, &["stdio"]),
    );
    let mut sessions = clients(&world);
    // Several sessions of the same user, too.
    sessions.extend(clients(&world));
    at_once(&sessions, |index, session| {
        for n in 0..40 {
            let nonce = format!("nonce-{index}-{n}");
            let told = session.ask("echo", json!({ "message": nonce }));
            assert!(told.ends_with(&nonce), "asked {nonce}, was told {told}");
        }
    });
    let isolates = world.isolates();
    assert_eq!(isolates.len(), 1, "one process for all: {isolates:?}");
    let shared = world.isolate("every", None);
    assert_eq!(shared["sharing"], "shared");
    assert_eq!(shared["calls_total"], 40 * sessions.len());
    let runs = world.isolate_detail("every", None)["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
    for pid in inhabitants(&shared) {
        kill_9(pid);
    }
    world.until("the crash has its verdict", |world| {
        let verdict = world.isolate("every", None)["last_verdict"]
            .as_str()?
            .to_owned();
        (verdict == "ended by signal 9").then_some(())
    });
    at_once(&sessions, |_, session| {
        assert!(
            session
                .ask("echo", json!({"message": "again"}))
                .ends_with("again")
        );
    });
    no_zombies(&world);
}

#[test]
fn a_shared_python_server_is_one_process_for_all() {
    let Some(program) = tools::time_server() else {
        return;
    };
    let world = World::new();
    world.mcp("time", &["--sharing", "shared"], &words(&program, &[]));
    let sessions = clients(&world);
    at_once(&sessions, |_, session| {
        session.ask("get_current_time", json!({"timezone": "UTC"}));
    });
    assert_eq!(world.isolates().len(), 1);
    assert_eq!(inhabitants(&world.isolate("time", None)).len(), 1);
}
