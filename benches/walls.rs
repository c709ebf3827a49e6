//! What each wall costs to set up: from the decision to the server's exec, in each profile, and in `strict` with one
//! wall taken away; the difference is that wall's price (an own uid cannot be given up under root). In alternating rounds of one run.
//!
//! ```text
//! cargo bench --bench walls -- [--rounds N] [--out FILE]
//! ```
//!
//! Through the `sandbox` crate alone, whose steps these are; `benches/spawn.rs` has the whole start. A missed bar is an
//! exit code. Needs root.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rig::report::{self, median};
use rig::{proc, words};
use sandbox::cgroup::{LeafName, Limits};
use sandbox::plan::secret::{Secret, SecretFiles};
use sandbox::plan::{Identity, Program};
use sandbox::reach::Declared;
use sandbox::status::{Decoder, Record};
use sandbox::{Facility, Host, HostConfig, Network, Profile, SpawnSpec, Spawned};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole of `strict`, beyond profile `none`, in milliseconds.
const STRICT_MS_MAX: f64 = 10.0;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whom isolates run as.
const UID: u32 = 1_400_000_000;

struct Options {
    rounds: usize,
    out: Option<PathBuf>,
}

/// One way to start.
struct Way {
    name: &'static str,
    host: Host,
    profile: Profile,
    network: Network,
    secrets: bool,
    took: Vec<f64>,
}

fn main() -> Result<()> {
    // The spawner is this program in another role.
    sandbox::role();
    let options = options()?;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the walls need root");
        return Ok(());
    }
    let (text, missed) = measure(&options)?;
    println!("{text}");
    if let Some(path) = &options.out {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 100,
        out: None,
    };
    words::read("walls", |word, value| {
        match word {
            "--rounds" => options.rounds = value()?.parse()?,
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// All that is measured; `strict` is what the others are held against.
fn ways() -> Result<Vec<Way>> {
    let way = |name, without: &[Facility], profile, network| {
        host(without).map(|host| Way {
            name,
            host,
            profile,
            network,
            secrets: false,
            took: Vec::new(),
        })
    };
    let strict = |name, without: &[Facility]| way(name, without, Profile::Strict, Network::None);
    let mut ways = vec![
        strict(STRICT, &[])?,
        way(NONE, &[], Profile::None, Network::None)?,
        way("standard", &[], Profile::Standard, Network::None)?,
        // Without it nothing is hidden and no tmpfs is mounted; the rest stays.
        strict(
            "strict without the view (mounts, tmpfs, `pivot_root`)",
            &[Facility::MountNamespace],
        )?,
        strict(
            "strict without the system call filters",
            &[Facility::Seccomp],
        )?,
        strict("strict without landlock", &[Facility::Landlock])?,
        strict(
            "strict without a network of its own",
            &[Facility::NetworkNamespace],
        )?,
        strict(
            "strict without ipc, uts and cgroup namespaces",
            &[
                Facility::IpcNamespace,
                Facility::UtsNamespace,
                Facility::CgroupNamespace,
            ],
        )?,
        way(
            "strict with `lo` up",
            &[],
            Profile::Strict,
            Network::Loopback,
        )?,
        way(
            "strict with an allowlist: routes and listeners",
            &[],
            Profile::Strict,
            Network::Allowlist,
        )?,
        strict("strict with secret files: one more tmpfs", &[])?,
    ];
    for way in &mut ways {
        way.secrets = way.name.contains("secret files");
    }
    Ok(ways)
}

const STRICT: &str = "strict";
const NONE: &str = "none";

fn host(without: &[Facility]) -> Result<Host> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut config = HostConfig::new(&format!("{:08x}{number:04x}", std::process::id()));
    config.allow_degraded = Facility::ALL.to_vec();
    config.without = without.to_vec();
    config.probe_identity = Some(IDENTITY);
    Ok(Host::start(config)?)
}

const IDENTITY: Identity = Identity { uid: UID, gid: UID };

fn measure(options: &Options) -> Result<(String, Vec<String>)> {
    let mut ways = ways()?;
    let lacks = ways
        .first()
        .map(|way| way.host.capabilities().missing.clone());
    let dir = tempfile::tempdir()?;
    let home = dir.path().canonicalize()?.join("home");
    std::fs::create_dir(&home)?;
    chown(&home, Some(UID), Some(UID))?;
    let mut next = 0;
    for round in 0..=options.rounds {
        let count = ways.len();
        for step in 0..count {
            let Some(way) = ways.get_mut((step + round) % count) else {
                continue;
            };
            next += 1;
            let spec = spec(way, &home, next);
            let took = start(&way.host, &spec).with_context(|| way.name)?;
            // The first of each finds nothing in the kernel's caches.
            if round > 0 {
                way.took.push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    Ok(report(options, &ways, &lacks.unwrap_or_default()))
}

fn spec(way: &Way, home: &Path, number: u32) -> SpawnSpec {
    let limits = |share: u64| Limits {
        memory_bytes: (256 << 20) * share,
        pids: 64 * share,
        cpu_millis: 1000 * share,
    };
    let secrets = way.secrets.then(|| SecretFiles {
        dir: PathBuf::from("/run/secrets"),
        files: BTreeMap::from([("key".to_owned(), Secret::new(b"value".to_vec().into()))]),
    });
    SpawnSpec {
        leaf: LeafName {
            user: Some("ada".to_owned()),
            isolate: format!("w{number}"),
        },
        program: Program {
            path: "/bin/true".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
        },
        workdir: home.to_owned(),
        profile: way.profile,
        network: way.network,
        ports: if way.network == Network::Allowlist {
            vec![443]
        } else {
            Vec::new()
        },
        identity: Some(IDENTITY),
        declared: Declared::default(),
        limits: limits(1),
        user_limits: limits(4),
        open_files: 256,
        file_bytes: 1 << 20,
        secrets,
        descriptors: BTreeMap::new(),
        opening: Vec::new(),
    }
}

/// The time from the decision to the exec; the server ends by itself.
fn start(host: &Host, spec: &SpawnSpec) -> Result<Duration> {
    let began = Instant::now();
    let Spawned {
        process,
        leaf,
        status,
        door,
        ..
    } = host.spawn(spec)?;
    let mut status = File::from(status);
    let mut bytes = [0; 512];
    let read = status.read(&mut bytes)?;
    let took = began.elapsed();
    drop(door);
    let told = Decoder::default().feed(bytes.get(..read).unwrap_or_default());
    if told.first() != Some(&Record::Started) {
        bail!("it was not executed: {told:?}");
    }
    let until = Instant::now() + PATIENCE;
    leaf.kill();
    process.kill();
    while process.try_reap()?.is_none() || !leaf.is_empty() {
        ensure!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    leaf.remove()?;
    Ok(took)
}

fn report(options: &Options, ways: &[Way], lacks: &[sandbox::Missing]) -> (String, Vec<String>) {
    let p50 = |name: &str| {
        let way = ways.iter().find(|way| way.name == name);
        way.map_or(f64::NAN, |way| median(way.took.clone()))
    };
    let strict = p50(STRICT);
    let mut text = report::preamble();
    let _ = write!(
        text,
        "\n### What each wall costs\n\nFrom the decision to the exec of `/bin/true`, p50 of {} alternating starts; {}. Load average at the end \
         {}.\n\n| start | p50 ms | to strict, ms | median of the round's ratio to strict |\n|---|---|---|---|\n",
        options.rounds,
        ways.first()
            .map_or("?", |way| way.host.capabilities().summary.as_str()),
        proc::load_average(),
    );
    let base: &[f64] = ways
        .iter()
        .find(|way| way.name == STRICT)
        .map_or(&[], |way| &way.took);
    for way in ways {
        let ratios = way.took.iter().zip(base).map(|(is, strict)| is / strict);
        let is = median(way.took.clone());
        let _ = writeln!(
            text,
            "| {} | {is:.2} | {:+.2} | {:.2} |",
            way.name,
            is - strict,
            median(ratios.collect())
        );
    }
    for lack in lacks {
        let _ = writeln!(text, "\nskipped: {lack}");
    }
    let walls = strict - p50(NONE);
    let word = if walls <= STRICT_MS_MAX {
        "held"
    } else {
        "**MISSED**"
    };
    let _ = writeln!(
        text,
        "\n* all walls of strict beyond profile none, ms: {walls:.2}, bar ≤ {STRICT_MS_MAX}: {word}"
    );
    let missed = (walls > STRICT_MS_MAX).then(|| format!("the walls take {walls:.2} ms"));
    (text, missed.into_iter().collect())
}
