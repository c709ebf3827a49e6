//! Setting and removing credentials: sealed and stored, published, then the isolates that were
//! started with the old value are replaced, after their calls in flight.

use secrecy::{ExposeSecret, SecretSlice};

use crate::config::nearest;
use crate::domain::code::Code;
use crate::domain::credential::{CredentialSlot, Delivery, Holder, Stored};
use crate::domain::ids::McpId;
use crate::domain::limits::CREDENTIAL_BYTES_MAX;
use crate::domain::mcp::{Mcp, McpState};
use crate::domain::name::CredentialName;
#[cfg(doc)]
use crate::storage::StoreError;

use super::super::audit::Entry;
use super::super::credentials;
use super::{Control, ControlError};

impl Control {
    /// Everything that is set; values are not shown.
    #[must_use]
    pub fn credentials(&self) -> Vec<Stored> {
        self.ctx.credentials.all()
    }

    /// Sets a value. The next start is given it; isolates that run are replaced as soon as their
    /// calls in flight are done. Gives the value's version and how many isolates are replaced.
    ///
    /// # Errors
    /// The mcp declares no such credential, the value cannot be given to a server, or the store is
    /// away: then nothing was changed.
    pub async fn set_credential(
        &self,
        holder: &Holder,
        mcp: &Mcp,
        name: &CredentialName,
        value: &SecretSlice<u8>,
        author: &str,
    ) -> Result<(Stored, u64), ControlError> {
        fits(name, &declared(mcp, name)?.delivery, value)?;
        // Until it is stored, no master key is taken away.
        let alone = self.ctx.vault.sealing().await;
        // Who archives the mcp or removes the user holds the same lock, so that nothing is set for what is gone.
        if self.ctx.store.mcp(&mcp.id).await?.state == McpState::Archived {
            let message = format!("mcp `{}` is archived, and takes no credentials", mcp.name);
            return Err(ControlError::new(Code::Conflict, message));
        }
        if let Holder::User(user) = holder {
            self.ctx.store.user(user).await?;
        }
        let keys = self.master_keys()?;
        let id = holder.id();
        let sealed = credentials::seal(&keys, &id, &mcp.id, name, value)
            .map_err(|error| ControlError::new(Code::InvalidRequest, error.to_string()))?;
        let mut stored = Stored {
            holder: id,
            mcp: mcp.id.clone(),
            name: name.clone(),
            sealed,
            version: 0,
            set_at: self.now_ms(),
            set_by: author.to_owned(),
        };
        let done = self.ctx.store.set_credential(&stored).await;
        stored.version = self.taken(done)?;
        self.ctx
            .credentials
            .changed(&stored.holder, &mcp.id, name, Some(&stored));
        drop(alone);
        self.ctx.vault.look_again();
        self.note("credential.set", &stored, author);
        let replaced = credentials::replace(&self.ctx, &stored.holder, &mcp.id);
        Ok((stored, replaced))
    }

    /// Removes a value; `None` if there was none, else how many isolates are replaced. Also what only this process still
    /// has is removed.
    ///
    /// # Errors
    /// The store is away: then nothing was changed, unless it [may be](StoreError::may_be_done): then nobody is given the
    /// value any more until the store says that it is there.
    pub async fn remove_credential(
        &self,
        holder: &Holder,
        mcp: &Mcp,
        name: &CredentialName,
        author: &str,
    ) -> Result<Option<u64>, ControlError> {
        let id = holder.id();
        let alone = self.ctx.vault.sealing().await;
        let done = self.ctx.store.remove_credential(&id, &mcp.id, name).await;
        if let Err(error) = &done
            && !error.may_be_done()
        {
            return self.taken(done).map(|_| None);
        }
        let set = self.ctx.credentials.of(&id, &mcp.id);
        let known = set.iter().find(|one| one.name == *name);
        self.ctx.credentials.changed(&id, &mcp.id, name, None);
        drop(alone);
        self.ctx.vault.look_again();
        let mut replaced = 0;
        if let Some(stored) = known {
            replaced = credentials::replace(&self.ctx, &id, &mcp.id);
            if done.is_ok() {
                self.note("credential.removed", stored, author);
            }
        }
        let stored = self.taken(done)?;
        Ok((stored || known.is_some()).then_some(replaced))
    }

    /// Archives a definition and forgets what was set for it; gives the definition as it is now and how many
    /// values are gone.
    ///
    /// # Errors
    /// It is archived already, or the store is away: then nothing was changed.
    pub async fn archive(&self, id: &McpId, author: &str) -> Result<(Mcp, usize), ControlError> {
        let alone = self.ctx.vault.sealing().await;
        let now = self.now_ms();
        let mcp = self
            .ctx
            .store
            .set_mcp_state(id, McpState::Archived, now)
            .await?;
        let mut gone = self.ctx.credentials.all();
        gone.retain(|one| one.mcp == *id);
        for one in &gone {
            self.ctx
                .credentials
                .changed(&one.holder, id, &one.name, None);
        }
        drop(alone);
        self.ctx.vault.look_again();
        for one in &gone {
            self.note("credential.removed", one, author);
        }
        Ok((mcp, gone.len()))
    }

    pub(super) fn note(&self, event: &'static str, stored: &Stored, author: &str) {
        let version = u64::try_from(stored.version).unwrap_or(0);
        self.ctx.audit.post(
            Entry::new(event, self.ctx.wall_ms())
                .field("user", stored.holder.as_str())
                .field("mcp", stored.mcp.as_str())
                .field("credential", stored.name.as_str())
                .field("actor", author)
                .number("version", version),
        );
    }
}

fn declared<'a>(mcp: &'a Mcp, name: &CredentialName) -> Result<&'a CredentialSlot, ControlError> {
    if let Some(slot) = mcp.credentials.get(name) {
        return Ok(slot);
    }
    let words: Vec<&str> = mcp.credentials.keys().map(CredentialName::as_str).collect();
    let message = format!("mcp `{}` declares no credential `{name}`", mcp.name);
    let error = ControlError::new(Code::NotFound, message);
    Err(match nearest::word(&words, name.as_str()) {
        Some(near) => error.next(format!("did you mean {near}?")),
        None => error.next(format!(
            "declare it: legation mcp update {} --credential {name}={}",
            mcp.name,
            match mcp.program.is_remote() {
                true => "header:HEADER",
                false => "env:VARIABLE",
            }
        )),
    })
}

/// Whether a value can be put where it is to go: into a file any, into a variable only text.
fn fits(name: &CredentialName, to: &Delivery, value: &SecretSlice<u8>) -> Result<(), ControlError> {
    let bytes = value.expose_secret();
    let to_variable = matches!(to, Delivery::Env(_));
    let why = if bytes.is_empty() {
        "it is empty".to_owned()
    } else if bytes.len() > CREDENTIAL_BYTES_MAX {
        format!("it is larger than {CREDENTIAL_BYTES_MAX} bytes")
    } else if to_variable && bytes.contains(&0) {
        "it holds a zero byte, which a file can and no variable".to_owned()
    } else if to_variable && std::str::from_utf8(bytes).is_err() {
        "it is no UTF-8 text, which a file need not be and a variable must".to_owned()
    } else if matches!(to, Delivery::Header(_)) && credentials::header(value).is_none() {
        "it holds what no header can, like a line break".to_owned()
    } else {
        return Ok(());
    };
    let message = format!("the value of `{name}` cannot be given to a server: {why}");
    Err(ControlError::new(Code::InvalidRequest, message))
}
