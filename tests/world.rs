//! The harness: a real gateway of this build in a data directory of its own, driven as a user
//! drives it: its command line, its client port, its processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::uids::Slice;

pub(crate) mod client;
pub(crate) mod uids;

pub(crate) use client::{Answer, Http, Session};

/// The product.
pub(crate) const LEGATION: &str = env!("CARGO_BIN_EXE_legation");

/// How long anything may take before a test calls it stuck. Never a measure of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway. Dropping it stops it and fails the test if anything is left.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Option<Child>,
    client: String,
    config: String,
    pub(crate) url: String,
    /// Kept over restarts; none is needed without root.
    uids: Option<Slice>,
    /// Health and metrics.
    pub(crate) ops_url: String,
}

/// What a command printed and how it ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// A gateway with plain HTTP on a free port and nothing in it.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with more configuration: whole sections, not `[client]`; `[sandbox]`'s own lines may
    /// come first.
    pub(crate) fn with(config: &str) -> Self {
        Self::with_client("tls = \"off\"\n", config)
    }

    /// A gateway that is found at the same port after a restart.
    pub(crate) fn at_port(port: u16) -> Self {
        Self::build(
            &format!("listen = \"127.0.0.1:{port}\"\ntls = \"off\"\n"),
            "",
        )
    }

    /// With settings of the section `[client]` on any port, and more configuration.
    pub(crate) fn with_client(client: &str, config: &str) -> Self {
        Self::build(&format!("listen = \"127.0.0.1:0\"\n{client}"), config)
    }

    fn build(client: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self {
            dir,
            child: None,
            client: client.to_owned(),
            config: config.to_owned(),
            url: String::new(),
            uids: am_root().then(Slice::take),
            ops_url: String::new(),
        };
        world.start();
        world
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it, or starts it again on the same data.
    pub(crate) fn start(&mut self) {
        self.started(Command::new(LEGATION));
    }

    /// The same by a program that becomes it, such as `setpriv`.
    pub(crate) fn start_through(&mut self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        command.args(args).arg(LEGATION);
        self.started(command);
    }

    fn started(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs");
        let file = self.dir.path().join("legation.toml");
        let mut degrade = sandbox(self.uids.as_ref());
        if self.config.contains("path_roots") {
            degrade = degrade.replace(ALL_PATHS, "");
        }
        let base = format!("[client]\n{}", self.client);
        let ops = if self.config.contains("[ops]") {
            ""
        } else {
            "[ops]\nlisten = \"127.0.0.1:0\"\n"
        };
        // More of the section that `degrade` begins, or sections of its own.
        let text = match self.config.strip_prefix("[sandbox]\n") {
            Some(more) => format!("{base}{degrade}{more}{ops}"),
            None => format!("{base}{degrade}{ops}{}", self.config),
        };
        std::fs::write(&file, text).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = command
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let since = Instant::now();
        loop {
            let ran = self.run(&["status", "-o", "json"]);
            if let Ok(status) = serde_json::from_str::<Value>(&ran.stdout)
                && status["ready"] == true
            {
                self.url = status["client_url"].as_str().unwrap().to_owned();
                self.ops_url = status["ops_url"].as_str().unwrap().to_owned();
                return;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended ({ended:?}):\n{}", self.log());
            assert!(
                since.elapsed() < PATIENCE,
                "not ready: {}\n{}",
                ran.stderr,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// With other configuration from the next start on.
    pub(crate) fn reconfigure(&mut self, config: &str) {
        assert!(self.child.is_none(), "it runs");
        config.clone_into(&mut self.config);
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// Runs a command of the product against this gateway.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(LEGATION)
            .args(args)
            .env("LEGATION_DATA_DIR", self.data_dir())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed and gives its JSON.
    pub(crate) fn cli(&self, args: &[&str]) -> Value {
        let mut all = vec!["-o", "json", "--yes"];
        all.extend(args);
        let ran = self.run(&all);
        assert_eq!(
            ran.code,
            0,
            "legation {args:?}: {}\n{}",
            ran.stderr,
            self.log()
        );
        serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
    }

    /// The server on one screen, as JSON. Its exit code says whether something is not enforced.
    pub(crate) fn status(&self) -> Value {
        let ran = self.run(&["status", "-o", "json"]);
        let status: Value = serde_json::from_str(&ran.stdout).unwrap();
        let degraded = status["enforcement"]["missing"] != serde_json::json!([])
            || status["room"]["pressure"]["unknown"] == true
            || !status["room"]["lacks"].is_null();
        assert_eq!(ran.code, if degraded { 2 } else { 0 }, "{status}");
        status
    }

    /// Defines, publishes and grants an mcp to the group `all`.
    pub(crate) fn mcp(&self, name: &str, options: &[&str], command: &[&str]) -> Value {
        let mut args = vec!["mcp", "add", name];
        args.extend(options);
        args.push("--");
        args.extend(command);
        self.cli(&args);
        let published = self.cli(&["mcp", "publish", name]);
        // The first mcp makes the group; for the others it is there, and that is no failure.
        self.run(&["group", "add", "all"]);
        self.cli(&["group", "grant", "all", name]);
        published
    }

    /// The bundled demo, under a name.
    pub(crate) fn demo(&self, name: &str, options: &[&str]) -> Value {
        self.mcp(name, options, &[LEGATION, "demo-mcp"])
    }

    /// A server that misbehaves. It is published before it does, where it must be.
    pub(crate) fn misbehaving(&self, name: &str, options: &[&str], mode: &[&str]) -> Value {
        let mut command = vec![LEGATION, "demo-mcp", "--misbehave"];
        command.extend(mode);
        self.mcp(name, options, &command)
    }

    /// A user in the group `all` with a key that sees everything granted so far.
    pub(crate) fn key(&self, user: &str) -> String {
        if self.run(&["user", "add", user]).code == 0 {
            self.cli(&["group", "member", "add", "all", user]);
        }
        let made = self.cli(&["key", "create", user, "--label", "test"]);
        find(&made, "secret")
            .or_else(|| find(&made, "key_text"))
            .unwrap_or_else(|| {
                all_strings(&made)
                    .into_iter()
                    .find(|text| text.starts_with("amb_pk_"))
                    .unwrap()
            })
    }

    /// A key of a user who is in no group.
    pub(crate) fn key_alone(&self, user: &str) -> String {
        self.cli(&["user", "add", user]);
        self.cli(&["key", "create", user])["secret"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A registered client of that user.
    pub(crate) fn client(&self, user: &str) -> Session {
        Http::new(&self.url).register(&self.key(user))
    }

    /// A registered client with this key.
    pub(crate) fn client_of_key(&self, key: &str) -> Session {
        Http::new(&self.url).register(key)
    }

    /// All isolates, as `isolate list` shows them.
    pub(crate) fn isolates(&self) -> Vec<Value> {
        let list = self.cli(&["isolate", "list"]);
        list.as_array()
            .or_else(|| list["isolates"].as_array())
            .cloned()
            .unwrap_or_default()
    }

    /// The isolate of a user (or the shared one, `None`) of an mcp.
    pub(crate) fn isolate(&self, mcp: &str, user: Option<&str>) -> Value {
        let all = self.isolates();
        all.iter()
            .find(|one| one["mcp"] == mcp && one["user"].as_str() == user)
            .unwrap_or_else(|| panic!("no isolate of {mcp} for {user:?} among {all:?}"))
            .clone()
    }

    /// One isolate with its past.
    pub(crate) fn isolate_detail(&self, mcp: &str, user: Option<&str>) -> Value {
        let id = self.isolate(mcp, user)["id"].as_str().unwrap().to_owned();
        self.cli(&["isolate", "show", &id])
    }

    /// Waits until a condition holds.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(since.elapsed() < PATIENCE, "never: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The processes of this gateway's isolates, by their cgroups and their environment.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let data = self.data_dir().display().to_string();
        pids()
            .into_iter()
            .filter(|pid| {
                let home = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let home = String::from_utf8_lossy(&home).into_owned();
                home.split('\0').any(|var| {
                    var.strip_prefix("HOME=")
                        .is_some_and(|h| h.starts_with(&data))
                })
            })
            .collect()
    }

    /// The cgroup directories of this installation, in all hierarchies.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let id = std::fs::read_to_string(self.data_dir().join("installation"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        assert!(
            id.len() >= 12,
            "the installation's id is not where it should be: {id:?}"
        );
        let name = format!("legation-{}", id.get(..12).unwrap());
        let mut found = Vec::new();
        walk(Path::new("/sys/fs/cgroup"), 6, &mut |dir| {
            if dir
                .file_name()
                .is_some_and(|file| file.to_string_lossy() == name)
            {
                found.push(dir.to_owned());
            }
        });
        found
    }

    /// Isolates' cgroups of this installation.
    pub(crate) fn leaves(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in self.cgroups() {
            walk(&root, 4, &mut |dir| {
                if dir
                    .file_name()
                    .is_some_and(|file| file.to_string_lossy().starts_with("i-"))
                {
                    found.push(dir.to_owned());
                }
            });
        }
        found
    }

    /// kill -9, as an accident would.
    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        let Some(mut child) = self.child.take() else {
            return 0;
        };
        let code = self.end(&mut child);
        code.unwrap_or_else(|| panic!("it does not stop:\n{}", self.log()))
    }

    /// How it ends, when it was told already.
    pub(crate) fn stop_told(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Asks it to stop, and kills it if it does not. `None` if it had to be killed.
    fn end(&self, child: &mut Child) -> Option<i32> {
        let pid = child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status.code().unwrap_or(-1));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    /// Nothing of this gateway is left on the host.
    pub(crate) fn nothing_is_left(&self) {
        self.until("no process is left", |world| {
            world.processes().is_empty().then_some(())
        });
        let leaves = self.leaves();
        assert!(leaves.is_empty(), "cgroups are left: {leaves:?}");
    }
}

/// The section `[sandbox]` of a test's gateway.
pub(crate) fn sandbox(uids: Option<&Slice>) -> String {
    let own = match uids {
        Some(slice) => format!("uid_base = {}\nuid_count = {}\n", slice.base, uids::COUNT),
        None => "allow_degraded = [\"cgroup_memory\", \"cgroup_pids\", \"cgroup_cpu\", \
                 \"cgroup_kill\", \"pid_namespace\", \"user_range\"]\n"
            .to_owned(),
    };
    // Tests' servers lie where the build puts them.
    format!("[sandbox]\n{ALL_PATHS}{own}")
}

/// What tests' gateways say of paths, if a test does not.
const ALL_PATHS: &str = "path_roots = [\"/\"]\n";

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(mut child) = self.child.take() {
                self.end(&mut child);
            }
            eprintln!("--- the gateway's log\n{}", self.log());
            return;
        }
        assert_eq!(self.stop(), 0, "exit code\n{}", self.log());
        self.nothing_is_left();
    }
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn am_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// All pids of the host.
pub(crate) fn pids() -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn walk(dir: &Path, depth: usize, see: &mut impl FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            see(&entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, see);
            }
        }
    }
}

/// The first text under this key, however deep.
fn find(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Object(map) => map
            .get(key)
            .and_then(|value| value.as_str().map(ToOwned::to_owned))
            .or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(items) => items.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

fn all_strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(all_strings).collect(),
        Value::Object(map) => map.values().flat_map(all_strings).collect(),
        _ => Vec::new(),
    }
}
