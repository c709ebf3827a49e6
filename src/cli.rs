//! The commands of the one binary.
//!
//! `serve` is the server; everything else is a client of its admin socket and prints what it
//! learns: data on stdout, talk on stderr, tables for people, `-o json` for programs. What failed,
//! with what, why and what to do next is one shape for all of them (`error`).

mod audit;
mod banner;
mod bridge;
mod call;
mod client;
mod config;
mod connect;
mod credential;
mod dev;
mod doctor;
mod error;
mod explain;
mod group;
mod home;
mod host;
mod isolate;
mod key;
mod kill;
mod logging;
mod mcp;
mod output;
mod serve;
mod socket;
mod status;
mod subscription;
mod table;
mod tree;
mod units;
mod user;
mod vault;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use client::Client;
use error::{CliError, Done};
use output::{Format, Out};

use crate::domain::name::{Name, NameError};

/// The first word of a process that is our installer.
const INSTALLER: &str = "installer";

/// One supervised, limited, sandboxed process tree for each user and MCP server.
#[derive(Debug, Parser)]
#[command(
    name = "legation",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Default, Args)]
struct Global {
    /// How to print: a table, JSON, a wider table, or names only
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    output: Format,
    /// Print without colour (also: the variable NO_COLOR)
    #[arg(long, global = true)]
    no_color: bool,
    /// The server's admin socket [default: in the data directory]
    #[arg(long, global = true, env = "LEGATION_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The server's data directory [default: ./legation-data if there is one, else
    /// /var/lib/legation]
    #[arg(long, global = true, env = "LEGATION_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Do not ask before taking something away
    #[arg(short, long, global = true)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::ServeArgs),
    /// Show the server on one screen; exit 0 healthy, 1 error, 2 degraded, 3 not running
    Status,
    /// Show the supervision tree
    Tree(tree::TreeArgs),
    /// Show what runs (short for `isolate list`)
    Ps,
    /// Look at isolates, restart and kill them
    #[command(subcommand)]
    Isolate(isolate::IsolateCommand),
    /// Define MCP servers and publish them
    #[command(subcommand)]
    Mcp(Box<mcp::McpCommand>),
    /// Manage users
    #[command(subcommand)]
    User(user::UserCommand),
    /// Manage groups, their members and what they are granted
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Manage the keys clients present
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Manage the secrets that users' servers are started with
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Look at the keys everything is sealed under, and rotate them
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Manage which granted mcps a key sees
    #[command(subcommand)]
    Subscription(subscription::SubscriptionCommand),
    /// Switch tools, mcps, users, clients or everything off and on again
    #[command(subcommand)]
    KillSwitch(kill::KillCommand),
    /// Look at calls under way and cancel them
    #[command(subcommand)]
    Call(call::CallCommand),
    /// Look at what isolates keep on the disk
    #[command(subcommand)]
    Home(home::HomeCommand),
    /// Look at registered sessions
    #[command(subcommand)]
    Session(user::SessionCommand),
    /// Try what this host offers to isolates; exit 0 all well, 1 warnings, 2 failures
    Doctor(doctor::DoctorArgs),
    /// Look into the audit log, and check that it is whole
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Show and check the configuration; needs no running server
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Say what an error code means and what to do; needs no running server
    Explain(explain::ExplainArgs),
    /// Be a stdio MCP server that relays to a Legation server, for AI tools that speak stdio only
    Bridge(bridge::BridgeArgs),
    /// Write the server into an AI tool's configuration, and look whether it works
    Connect(connect::ConnectArgs),
}

/// What a command that talks to the server works with.
#[derive(Debug)]
struct Desk {
    client: Client,
    out: Out,
    yes: bool,
}

impl Desk {
    /// Asks before something is taken away. Without a terminal, `--yes` must have been given.
    fn confirm(&mut self, what: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !Out::can_ask() {
            return Err(CliError::NeedsYes(what.to_owned()));
        }
        match self.out.ask(&format!("{what}? [y/N] "))?.as_str() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::Declined),
        }
    }
}

/// Parses the command line, does what it says and gives the process's exit code.
#[must_use]
pub fn main<I: IntoIterator<Item = OsString>>(words: I) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    // What installs a package, in an isolate of its own: no command, and nobody's suggestion.
    if let [_, role] = &words[..]
        && role == INSTALLER
    {
        return crate::installer::run();
    }
    let stop = match Cli::try_parse_from(&words) {
        Ok(cli) => return run(cli),
        Err(stop) => stop,
    };
    if let Some(error) = words::refused(&stop, &words) {
        error.report(words::format(&words));
        return ExitCode::from(error.exit().code());
    }
    // Help and version are no errors; clap knows which stream and code. Nobody reads it: nothing to be done.
    _ = stop.print();
    ExitCode::from(u8::try_from(stop.exit_code()).unwrap_or(1))
}

fn run(cli: Cli) -> ExitCode {
    let out = Out::new(cli.global.output, cli.global.no_color);
    let format = cli.global.output;
    let done = match cli.command {
        Command::Bridge(args) => bridge::run(args),
        Command::Connect(args) => connect::run(args, out),
        Command::Serve(args) => serve::run(args, cli.global.data_dir, out),
        Command::Config(command) => config::run(command, cli.global, out),
        Command::Doctor(args) => doctor::run(args, cli.global, out),
        Command::Explain(args) => explain::run(&args, out),
        Command::Audit(audit::AuditCommand::Verify(args)) => audit::verify(&args, cli.global, out),
        command => ask_server(command, cli.global, out),
    };
    match done {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            error.report(format);
            ExitCode::from(error.exit().code())
        }
    }
}

/// Runs a command that is a client. One thread is enough for one connection.
fn ask_server(command: Command, global: Global, out: Out) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let socket = socket::find(global.socket, global.data_dir)?;
    let desk = Desk {
        client: Client::new(socket),
        out,
        yes: global.yes,
    };
    // Boxed: the commands' futures differ widely in size.
    runtime.block_on(Box::pin(dispatch(command, desk)))
}

async fn dispatch(command: Command, desk: Desk) -> Done {
    match command {
        Command::Status => status::run(desk).await,
        Command::Tree(args) => tree::run(args, desk).await,
        Command::Ps => isolate::list(desk).await,
        Command::Isolate(command) => isolate::run(command, desk).await,
        Command::Mcp(command) => mcp::run(*command, desk).await,
        Command::User(command) => user::run(command, desk).await,
        Command::Group(command) => group::run(command, desk).await,
        Command::Key(command) => key::run(command, desk).await,
        Command::Credential(command) => credential::run(command, desk).await,
        Command::Vault(command) => vault::run(command, desk).await,
        Command::Subscription(command) => subscription::run(command, desk).await,
        Command::KillSwitch(command) => kill::run(command, desk).await,
        Command::Call(command) => call::run(command, desk).await,
        Command::Home(command) => home::run(command, desk).await,
        Command::Session(command) => user::sessions(command, desk).await,
        Command::Audit(command) => audit::run(command, desk).await,
        Command::Serve(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Explain(_)
        | Command::Bridge(_)
        | Command::Connect(_) => Ok(error::Exit::Usage),
    }
}

/// For clap: a name of a user, group or mcp.
fn name(text: &str) -> Result<Name, NameError> {
    Name::parse(text)
}

/// For clap: an id, or a part of its beginning.
fn id(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("it is empty: give an id, or a part of its beginning that no other has"),
        id => Ok(id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("legation").chain(line.split_whitespace()))
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_documentation_shows_parses() {
        for line in [
            "serve --dev",
            "serve --config x.toml --set client.listen=127.0.0.1:1 --set calls.in_flight_max=4",
            "serve --listen 127.0.0.1:9000 --data-dir /tmp/x",
            "status -o json",
            "--no-color tree --depth 2 --watch",
            "tree iso_x --depth 1",
            "ps -o wide",
            "isolate list",
            "isolate show iso_x",
            "isolate restart x",
            "isolate kill x --reason leak --yes",
            "isolate logs x -f",
            "mcp add time -- uvx mcp-server-time",
            "mcp add x --sharing shared --env A=B --env C= --memory 512MiB --pids 9 --cpu 1.5 \
             --idle never --call-timeout 300s --start-timeout 30s --description d -- cat -u",
            "mcp update x --idle 15m --unset-env A",
            "mcp update x -- other --flag",
            "mcp discover x",
            "mcp publish x",
            "mcp archive x -y",
            "mcp suspend x --reason r",
            "mcp resume x",
            "mcp list",
            "mcp show x",
            "user add ada",
            "user suspend ada --reason r",
            "user resume ada",
            "user list -o name",
            "user remove ada -y",
            "home list",
            "user show ada",
            "group show dev",
            "group add dev",
            "group member add dev ada",
            "group member remove dev ada",
            "group grant dev x",
            "group revoke dev x",
            "group list",
            "key create ada --label laptop --expires-in 30d --no-subscribe",
            "key revoke key_x",
            "key list --user ada",
            "subscription add key_x time",
            "subscription remove key_x time",
            "subscription add --group dev time",
            "subscription add time --user ada",
            "subscription remove --user ada time",
            "subscription list --key x",
            "vault status",
            "vault rotate",
            "vault rotate-tokens -y",
            "session list",
            "credential set --user ada --mcp github TOKEN",
            "credential set --shared --mcp github TOKEN --file x --raw",
            "credential status --user ada",
            "credential status --mcp github",
            "credential remove --user ada --mcp github TOKEN -y",
            "mcp add x --credential TOKEN=env:GITHUB_TOKEN --credential A=env:B:optional -- cat",
            "mcp add x --credential KEY=file:key.json -- cat --key {secrets}/key.json",
            "mcp update x --remove-credential TOKEN",
            "key suspend key_x --reason r -y",
            "key resume x",
            "kill-switch on --scope mcp --target demo --reason leaks --expires 2h",
            "kill-switch on --scope tool --target demo/echo --reason r --dry-run",
            "kill-switch on --scope all --reason r --expires 2026-01-31T08:00:00Z -y",
            "kill-switch off --scope client --target key_x",
            "kill-switch list --history -o json",
            "kill-switch show deny_x",
            "call list",
            "call cancel call_x --reason r --recycle",
            "call cancel call_x --no-recycle",
            "audit tail -n 5 -f --event call",
            "audit search --since 1h --until 2026-01-31T12:00:00Z --user ada --mcp x --tool t \
             --client key_x --event auth --outcome ok --call call_x --text y --unfinished \
             --limit 9 --cursor 7",
            "audit export --since 1d --format csv",
            "audit verify --dir x --public-key y --checkpoint z",
            "audit key",
            "config show --config x.toml",
            "config check x.toml",
            "bridge --url https://tools.example:8443/mcp --key-file key --ca-file ca.pem",
            "bridge --config bridge.toml --allow-self-signed --log-file x --cache-file y",
            "connect claude-code --url https://tools.example:8443/mcp --print",
            "connect codex --url https://x.example/mcp --key-file k --file f --name tools",
            "status --socket /run/x.sock",
            "explain",
            "explain E0407",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "nothing",
            "serve --set novalue",
            "mcp add x",
            "mcp add X -- cat",
            "mcp add x --memory lots -- cat",
            "mcp add x --env NOVALUE -- cat",
            "mcp add x --idle 0s -- cat",
            "mcp add x --pids 0 -- cat",
            "mcp update x --env A=1 --unset-env",
            "user add ../x",
            "tree --depth -1",
            "subscription add time",
            "subscription add key_x time --user ada",
            "subscription add --group dev --user ada time",
            "subscription add --group dev",
            "status -o yaml",
            "key create ada --expires-in soon",
            "credential set --mcp x TOKEN",
            "mcp add x --credential TOKEN=file:../x -- cat",
            "kill-switch on --scope mcp --target demo",
            "kill-switch on --target demo --reason r",
            "kill-switch on --scope all --reason r --expires soon",
            "call cancel",
            "call cancel call_x --recycle --no-recycle",
            "connect emacs",
            "connect vscode --name ../x",
            "audit search --since soon",
            "audit search --limit 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_usage_error_exits_with_two_and_help_with_zero() {
        let exit = |line: &str| parse(line).err().map(|e| e.exit_code());
        assert_eq!(exit("nothing"), Some(2));
        assert_eq!(exit("--help"), Some(0));
        assert_eq!(exit("--version"), Some(0));
    }
}
