//! What an admin may say about a server behind HTTP, and what such a definition cannot have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{given, put};
use crate::domain::confinement::Confinement;
use crate::domain::credential::{CredentialSlot, CredentialSlots, Delivery};
use crate::domain::mcp::{Mcp, Program};
use crate::domain::package::Install;
use crate::domain::remote::{Endpoint, Field, Reach, Remote, Transport};

/// A change of a server behind HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteChange {
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Endpoint>,
    /// How messages travel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Headers to set, or to remove where the value is null.
    pub headers: BTreeMap<Field, Option<String>>,
    /// Which addresses it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// Whose certificates are trusted; null: those the system trusts.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub ca: Option<Option<PathBuf>>,
}

impl RemoteChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn apply(self, remote: &mut Remote) {
        put(&mut remote.url, self.url);
        put(&mut remote.transport, self.transport);
        put(&mut remote.reach, self.reach);
        put(&mut remote.ca, self.ca);
        for (name, value) in self.headers {
            match value {
                Some(value) => remote.headers.insert(name, value),
                None => remote.headers.remove(&name),
            };
        }
    }
}

/// What only a process of ours can have is not promised of a server that runs elsewhere.
pub(super) fn away(mcp: &Mcp, remote: &Remote) -> Option<String> {
    let Program {
        command, args, env, ..
    } = &mcp.program;
    if !(command.is_empty() && args.is_empty() && env.is_empty()) {
        return Some("a server behind HTTP has no command, arguments and variables".to_owned());
    }
    if mcp.confinement != Confinement::default() || mcp.install != Install::default() {
        return Some(
            "a server behind HTTP runs elsewhere: no walls, network, paths or install of it can be \
             decided here"
                .to_owned(),
        );
    }
    let header = |to: &Delivery| match to {
        Delivery::Header(field) => Some(field.clone()),
        Delivery::Env(_) | Delivery::File(_) | Delivery::Fd(_) => None,
    };
    for (name, slot) in &mcp.credentials {
        match header(&slot.delivery) {
            None => {
                return Some(format!(
                    "credential {name} goes to {}, but a server behind HTTP is given headers alone: \
                     {name}=header:HEADER",
                    slot.delivery
                ));
            }
            Some(field) if remote.headers.contains_key(&field) => {
                return Some(format!(
                    "{name} goes to the header `{field}`, which the definition sets itself; remove \
                     one of them"
                ));
            }
            Some(_) => {}
        }
    }
    remote.problem()
}

pub(super) fn no_headers(slots: &CredentialSlots) -> Option<String> {
    let of_header = |slot: &CredentialSlot| matches!(slot.delivery, Delivery::Header(_));
    let (name, _) = slots.iter().find(|(_, slot)| of_header(slot))?;
    Some(format!(
        "credential {name} goes to a header, which only a server behind HTTP (--url) has"
    ))
}
