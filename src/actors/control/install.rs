//! Installing packages: on an administrator's wish, and before a server is looked at.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::domain::code::Code;
use crate::domain::ids::McpId;
use crate::domain::kill::{Kind, Target};
use crate::domain::mcp::{Mcp, McpState};
use crate::domain::verdict::Verdict;

use super::super::isolate::IsolateMsg;
use super::super::packages::{Failed, PackageView, State};
use super::{Control, ControlError, isolates};

impl Control {
    /// Installs an mcp's package if it is not there; with `again`, resolves and installs it anew, and
    /// replaces what runs of the old one as its calls end.
    ///
    /// # Errors
    /// It is archived, switched off, no package, or the install failed: why.
    pub async fn install(&self, id: &McpId, again: bool) -> Result<PackageView, ControlError> {
        let mcp = Arc::new(self.ctx.store.mcp(id).await?);
        self.may_start(&mcp).await?;
        let package = mcp
            .package()
            .map_err(|wrong| ControlError::new(Code::InvalidRequest, wrong.to_string()))?;
        let Some(package) = package else {
            let message = format!(
                "mcp `{}` runs as it is written: there is nothing to install",
                mcp.name
            );
            return Err(ControlError::new(Code::Conflict, message)
                .next("its command is not npx or uvx, or --install off was given"));
        };
        if again {
            let renewed = self.ctx.packages.renew(&self.ctx, &mcp, &package).await;
            renewed.map_err(|failed| not_installed(&mcp, &failed))?;
            self.replace_all(id);
        } else {
            self.installed(&mcp).await?;
        }
        let now = self.ctx.store.mcp(id).await?;
        let view = self.package(&now).await;
        let view = view.filter(|view| view.state == "installed");
        view.ok_or_else(|| {
            let message = format!("the definition of mcp `{}` changed meanwhile", mcp.name);
            ControlError::new(Code::InstallFailed, message)
                .next(format!("legation mcp install {}", mcp.name))
        })
    }

    /// Waits until the package of an mcp is there, if it has one.
    pub(super) async fn installed(&self, mcp: &Arc<Mcp>) -> Result<(), ControlError> {
        // What is gone from the disk is installed again.
        let (ctx, id) = (Arc::clone(&self.ctx), mcp.id.clone());
        let _ = spawn_blocking(move || ctx.packages.look(&ctx, &id)).await;
        let ensured = self.ctx.packages.ensure(&self.ctx, mcp);
        let ensured = ensured.map_err(|why| ControlError::new(Code::InstallFailed, why))?;
        let Some(mut watch) = ensured else {
            return Ok(());
        };
        let settled = watch.wait_for(|state| !matches!(state, State::Installing(_)));
        let state = settled.await.map(|state| state.clone());
        match state {
            Ok(State::Failed(failed)) => Err(not_installed(mcp, &failed)),
            Ok(_) => Ok(()),
            Err(_) => Err(ControlError::new(Code::Internal, "the install was lost")),
        }
    }

    /// A definition was changed: an install of what it was before ends.
    pub fn package_changed(&self, mcp: &Mcp) {
        self.ctx.packages.changed(&self.ctx, mcp);
    }

    /// An mcp's package; `None` if it is none.
    pub async fn package(&self, mcp: &Mcp) -> Option<PackageView> {
        let (ctx, mcp) = (Arc::clone(&self.ctx), mcp.clone());
        let viewed = spawn_blocking(move || ctx.packages.view(&ctx, &mcp)).await;
        viewed.ok().flatten()
    }

    /// Removes what is installed for an mcp that is archived, once nothing runs of it.
    pub async fn forget_package(&self, id: &McpId) {
        let runs: Vec<_> = self.slots_of_mcp(id);
        isolates::wait_gone(&runs, self.ctx.settings.kill_wait).await;
        if let Err(error) = self.ctx.packages.forget(&self.ctx, id).await {
            tracing::warn!("a package of an archived mcp stays: {error}");
        }
    }

    /// Whether anything of an mcp may be started now.
    pub(super) async fn may_start(&self, mcp: &Mcp) -> Result<(), ControlError> {
        if mcp.state == McpState::Archived {
            let message = format!("mcp `{}` is archived", mcp.name);
            return Err(ControlError::new(Code::Conflict, message));
        }
        self.check_program(&mcp.program).await?;
        let off = [Target::Mcp(mcp.id.clone()), Target::All];
        let off = off
            .iter()
            .find_map(|target| self.denied_reason(Kind::KillSwitch, target));
        match off {
            Some(why) => {
                let message = format!("mcp `{}` is switched off: {why}", mcp.name);
                Err(ControlError::new(Code::KillSwitchActive, message))
            }
            None => Ok(()),
        }
    }

    fn slots_of_mcp(&self, id: &McpId) -> Vec<Arc<super::super::slot::Slot>> {
        let slots = self.ctx.slots.pin();
        let of_it = slots.values().filter(|slot| slot.key.mcp == *id);
        of_it.filter(|slot| !slot.key.is_probe()).cloned().collect()
    }

    fn replace_all(&self, id: &McpId) {
        for slot in self.slots_of_mcp(id) {
            if let Some(isolate) = slot.actor() {
                // One that is gone starts with the new package.
                let _ = isolate.cast(IsolateMsg::Leave(Verdict::Replaced));
            }
        }
    }
}

fn not_installed(mcp: &Mcp, failed: &Failed) -> ControlError {
    let name = &mcp.name;
    let what = match failed.is_slow() {
        true => "took too long to install",
        false => "could not be installed",
    };
    let message = format!("the package of mcp `{name}` {what}: {}", failed.why());
    let next = match failed.is_slow() {
        true => format!(
            "legation mcp update {name} --install-timeout 300s, then legation mcp install {name}"
        ),
        false => format!(
            "mend that, or the definition (legation mcp update {name}), then legation mcp install {name}"
        ),
    };
    ControlError::new(Code::InstallFailed, message).next(next)
}
