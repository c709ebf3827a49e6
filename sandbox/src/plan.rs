//! What init does, as a value: built and checked by the gateway, handed over in a sealed memfd,
//! never seen by spawnd.
//!
//! The invariant: steps stand in the order of [`Place`], each at most once. That order was tested
//! against a kernel; a wall that comes later takes the place that waits for it here.

pub mod build;
pub mod errand;
pub mod secret;
pub mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use errand::Errand;
use secret::{OwnedFiles, Secret};
use view::View;

/// Bytes of a plan; arguments and environment have their own, smaller bound in the kernel (2 MiB).
pub const PLAN_BYTES_MAX: u64 = 4 << 20;

/// Ports that hosts of one isolate are named with.
pub const PORTS_MAX: usize = 8;
/// Where the proxy listens inside an isolate's network.
pub const PROXY_PORT: u16 = 3128;

/// The order of things, from the clone to the server's first instruction. Places without a
/// [`Step`] are either always done (cgroup, descriptors, fork, exec) or wait for their wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Into the v1 cgroups, by `tasks`; v2 was entered by the clone itself.
    Cgroup,
    /// Our own descriptors to known numbers, all others closed.
    Descriptors,
    /// The plan is read.
    Plan,
    /// Our own uid in a new user namespace, where we are not root.
    UserMap,
    /// What is done to files of isolates where the gateway itself has not their ids.
    Errand,
    /// An own cgroup namespace, after the cgroup was entered: then it is the root of all it sees.
    CgroupNamespace,
    /// Loopback, and the listeners of the way out.
    Network,
    /// An own session.
    Session,
    /// A name that tells nothing of the host's.
    HostName,
    /// Adopts orphans where there is no pid namespace.
    Subreaper,
    /// Before the gateway in the eyes of the host's OOM killer.
    OomScore,
    /// Private mounts, tmpfs root, binds, proc, `pivot_root`.
    Mounts,
    /// A tmpfs with the credentials that are files, after the view that has the place for it and
    /// before the rights to mount are given up.
    Secrets,
    /// Resource limits of one process.
    Rlimits,
    /// The bounding and ambient sets emptied.
    Capabilities,
    /// Groups, gid, uid; then no capabilities.
    User,
    /// No program can give back what was taken away.
    NoNewPrivs,
    /// Landlock rules.
    Landlock,
    /// Init stays behind as pid 1; what follows happens in the server's process.
    Fork,
    /// The server's own session, signals as a new program expects them.
    ServerSession,
    /// Into the home directory.
    Workdir,
    /// Credentials that are descriptors: the last ones that are opened.
    Pipes,
    /// The system call filter.
    Seccomp,
    /// The program.
    Exec,
}

impl Place {
    /// The name in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Descriptors => "descriptors",
            Self::Plan => "plan",
            Self::UserMap => "user_map",
            Self::Errand => "errand",
            Self::CgroupNamespace => "cgroup_namespace",
            Self::Network => "network",
            Self::Session => "session",
            Self::HostName => "host_name",
            Self::Subreaper => "subreaper",
            Self::OomScore => "oom_score",
            Self::Mounts => "mounts",
            Self::Secrets => "secrets",
            Self::Rlimits => "rlimits",
            Self::Capabilities => "capabilities",
            Self::User => "user",
            Self::NoNewPrivs => "no_new_privs",
            Self::Landlock => "landlock",
            Self::Fork => "fork",
            Self::ServerSession => "server_session",
            Self::Workdir => "workdir",
            Self::Pipes => "pipes",
            Self::Seccomp => "seccomp",
            Self::Exec => "exec",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Maps these ids, and only these, to themselves in the new user namespace.
    UserMap {
        /// The gateway's uid.
        uid: u32,
        /// The gateway's gid.
        gid: u32,
    },
    /// Something done to files of isolates; no program follows.
    Errand(Errand),
    /// `unshare(CLONE_NEWCGROUP)`.
    CgroupNamespace,
    /// `lo` goes up.
    Loopback,
    /// `lo` goes up, every address leads to it, and the gateway is given what listens there: a name
    /// server's socket, a proxy's, and one for each port.
    Doors {
        /// Ports of the hosts that may be reached.
        ports: Vec<u16>,
    },
    /// `setsid`: signals from the gateway's terminal do not reach the isolate.
    Session,
    /// `sethostname`.
    HostName(String),
    /// `PR_SET_CHILD_SUBREAPER`: stands in for the pid namespace.
    Subreaper,
    /// `oom_score_adj`.
    OomScore(i32),
    /// What it sees of the file system.
    Mounts(View),
    /// Files that only this isolate sees.
    Secrets(OwnedFiles),
    /// `setrlimit`, soft and hard.
    Rlimits(Rlimits),
    /// No capability may be gained any more.
    DropBounding,
    /// The isolate's own uid and gid, no other groups, no capabilities.
    Become(Identity),
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// Files are written beneath these only; scoped signals and abstract sockets where the kernel
    /// has them.
    Landlock {
        /// Directories of the view.
        writable: Vec<PathBuf>,
    },
    /// System calls no server needs are refused.
    Seccomp,
    /// `chdir`, in the server's process.
    Workdir(PathBuf),
    /// Pipes with a value in each, at these numbers, in the server's process.
    Pipes(BTreeMap<i32, Secret>),
}

impl Step {
    /// Where it stands.
    #[must_use]
    pub const fn place(&self) -> Place {
        match self {
            Self::UserMap { .. } => Place::UserMap,
            Self::Errand(_) => Place::Errand,
            Self::CgroupNamespace => Place::CgroupNamespace,
            Self::Loopback | Self::Doors { .. } => Place::Network,
            Self::Session => Place::Session,
            Self::HostName(_) => Place::HostName,
            Self::Subreaper => Place::Subreaper,
            Self::OomScore(_) => Place::OomScore,
            Self::Mounts(_) => Place::Mounts,
            Self::Secrets(_) => Place::Secrets,
            Self::Rlimits(_) => Place::Rlimits,
            Self::DropBounding => Place::Capabilities,
            Self::Become(_) => Place::User,
            Self::NoNewPrivs => Place::NoNewPrivs,
            Self::Landlock { .. } => Place::Landlock,
            Self::Seccomp => Place::Seccomp,
            Self::Workdir(_) => Place::Workdir,
            Self::Pipes(_) => Place::Pipes,
        }
    }
}

/// Whom an isolate runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Its uid; never 0.
    pub uid: u32,
    /// Its gid; never 0.
    pub gid: u32,
}

/// Limits of one process. There is no limit on processes per uid here: it would count the whole
/// desktop of a developer; `pids.max` counts the isolate, and the user wall brings own uids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimits {
    /// Open files.
    pub open_files: u64,
    /// Bytes of the largest file it may write.
    pub file_bytes: u64,
    /// Bytes it may lock in memory.
    pub locked_bytes: u64,
    /// Bytes of POSIX message queues.
    pub message_queue_bytes: u64,
}

/// The program init ends up running.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment; values are wiped when they are dropped.
    pub env: BTreeMap<String, Zeroizing<String>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and environment carry secrets.
        f.debug_struct("Program")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Program {
    fn check(&self) -> Result<(), PlanError> {
        if !self.path.is_absolute() {
            return Err(PlanError::Relative(self.path.clone()));
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(PlanError::ZeroByte("an argument"));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(PlanError::EnvName(name.chars().take(64).collect()));
            }
            if value.contains('\0') {
                return Err(PlanError::ZeroByte("an environment variable"));
            }
        }
        Ok(())
    }
}

/// What init does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of [`Place`].
    pub steps: Vec<Step>,
    /// At the end of them; `None` is a rehearsal, which ends well where a program would begin.
    pub program: Option<Program>,
}

/// Why a plan is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two steps are in the wrong order, or one stands twice.
    #[error("the step `{later}` cannot follow `{earlier}`")]
    Order {
        /// The step in front.
        earlier: &'static str,
        /// The step that came after it.
        later: &'static str,
    },
    /// The program's path is not absolute.
    #[error("`{0}` is not an absolute path; look the command up before it is launched")]
    Relative(PathBuf),
    /// A text holds a zero byte, which no program can be given.
    #[error("{0} holds a zero byte")]
    ZeroByte(&'static str),
    /// A name in the environment is empty or holds `=`.
    #[error("`{0}` is no name of an environment variable")]
    EnvName(String),
    /// A value is too large for a pipe, or has the number of stdio.
    #[error(
        "descriptor {0} cannot hold its value: it is one of stdio's, or the value is too large"
    )]
    Descriptor(i32),
    /// Secret files have no plain directory, or one of them no plain name.
    #[error("`{0}` is no place for secret files")]
    SecretPlace(String),
    /// Too many ports, or one that the isolate's own name server or proxy has.
    #[error("a way out cannot be made with these ports: {0}")]
    Ports(&'static str),
    /// Root is nobody an isolate may be.
    #[error("an isolate never runs as uid or gid 0")]
    Root,
    /// A path of the view is not plain, or stands beneath one it could be moved from.
    #[error("the view cannot hold `{path}`: {why}", path = path.display())]
    View {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
}

impl Plan {
    /// Checks the order of the steps and the texts of the program.
    ///
    /// # Errors
    /// [`PlanError`] names what is wrong.
    pub fn check(&self) -> Result<(), PlanError> {
        for pair in self.steps.windows(2) {
            if let [earlier, later] = pair
                && earlier.place() >= later.place()
            {
                return Err(PlanError::Order {
                    earlier: earlier.place().name(),
                    later: later.place().name(),
                });
            }
        }
        for step in &self.steps {
            match step {
                Step::Become(identity) if identity.uid == 0 || identity.gid == 0 => {
                    return Err(PlanError::Root);
                }
                Step::Mounts(view) => view.check()?,
                Step::Secrets(secrets) => secrets.files.check()?,
                Step::Pipes(values) => secret::check_descriptors(values)?,
                Step::Doors { ports } if ports.len() > PORTS_MAX => {
                    return Err(PlanError::Ports("there are too many"));
                }
                Step::Doors { ports } if ports.iter().any(|p| [0, PROXY_PORT].contains(p)) => {
                    return Err(PlanError::Ports("0 and the proxy's own are none"));
                }
                _ => {}
            }
        }
        self.program.as_ref().map_or(Ok(()), Program::check)
    }

    /// Writes the plan into a sealed memfd: from here on nobody can change it.
    ///
    /// # Errors
    /// From the kernel: out of memory or of descriptors.
    pub fn seal(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(
            c"isolate-plan",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?);
        let bytes = self.text()?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > PLAN_BYTES_MAX) {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        file.write_all(&bytes)?;
        file.rewind()?;
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file.into())
    }

    /// As it is written. Measured first: a buffer that grows leaves copies of secrets behind.
    fn text(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut length = Length(0);
        serde_json::to_writer(&mut length, self)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *bytes, self)?;
        Ok(bytes)
    }

    /// Reads a plan back from its memfd.
    ///
    /// # Errors
    /// If it is no plan, or an unordered one.
    pub fn unseal(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        // In one piece: every page that a growing buffer would touch is a fault in a new process.
        let length = usize::try_from(file.metadata()?.len().min(PLAN_BYTES_MAX));
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.unwrap_or(0) + 1));
        file.take(PLAN_BYTES_MAX).read_to_end(&mut bytes)?;
        let plan: Self = serde_json::from_slice(&bytes)?;
        plan.check().map_err(io::Error::other)?;
        Ok(plan)
    }
}

/// Counts what is written and forgets it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn what_may_be_secret_is_wiped_and_written_in_one_piece() {
        fn is_wiped(_: &impl ZeroizeOnDrop) {}
        let plan = plan(vec![Step::Session]);
        let program = plan.program.as_ref().unwrap();
        program.env.values().for_each(is_wiped);
        let text = plan.text().unwrap();
        assert_eq!(text.capacity(), text.len());
        assert_eq!(*text, serde_json::to_vec(&plan).unwrap());
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            steps,
            program: Some(program()),
        }
    }

    fn program() -> Program {
        Program {
            path: "/bin/true".into(),
            args: vec!["ä b".to_owned(), String::new()],
            env: BTreeMap::from([("HOME".to_owned(), "/x=y".to_owned().into())]),
        }
    }

    #[test]
    fn a_plan_survives_its_memfd_and_cannot_be_changed() {
        let plan = plan(vec![
            Step::Session,
            Step::OomScore(500),
            Step::NoNewPrivs,
            Step::Workdir("/".into()),
        ]);
        let fd = plan.seal().unwrap();
        let mut writer = File::from(fd.try_clone().unwrap());
        assert_eq!(
            writer.write(b"x").unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        assert_eq!(Plan::unseal(fd).unwrap(), plan);
    }

    #[test]
    fn steps_out_of_order_or_twice_are_refused() {
        for steps in [
            vec![Step::NoNewPrivs, Step::Session],
            vec![Step::Session, Step::Session],
        ] {
            assert!(matches!(plan(steps).check(), Err(PlanError::Order { .. })));
        }
    }

    #[test]
    fn texts_the_kernel_cannot_take_are_refused_by_name() {
        let mut relative = program();
        relative.path = "true".into();
        assert!(matches!(relative.check(), Err(PlanError::Relative(_))));
        let mut zero = program();
        zero.args.push("a\0b".to_owned());
        assert_eq!(zero.check(), Err(PlanError::ZeroByte("an argument")));
        let mut name = program();
        name.env.insert("A=B".to_owned(), Zeroizing::default());
        assert_eq!(name.check(), Err(PlanError::EnvName("A=B".to_owned())));
        assert!(!format!("{name:?}").contains("/x=y"));
    }

    #[test]
    fn root_is_nobody_an_isolate_may_be() {
        for (uid, gid) in [(0, 7), (7, 0)] {
            let plan = plan(vec![Step::Become(Identity { uid, gid })]);
            assert_eq!(plan.check(), Err(PlanError::Root));
        }
    }
}
