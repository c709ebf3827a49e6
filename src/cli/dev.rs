//! What `serve --dev` puts into an empty house: a user, a group, a published demo mcp, a grant
//! and a key.
//!
//! Each step looks before it does, so a first run that was cut short is completed by the next one,
//! and what an operator has since taken away on purpose (archived the demo, revoked the key) stays
//! away.

use std::path::Path;

use crate::actors::control::Control;
use crate::api::admin::groups::{self, add_member, grant};
use crate::api::admin::keys::{self, CreatedKey, NewKey};
use crate::api::admin::mcps::{self, AddMcp, ProgramChange, UpdateMcp};
use crate::api::admin::{ApiError, users};
use crate::demo::SUBCOMMAND;
use crate::domain::code::Code;
use crate::domain::mcp::{McpState, Program, Sharing};
use crate::domain::name::{Name, NameError};

/// The demo user's name.
pub(super) const USER: &str = "demo";
/// The group everybody is in.
const GROUP: &str = "everyone";
/// The demo mcp's name.
const MCP: &str = "demo";

/// What is in the house now.
#[derive(Debug)]
pub(super) struct Furnished {
    /// The key, if it was made just now: it cannot be shown again.
    pub(super) key: Option<CreatedKey>,
    /// Whether the demo mcp can be called.
    pub(super) published: bool,
}

/// Furnishes the house; `exe` is this program.
///
/// # Errors
/// What the step says that failed; the next start goes on from there.
pub(super) async fn furnish(control: &Control, exe: &Path) -> Result<Furnished, ApiError> {
    let result = steps(control, exe).await;
    let outcome = result.as_ref().map_or_else(|e| e.code().as_str(), |_| "ok");
    control.audit("serve --dev", "demo.furnish", &USER.into(), outcome);
    result
}

async fn steps(control: &Control, exe: &Path) -> Result<Furnished, ApiError> {
    if users::by_name(control, USER).await.is_missing()? {
        users::add(control, name(USER)?).await?;
    }
    if groups::by_name(control, GROUP).await.is_missing()? {
        groups::add(control, name(GROUP)?).await?;
    }
    add_member(control, GROUP, USER).await?;
    let published = demo(control, exe).await?;
    if published {
        grant(control, GROUP, MCP).await?;
    }
    // Last, when all that it is subscribed to is there.
    let key = key(control).await?;
    Ok(Furnished { key, published })
}

/// Adds and publishes the demo mcp; `false` if an operator archived it.
async fn demo(control: &Control, exe: &Path) -> Result<bool, ApiError> {
    let command = exe.display().to_string();
    let found = mcps::by_name(control, MCP).await;
    if found.is_missing()? {
        let wanted = AddMcp {
            name: name(MCP)?,
            description: "the bundled demo server".to_owned(),
            sharing: Sharing::PerUser,
            program: Program {
                command,
                args: vec![SUBCOMMAND.to_owned()],
                ..Program::default()
            },
            limits: mcps::LimitsChange::default(),
            times: mcps::TimesChange::default(),
            confinement: mcps::ConfinementChange::default(),
            install: Default::default(),
            audit_arguments: Default::default(),
            talk: Default::default(),
            credentials: Default::default(),
        };
        mcps::add(control, wanted).await?;
    } else {
        let mcp = found?;
        if mcp.state == McpState::Archived {
            return Ok(false);
        }
        // The program was built or moved elsewhere since.
        let ours = mcp
            .program
            .args
            .first()
            .is_some_and(|arg| arg == SUBCOMMAND);
        if ours && mcp.program.command != command {
            let program = ProgramChange {
                command: Some(command),
                ..ProgramChange::default()
            };
            let change = UpdateMcp {
                program,
                ..UpdateMcp::default()
            };
            mcps::update(control, MCP, change).await?;
        }
    }
    mcps::publish(control, MCP).await?;
    Ok(true)
}

/// Makes the demo user's first key. A key that was made but subscribed to nothing is from a first
/// run that was cut short in between: it gets its subscriptions.
async fn key(control: &Control) -> Result<Option<CreatedKey>, ApiError> {
    let user = users::by_name(control, USER).await?;
    let theirs = control.store().keys(Some(&user.id)).await?;
    if theirs.is_empty() {
        let new = NewKey {
            user: user.name,
            label: "first run".to_owned(),
            expires_in_ms: None,
            subscribe: true,
        };
        return keys::add(control, new).await.map(Some);
    }
    for key in theirs.iter().filter(|key| key.revoked_at.is_none()) {
        if control
            .store()
            .subscriptions(Some(&key.id))
            .await?
            .is_empty()
        {
            keys::subscribe_to_grants(control, key).await;
        }
    }
    Ok(None)
}

fn name(text: &str) -> Result<Name, ApiError> {
    let wrong = |error: NameError| ApiError::new(Code::Internal, error.to_string());
    Name::parse(text).map_err(wrong)
}

/// Tells "there is none" from "it could not be looked up".
trait IsMissing {
    fn is_missing(&self) -> Result<bool, ApiError>;
}

impl<T> IsMissing for Result<T, ApiError> {
    fn is_missing(&self) -> Result<bool, ApiError> {
        match self {
            Ok(_) => Ok(false),
            Err(error) if error.code() == Code::NotFound => Ok(true),
            Err(error) => Err(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admin::house::TestHouse;

    async fn again(control: &Control, exe: &str) -> Furnished {
        furnish(control, Path::new(exe)).await.unwrap()
    }

    #[tokio::test]
    async fn the_first_run_gives_a_key_and_the_second_keeps_everything() {
        let house = TestHouse::new().await;
        let control = house.control();
        let first = again(&control, "/bin/cat").await;
        let key = first.key.unwrap();
        assert_eq!(
            key.subscribed.iter().map(Name::as_str).collect::<Vec<_>>(),
            ["demo"]
        );
        let second = again(&control, "/bin/cat").await;
        assert!(second.key.is_none() && second.published);
        let store = control.store();
        assert_eq!(store.keys(None).await.unwrap().len(), 1);
        assert_eq!(store.mcps().await.unwrap().len(), 1);
        assert_eq!(store.subscriptions(None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_first_run_that_was_cut_short_is_completed() {
        let house = TestHouse::new().await;
        let control = house.control();
        users::add(&control, name(USER).unwrap()).await.unwrap();
        let new = NewKey {
            user: name(USER).unwrap(),
            label: String::new(),
            expires_in_ms: None,
            subscribe: true,
        };
        keys::add(&control, new).await.unwrap();
        let done = again(&control, "/bin/cat").await;
        assert!(done.key.is_none() && done.published);
        assert_eq!(control.store().subscriptions(None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_moved_program_is_followed_and_an_archived_demo_left_alone() {
        let house = TestHouse::new().await;
        let control = house.control();
        again(&control, "/bin/cat").await;
        again(&control, "/bin/ls").await;
        let mcp = mcps::by_name(&control, MCP).await.unwrap();
        assert_eq!(mcp.program.command, "/bin/ls");
        assert_eq!(mcp.program.args, [SUBCOMMAND]);
        let now = control.now_ms();
        control
            .store()
            .set_mcp_state(&mcp.id, McpState::Archived, now)
            .await
            .unwrap();
        let done = again(&control, "/bin/ls").await;
        assert!(!done.published);
        assert_eq!(control.store().mcps().await.unwrap().len(), 1);
    }
}
