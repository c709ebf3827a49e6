//! The options that describe a server, for `mcp add` and `mcp update`.

mod away;
mod usual;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::super::error::CliError;
use super::super::name;
use super::super::units::{Idle, parse_deadline};
use crate::api::admin::mcps::{
    AddMcp, ConfinementChange, InstallChange, LimitsChange, ProgramChange, TalkChange, TimesChange,
    UpdateMcp,
};
use crate::domain::confinement::{Network, Profile};
use crate::domain::credential::{CredentialSlot, parse_slot};
use crate::domain::egress::{Rule, RuleError};
use crate::domain::mcp::{Capture, Program, Sharing, Usual};
use crate::domain::name::{CredentialName, Name};
use crate::domain::package::Step;
use crate::domain::remote::Field;
use crate::domain::talk::{Check, Questions, ToolChanges};

use away::Away;
use usual::Own;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SharingArg {
    /// One isolate for each user
    #[value(name = "per_user", alias = "per-user")]
    PerUser,
    /// One isolate for each session
    #[value(name = "per_session", alias = "per-session")]
    PerSession,
    /// One instance for everybody; you vouch that the server keeps users apart
    #[value(name = "shared")]
    Shared,
}

impl From<SharingArg> for Sharing {
    fn from(arg: SharingArg) -> Self {
        match arg {
            SharingArg::PerUser => Self::PerUser,
            SharingArg::PerSession => Self::PerSession,
            SharingArg::Shared => Self::Shared,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum ProfileArg {
    /// Own view, network, uid and system call filter, landlock
    Strict,
    /// The same, but landlock only where there is one
    Standard,
    /// The host's files and network; for development
    None,
    /// What sandbox.profile says
    Default,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum NetworkArg {
    /// Nothing
    None,
    /// Itself
    Loopback,
    /// The hosts that --host names
    Allowlist,
    /// All the host reaches; needs sandbox.allow_network_host
    Host,
}

impl ProfileArg {
    const fn profile(self) -> Option<Profile> {
        match self {
            Self::Strict => Some(Profile::Strict),
            Self::Standard => Some(Profile::Standard),
            Self::None => Some(Profile::None),
            Self::Default => None,
        }
    }
}

impl From<NetworkArg> for Network {
    fn from(arg: NetworkArg) -> Self {
        match arg {
            NetworkArg::None => Self::None,
            NetworkArg::Loopback => Self::Loopback,
            NetworkArg::Allowlist => Self::Allowlist,
            NetworkArg::Host => Self::Host,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CaptureArg {
    /// Their size
    None,
    /// Their size and SHA-256
    Digest,
    /// Their text as well, without known secrets
    Full,
}

impl From<CaptureArg> for Capture {
    fn from(arg: CaptureArg) -> Self {
        match arg {
            CaptureArg::None => Self::None,
            CaptureArg::Digest => Self::Digest,
            CaptureArg::Full => Self::Full,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CheckArg {
    /// No: the server does it
    Off,
    /// Yes, and what does not fit is logged and passed on
    Warn,
    /// Yes, and what does not fit is not passed on
    Enforce,
}

impl From<CheckArg> for Check {
    fn from(arg: CheckArg) -> Self {
        match arg {
            CheckArg::Off => Self::Off,
            CheckArg::Warn => Self::Warn,
            CheckArg::Enforce => Self::Enforce,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChangesArg {
    /// It is recorded; what was discovered stays
    Keep,
    /// They are discovered again, and offered at once
    Adopt,
}

impl From<ChangesArg> for ToolChanges {
    fn from(arg: ChangesArg) -> Self {
        match arg {
            ChangesArg::Keep => Self::Keep,
            ChangesArg::Adopt => Self::Adopt,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StepArg {
    /// Once for all, apart from the run, where the command is npx or uvx
    Auto,
    /// Never: npx and uvx download in each user's isolate
    Off,
}

impl From<StepArg> for Step {
    fn from(arg: StepArg) -> Self {
        match arg {
            StepArg::Auto => Self::Auto,
            StepArg::Off => Self::Off,
        }
    }
}

/// What may be said of a server besides its command.
#[derive(Debug, Args)]
struct Traits {
    /// Who shares a process [default: per_user]
    #[arg(long, value_enum, value_name = "HOW")]
    sharing: Option<SharingArg>,
    /// A variable of its environment; may be repeated
    #[arg(long = "env", value_parser = variable, value_name = "NAME=VALUE")]
    env: Vec<(String, String)>,
    /// A credential it is given, with `:optional` behind it if it starts without; may be repeated
    #[arg(long = "credential", value_parser = parse_slot, value_name = "NAME=env:VARIABLE|file:FILENAME|fd:NUMBER|header:HEADER")]
    credentials: Vec<(CredentialName, CredentialSlot)>,
    /// Memory of one isolate, like 512MiB, or `default` for what isolates.memory_bytes says
    #[arg(long, value_parser = usual::memory, value_name = "SIZE")]
    memory: Option<Own<u64>>,
    /// Processes and threads of one isolate, or `default` for what isolates.pids says
    #[arg(long, value_parser = usual::pids, value_name = "N")]
    pids: Option<Own<u64>>,
    /// Cores of one isolate, like 1.5, or `default` for what isolates.cpu_millis says
    #[arg(long, value_parser = usual::cpu, value_name = "CORES")]
    cpu: Option<Own<u64>>,
    /// Stop an isolate that nobody called for this long, or `never`, or `default` for what isolates.idle_ms says
    #[arg(long, value_parser = usual::idle, value_name = "DURATION")]
    idle: Option<Own<Idle>>,
    /// How long a call may take, like 300s, or `default` for what calls.deadline_ms says
    #[arg(long, value_parser = usual::deadline, value_name = "DURATION")]
    call_timeout: Option<Own<Duration>>,
    /// How long a start may take, like 30s
    #[arg(long, value_parser = parse_deadline, value_name = "DURATION")]
    start_timeout: Option<Duration>,
    /// How thick the walls of an isolate are [default: what sandbox.profile says]
    #[arg(long, value_enum, value_name = "HOW")]
    profile: Option<ProfileArg>,
    /// What an isolate reaches [default: allowlist where hosts are named, else none]
    #[arg(long, value_enum, value_name = "HOW")]
    network: Option<NetworkArg>,
    /// A host it reaches, like `api.github.com`, `*.example.com:8443`, or `db.corp:5432/private` where
    /// private addresses are allowed; may be repeated, `-` for none
    #[arg(long = "host", value_parser = parse_host, value_name = "HOST[:PORT]")]
    hosts: Vec<Option<Rule>>,
    /// A path of the host that is seen, beneath sandbox.path_roots; may be repeated, `-` for none
    #[arg(long, value_name = "PATH")]
    read: Vec<PathBuf>,
    /// The same, and may be written to as far as the isolate's uid may
    #[arg(long, value_name = "PATH")]
    write: Vec<PathBuf>,
    /// When a package is installed [default: auto]
    #[arg(long, value_enum, value_name = "WHEN")]
    install: Option<StepArg>,
    /// Whether packages may run programs of theirs as they are installed [default: false]
    #[arg(long, value_name = "BOOL")]
    install_scripts: Option<bool>,
    /// How long an install may take, like 120s
    #[arg(long, value_parser = parse_deadline, value_name = "DURATION")]
    install_timeout: Option<Duration>,
    /// What the audit log keeps of a call's arguments [default: digest]
    #[arg(long, value_enum, value_name = "WHAT")]
    audit_arguments: Option<CaptureArg>,
    /// What the server may ask clients that can answer: sampling, elicitation, roots; may be repeated, `-` for
    /// none [default: none]
    #[arg(long = "ask", value_parser = parse_questions, value_delimiter = ',', value_name = "WHAT")]
    questions: Vec<Questions>,
    /// Whether a call's arguments are held against its tool's schema [default: off]
    #[arg(long, value_enum, value_name = "HOW")]
    check_arguments: Option<CheckArg>,
    /// What comes of it when the server says that its tools have changed [default: keep]
    #[arg(long, value_enum, value_name = "HOW")]
    tool_changes: Option<ChangesArg>,
    /// One line for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// A new definition.
#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    #[arg(value_parser = name)]
    name: Name,
    #[command(flatten)]
    traits: Traits,
    #[command(flatten)]
    away: Away,
    /// What is started, after `--`: an absolute path or a name in the isolates' PATH, and its
    /// arguments; `{home}`, `{user.name}` and `{user.id}` are filled in
    #[arg(last = true, required_unless_present = "url", value_name = "COMMAND")]
    command: Vec<String>,
}

/// A change of a definition.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    #[arg(value_parser = name)]
    pub(super) name: Name,
    #[command(flatten)]
    traits: Traits,
    #[command(flatten)]
    away: Away,
    /// Remove a header; may be repeated
    #[arg(long, value_parser = Field::parse, value_name = "NAME")]
    unset_header: Vec<Field>,
    /// Remove a variable; may be repeated
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Take a credential back; may be repeated. Values that are set stay until they are removed
    #[arg(long, value_parser = CredentialName::parse, value_name = "NAME")]
    remove_credential: Vec<CredentialName>,
    /// Another command with all its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn parse_host(text: &str) -> Result<Option<Rule>, String> {
    if text == "-" {
        return Ok(None);
    }
    let rule: Result<Rule, RuleError> = text.parse();
    rule.map(Some).map_err(|error| error.to_string())
}

fn parse_questions(text: &str) -> Result<Questions, String> {
    match text {
        "-" => Ok(Questions::NONE),
        word => Questions::permitted(word),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Traits {
    fn limits(&self) -> LimitsChange {
        LimitsChange {
            memory_bytes: self.memory.and_then(Own::value),
            pids: self.pids.and_then(Own::value),
            cpu_millis: self.cpu.and_then(Own::value),
            ..LimitsChange::default()
        }
    }

    /// What goes back to the configuration.
    fn left(&self) -> BTreeSet<Usual> {
        usual::left([
            (Usual::MemoryBytes, self.memory == Some(Own::Configured)),
            (Usual::Pids, self.pids == Some(Own::Configured)),
            (Usual::CpuMillis, self.cpu == Some(Own::Configured)),
            (Usual::CallMs, self.call_timeout == Some(Own::Configured)),
            (Usual::IdleMs, self.idle == Some(Own::Configured)),
        ])
    }

    fn times(&self) -> TimesChange {
        TimesChange {
            call_ms: self.call_timeout.and_then(Own::value).map(millis),
            start_ms: self.start_timeout.map(|start| Some(millis(start))),
            idle_ms: self.idle.and_then(Own::value).map(|idle| match idle {
                Idle::After(time) => Some(millis(time)),
                Idle::Never => None,
            }),
        }
    }
}

impl Traits {
    fn install(&self) -> InstallChange {
        InstallChange {
            step: self.install.map(Step::from),
            scripts: self.install_scripts,
            within_ms: self.install_timeout.map(|time| Some(millis(time))),
        }
    }

    fn talk(&self) -> TalkChange {
        let all = self.questions.iter().copied();
        TalkChange {
            questions: all.reduce(|all, more| all | more),
            arguments: self.check_arguments.map(Check::from),
            tool_changes: self.tool_changes.map(ToolChanges::from),
        }
    }

    fn confinement(&self) -> ConfinementChange {
        let paths = |given: &[PathBuf]| {
            let none = PathBuf::from("-");
            let listed: Vec<_> = given
                .iter()
                .filter(|path| **path != none)
                .cloned()
                .collect();
            (!given.is_empty()).then_some(listed)
        };
        ConfinementChange {
            profile: self.profile.map(ProfileArg::profile),
            network: self.network.map(Network::from),
            read: paths(&self.read),
            write: paths(&self.write),
            hosts: (!self.hosts.is_empty()).then(|| self.hosts.iter().flatten().cloned().collect()),
        }
    }
}

impl AddArgs {
    fn program(&self) -> Result<Program, CliError> {
        if let Some(url) = &self.away.url {
            return Ok(Program::remote(self.away.remote(url)));
        }
        if !self.away.is_nothing() {
            let text = "--transport, --header, --allow-private and --ca need --url";
            return Err(CliError::Usage(text.to_owned()));
        }
        let Some((command, args)) = self.command.split_first() else {
            return Err(CliError::Usage("no command was given after --".to_owned()));
        };
        Ok(Program {
            command: command.clone(),
            args: args.to_vec(),
            env: self.traits.env.iter().cloned().collect(),
            remote: None,
        })
    }

    pub(super) fn wanted(&self) -> Result<AddMcp, CliError> {
        Ok(AddMcp {
            name: self.name.clone(),
            description: self.traits.description.clone().unwrap_or_default(),
            sharing: self.traits.sharing.map(Sharing::from).unwrap_or_default(),
            program: self.program()?,
            limits: self.traits.limits(),
            times: self.traits.times(),
            confinement: self.traits.confinement(),
            install: self.traits.install(),
            talk: self.traits.talk(),
            audit_arguments: self
                .traits
                .audit_arguments
                .map(Capture::from)
                .unwrap_or_default(),
            credentials: self.traits.credentials.iter().cloned().collect(),
        })
    }
}

impl UpdateArgs {
    pub(super) fn wanted(&self) -> Result<UpdateMcp, CliError> {
        let removed = self.unset_env.iter().map(|name| (name.clone(), None));
        let set = self.traits.env.iter().cloned();
        let env: BTreeMap<_, _> = removed
            .chain(set.map(|(name, value)| (name, Some(value))))
            .collect();
        let taken = self.remove_credential.iter();
        let taken = taken.map(|name| (name.clone(), None));
        let given = self.traits.credentials.iter().cloned();
        let command = self.command.split_first();
        let wanted = UpdateMcp {
            description: self.traits.description.clone(),
            sharing: self.traits.sharing.map(Sharing::from),
            program: ProgramChange {
                command: command.map(|(command, _)| command.clone()),
                args: command.map(|(_, args)| args.to_vec()),
                env,
                remote: self.away.change(&self.unset_header),
            },
            limits: self.traits.limits(),
            times: self.traits.times(),
            as_configured: self.traits.left(),
            confinement: self.traits.confinement(),
            install: self.traits.install(),
            talk: self.traits.talk(),
            audit_arguments: self.traits.audit_arguments.map(Capture::from),
            credentials: taken
                .chain(given.map(|(name, slot)| (name, Some(slot))))
                .collect(),
        };
        if wanted == UpdateMcp::default() {
            let text = format!("nothing to change was given for mcp {}", self.name);
            return Err(CliError::Usage(text));
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Debug, Subcommand)]
    enum Verb {
        Add(AddArgs),
        Update(UpdateArgs),
    }

    fn add(line: &str) -> AddMcp {
        match Line::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Add(args) => args.wanted().unwrap(),
            Verb::Update(_) => panic!("{line}"),
        }
    }

    fn update(line: &str) -> Result<UpdateMcp, CliError> {
        match Line::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Update(args) => args.wanted(),
            Verb::Add(_) => panic!("{line}"),
        }
    }

    #[test]
    fn options_before_the_dashes_are_ours_and_after_them_the_servers() {
        let wanted =
            add("x add time --env A=B=C --memory 1GiB --idle never -- uvx --memory 3 -- y");
        assert_eq!(wanted.program.command, "uvx");
        assert_eq!(wanted.program.args, ["--memory", "3", "--", "y"]);
        assert_eq!(wanted.program.env["A"], "B=C");
        assert_eq!(wanted.limits.memory_bytes, Some(1 << 30));
        assert_eq!(
            wanted.limits.pids, None,
            "what is not said is the server's to fill in"
        );
        assert_eq!(wanted.times.idle_ms, Some(None));
        assert_eq!(wanted.confinement, ConfinementChange::default());
        let asks = add("x add a --ask sampling,roots --check-arguments warn -- c").talk;
        let questions = asks.questions.unwrap().to_string();
        assert_eq!(questions, "sampling,sampling.tools,roots");
        assert_eq!(asks.arguments, Some(Check::Warn));
        let walls = add("x add a --profile none --network host --read /srv/a --read /b -- c");
        assert_eq!(walls.confinement.profile, Some(Some(Profile::None)));
        assert_eq!(walls.confinement.network, Some(Network::Host));
        let read = ["/srv/a", "/b"].map(PathBuf::from);
        assert_eq!(walls.confinement.read, Some(read.to_vec()));
    }

    #[test]
    fn an_update_says_only_what_changes() {
        let wanted = update("x update time --unset-env A --env B=1 --cpu 0.5").unwrap();
        assert_eq!(wanted.program.command, None);
        assert_eq!(wanted.program.env["A"], None);
        assert_eq!(wanted.program.env["B"].as_deref(), Some("1"));
        assert_eq!(wanted.limits.cpu_millis, Some(500));
        assert_eq!(wanted.times, TimesChange::default());
        let walls = update("x update time --profile default --read -")
            .unwrap()
            .confinement;
        assert_eq!(walls.profile, Some(None), "back to the operator's");
        assert_eq!((walls.read, walls.write), (Some(Vec::new()), None));
        let back = update("x update time --memory default --idle default --pids 9").unwrap();
        let left = BTreeSet::from([Usual::MemoryBytes, Usual::IdleMs]);
        assert_eq!(back.as_configured, left, "back to the configuration's");
        let own = (back.limits.memory_bytes, back.limits.pids);
        assert_eq!((own, back.times.idle_ms), ((None, Some(9)), None));
        let nothing = update("x update time").unwrap_err();
        assert_eq!(nothing.exit().code(), 2);
    }
}
