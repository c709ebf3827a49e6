//! From an mcp's definition to the launch of one run: templates, environment, home, program.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::domain::account::User;
use crate::domain::confinement::Network;
use crate::domain::credential::SECRETS_VARIABLE;
use crate::domain::limits::EGRESS_PROXY_PORT;
use crate::domain::mcp::Program;
use crate::domain::redact::Redactor;
use crate::domain::remote::Remote;
use crate::domain::verdict::Verdict;

use super::credentials::{self, Given};
use super::ctx::Ctx;
use super::launcher::{Dial, Extra, Launch, OnDenied, Secrets};
use super::packages::{Lack, home_owner};
use super::remote;
use super::slot::{Principal, Slot};
use super::start_work::start_work;

/// Why a program cannot be started as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The command is not there.
    #[error("command `{command}` was not found in {path}")]
    NotFound {
        /// As written.
        command: String,
        /// Where it was looked for.
        path: String,
    },
    /// No file is where it says.
    #[error("command `{command}` does not exist")]
    Absent {
        /// As written: an absolute path.
        command: String,
    },
    /// It is there and cannot be executed.
    #[error("command `{command}` is {path}, which is not an executable file")]
    NotExecutable {
        /// As written.
        command: String,
        /// What was found.
        path: String,
    },
}

/// Finds the program: an absolute path as it is, a bare name in `path` (colon-separated).
///
/// # Errors
/// [`ProgramError`].
pub fn find_program(command: &str, path: &str) -> Result<PathBuf, ProgramError> {
    let candidate = Path::new(command);
    let mut found = None;
    let tried: Vec<PathBuf> = if candidate.is_absolute() {
        vec![candidate.to_owned()]
    } else if command.contains('/') || command.is_empty() {
        // A relative path would mean another file in every home.
        Vec::new()
    } else {
        path.split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| Path::new(dir).join(command))
            .collect()
    };
    for file in tried {
        let Ok(meta) = file.metadata() else { continue };
        if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            return Ok(file);
        }
        found.get_or_insert(file);
    }
    Err(match found {
        Some(file) => ProgramError::NotExecutable {
            command: command.to_owned(),
            path: file.display().to_string(),
        },
        None if candidate.is_absolute() => ProgramError::Absent {
            command: command.to_owned(),
        },
        None => ProgramError::NotFound {
            command: command.to_owned(),
            path: path.to_owned(),
        },
    })
}

/// Where to look for what belongs to a command: beside it, if it says where it is, then in `path`. Who names
/// `/opt/uv/bin/uvx` means the uv that lies there.
pub(super) fn beside(command: &str, path: &str) -> String {
    let folder = Path::new(command).parent().and_then(Path::to_str);
    match folder.filter(|folder| folder.starts_with('/')) {
        Some(folder) => format!("{folder}:{path}"),
        None => path.to_owned(),
    }
}

/// What templates stand for.
#[derive(Debug)]
struct Names<'a> {
    home: &'a str,
    secrets: &'a str,
    user: Option<&'a User>,
}

impl Names<'_> {
    /// Fills in `{home}`, `{secrets}`, `{user.name}` and `{user.id}`, once, without a shell. Other braces stay.
    fn fill(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            out.push_str(before);
            let values = [
                ("{home}", self.home),
                ("{secrets}", self.secrets),
                (
                    "{user.name}",
                    self.user.map_or("shared", |user| user.name.as_str()),
                ),
                (
                    "{user.id}",
                    self.user.map_or("shared", |user| user.id.as_str()),
                ),
            ];
            if let Some((name, value)) = values.iter().find(|(name, _)| from.starts_with(name)) {
                out.push_str(value);
                rest = from.split_at(name.len()).1;
            } else {
                out.push('{');
                rest = from.split_at(1).1;
            }
        }
        out.push_str(rest);
        out
    }
}

/// The launch of the next run in a slot.
///
/// # Errors
/// A verdict: the program is not there.
pub(super) async fn launch(
    ctx: &Arc<Ctx>,
    slot: &Arc<Slot>,
) -> Result<(Launch, Option<Arc<Redactor>>), Verdict> {
    let (ctx, slot) = (Arc::clone(ctx), Arc::clone(slot));
    let made = start_work(move || make(&ctx, &slot)).await;
    made.unwrap_or_else(|detail| Err(Verdict::Internal { detail }))
}

fn make(ctx: &Arc<Ctx>, slot: &Arc<Slot>) -> Result<(Launch, Option<Arc<Redactor>>), Verdict> {
    let given = credentials::given(ctx, slot)?;
    if let Some(remote) = &slot.mcp.program.remote {
        return dialled(ctx, slot, remote, given);
    }
    let Program {
        command, args, env, ..
    } = &slot.mcp.program;
    let path = &ctx.settings.path;
    let installed = ctx.packages.installed(ctx, &slot.mcp);
    let installed = installed.map_err(|lack| match lack {
        // Not the slot's fault; whoever wants a run has it installed first.
        Lack::Absent => Verdict::Killed {
            reason: "its package is not installed; the next call has it installed".to_owned(),
        },
        Lack::Unfit(detail) => Verdict::NotStarted {
            step: "package".to_owned(),
            detail,
        },
    })?;
    let (program, args, mut extra) = match installed {
        // The rest of its command line is the launcher's.
        Some(installed) => {
            let package = slot.mcp.package().ok().flatten();
            let own = package.map(|package| package.args).unwrap_or_default();
            (
                installed.program,
                [installed.args, own].concat(),
                installed.extra,
            )
        }
        None => {
            let found = find_program(command, path).map_err(|error| Verdict::NotStarted {
                step: "program".to_owned(),
                detail: format!(
                    "{error}; install it or change the definition (legation mcp update)"
                ),
            })?;
            (found, args.clone(), Extra::default())
        }
    };
    let home = home_of(&ctx.settings.homes, slot);
    let home_text = home.display().to_string();
    let secrets = ctx.launcher.secrets(&slot.mcp.confinement);
    let secrets = secrets.display().to_string();
    let names = Names {
        home: &home_text,
        secrets: &secrets,
        user: slot.owner.as_ref(),
    };
    let mut all: BTreeMap<String, Zeroizing<String>> = [
        ("PATH", path.as_str()),
        ("HOME", home_text.as_str()),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned().into()))
    .collect();
    if slot.mcp.confinement.network == Network::Allowlist {
        let proxy = format!("http://127.0.0.1:{EGRESS_PROXY_PORT}");
        for (name, value) in [
            ("HTTPS_PROXY", proxy.as_str()),
            ("https_proxy", proxy.as_str()),
            ("NO_PROXY", "localhost,127.0.0.1,::1"),
            ("no_proxy", "localhost,127.0.0.1,::1"),
        ] {
            all.insert(name.to_owned(), value.to_owned().into());
        }
    }
    all.extend(
        env.iter()
            .map(|(name, value)| (name.clone(), names.fill(value).into())),
    );
    // Last: what is given is nobody's to override, and is no template.
    let variables = given.env.iter();
    all.extend(
        variables.map(|(name, value)| (name.clone(), value.expose_secret().to_owned().into())),
    );
    if !given.secrets.files.is_empty() {
        all.insert(SECRETS_VARIABLE.to_owned(), secrets.clone().into());
    }
    slot.set_tree(extra.tree.clone());
    let mut own = given.secrets;
    let mut redactor = given.redactor;
    if let Some(job) = ctx.packages.of_job(&slot.key) {
        extra = job.extra;
        own.files.extend(job.files);
        let variables = job.env.iter();
        all.extend(
            variables.map(|(name, value)| (name.clone(), value.expose_secret().to_owned().into())),
        );
        redactor = redactor.or(job.redactor);
    }
    let launch = Launch {
        isolate: slot.id.clone(),
        user: slot.key.principal.user().cloned(),
        program,
        args: args.iter().map(|arg| names.fill(arg)).collect(),
        env: all,
        secrets: own,
        home,
        confinement: slot.mcp.confinement.clone(),
        on_denied: on_denied(ctx, slot, redactor.clone()),
        limits: slot.limits(),
        user_limits: slot.user_limits,
        opening: Bytes::new(),
        extra,
    };
    Ok((launch, redactor))
}

/// What it takes to speak to a server behind HTTP: nothing is started, so there is no program, no home
/// and nothing for the kernel to limit.
fn dialled(
    ctx: &Arc<Ctx>,
    slot: &Arc<Slot>,
    remote: &Remote,
    given: Given,
) -> Result<(Launch, Option<Arc<Redactor>>), Verdict> {
    let names = Names {
        home: "",
        secrets: "",
        user: slot.owner.as_ref(),
    };
    let mut headers = http::HeaderMap::new();
    for (field, value) in &remote.headers {
        let value = http::HeaderValue::from_str(&names.fill(value));
        // Checked when it was defined, and names are ASCII.
        let value = value.map_err(|error| Verdict::NotStarted {
            step: "headers".to_owned(),
            detail: format!("the header {field} cannot be sent: {error}"),
        })?;
        headers.insert(field.name().clone(), value);
    }
    // Last: what is given is nobody's to override.
    headers.extend(given.headers);
    let dial = Dial {
        tls: remote::configure(remote)?,
        remote: Arc::new(remote.clone()),
        headers,
        line_max: ctx.settings.line_bytes_max,
        redactor: given.redactor.clone(),
        unsent: Arc::new(|_, _| {}),
    };
    let launch = Launch {
        isolate: slot.id.clone(),
        user: slot.key.principal.user().cloned(),
        program: PathBuf::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        secrets: Secrets::default(),
        home: PathBuf::new(),
        confinement: slot.mcp.confinement.clone(),
        on_denied: on_denied(ctx, slot, given.redactor.clone()),
        limits: slot.limits(),
        user_limits: slot.user_limits,
        opening: Bytes::new(),
        extra: Extra {
            remote: Some(dial),
            ..Extra::default()
        },
    };
    Ok((launch, given.redactor))
}

/// Where what an isolate tried and may not is told: the audit log. A server may put what it was given
/// into a name it asks for.
fn on_denied(
    ctx: &Arc<Ctx>,
    slot: &Arc<Slot>,
    redactor: Option<Arc<Redactor>>,
) -> Option<OnDenied> {
    let reaches = slot.mcp.confinement.network == Network::Allowlist;
    if !reaches && !slot.mcp.program.is_remote() {
        return None;
    }
    let (ctx, slot) = (Arc::downgrade(ctx), Arc::downgrade(slot));
    Some(Arc::new(move |target, why| {
        if let (Some(ctx), Some(slot)) = (ctx.upgrade(), slot.upgrade()) {
            let clean = |text: &str| match &redactor {
                Some(redactor) => redactor.redact_text(text),
                None => text.to_owned(),
            };
            ctx.packages.denied(&slot.key, target, why);
            let entry = ctx.about("isolate.egress_denied", &slot);
            ctx.audit.post(
                entry
                    .field("target", &clean(target))
                    .field("reason", &clean(why)),
            );
        }
    }))
}

/// Where a slot's home is: per owner and mcp, so that it outlives runs and definitions. The owner
/// of a shared instance is its mcp: it has a uid of its own, as a user has.
pub(super) fn home_of(homes: &Path, slot: &Slot) -> PathBuf {
    let mcp = slot.key.mcp.as_str();
    if slot.key.is_install() {
        // Nobody's, and not the shared instance's either.
        return homes.join(home_owner(&slot.key.mcp)).join(mcp);
    }
    let owner = match &slot.key.principal {
        Principal::User(user) | Principal::Session(user, _) => user.as_str(),
        Principal::Shared => mcp,
    };
    homes.join(owner).join(mcp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ID_BYTES, UserId};
    use crate::domain::name::Name;

    #[test]
    fn templates_are_filled_once_and_nothing_else_is() {
        let user = User {
            id: UserId::from_random([0; ID_BYTES]),
            name: Name::parse("ada").unwrap(),
            created_at: 0,
        };
        let names = Names {
            home: "/h/{user.id}",
            secrets: "/run/secrets",
            user: Some(&user),
        };
        assert_eq!(
            names.fill("{home}/x"),
            "/h/{user.id}/x",
            "values are not templates"
        );
        assert_eq!(names.fill("{secrets}/key"), "/run/secrets/key");
        assert_eq!(
            names.fill("a{user.name}b{user.id}"),
            format!("aadab{}", user.id)
        );
        assert_eq!(names.fill("{\"json\": {home"), "{\"json\": {home");
        assert_eq!(names.fill("$(x) `y` {other}"), "$(x) `y` {other}");
    }

    #[test]
    fn programs_are_found_or_the_reason_is() {
        assert_eq!(
            find_program("sh", "/nonexistent:/bin").unwrap(),
            Path::new("/bin/sh")
        );
        assert!(find_program("/bin/sh", "").is_ok());
        assert!(matches!(
            find_program("no-such-thing", "/bin"),
            Err(ProgramError::NotFound { .. })
        ));
        assert!(matches!(
            find_program("/bin/no-such-thing", "/bin"),
            Err(ProgramError::Absent { .. })
        ));
        assert_eq!(beside("/opt/uv/bin/uvx", "/bin"), "/opt/uv/bin:/bin");
        assert_eq!(beside("uvx", "/bin"), "/bin");
        assert!(matches!(
            find_program("./sh", "/bin"),
            Err(ProgramError::NotFound { .. })
        ));
        assert!(matches!(
            find_program("/etc/passwd", "/bin"),
            Err(ProgramError::NotExecutable { .. })
        ));
    }
}
