//! `legation serve`: where the house is put together.
//!
//! Configuration, log, data directory and its lock come before the runtime, so that what is wrong
//! with them is said at once and by one thread. Then the tree starts, with the doors this file
//! hands it, and the process waits for a signal or for the tree to give up.

mod datadir;
mod doors;
mod notify;
mod ops;
mod signals;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio_util::task::AbortOnDropHandle;

use super::banner::{self, Facts, KeyShown};
use super::config::{load, setting};
use super::dev;
use super::error::{CliError, Done, Exit, chain};
use super::host::{self, Reach};
use super::logging;
use super::output::Out;
use super::socket::{DEV_DATA_DIR, RUN_DIR, SOCKET_NAME, SYSTEM_DATA_DIR};
use crate::actors::clock::{Clock, HostClock};
use crate::actors::jail::{Degrade, Facility, Jail, JailConfig, Walls};
use crate::actors::launcher::{LaunchError, Launcher};
use crate::actors::room;
use crate::actors::system::{System, SystemError, open_store};
use crate::api::admin::About;
use crate::api::serve::SocketMode;
use crate::config::{Config, Sources};
use crate::domain::code::Code;
use crate::domain::limits;

use datadir::DataDir;
pub(super) use datadir::{Holder, holder};
use doors::HouseDoors;
use ops::OpsDoor;
use signals::Signals;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Try it out: loopback only, data in ./legation-data, a demo user, key and mcp
    #[arg(long)]
    dev: bool,
    /// The configuration file [default: /etc/legation/legation.toml; none with --dev]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Set a value, as SECTION.KEY=VALUE; may be repeated
    #[arg(long, value_parser = setting, value_name = "SECTION.KEY=VALUE")]
    set: Vec<(String, String)>,
}

pub(super) fn run(args: ServeArgs, data_dir: Option<PathBuf>, out: Out) -> Done {
    signals::before_all();
    let port_given = args.listen.is_some();
    let ops_given = args.set.iter().any(|(key, _)| key == "ops.listen");
    let (config, origins) = load(&sources(args, data_dir)?)?;
    check_dev(&config)?;
    logging::start(&config.log)?;
    let data_dir = Arc::new(DataDir::take(&config.server.data_dir)?);
    let socket_mode = socket_mode(&config)?;
    let jail = jail(&config, data_dir.installation_id()?)?;
    go_first();
    keep_to_ourselves();
    let clock: Arc<dyn Clock> = Arc::new(HostClock);
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("legation")
        .thread_stack_size(limits::THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let house = House {
        data_dir: Arc::clone(&data_dir),
        about: About::of(&config, &origins),
        socket_mode,
        // A port somebody asked for is taken or refused, never exchanged.
        any_port: config.server.dev && !port_given,
        any_ops_port: config.server.dev && !ops_given,
        config,
        clock,
        launcher: Arc::new(jail),
        out,
    };
    let done = runtime.block_on(Box::pin(house.live()));
    // What still blocks (a disk that hangs) must not keep the process.
    runtime.shutdown_timeout(limits::RUNTIME_STOP_MAX);
    drop(data_dir);
    done
}

/// The layers of a `serve`: flags are the last word. A trial run keeps away from the configuration
/// of a server that is installed on the same host.
fn sources(args: ServeArgs, data_dir: Option<PathBuf>) -> Result<Sources, CliError> {
    let mut flags = Vec::new();
    let mut flag = |key: &str, value: String| flags.push((key.to_owned(), value));
    let data_dir = data_dir.or_else(|| args.dev.then(|| DEV_DATA_DIR.into()));
    if let Some(folder) = data_dir {
        // Homes and sockets below it are handed to processes with other working directories.
        let whole = std::path::absolute(&folder).map_err(|error| CliError::DataDir {
            path: folder,
            cause: error.to_string(),
        })?;
        flag("server.data_dir", whole.display().to_string());
    }
    if args.dev {
        flag("server.dev", "true".to_owned());
    }
    if let Some(listen) = args.listen {
        flag("client.listen", listen);
    }
    flags.extend(args.set);
    let standard = Sources::standard(args.config.clone(), flags);
    Ok(if args.dev && args.config.is_none() {
        Sources {
            file: None,
            fragments: None,
            ..standard
        }
    } else {
        standard
    })
}

/// A demo with a known user must not be on a network.
fn check_dev(config: &Config) -> Result<(), CliError> {
    let ops = config.ops.listen.address();
    let addresses = [
        ("client.listen", Some(config.client.listen)),
        ("ops.listen", ops),
    ];
    for (key, listen) in addresses {
        let open = listen.filter(|listen| !listen.ip().to_canonical().is_loopback());
        if let (true, Some(listen)) = (config.server.dev, open) {
            let text = format!(
                "{key} is {listen}, but --dev serves on loopback only; listen on 127.0.0.1, or \
                 serve without --dev"
            );
            return Err(CliError::Config {
                text,
                unreadable: false,
            });
        }
    }
    Ok(())
}

/// Whose the admin socket is. A group that cannot be let in is said before anything starts.
fn socket_mode(config: &Config) -> Result<SocketMode, CliError> {
    let wrong = |what: String| CliError::Config {
        text: format!("admin.group: {what}"),
        unreadable: false,
    };
    let Some(gid) = host::admin_group(config).map_err(wrong)? else {
        return Ok(SocketMode::Owner);
    };
    match host::reach(config, gid) {
        Reach::Open => {}
        Reach::Doubtful(what) => tracing::warn!("admin.group: {what}"),
        Reach::Never(what) => return Err(wrong(what)),
    }
    Ok(SocketMode::Group(gid))
}

/// The link to the kernel's walls. Before the runtime: the spawner is forked from a process with
/// one thread and little memory.
fn jail(config: &Config, installation_id: String) -> Result<Jail, CliError> {
    let degrade = if config.server.dev {
        Degrade::Anything
    } else {
        let names = config.sandbox.allow_degraded.iter();
        let facilities: Result<Vec<Facility>, _> = names.map(|name| name.parse()).collect();
        Degrade::Named(facilities.map_err(|unknown| CliError::Config {
            text: format!("sandbox.allow_degraded: {unknown}"),
            unreadable: false,
        })?)
    };
    let wanted = JailConfig {
        executable: None,
        installation_id,
        degrade,
        cgroup_root: None,
        homes: config.server.data_dir.join("homes"),
        walls: Walls::of(config),
        memory_budget: Some(room::budget(config)),
    };
    Jail::start(wanted).map_err(|error| CliError::NotStarted {
        code: match &error {
            LaunchError::Refused { .. } => Code::SandboxRefused,
            LaunchError::Busy(_) | LaunchError::NoProcess | LaunchError::Over(_) => {
                Code::StartFailed
            }
        },
        message: error.to_string(),
        next: None,
    })
}

/// Where the gateway and its isolates want the same core, calls go through the gateway. Before the runtime, whose
/// threads have it from us, and after the spawner, whose children are not to have it. No priority: a gateway that goes before
/// its clients takes their requests one by one (decision 0126).
fn go_first() {
    if let Err(error) = sandbox::answer_soon() {
        tracing::info!("the gateway has the usual slice of the CPU: {error}");
    }
}

/// Credentials are in our memory: no crash writes it to a disk, and nobody but root looks into it. After the spawner, which is
/// to be looked at by us.
fn keep_to_ourselves() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // A kernel that hands crashes to a program asks the second one only.
    let closed = setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = closed {
        tracing::warn!("a crash of the gateway may leave its memory on a disk: {error}");
    }
}

/// Everything that is there before the tree is.
struct House {
    config: Config,
    data_dir: Arc<DataDir>,
    about: About,
    socket_mode: SocketMode,
    any_port: bool,
    any_ops_port: bool,
    clock: Arc<dyn Clock>,
    launcher: Arc<dyn Launcher>,
    out: Out,
}

impl House {
    async fn live(mut self) -> Done {
        // First: a Ctrl-C during the start must stop, not kill.
        let mut signals = Signals::new()?;
        let doors = Arc::new(HouseDoors::new(
            &self.config,
            self.about.clone(),
            self.any_port,
            self.any_ops_port,
            self.socket_mode,
            &self.clock,
        )?);
        let not_up = |error: SystemError| CliError::NotStarted {
            code: error.code(),
            next: error.next(),
            // Who starts a server may know all.
            message: chain(&error),
        };
        let store = tokio::select! {
            store = Box::pin(open_store(&self.config)) => store.map_err(not_up)?,
            name = signals.next() => {
                tracing::info!(signal = name, "stopping; the store was not open yet");
                self.data_dir.say_stopping();
                return Ok(Exit::Ok);
            }
        };
        let starting = System::start_on(
            store,
            self.config.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.launcher),
            Arc::<HouseDoors>::clone(&doors),
        );
        // A signal now waits for the start to end, which has a deadline of its own.
        let system = Box::pin(starting).await.map_err(not_up)?;
        if let Err(error) = self.introduce(&system, &doors).await {
            system.stop().await;
            close(&doors).await;
            return Err(error);
        }
        notify::tell(notify::READY);
        // Until this process ends: a stop is told as well, and has its own deadline.
        let _watchdog = notify::watchdog().map(|every| {
            let life = system.life();
            AbortOnDropHandle::new(tokio::spawn(notify::keep_alive(every, move || {
                life.is_there()
            })))
        });
        let gave_up = tokio::select! {
            why = system.gave_up() => Some(why),
            name = signals.next() => {
                tracing::info!(signal = name, "stopping; another signal kills at once");
                None
            }
        };
        notify::tell(notify::STOPPING);
        self.data_dir.say_stopping();
        let orderly = tokio::select! {
            orderly = system.stop() => orderly,
            name = signals.next() => {
                tracing::warn!(signal = name, "killed while stopping");
                // Isolates hang on our lifeline and die with us.
                return Ok(Exit::Failed);
            }
        };
        close(&doors).await;
        match gave_up {
            Some(why) => Err(CliError::GaveUp(why)),
            None if orderly => Ok(Exit::Ok),
            None => {
                tracing::error!("not everything stopped in time; what was left is killed");
                Ok(Exit::Failed)
            }
        }
    }

    /// Furnishes a trial house and says where everything is.
    async fn introduce(&mut self, system: &System, doors: &HouseDoors) -> Result<(), CliError> {
        let control = system.control();
        let status = control.status();
        let facts = Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program: program(),
            client_url: status.client_url,
            taken_port: doors.taken_port(),
            ops_url: Some(status.ops_url).filter(|url| !url.is_empty()),
            ops_taken_port: doors.ops().and_then(OpsDoor::taken_port),
            certificate: doors.certificate(),
            data_dir: self.config.server.data_dir.clone(),
            found_by: found_by(&self.config),
            enforcement: status.enforcement,
        };
        if !self.config.server.dev {
            match logging::tells_people(&self.config.log) {
                true => self.out.say(&banner::plain(&facts)),
                false => banner::log(&facts),
            }
            return Ok(());
        }
        let exe = std::env::current_exe().map_err(|error| not_started(error.to_string()))?;
        let furnished = dev::furnish(&control, &exe).await;
        let furnished = furnished.map_err(|error| CliError::NotStarted {
            code: error.code(),
            message: format!("the demo could not be furnished: {error}"),
            next: None,
        })?;
        let key = match &furnished.key {
            Some(made) => KeyShown::New(made.secret.reveal().to_owned()),
            None => KeyShown::Earlier,
        };
        self.out
            .raw(&banner::dev(&facts, &key, furnished.published))
    }
}

/// The last door: whoever watches the house sees it drain.
async fn close(doors: &HouseDoors) {
    if let Some(ops) = doors.ops() {
        ops.close().await;
    }
}

fn not_started(message: impl Into<String>) -> CliError {
    CliError::NotStarted {
        code: Code::StartFailed,
        message: message.into(),
        next: None,
    }
}

/// How this program is called from a shell here.
fn program() -> String {
    const NAME: &str = env!("CARGO_PKG_NAME");
    let Ok(exe) = std::env::current_exe() else {
        return NAME.to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(NAME) == exe) {
        return NAME.to_owned();
    }
    let here = std::env::current_dir().ok();
    match here.and_then(|here| exe.strip_prefix(here).ok().map(Path::to_owned)) {
        Some(inner) => format!("./{}", inner.display()),
        None => exe.display().to_string(),
    }
}

/// The flag with which a command in this directory finds this server, if it needs one.
fn found_by(config: &Config) -> String {
    if config.admin.socket.is_some() {
        if config.admin_socket() == Path::new(RUN_DIR).join(SOCKET_NAME) {
            return String::new();
        }
        return format!(" --socket {}", config.admin_socket().display());
    }
    let folder = &config.server.data_dir;
    let dev = std::path::absolute(DEV_DATA_DIR).is_ok_and(|dev| dev == *folder);
    if dev || folder == Path::new(SYSTEM_DATA_DIR) {
        String::new()
    } else {
        format!(" --data-dir {}", folder.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dev: bool) -> ServeArgs {
        ServeArgs {
            dev,
            config: None,
            listen: None,
            set: Vec::new(),
        }
    }

    fn config(mut args: ServeArgs, folder: Option<&str>) -> Result<Config, CliError> {
        args.set.push(("log.level".into(), "warn".into()));
        let mut sources = sources(args, folder.map(PathBuf::from))?;
        sources.env.clear();
        let (config, _) = load(&sources)?;
        check_dev(&config)?;
        Ok(config)
    }

    #[test]
    fn dev_is_on_loopback_in_a_folder_beside_us() {
        let config = config(args(true), None).unwrap();
        assert!(config.server.dev);
        assert_eq!(
            config.server.data_dir,
            std::path::absolute(DEV_DATA_DIR).unwrap()
        );
        assert!(config.client.listen.ip().is_loopback());
        assert_eq!(found_by(&config), "");
    }

    #[test]
    fn dev_never_faces_a_network() {
        let mut open = args(true);
        open.listen = Some("0.0.0.0:8443".into());
        let error = config(open, None).unwrap_err();
        assert_eq!(error.exit().code(), 2);
        assert!(error.to_string().contains("loopback"), "{error}");
        let mut served = args(false);
        served.listen = Some("0.0.0.0:8443".into());
        assert!(config(served, Some("/x")).is_ok());
    }

    #[test]
    fn flags_are_the_last_word() {
        let mut args = args(true);
        args.set
            .push(("server.data_dir".into(), "/elsewhere".into()));
        let config = config(args, Some("/first")).unwrap();
        assert_eq!(config.server.data_dir, Path::new("/elsewhere"));
        assert_eq!(found_by(&config), " --data-dir /elsewhere");
    }
}
