//! `legation connect`: writes a server into an AI tool's configuration, and proves that it works.
//!
//! The key is never written: the file names a variable, and the key given here is used only to look
//! whether the server lets us in.

mod client;
mod file;
mod json;
mod table;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::bridge::{self, Endpoint, KEY_VARIABLE, URL_VARIABLE, Unseen};
use super::error::{CliError, Done, Exit};
use super::name;
use super::output::Out;
use crate::domain::code::Code;
use crate::domain::name::Name;
use client::Client;

/// Node and Bun read one more certificate from the file it names, beside those they trust.
const NODE_VARIABLE: &str = "NODE_EXTRA_CA_CERTS";

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// Which AI tool
    #[arg(value_enum)]
    client: Client,
    /// Where the server is: https://HOST:8443/mcp, or /mcp/NAME
    #[arg(long, env = URL_VARIABLE, value_name = "URL")]
    url: Option<String>,
    /// A file with the key, for looking whether it works (else the variable LEGATION_KEY)
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// Certificate authorities to trust when looking, PEM [default: the system's]
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Take any certificate when looking; only for a server on this machine
    #[arg(long)]
    allow_self_signed: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    print: bool,
    /// The file to write [default: the AI tool's usual one]
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// What the server is called in the AI tool
    #[arg(long, default_value = "legation", value_parser = name, value_name = "NAME")]
    name: Name,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Connected {
    client: &'static str,
    file: PathBuf,
    changed: bool,
    backup: Option<PathBuf>,
    tools: usize,
}

pub(super) fn run(args: ConnectArgs, mut out: Out) -> Done {
    let endpoint = bridge::endpoint(args.url.as_deref())?;
    let trust = bridge::trust(args.ca_file.clone(), args.allow_self_signed, &endpoint)?;
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let path = args.file.clone().or_else(|| args.client.file(&variable));
    let path = path.ok_or_else(|| {
        usage(
            "there is no home directory to find the file in".to_owned(),
            "name it with --file PATH",
        )
    })?;
    if args.print {
        let form = args.client.edit("", args.name.as_str(), endpoint.url());
        let form = form.map_err(|why| refused(&path, &why))?;
        out.say(&format!(
            "{} reads this from {}:",
            args.client.name(),
            path.display()
        ));
        out.raw(&form)?;
        if let Some(line) = trusting(&args) {
            out.say(&line);
        }
        return Ok(Exit::Ok);
    }
    // What is wrong with the key is said before anything is written.
    let key = key(args.key_file.as_deref())?;
    let (changed, backup) = put(&args, &path, &endpoint)?;
    let written = match changed {
        true => format!("{} is written", path.display()),
        false => format!("{} was right already", path.display()),
    };
    if let Some(backup) = &backup {
        out.say(&format!("the file as it was: {}", backup.display()));
    }
    let key = key.ok_or_else(|| {
        let next = format!("the same again with the key in {KEY_VARIABLE} or --key-file PATH");
        not_verified(&written, &endpoint, "no key is given to look with", next)
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let looked = runtime.block_on(Box::pin(bridge::count_tools(&endpoint, &trust, &key)));
    let tools = match looked {
        Ok(Ok(tools)) => tools,
        Ok(Err(Unseen { why, next })) => {
            return Err(not_verified(&written, &endpoint, &why, next.to_owned()));
        }
        Err(error) => {
            let why = error.to_string();
            return Err(not_verified(&written, &endpoint, &why, error.next()));
        }
    };
    let done = Connected {
        client: args.client.name(),
        file: path,
        changed,
        backup,
        tools,
    };
    let shown = done.file.display().to_string();
    out.one(&done, &shown, |out| {
        out.line(&written)?;
        out.line(&format!("{endpoint} shows this key {tools} {}", word(tools)))?;
        if !args.client.asks() {
            let start = args.client.name();
            out.line(&format!(
                "where {start} is started: export {KEY_VARIABLE}=…   (the key, which is not in the file)"
            ))?;
        }
        if let Some(line) = trusting(&args) {
            out.line(&line)?;
        }
        out.line(&format!("next: {}", args.client.next()))
    })?;
    if tools == 0 {
        out.say("no tool is granted to this key: ask an operator for `legation group grant`");
    }
    Ok(Exit::Ok)
}

/// The key to look with, if there is one.
fn key(file: Option<&Path>) -> Result<Option<secrecy::SecretString>, CliError> {
    let variable = std::env::var(KEY_VARIABLE)
        .ok()
        .filter(|text| !text.is_empty());
    match (file, variable) {
        (Some(path), _) => bridge::key_of_file(path).map(Some),
        (None, Some(text)) => bridge::key(&text, &format!("the variable {KEY_VARIABLE}")).map(Some),
        (None, None) => Ok(None),
    }
}

/// Puts the server into the file, unless it is there.
fn put(
    args: &ConnectArgs,
    path: &Path,
    endpoint: &Endpoint,
) -> Result<(bool, Option<PathBuf>), CliError> {
    let _alone = file::lock(path);
    let before = file::read(path).map_err(|error| refused(path, &error.to_string()))?;
    let text = before.as_deref().unwrap_or_default();
    let edited = args.client.edit(text, args.name.as_str(), endpoint.url());
    let edited = edited.map_err(|why| refused(path, &why))?;
    if before.is_some() && edited == text {
        return Ok((false, None));
    }
    let backup = file::write(path, before.as_deref(), &edited);
    backup
        .map(|backup| (true, backup))
        .map_err(|why| CliError::Told {
            code: Code::OutputFailed,
            message: why,
            next: "check who may write there, or name another file with --file PATH".to_owned(),
        })
}

const fn word(tools: usize) -> &'static str {
    match tools {
        1 => "tool",
        _ => "tools",
    }
}

fn refused(path: &Path, why: &str) -> CliError {
    usage(
        format!("{} is left as it is: {why}", path.display()),
        "mend the file, or see what belongs into it with --print",
    )
}

fn not_verified(written: &str, endpoint: &Endpoint, why: &str, next: String) -> CliError {
    CliError::Told {
        code: Code::PartlyDone,
        message: format!("{written}, but it was not seen to work at {endpoint}: {why}"),
        next,
    }
}

/// What the AI tool needs itself to trust a certificate that we were told to take: our look was ours alone.
fn trusting(args: &ConnectArgs) -> Option<String> {
    let name = args.client.name();
    let file = match &args.ca_file {
        // It is started elsewhere.
        Some(file) => std::path::absolute(file).map_or_else(
            |_| file.display().to_string(),
            |file| file.display().to_string(),
        ),
        None if args.allow_self_signed => "DATA_DIR/tls/cert.pem".to_owned(),
        None => return None,
    };
    let explained = match (&args.ca_file, args.client.runs_on_node()) {
        (Some(_), true) => "   (it must trust the certificate as well)",
        (None, true) => {
            "   (the server's certificate; the block that `serve` prints names the file)"
        }
        (_, false) => {
            return Some(format!(
                "{name} must trust the certificate by its own means: {file}"
            ));
        }
    };
    Some(format!(
        "where {name} is started: export {NODE_VARIABLE}={file}{explained}"
    ))
}

fn usage(message: String, next: &str) -> CliError {
    CliError::Told {
        code: Code::Usage,
        message,
        next: next.to_owned(),
    }
}
