//! What a definition must be, whoever wrote it and however it came to be so.

use super::remote::{away, no_headers};
use crate::api::admin::ApiError;
use crate::config::Config;
use crate::domain::credential;
use crate::domain::limits;
use crate::domain::mcp::{Limits, Mcp, Program, Times};
use crate::domain::package::Install;

/// A limit that it had `before` is not looked at again: bounds may have become narrower since, and nothing else of it
/// could be changed.
pub(super) fn checked(mcp: Mcp, before: Option<&Mcp>) -> Result<Mcp, ApiError> {
    let known = before.map(bounds).unwrap_or_default();
    let out_of_bounds = bounds(&mcp).into_iter().find(|one| !known.contains(one));
    let broken = [
        description(&mcp.description),
        match &mcp.program.remote {
            Some(remote) => away(&mcp, remote),
            None => program(&mcp.program).or_else(|| no_headers(&mcp.credentials)),
        },
        out_of_bounds,
        package(&mcp),
        mcp.confinement.problem(),
        credential::check(&mcp.credentials, &mcp.program.env)
            .err()
            .map(|wrong| wrong.to_string()),
    ];
    match broken.into_iter().flatten().next() {
        Some(text) => Err(ApiError::invalid(format!("mcp `{}`: {text}", mcp.name))),
        None => Ok(mcp),
    }
}

/// All that is out of bounds, each with its value.
fn bounds(mcp: &Mcp) -> Vec<String> {
    let mut all = kernel(&mcp.limits);
    all.extend(times(&mcp.times, &mcp.install));
    all
}

fn description(text: &str) -> Option<String> {
    let max = limits::DESCRIPTION_CHARS_MAX;
    (text.chars().count() > max).then(|| format!("the description is longer than {max} characters"))
}

fn program(program: &Program) -> Option<String> {
    let Program {
        command, args, env, ..
    } = program;
    let words = || std::iter::once(command).chain(args);
    let bytes = words().map(String::len).sum::<usize>()
        + env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
    if command.trim().is_empty() {
        return Some("the command is empty".to_owned());
    }
    if args.len() > limits::PROGRAM_ARGS_MAX {
        return Some(format!("more than {} arguments", limits::PROGRAM_ARGS_MAX));
    }
    if env.len() > limits::PROGRAM_ENV_MAX {
        return Some(format!("more than {} variables", limits::PROGRAM_ENV_MAX));
    }
    if bytes > limits::PROGRAM_BYTES_MAX {
        let max = limits::PROGRAM_BYTES_MAX;
        return Some(format!(
            "command, arguments and environment are {bytes} bytes, more than {max}"
        ));
    }
    if words().chain(env.values()).any(|word| word.contains('\0')) {
        return Some("a NUL byte in an argument or a variable".to_owned());
    }
    let bad = env
        .keys()
        .find(|name| name.is_empty() || name.contains(['=', '\0']));
    bad.map(|name| format!("`{}` cannot name a variable", name.escape_debug()))
}

fn kernel(wanted: &Limits) -> Vec<String> {
    let of_isolates = [
        ("memory_bytes", wanted.memory_bytes),
        ("pids", wanted.pids),
        ("cpu_millis", wanted.cpu_millis),
    ];
    let outside = of_isolates.into_iter();
    let mut all: Vec<String> = outside
        .filter_map(|(name, value)| out_of_bounds(name, value))
        .collect();
    let at_least = [
        ("open_files", wanted.open_files, 16),
        ("file_bytes", wanted.file_bytes, 1),
    ];
    let low = at_least.into_iter().filter(|(_, value, min)| value < min);
    all.extend(
        low.map(|(name, value, min)| format!("{name} is {value}, but must be at least {min}")),
    );
    all
}

/// What an operator cannot set for all, nobody sets for one: the bounds are those of `[isolates]`.
fn out_of_bounds(name: &str, value: u64) -> Option<String> {
    let mut keys = Config::keys().into_iter();
    let key = keys.find(|key| key.section == "isolates" && key.name == name)?;
    let (min, max) = key.range?;
    if (min..=max).contains(&value) {
        return None;
    }
    let shown = |value: u64| match name {
        "memory_bytes" => format!("{value} ({} MiB)", value >> 20),
        _ => value.to_string(),
    };
    let (value, min, max) = (shown(value), shown(min), shown(max));
    Some(format!(
        "{name} is {value}, but must be from {min} to {max}, as isolates.{name} of the configuration"
    ))
}

/// A launcher whose command line we cannot take apart must not be found out by its users.
fn package(mcp: &Mcp) -> Option<String> {
    let wrong = match mcp.package() {
        Ok(None) => return None,
        Ok(Some(_)) => {
            let of_install = |name: &&String| {
                let name = name.to_ascii_lowercase();
                ["npm_config_", "uv_", "pip_"]
                    .iter()
                    .any(|start| name.starts_with(start))
            };
            let name = mcp.program.env.keys().find(of_install)?;
            return Some(format!(
                "the variable `{name}` is a package manager's, and the install goes by the section \
                 [install] of the configuration (registries, proxy, authorities); remove it, or let \
                 the package download in each user's isolate with --install off"
            ));
        }
        Err(wrong) => wrong,
    };
    Some(format!(
        "{wrong}; write it as NAME or NAME@VERSION, or let it download in each user's isolate with \
         --install off"
    ))
}

fn times(times: &Times, install: &Install) -> Vec<String> {
    let max = u64::try_from(limits::CALL_DEADLINE_MAX.as_millis()).unwrap_or(u64::MAX);
    let given = [
        ("call_ms", Some(times.call_ms)),
        ("start_ms", times.start_ms),
        ("install.within_ms", install.within_ms),
    ];
    let given = given.into_iter();
    let given = given.filter_map(|(name, value)| value.map(|ms| (name, ms)));
    let wrong = given.filter(|(_, ms)| *ms == 0 || *ms > max);
    let mut all: Vec<String> = wrong
        .map(|(name, ms)| format!("{name} is {ms}, but must be from 1 to {max}"))
        .collect();
    all.extend(times.idle_ms.and_then(|ms| {
        let text = out_of_bounds("idle_ms", ms)?;
        Some(format!("{text}, or null (never)"))
    }));
    all
}
