//! What it costs to start one isolate: from the decision to the reply to `initialize`, through the
//! product's launcher, against `posix_spawn` alone, in new namespaces, and with limits set by hand; and
//! again with a large heap in the parent, where a `fork` would show.
//!
//! Like is held against like: profile `none`, which has a pid namespace, against `posix_spawn` in one;
//! `strict` against `posix_spawn` in all the namespaces that `strict` has. What the walls cost beyond
//! their namespaces (view, uid, filter, landlock) has a bar of its own.
//!
//! ```text
//! cargo bench --bench spawn -- [--rounds N] [--heap-mib N] [--only WORD] [--product PATH] [--out FILE]
//! ```
//!
//! One start of each kind a round, in turn. A missed bar is an exit code. Needs root.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use legation::actors::jail::{Degrade, Jail, JailConfig, Walls};
use legation::actors::launcher::{Extra, Launch, Launcher, Secrets};
use legation::config::Config;
use legation::domain::confinement::{Confinement, Profile};
use legation::domain::ids::{IsolateId, UserId};
use legation::domain::mcp::Limits;
use nix::sched::{CloneFlags, unshare};
use rig::groups::Groups;
use rig::proc;
use rig::report::{self, median};
use rig::target::default_product;
use rig::words;
use tokio::io::AsyncBufReadExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bars: ours against namespaces, and ours with the heap against ours without.
const RATIO_MAX: f64 = 1.5;
const GROWTH_MAX: f64 = 1.5;
/// What `strict` may take longer than a clone and exec, in milliseconds.
const STRICT_MS_MAX: f64 = 10.0;
const REAP_MAX: Duration = Duration::from_secs(5);
const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"spawn","version":"0"}}}
"#;

struct Options {
    rounds: usize,
    heap_mib: usize,
    /// Kinds whose name has this word; for a profiler.
    only: String,
    product: PathBuf,
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Namespace,
    Limited,
    Ours,
    Namespaces,
    Strict,
    RealNamespaces,
    RealStrict,
}

/// A program and its arguments.
type Words = (PathBuf, Vec<String>);
/// Milliseconds of each kind.
type Times = BTreeMap<&'static str, Vec<f64>>;

fn main() -> Result<()> {
    // As the product's own main: the spawner is this program in another role.
    sandbox::role();
    let options = options()?;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: pid namespaces and cgroups need root");
        return Ok(());
    }
    let homes = tempfile::tempdir()?;
    let jail = Jail::start(JailConfig {
        executable: None,
        installation_id: format!("{:012x}", std::process::id()),
        degrade: Degrade::Anything,
        cgroup_root: None,
        homes: homes.path().join("homes"),
        walls: Walls {
            any_range: true,
            ..Walls::of(&Config::default())
        },
        memory_budget: None,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut bench = Bench {
        echo: (
            options.product.clone(),
            vec!["demo-mcp".to_owned(), "--echo".to_owned()],
        ),
        real: real(),
        user: UserId::from_random([9; 10]),
        next: 0,
        home: homes.path().canonicalize()?.join("homes/ada/demo"),
        jail,
        runtime,
        executed: Vec::new(),
    };
    let (text, missed) = bench.measure(&options)?;
    bench.jail.release_user(&bench.user);
    println!("{text}");
    if let Some(path) = &options.out {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 60,
        heap_mib: 1024,
        only: String::new(),
        product: default_product()?,
        out: None,
    };
    words::read("spawn", |word, value| {
        match word {
            "--rounds" => options.rounds = value()?.parse()?,
            "--heap-mib" => options.heap_mib = value()?.parse()?,
            "--only" => options.only = value()?,
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

struct Bench {
    /// The echo of the demo server: hardly more than an exec.
    echo: Words,
    /// A server of npm, if the test tools are installed.
    real: Option<Words>,
    user: UserId,
    next: u32,
    home: PathBuf,
    jail: Jail,
    runtime: tokio::runtime::Runtime,
    /// Milliseconds of ours until the program was executed.
    executed: Vec<f64>,
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 8] = [
        Self::Plain,
        Self::Namespace,
        Self::Limited,
        Self::Ours,
        Self::Namespaces,
        Self::Strict,
        Self::RealNamespaces,
        Self::RealStrict,
    ];

    /// What it is held against.
    const fn base(self) -> Self {
        match self {
            Self::Namespaces | Self::Strict => Self::Namespaces,
            Self::RealNamespaces | Self::RealStrict => Self::RealNamespaces,
            _ => Self::Namespace,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "posix_spawn",
            Self::Namespace => "posix_spawn in a new pid namespace",
            Self::Limited => "the same, with three v1 cgroups and limits made by hand",
            Self::Ours => "legation, profile none: init, cgroups, limits, own uid",
            Self::Namespaces => "posix_spawn in all namespaces of strict",
            Self::Strict => "legation, profile strict",
            Self::RealNamespaces => {
                "server-everything (node) by posix_spawn in the same namespaces"
            }
            Self::RealStrict => "server-everything (node) by legation, profile strict",
        }
    }

    const fn is_real(self) -> bool {
        matches!(self, Self::RealNamespaces | Self::RealStrict)
    }
}

// === impl Bench ===

impl Bench {
    fn measure(&mut self, options: &Options) -> Result<(String, Vec<String>)> {
        let enforcement = self.jail.enforcement();
        let limited = Path::new("/sys/fs/cgroup/memory/tasks").exists();
        let small = self.rounds(options, limited)?;
        let executed = median(std::mem::take(&mut self.executed));
        let heap = vec![1_u8; options.heap_mib << 20];
        // Every page is written: a fork would have to copy all of their entries.
        let large = self.rounds(options, limited)?;
        let held = heap
            .iter()
            .step_by(4096)
            .map(|byte| usize::from(*byte))
            .sum::<usize>();
        drop(heap);

        let p50 = |times: &Times, name: &str| {
            times
                .get(name)
                .map_or(f64::NAN, |times| median(times.clone()))
        };
        let mut text = report::preamble();
        let _ = write!(
            text,
            "\n### Spawn to the reply to `initialize`\n\np50 of {} alternating starts; {}. The \
             parent's heap is small at first, then {} MiB with every page written. Load average \
             at the end {}.\n\n\
             | how | p50 ms | p90 ms | × its namespaces | with the heap, p50 ms | growth |\n|---|---|---|---|---|---|\n",
            options.rounds,
            enforcement.summary,
            held >> 8,
            proc::load_average(),
        );
        for kind in Kind::ALL {
            let name = kind.name();
            let Some(times) = small.get(name) else {
                continue;
            };
            let (before, after) = (p50(&small, name), p50(&large, name));
            let base = p50(&small, kind.base().name());
            let _ = writeln!(
                text,
                "| {name} | {before:.2} | {:.2} | {:.2} | {after:.2} | {:.2} |",
                ninth(times),
                before / base,
                after / before,
            );
        }
        let _ = writeln!(
            text,
            "\nOf strict, {executed:.2} ms are cgroups, limits, spawner, init, walls and everything \
             else up to the `exec` of the server."
        );
        if !enforcement.summary.contains("cgroup v2") {
            let _ = writeln!(
                text,
                "\nskipped: entry on cgroup v2: the controllers are on v1 here"
            );
        }
        if self.real.is_none() {
            let _ = writeln!(
                text,
                "\nskipped: {}: not installed; scripts/test.sh installs it",
                Kind::RealStrict.name()
            );
        }
        if !limited {
            let _ = writeln!(
                text,
                "\nskipped: {}: no v1 controllers here",
                Kind::Limited.name()
            );
        }
        let is = |kind: Kind| p50(&small, kind.name());
        let ratio = |kind: Kind| is(kind) / is(kind.base());
        let growth = p50(&large, Kind::Strict.name()) / is(Kind::Strict);
        let mut missed = Vec::new();
        for (what, is, max) in [
            (
                "profile none × posix_spawn in its namespace",
                ratio(Kind::Ours),
                RATIO_MAX,
            ),
            (
                "strict × posix_spawn in its namespaces",
                ratio(Kind::Strict),
                RATIO_MAX,
            ),
            (
                "strict × posix_spawn in its namespaces, a real server",
                if self.real.is_some() {
                    ratio(Kind::RealStrict)
                } else {
                    0.0
                },
                RATIO_MAX,
            ),
            (
                "strict beyond posix_spawn, ms",
                is(Kind::Strict) - is(Kind::Plain),
                STRICT_MS_MAX,
            ),
            ("growth of strict with the heap", growth, GROWTH_MAX),
        ] {
            let word = if is <= max { "held" } else { "**MISSED**" };
            let _ = writeln!(text, "\n* {what}: {is:.2}, bar ≤ {max}: {word}");
            if is > max {
                missed.push(format!("{what}: {is:.2} > {max}"));
            }
        }
        Ok((text, missed))
    }

    fn rounds(&mut self, options: &Options, limited: bool) -> Result<Times> {
        let mut times = Times::new();
        for round in 0..options.rounds {
            for step in 0..Kind::ALL.len() {
                let kind = Kind::ALL[(step + round) % Kind::ALL.len()];
                // One in four: it takes a hundred times as long.
                if kind.is_real() && (self.real.is_none() || round % 4 > 0) {
                    continue;
                }
                if kind == Kind::Limited && !limited || !kind.name().contains(&options.only) {
                    continue;
                }
                self.next += 1;
                let real = self.real.as_ref().filter(|_| kind.is_real());
                let words = real.unwrap_or(&self.echo).clone();
                let took = match kind {
                    Kind::Plain => plain(&words, None),
                    Kind::Namespace => self.in_namespaces(&words, CloneFlags::CLONE_NEWPID, false),
                    Kind::Limited => self.in_namespaces(&words, CloneFlags::CLONE_NEWPID, true),
                    Kind::Ours => self.ours(&words, Profile::None),
                    Kind::Namespaces | Kind::RealNamespaces => {
                        self.in_namespaces(&words, of_strict(), false)
                    }
                    Kind::Strict | Kind::RealStrict => self.ours(&words, Profile::Strict),
                };
                let took = took.with_context(|| kind.name())?;
                let list = times.entry(kind.name()).or_default();
                list.push(took.as_secs_f64() * 1000.0);
            }
        }
        Ok(times)
    }

    /// A thread of its own: a thread can leave its pid namespace for a new one only once.
    fn in_namespaces(&self, words: &Words, which: CloneFlags, limited: bool) -> Result<Duration> {
        let groups = limited.then(|| Groups::named(self.next));
        let worked = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let began = Instant::now();
                unshare(which)?;
                let unshared = began.elapsed();
                Ok(unshared + plain(words, groups.as_ref())?)
            });
            work.join()
        });
        if let Some(groups) = &groups {
            groups.remove()?;
        }
        worked.map_err(|_| anyhow::anyhow!("the thread panicked"))?
    }

    fn ours(&mut self, (program, args): &Words, profile: Profile) -> Result<Duration> {
        let mut bits = [0; 10];
        let [.., a, b, c, d] = &mut bits;
        [*a, *b, *c, *d] = self.next.to_be_bytes();
        let launch = Launch {
            isolate: IsolateId::from_random(bits),
            user: Some(self.user.clone()),
            program: program.clone(),
            args: args.clone(),
            env: BTreeMap::new(),
            home: self.home.clone(),
            secrets: Secrets::default(),
            confinement: Confinement {
                profile: Some(profile),
                ..Confinement::default()
            },
            on_denied: None,
            limits: Limits::default(),
            user_limits: Limits {
                memory_bytes: 1 << 30,
                pids: 512,
                cpu_millis: 2000,
                ..Limits::default()
            },
            opening: Bytes::from_static(INITIALIZE),
            extra: Extra::default(),
        };
        let (executed, took) = self.runtime.block_on(async {
            let began = Instant::now();
            let mut run = self.jail.launch(launch).await?;
            let executed = began.elapsed();
            let mut line = String::new();
            tokio::io::BufReader::new(&mut run.stdout)
                .read_line(&mut line)
                .await?;
            let took = began.elapsed();
            let remains = run.scope.reap(REAP_MAX).await;
            ensure!(line.contains("protocolVersion"), "no reply but {line:?}");
            ensure!(remains.survivors.is_empty(), "{:?}", remains.survivors);
            Ok((executed, took))
        })?;
        if profile == Profile::Strict && *program == self.echo.0 {
            self.executed.push(executed.as_secs_f64() * 1000.0);
        }
        Ok(took)
    }
}

/// The time of one start by `posix_spawn`.
fn plain((program, args): &Words, groups: Option<&Groups>) -> Result<Duration> {
    let began = Instant::now();
    if let Some(groups) = groups {
        groups.make()?;
    }
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(groups) = groups {
        groups.enter(child.id())?;
    }
    let done = initialized(&mut child).map(|()| began.elapsed());
    child.kill()?;
    child.wait()?;
    done
}

fn of_strict() -> CloneFlags {
    CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
}

fn initialized(child: &mut Child) -> Result<()> {
    child
        .stdin
        .as_mut()
        .context("no stdin")?
        .write_all(INITIALIZE)?;
    let mut line = String::new();
    let stdout = child.stdout.as_mut().context("no stdout")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.contains("protocolVersion"), "no reply but {line:?}");
    Ok(())
}

/// The server of npm that the tests use, and the node on the path.
fn real() -> Option<Words> {
    let script = "npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/tools")
        .join(script);
    let dirs = std::env::var_os("PATH")?;
    let node = std::env::split_paths(&dirs)
        .map(|dir| dir.join("node"))
        .find(|file| file.is_file())?;
    let args = vec![script.to_str()?.to_owned(), "stdio".to_owned()];
    script.is_file().then_some((node, args))
}

/// The value that nine of ten do not exceed.
fn ninth(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * 9 / 10).copied().unwrap_or(f64::NAN)
}
