//! Packages: installed once by an isolate of its own, then run by everybody without a network.
//!
//! The registry is a real one for npm and for uv, on loopback, of the packages that the test script installed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::kill::audit;
use crate::processes::inhabitants;
use crate::tools;
use crate::world::World;

/// A registry that runs until it is dropped, and what it was asked for.
struct Registry {
    child: Child,
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    more: tempfile::TempDir,
}

impl Registry {
    /// `None`, and says so, where what it serves is not installed.
    fn new(what: &str) -> Option<Self> {
        Self::with_logins(what, &[])
    }

    /// One that is asked with one of these `Authorization`s only.
    fn with_logins(what: &str, logins: &[&str]) -> Option<Self> {
        let (modules, wheels) = (
            tools::dir().join("npm/node_modules"),
            tools::dir().join("wheels"),
        );
        if !modules.is_dir() || !wheels.is_dir() {
            tools::skip(what, "nothing to serve; run scripts/test.sh --tools");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/registry.py");
        let more = tempfile::tempdir().unwrap();
        let mut child = Command::new("python3")
            .arg(script)
            .args([&modules, &wheels])
            .arg(more.path())
            .args(logins)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, told) = (child.stderr.take().unwrap(), Arc::clone(&asked));
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                told.lock().unwrap().push(line);
            }
        });
        Some(Self {
            child,
            port: line.trim().parse().unwrap(),
            asked,
            more,
        })
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// A package of npm's, with its files.
    fn publish(&self, name: &str, manifest: Value, files: &[(&str, &str)]) {
        let dir = self.more.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut whole = json!({"name": name, "version": "1.0.0"});
        for (key, value) in manifest.as_object().unwrap() {
            whole[key] = value.clone();
        }
        fs::write(dir.join("package.json"), whole.to_string()).unwrap();
        for (file, text) in files {
            fs::write(dir.join(file), text).unwrap();
        }
    }

    /// A git repository with these files, at `/NAME.git`.
    fn repository(&self, name: &str, files: &[(&str, &str)]) {
        let work = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = work.path().join(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let git = |dir: &Path, words: &[&str]| {
            let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
            let done = Command::new("git")
                .args(who)
                .args(words)
                .current_dir(dir)
                .output();
            let done = done.unwrap();
            assert!(done.status.success(), "git {words:?}: {done:?}");
        };
        let bare = self.more.path().join(format!("{name}.git"));
        git(work.path(), &["init", "--initial-branch=main"]);
        git(work.path(), &["add", "--all", "--force"]);
        git(work.path(), &["commit", "--message=x"]);
        git(
            work.path(),
            &["clone", "--bare", ".", bare.to_str().unwrap()],
        );
        git(&bare, &["update-server-info"]);
    }

    /// A gateway whose installs come from here.
    fn world(&self) -> World {
        self.world_with("")
    }

    /// The same with more lines of `[install]`.
    fn world_with(&self, more: &str) -> World {
        let port = self.port;
        let venv = tools::dir().join("venv/bin");
        let node =
            tools::on_path("node").map_or_else(PathBuf::new, |node| node.parent().unwrap().into());
        World::with(&format!(
            "[install]\nnpm_registry = \"http://127.0.0.1:{port}/\"\n\
             python_index = \"http://127.0.0.1:{port}/simple\"\n{more}\
             [isolates]\npath = \"{}:{}:/usr/bin:/bin\"\n",
            venv.display(),
            node.display(),
        ))
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

fn package(world: &World, mcp: &str) -> Value {
    world.cli(&["mcp", "show", mcp])["package"].clone()
}

fn events(world: &World, event: &str) -> Vec<Value> {
    let all = audit(world).into_iter();
    all.filter(|record| record["event"] == event).collect()
}

/// Everything beneath a directory, links themselves.
fn all_beneath(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn what_npx_runs_is_installed_once_and_runs_without_registry_network_and_npm() {
    let Some(mut registry) = Registry::new("npm install") else {
        return;
    };
    let world = registry.world();
    let command = ["npx", "-y", "@modelcontextprotocol/server-memory"];
    // By default it would write beside its own program, which nobody can.
    let memory = ["--env", "MEMORY_FILE_PATH={home}/memory.jsonl"];
    world.mcp("memory", &memory, &command);
    let found = package(&world, "memory");
    assert_eq!(found["state"], "installed", "{found}");
    assert_eq!(found["name"], "@modelcontextprotocol/server-memory");
    assert_eq!(found["version"], "2026.8.31");
    assert!(found["integrity"].as_str().unwrap().starts_with("sha512-"));
    assert_eq!(found["lock_sha256"].as_str().unwrap().len(), 64);
    let asked = registry.requests();
    assert!(asked > 10, "it was downloaded: {asked} requests");
    registry.end();

    let said = events(&world, "isolate.installed");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["tree_sha256"], found["tree_sha256"]);
    for user in ["ada", "ben"] {
        let session = world.client(user);
        let entities = json!({"entities": [{"name": user, "entityType": "x", "observations": []}]});
        session.ask("memory.create_entities", entities);
        let graph = session.ask("memory.read_graph", json!({}));
        let other = if user == "ada" { "ben" } else { "ada" };
        assert!(graph.contains(user) && !graph.contains(other), "{graph}");
    }
    assert_eq!(registry.requests(), asked, "and never again");
    let isolate = world.isolate("memory", Some("ada"));
    for pid in inhabitants(&isolate) {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        // An id in the path may have these letters too.
        let npx = words.split(' ').any(|word| word.ends_with("npx"));
        assert!(words.contains("dist/index.js") && !npx, "{words}");
    }
    if crate::world::am_root() {
        let tree = PathBuf::from(found["path"].as_str().unwrap());
        for path in all_beneath(&tree) {
            let meta = path.symlink_metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (0, 0), "{path:?}");
            assert!(meta.is_symlink() || meta.mode() & 0o7022 == 0, "{path:?}");
        }
    }
    let homes = world.data_dir().join("homes");
    for home in fs::read_dir(homes).unwrap().flatten() {
        let name = home.file_name().into_string().unwrap();
        assert!(
            !name.starts_with("install-"),
            "the installer's home is gone: {name}"
        );
    }
}

#[test]
fn what_uvx_runs_is_installed_from_wheels_with_hashes() {
    let Some(mut registry) = Registry::new("uv install") else {
        return;
    };
    let world = registry.world();
    let command = ["uvx", "mcp-server-time", "--local-timezone", "UTC"];
    world.mcp("time", &[], &command);
    let found = package(&world, "time");
    assert_eq!(
        (&found["manager"], &found["name"]),
        (&json!("uv"), &json!("mcp-server-time"))
    );
    assert_eq!(found["version"], "2026.10.19");
    assert!(
        found["integrity"].as_str().unwrap().starts_with("sha256:"),
        "{found}"
    );
    registry.end();
    let ada = world.client("ada");
    let time = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    let said = ada.ask("time.convert_time", time);
    assert!(said.contains("21:00"), "{said}");
}

/// `uvx` that is on no path is named by its place: the `uv` that installs is the one beside it.
#[test]
fn a_launcher_named_by_its_place_is_used_with_what_lies_beside_it() {
    let Some(registry) = Registry::new("a launcher by its place") else {
        return;
    };
    let port = registry.port;
    let world = World::with(&format!(
        "[install]\npython_index = \"http://127.0.0.1:{port}/simple\"\n\
         [isolates]\npath = \"/usr/bin:/bin\"\n"
    ));
    if ["/usr/bin/uv", "/bin/uv"]
        .iter()
        .any(|file| Path::new(file).exists())
    {
        return tools::skip("a launcher by its place", "the host has an uv of its own");
    }
    let uvx = tools::dir().join("venv/bin/uvx").display().to_string();
    world.mcp("time", &[], &[&uvx, "mcp-server-time"]);
    assert_eq!(package(&world, "time")["name"], "mcp-server-time");
    let ada = world.client("ada");
    let said = ada.ask("time.get_current_time", json!({"timezone": "UTC"}));
    assert!(said.contains("UTC"), "{said}");
    // One that is not there is said to be missing, and not looked for elsewhere.
    let gone = world.run(&[
        "mcp",
        "add",
        "gone",
        "--",
        "/no/such/uvx",
        "mcp-server-time",
    ]);
    assert!(
        gone.stderr.contains("`/no/such/uvx` does not exist"),
        "{}",
        gone.stderr
    );
}

/// Many users' first calls meet where nothing is installed yet: one install, and all are answered.
#[test]
fn first_calls_of_many_wait_for_one_install_also_after_a_restart() {
    let Some(registry) = Registry::new("single install") else {
        return;
    };
    let mut world = registry.world();
    let command = ["npx", "-y", "@modelcontextprotocol/server-memory@2026.8.31"];
    world.mcp("memory", &[], &command);
    let tree = package(&world, "memory")["tree_sha256"].clone();
    assert_eq!(world.stop(), 0);
    // Lost, as with a disk that was not backed up.
    fs::remove_dir_all(world.data_dir().join("packages")).unwrap();
    world.start();
    assert_eq!(package(&world, "memory")["state"], "absent");
    let sessions: Vec<_> = ["ada", "ben", "cleo", "dan"]
        .map(|user| world.client(user))
        .into();
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| session.ask("memory.read_graph", json!({})));
        }
    });
    assert_eq!(
        events(&world, "isolate.installed").len(),
        2,
        "one before, one after"
    );
    assert_eq!(
        package(&world, "memory")["tree_sha256"],
        tree,
        "the same to the last byte"
    );
    world.kill_9();
    world.start();
    let asked = registry.requests();
    let ada = world.client("eve");
    ada.ask("memory.read_graph", json!({}));
    assert_eq!(registry.requests(), asked, "it is found after a kill -9");
}

const SCRIPT: &str = "require('fs').writeFileSync(__dirname + '/ran', process.env.HOME)";

fn canned() -> String {
    format!("#!/bin/sh\n{}", crate::standard::CANNED)
}

#[test]
fn install_scripts_run_only_where_the_definition_says_so() {
    let Some(registry) = Registry::new("install scripts") else {
        return;
    };
    let manifest = json!({"bin": "run.sh", "scripts": {"postinstall": "node install.js"}});
    let files = [("run.sh", canned()), ("install.js", SCRIPT.to_owned())];
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    registry.publish("scripted", manifest, &files);
    let world = registry.world();
    let ran = |mcp: &str| {
        let path = package(&world, mcp)["path"].as_str().unwrap().to_owned();
        fs::read_to_string(Path::new(&path).join("node_modules/scripted/ran")).ok()
    };
    world.mcp("off", &[], &["npx", "scripted"]);
    assert_eq!(ran("off"), None);
    world.mcp("on", &["--install-scripts", "true"], &["npx", "scripted"]);
    let home = ran("on").expect("it ran");
    assert!(home.contains("/homes/install-"), "{home}");
}

/// A repository that names its own program as git, and needs git itself: npm would run that to prepare it.
#[test]
fn a_dependency_of_git_runs_nothing_and_is_refused_with_what_to_do() {
    let Some(registry) = Registry::new("git dependency") else {
        return;
    };
    if tools::on_path("git").is_none() {
        return tools::skip("git dependency", "no git on the path");
    }
    let at = format!("git+http://127.0.0.1:{}", registry.port);
    let ran = format!(
        "#!/bin/sh\nnode -e \"require('http').get('http://127.0.0.1:{}/ran')\"\nexec git \"$@\"\n",
        registry.port
    );
    let inner = json!({"name": "inner", "version": "1.0.0"});
    registry.repository("inner", &[("package.json", &inner.to_string())]);
    let outer = json!({
        "name": "outer", "version": "1.0.0", "scripts": {"prepare": "true"},
        "dependencies": {"inner": format!("{at}/inner.git")},
    });
    let files = [
        ("package.json", outer.to_string()),
        (".npmrc", "git=./evil.sh\n".to_owned()),
        ("evil.sh", ran),
    ];
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    registry.repository("outer", &files);
    let manifest = json!({"bin": "run.sh", "dependencies": {"outer": format!("{at}/outer.git")}});
    registry.publish("by-git", manifest, &[("run.sh", &canned())]);
    let world = registry.world();
    let has_run = || {
        registry
            .asked
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains("/ran"))
    };
    let add = |mcp: &str, options: &[&str]| {
        let words = [&["mcp", "add", mcp], options, &["--", "npx", "by-git"]].concat();
        assert_eq!(world.run(&words).code, 0);
        world.run(&["mcp", "install", mcp])
    };
    let refused = add("off", &[]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(!has_run(), "it was taken for git");
    assert!(
        refused.stderr.contains("--install-scripts true"),
        "{}",
        refused.stderr
    );
    // The control.
    let done = add("on", &["--install-scripts", "true"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(has_run(), "npm takes no program for git any more");
}

/// A package that was made to look around, and to leave traps for who takes it over.
#[test]
fn an_install_sees_no_user_and_what_it_leaves_opens_nothing() {
    let Some(registry) = Registry::new("hostile install") else {
        return;
    };
    let trap = "const fs = require('fs'), seen = {};\
        for (const dir of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\\n'))\
            seen[dir.split(' ')[4]] = 1;\
        fs.writeFileSync(__dirname + '/seen', Object.keys(seen).join('\\n') + '\\n' + \
            Object.keys(process.env).join('\\n'));\
        fs.rmSync(__dirname + '/run.sh'); fs.symlinkSync('/etc/passwd', __dirname + '/run.sh');";
    let manifest = json!({"bin": "run.sh", "scripts": {"postinstall": "node trap.js"}});
    registry.publish(
        "trap",
        manifest,
        &[("run.sh", &canned()), ("trap.js", trap)],
    );
    let world = registry.world();
    let added = world.run(&[
        "mcp",
        "add",
        "trap",
        "--install-scripts",
        "true",
        "--",
        "npx",
        "trap",
    ]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let refused = world.run(&["mcp", "publish", "trap"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("is no file in it"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("install_failed") || refused.stderr.contains("E0419"),
        "{}",
        refused.stderr
    );
    let honest = "const fs = require('fs'); fs.writeFileSync(__dirname + '/seen', \
        fs.readFileSync('/proc/self/mountinfo', 'utf8') + JSON.stringify(process.env));";
    let manifest = json!({"bin": "run.sh", "scripts": {"postinstall": "node look.js"}});
    registry.publish(
        "look",
        manifest,
        &[("run.sh", &canned()), ("look.js", honest)],
    );
    world.mcp(
        "look",
        &[
            "--install-scripts",
            "true",
            "--credential",
            "KEY=env:KEY:optional",
        ],
        &["npx", "look"],
    );
    let path = package(&world, "look")["path"].as_str().unwrap().to_owned();
    let seen = fs::read_to_string(Path::new(&path).join("node_modules/look/seen")).unwrap();
    let homes = seen.lines().filter(|line| line.contains("/homes/"));
    assert!(
        homes.clone().all(|line| line.contains("/homes/install-")),
        "{seen}"
    );
    assert!(!seen.contains("\"KEY\""), "{seen}");
}

#[test]
fn a_failed_install_says_why_is_not_repeated_at_once_and_is_mended() {
    let Some(registry) = Registry::new("failed install") else {
        return;
    };
    let world = registry.world();
    let refused = world.run(&["mcp", "add", "git", "--", "npx", "github:a/b"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--install off"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        world
            .run(&["mcp", "add", "gone", "--", "npx", "no-such-package"])
            .code,
        0
    );
    let failed = world.run(&["mcp", "publish", "gone"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("404"), "{}", failed.stderr);
    let asked = registry.requests();
    let again = world.run(&["mcp", "discover", "gone"]);
    assert!(
        again.stderr.contains("could not be installed"),
        "{}",
        again.stderr
    );
    assert_eq!(registry.requests(), asked, "not at once");
    let found = package(&world, "gone");
    assert_eq!(found["state"], "failed");
    assert!(found["detail"].as_str().unwrap().contains("404"), "{found}");
    assert_eq!(events(&world, "isolate.install_failed").len(), 1);
    // Mended: at once, without waiting.
    registry.publish(
        "no-such-package",
        json!({"bin": "run.sh"}),
        &[("run.sh", &canned())],
    );
    let done = world.cli(&["mcp", "install", "gone", "--again"]);
    assert_eq!(done["state"], "installed", "{done}");
    world.cli(&["mcp", "publish", "gone"]);
}

#[test]
fn a_slow_install_is_ended_and_is_no_slow_start() {
    let Some(registry) = Registry::new("slow install") else {
        return;
    };
    let sleep = "setTimeout(() => {}, 600000)";
    let manifest = json!({"bin": "run.sh", "scripts": {"postinstall": "node sleep.js"}});
    registry.publish(
        "slow",
        manifest,
        &[("run.sh", &canned()), ("sleep.js", sleep)],
    );
    let world = registry.world();
    let options = ["--install-scripts", "true", "--install-timeout", "5s"];
    let words = [
        &["mcp", "add", "slow"],
        options.as_slice(),
        &["--", "npx", "slow"],
    ]
    .concat();
    assert_eq!(world.run(&words).code, 0);
    let failed = world.run(&["mcp", "publish", "slow"]);
    assert!(
        failed.stderr.contains("took too long to install"),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("within 5 s"), "{}", failed.stderr);
    world.until("nothing runs", |world| {
        world.processes().is_empty().then_some(())
    });
}

/// A kill switch on the mcp ends its install as it ends its isolates.
#[test]
fn a_kill_switch_ends_an_install_that_is_under_way() {
    let Some(registry) = Registry::new("killed install") else {
        return;
    };
    let sleep = "setTimeout(() => {}, 600000)";
    let manifest = json!({"bin": "run.sh", "scripts": {"postinstall": "node sleep.js"}});
    registry.publish(
        "long",
        manifest,
        &[("run.sh", &canned()), ("sleep.js", sleep)],
    );
    let world = registry.world();
    let words = [
        "mcp",
        "add",
        "long",
        "--install-scripts",
        "true",
        "--",
        "npx",
        "long",
    ];
    assert_eq!(world.run(&words).code, 0);
    thread::scope(|scope| {
        let install = scope.spawn(|| world.run(&["mcp", "install", "long"]));
        world.until("npm runs its script", |world| {
            let detail = package(world, "long");
            let text = detail["detail"].as_str()?.to_owned();
            (detail["state"] == "installing" && world.processes().len() >= 4).then_some(text)
        });
        let words = [
            "kill-switch",
            "on",
            "--scope",
            "mcp",
            "--target",
            "long",
            "--reason",
            "stop it",
            "--yes",
        ];
        let switched = world.run(&words);
        assert_eq!(switched.code, 0, "{}", switched.stderr);
        assert!(world.processes().is_empty(), "gone before the answer");
        let ended = install.join().unwrap();
        assert_eq!(ended.code, 1, "{}", ended.stdout);
        assert!(ended.stderr.contains("stop it"), "{}", ended.stderr);
    });
}

/// `--again` takes what is new, and what runs of the old one is replaced as its calls end.
#[test]
fn an_install_again_replaces_what_runs() {
    let Some(registry) = Registry::new("install again") else {
        return;
    };
    registry.publish(
        "renewed",
        json!({"bin": "run.sh"}),
        &[("run.sh", &canned())],
    );
    let world = registry.world();
    world.mcp("renewed", &[], &["npx", "renewed", r#"{"content":[]}"#]);
    let ada = world.client("ada");
    let tool = ada.tools()[0].clone();
    ada.call(&tool, json!({}));
    let (before, old) = (
        world.isolate("renewed", Some("ada")),
        package(&world, "renewed"),
    );
    let newer = format!("{}\n# newer\n", canned());
    registry.publish(
        "renewed",
        json!({"bin": "run.sh", "version": "1.0.1"}),
        &[("run.sh", &newer)],
    );
    assert_eq!(
        package(&world, "renewed")["version"],
        "1.0.0",
        "what is installed stays"
    );
    let new = world.cli(&["mcp", "install", "renewed", "--again"]);
    assert_eq!(new["version"], "1.0.1", "{new}");
    assert_ne!(new["path"], old["path"]);
    world.until("the old one is gone", |world| {
        let gone = world.isolates().iter().all(|one| one["id"] != before["id"]);
        gone.then_some(())
    });
    ada.call(&tool, json!({}));
    assert_ne!(world.isolate("renewed", Some("ada"))["id"], before["id"]);
    world.cli(&["mcp", "archive", "renewed", "--yes"]);
    let path = PathBuf::from(new["path"].as_str().unwrap());
    assert!(!path.exists(), "an archived one leaves nothing");
}

/// A package's first line gave its interpreter a path of the host's, and that was shown to it.
#[test]
fn a_package_s_first_line_shows_it_nothing_of_the_host() {
    let Some(registry) = Registry::new("first lines") else {
        return;
    };
    let world = registry.world();
    let secret = world.dir.path().join("app");
    fs::create_dir(&secret).unwrap();
    for file in ["notes.txt", "package.json", "conf.json"] {
        fs::write(secret.join(file), "echo SECRET-OF-THE-HOST >&2\n").unwrap();
    }
    let at = |file: &str| secret.join(file).display().to_string();
    for (name, line) in [
        (
            "rcfile",
            format!("#!/usr/bin/env -S bash --rcfile {} -i", at("notes.txt")),
        ),
        (
            "title",
            format!("#!/usr/bin/env -S bash -O extglob {}", at("conf.json")),
        ),
    ] {
        let look = format!(
            "{line}\ncat /proc/self/mountinfo > \"$HOME/seen\"\n{}",
            crate::standard::CANNED
        );
        registry.publish(name, json!({"bin": "run.sh"}), &[("run.sh", &look)]);
        let added = world.run(&["mcp", "add", name, "--", "npx", name]);
        assert_eq!(added.code, 0, "{}", added.stderr);
        // Whether it runs is its own business.
        world.run(&["mcp", "publish", name]);
        assert_eq!(package(&world, name)["state"], "installed");
        for file in all_beneath(&world.data_dir().join("homes")) {
            if file.ends_with("seen") {
                let seen = fs::read_to_string(&file).unwrap();
                assert!(!seen.contains(secret.to_str().unwrap()), "{name}: {seen}");
            }
        }
    }
}

/// Python runs what packages put into the start of an environment: not during an install without scripts.
#[test]
fn no_code_of_a_wheel_runs_during_its_install() {
    let Some(registry) = Registry::new("wheels with code") else {
        return;
    };
    let wheels = tempfile::tempdir().unwrap();
    let code = "import os, sys; open(os.path.join(os.environ['HOME'], 'tree', 'RAN'), 'w').write(' '.join(sys.argv))";
    let make = format!(
        "import zipfile, hashlib, base64, sys\n\
         files = {{'evil.pth': {code:?}, 'sitecustomize.py': {code:?}, 'evil/__init__.py': 'def main():\\n    pass\\n',\n\
         'evil-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\\nName: evil\\nVersion: 1.0\\n',\n\
         'evil-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',\n\
         'evil-1.0.dist-info/entry_points.txt': '[console_scripts]\\nevil = evil:main\\n'}}\n\
         record = ''\n\
         with zipfile.ZipFile(sys.argv[1] + '/evil-1.0-py3-none-any.whl', 'w') as wheel:\n\
         \x20   for name, text in files.items():\n\
         \x20       wheel.writestr(name, text)\n\
         \x20       digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')\n\
         \x20       record += f'{{name}},sha256={{digest}},{{len(text)}}\\n'\n\
         \x20   wheel.writestr('evil-1.0.dist-info/RECORD', record + 'evil-1.0.dist-info/RECORD,,\\n')\n"
    );
    let made = Command::new("python3")
        .args(["-c", &make])
        .arg(wheels.path())
        .status();
    assert!(made.unwrap().success());
    let evil = wheels.path().join("evil-1.0-py3-none-any.whl");
    let there = tools::dir().join("wheels/evil-1.0-py3-none-any.whl");
    fs::copy(&evil, &there).unwrap();
    let world = registry.world();
    let added = world.run(&["mcp", "add", "evil", "--", "uvx", "evil"]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let done = world.run(&["mcp", "install", "evil"]);
    fs::remove_file(&there).unwrap();
    assert_eq!(done.code, 0, "{}", done.stderr);
    let path = PathBuf::from(package(&world, "evil")["path"].as_str().unwrap());
    let all = all_beneath(&path);
    assert!(
        all.iter().any(|file| file.ends_with("evil.pth")),
        "it was installed"
    );
    assert!(
        !all.iter().any(|file| file.ends_with("RAN")),
        "its code ran"
    );
    assert!(
        all.iter()
            .any(|file| file.extension().is_some_and(|end| end == "pyc")),
        "it is compiled"
    );
}

/// A failed install left what it had written, until the disk was full; an archived one left its home for ever.
#[test]
fn nothing_stays_of_an_install_that_failed_was_given_up_or_was_cut_off() {
    let Some(registry) = Registry::new("leftovers") else {
        return;
    };
    let fail = "require('fs').writeFileSync('big', 'x'.repeat(1 << 20)); process.exit(1)";
    let sleep = "setTimeout(() => {}, 600000)";
    for (name, script) in [("fails", fail), ("sleeps", sleep)] {
        let manifest = json!({"bin": "run.sh", "scripts": {"postinstall": "node work.js"}});
        registry.publish(
            name,
            manifest,
            &[("run.sh", &canned()), ("work.js", script)],
        );
    }
    let mut world = registry.world();
    let add = |world: &World, name: &str| {
        let words = [
            "mcp",
            "add",
            name,
            "--install-scripts",
            "true",
            "--",
            "npx",
            name,
        ];
        assert_eq!(world.run(&words).code, 0);
    };
    let left = |world: &World| {
        let homes = fs::read_dir(world.data_dir().join("homes"))
            .unwrap()
            .flatten();
        homes
            .filter(|home| home.file_name().to_string_lossy().starts_with("install-"))
            .count()
    };
    add(&world, "fails");
    assert_eq!(world.run(&["mcp", "install", "fails"]).code, 1);
    assert_eq!(left(&world), 0, "of one that failed");
    let working = |world: &World| {
        world.until("npm runs its script", |world| {
            (world.processes().len() >= 4).then_some(())
        });
    };
    add(&world, "sleeps");
    thread::scope(|scope| {
        let install = scope.spawn(|| world.run(&["mcp", "install", "sleeps"]));
        working(&world);
        world.cli(&["mcp", "archive", "sleeps", "--yes"]);
        assert_eq!(install.join().unwrap().code, 1);
    });
    assert!(
        world.processes().is_empty(),
        "an archived mcp's install ends with it"
    );
    assert_eq!(left(&world), 0, "of one that was archived");
    // Another definition of the same mcp ends the install of the one before.
    registry.publish("fine", json!({"bin": "run.sh"}), &[("run.sh", &canned())]);
    add(&world, "sleeps");
    thread::scope(|scope| {
        let install = scope.spawn(|| world.run(&["mcp", "install", "sleeps"]));
        working(&world);
        world.cli(&["mcp", "update", "sleeps", "--", "npx", "fine"]);
        let done = world.cli(&["mcp", "install", "sleeps"]);
        assert_eq!(done["name"], "fine", "{done}");
        let ended = install.join().unwrap();
        assert!(
            ended.stderr.contains("definition changed"),
            "{}",
            ended.stderr
        );
    });
    add(&world, "again");
    world.cli(&["mcp", "update", "again", "--", "npx", "sleeps"]);
    thread::scope(|scope| {
        scope.spawn(|| world.run(&["mcp", "install", "again"]));
        working(&world);
        Command::new("kill")
            .args(["-9", &world.pid().to_string()])
            .status()
            .unwrap();
    });
    world.kill_9();
    world.start();
    assert_eq!(left(&world), 0, "of one that was cut off");
}

/// Files that were lost under a running gateway quarantined every user's slot.
#[test]
fn what_is_lost_while_the_gateway_runs_is_installed_by_the_next_call() {
    let Some(registry) = Registry::new("lost files") else {
        return;
    };
    registry.publish("lost", json!({"bin": "run.sh"}), &[("run.sh", &canned())]);
    let world = registry.world();
    world.mcp("lost", &[], &["npx", "lost", r#"{"content":[]}"#]);
    fs::remove_dir_all(world.data_dir().join("packages")).unwrap();
    assert_eq!(package(&world, "lost")["state"], "failed", "it says so");
    fs::remove_dir_all(world.data_dir().join("packages")).ok();
    let ada = world.client("ada");
    let tool = ada.tools()[0].clone();
    let answer = ada.call(&tool, json!({}));
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(package(&world, "lost")["state"], "installed");
}

/// A tree that was lost came back with whatever was newest by then.
#[test]
fn what_is_lost_is_installed_again_as_it_was() {
    let Some(mut registry) = Registry::new("lock files") else {
        return;
    };
    let publish = |registry: &Registry, folder: &str, version: &str| {
        let manifest = json!({"name": "kept", "bin": "run.sh", "version": version});
        let script = format!("{}\n# {version}\n", canned());
        registry.publish(folder, manifest, &[("run.sh", &script)]);
    };
    publish(&registry, "kept-1", "1.0.0");
    let mut world = registry.world();
    world.mcp("kept", &[], &["npx", "kept", r#"{"content":[]}"#]);
    let time = ["uvx", "mcp-server-time", "--local-timezone", "UTC"];
    world.mcp("time", &[], &time);
    let (kept, python) = (package(&world, "kept"), package(&world, "time"));
    assert_eq!(kept["version"], "1.0.0");
    // A newer one is there, beside the old one, which a registry keeps.
    publish(&registry, "kept-2", "2.0.0");
    world.stop();
    fs::remove_dir_all(world.data_dir().join("packages")).unwrap();
    world.start();
    let ada = world.client("ada");
    let answer = ada.call("kept.canned", json!({}));
    assert_eq!(answer.code(), "", "{}", answer.text());
    ada.ask("time.get_current_time", json!({"timezone": "UTC"}));
    for (mcp, before) in [("kept", &kept), ("time", &python)] {
        let again = package(&world, mcp);
        for what in ["version", "integrity", "lock_sha256"] {
            assert_eq!(again[what], before[what], "{mcp}, {what}");
        }
    }
    // Asked for the newest, it is the newest; and that is what is kept then.
    let newest = world.cli(&["mcp", "install", "kept", "--again"]);
    assert_eq!(newest["version"], "2.0.0", "{newest}");
    // The same version with another content, here another archive of it, is not taken, and not exchanged for
    // something else either.
    let moved = registry.more.path().join("kept-3");
    fs::rename(registry.more.path().join("kept-2"), moved).unwrap();
    world.stop();
    fs::remove_dir_all(world.data_dir().join("packages")).unwrap();
    world.start();
    let refused = world.client("ben").call("kept.canned", json!({}));
    assert_eq!(refused.code(), "install_failed", "{}", refused.text());
    let failed = package(&world, "kept");
    let text = failed["detail"].as_str().unwrap();
    assert!(text.contains("what was installed before"), "{text}");
    assert!(text.contains("mcp install kept --again"), "{text}");
    registry.end();
    let locks = world.data_dir().join("package-locks");
    assert_eq!(fs::read_dir(&locks).unwrap().count(), 2);
    world.cli(&["mcp", "archive", "kept", "--yes"]);
    assert_eq!(fs::read_dir(&locks).unwrap().count(), 1);
}

/// `ada:Reg1stry-S3cret`, and `Pr0xy-S3cret`, as headers have them.
const REGISTRY_LOGIN: &str = "Basic YWRhOlJlZzFzdHJ5LVMzY3JldA==";
const PROXY_LOGIN: &str = "Basic Z3c6UHIweHktUzNjcmV0";

fn login_file(dir: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file.display().to_string()
}

/// A proxy that lets through who has the login; gives its port and what it was asked.
fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let told = Arc::clone(&told);
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let is_known = head.contains(&format!("Proxy-Authorization: {PROXY_LOGIN}\r\n"));
                told.lock().unwrap().push(head);
                if !is_known {
                    let _ = client.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n");
                    return;
                }
                let mut host = TcpStream::connect(target).unwrap();
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                let (mut from, mut to) = (host.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut client, &mut host);
            });
        }
    });
    (port, asked)
}

/// What no record, log, list, home or tree may hold.
fn nowhere(world: &World, secrets: &[&str]) {
    let holds = |text: &[u8]| {
        let found = secrets.iter().find(|secret| {
            text.windows(secret.len())
                .any(|window| window == secret.as_bytes())
        });
        found.copied()
    };
    assert_eq!(holds(world.log().as_bytes()), None, "the log");
    for file in all_beneath(&world.data_dir()) {
        if file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            assert_eq!(holds(&fs::read(&file).unwrap()), None, "{file:?}");
        }
    }
    for words in [&["config", "show"][..], &["mcp", "list"], &["status"]] {
        assert_eq!(holds(world.run(words).stdout.as_bytes()), None, "{words:?}");
    }
}

#[test]
fn a_registry_and_a_proxy_that_ask_for_a_password_are_given_it_and_nobody_else_is() {
    let Some(registry) = Registry::with_logins("logins", &[REGISTRY_LOGIN]) else {
        return;
    };
    registry.publish(
        "private",
        json!({"bin": "run.sh"}),
        &[("run.sh", &canned())],
    );
    let scripts = json!({"bin": "run.sh", "scripts": {"postinstall": "node look.js"}});
    registry.publish(
        "scripted",
        scripts,
        &[("run.sh", &canned()), ("look.js", "")],
    );
    let dir = tempfile::tempdir().unwrap();
    let login = login_file(dir.path(), "registry", "ada:Reg1stry-S3cret\n");
    let (port, asked) = proxy();
    let of_proxy = login_file(dir.path(), "proxy", "gw:Pr0xy-S3cret\n");
    let world = registry.world_with(&format!(
        "npm_login_file = \"{login}\"\npython_login_file = \"{login}\"\n\
         proxy = \"http://127.0.0.1:{port}\"\nproxy_login_file = \"{of_proxy}\"\n"
    ));
    world.mcp("private", &[], &["npx", "private", r#"{"content":[]}"#]);
    let time = ["uvx", "mcp-server-time", "--local-timezone", "UTC"];
    world.mcp("time", &[], &time);
    let ada = world.client("ada");
    ada.call("private.canned", json!({}));
    ada.ask("time.get_current_time", json!({"timezone": "UTC"}));
    let told = asked.lock().unwrap().clone();
    assert!(!told.is_empty(), "it went over the proxy");
    assert!(told.iter().all(|head| head.contains(PROXY_LOGIN)));
    // Whoever runs programs of packages would hand it to them.
    let added = world.run(&[
        "mcp",
        "add",
        "scripted",
        "--install-scripts",
        "true",
        "--",
        "npx",
        "scripted",
    ]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let refused = world.run(&["mcp", "install", "scripted"]);
    assert!(
        refused.stderr.contains("what the registry is opened with"),
        "{}",
        refused.stderr
    );
    // A wrong one says that it is wrong, and not what it is.
    fs::write(dir.path().join("registry"), "ada:Wr0ng-S3cret\n").unwrap();
    let failed = world.run(&["mcp", "install", "private", "--again"]);
    assert_eq!(failed.code, 1, "{}", failed.stdout);
    assert!(failed.stderr.contains("401"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("Wr0ng"), "{}", failed.stderr);
    nowhere(
        &world,
        &[
            "Reg1stry-S3cret",
            "Wr0ng-S3cret",
            "Pr0xy-S3cret",
            "YWRhOlJlZzFzdHJ5LVMzY3JldA",
            "Z3c6UHIweHktUzNjcmV0",
        ],
    );
}
