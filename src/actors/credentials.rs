//! Credentials on their way to a start: a snapshot of sealed values, opened only for a run that is
//! given them. A start asks no database, so isolates start while it is away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::domain::credential::{Delivery, Holder, Need, Stored};
use crate::domain::ids::{McpId, UserId};
use crate::domain::limits::AUDIT_ARGUMENTS_BYTES_MAX;
use crate::domain::mcp::Sharing;
use crate::domain::name::CredentialName;
use crate::domain::redact::Redactor;
use crate::domain::seal::{MasterKeys, Place, SealError, Sealed};
use crate::domain::verdict::Verdict;
use crate::storage::StoreError;

use super::ctx::{Ctx, KnownSecrets};
use super::isolate::IsolateMsg;
use super::launcher::Secrets;
use super::slot::{Principal, Slot};

/// Sealed values by whose and for what.
type Sets = HashMap<(UserId, McpId), Vec<Stored>>;

/// The snapshot; empty until it was loaded once.
#[derive(Debug, Default)]
pub struct Credentials(ArcSwapOption<Sets>);

impl Credentials {
    /// What is set for a holder and an mcp.
    #[must_use]
    pub fn of(&self, holder: &UserId, mcp: &McpId) -> Vec<Stored> {
        let sets = self.0.load();
        let key = (holder.clone(), mcp.clone());
        let found = sets.as_ref().and_then(|sets| sets.get(&key));
        found.cloned().unwrap_or_default()
    }

    /// How many are set.
    #[must_use]
    pub fn count(&self) -> usize {
        let sets = self.0.load();
        sets.as_ref()
            .map_or(0, |sets| sets.values().map(Vec::len).sum())
    }

    /// Everything that is set.
    #[must_use]
    pub fn all(&self) -> Vec<Stored> {
        let sets = self.0.load();
        let mut all: Vec<Stored> = sets
            .as_ref()
            .map(|sets| sets.values().flatten().cloned().collect())
            .unwrap_or_default();
        all.sort_by(|a, b| (&a.holder, &a.mcp, &a.name).cmp(&(&b.holder, &b.mcp, &b.name)));
        all
    }

    /// A value was set, or removed. Whoever calls this holds `VaultCell::sealing` since before the
    /// store's change, so that the store and the snapshot have the same last word.
    pub(super) fn changed(
        &self,
        holder: &UserId,
        mcp: &McpId,
        name: &CredentialName,
        now: Option<&Stored>,
    ) {
        self.0.rcu(|sets| {
            let mut sets = sets.as_deref().cloned().unwrap_or_default();
            let set = sets.entry((holder.clone(), mcp.clone())).or_default();
            set.retain(|one| one.name != *name);
            set.extend(now.cloned());
            Some(Arc::new(sets))
        });
    }
}

impl Credentials {
    /// Values have another seal; those that were set meanwhile stay as they are.
    pub(super) fn resealed(&self, anew: &[(Stored, String)]) {
        self.0.rcu(|sets| {
            let mut sets = sets.as_deref().cloned().unwrap_or_default();
            for (old, sealed) in anew {
                let key = (old.holder.clone(), old.mcp.clone());
                let set = sets.get_mut(&key).map(Vec::as_mut_slice);
                let same = set
                    .unwrap_or_default()
                    .iter_mut()
                    .find(|one| one.name == old.name && one.sealed == old.sealed);
                if let Some(same) = same {
                    same.sealed.clone_from(sealed);
                }
            }
            Some(Arc::new(sets))
        });
    }
}

/// Loads the snapshot; gives whose values are others than before.
pub(super) async fn reload(ctx: &Ctx) -> Result<Vec<(UserId, McpId)>, StoreError> {
    let _turn = ctx.vault.sealing().await;
    let mut sets = Sets::new();
    for one in ctx.store.credentials().await? {
        let key = (one.holder.clone(), one.mcp.clone());
        sets.entry(key).or_default().push(one);
    }
    let before = ctx.credentials.0.swap(Some(Arc::new(sets.clone())));
    let before = before.as_deref().cloned().unwrap_or_default();
    let mut changed: Vec<_> = before
        .keys()
        .chain(sets.keys())
        .filter(|key| versions(before.get(key)) != versions(sets.get(key)))
        .cloned()
        .collect();
    changed.sort();
    changed.dedup();
    Ok(changed)
}

/// Which values a set has, whatever they are sealed with.
fn versions(set: Option<&Vec<Stored>>) -> BTreeMap<&CredentialName, i64> {
    let set = set.map(Vec::as_slice).unwrap_or_default();
    set.iter().map(|one| (&one.name, one.version)).collect()
}

/// Lets the isolates of a holder leave: they finish what is inside. What failed for want of a value is forgiven. Nobody
/// else's are touched. Gives how many.
pub(super) fn replace(ctx: &Ctx, holder: &UserId, mcp: &McpId) -> u64 {
    let theirs = |slot: &Slot| match slot.key.principal.user() {
        Some(user) => user == holder,
        None => slot.key.principal == Principal::Shared && *holder == Holder::Shared.id(),
    };
    let slots: Vec<_> = ctx
        .slots
        .pin()
        .values()
        .filter(|slot| slot.key.mcp == *mcp && !slot.key.is_probe() && theirs(slot))
        .cloned()
        .collect();
    let mut replaced = 0;
    for slot in slots {
        slot.policy(|policy, _| policy.pardon());
        replaced += u64::from(slot.occupant().is_some());
        if let Some(isolate) = slot.actor() {
            // One that is ending by itself starts with the new value anyway.
            let _ = isolate.cast(IsolateMsg::Leave(Verdict::CredentialChanged));
        }
    }
    replaced
}

/// Loads the snapshot. Later, while the store is away, the last one stands.
pub(super) async fn load(ctx: &Ctx) -> Result<(), StoreError> {
    match reload(ctx).await {
        Ok(_) => Ok(()),
        Err(error) if ctx.credentials.0.load().is_some() => {
            tracing::warn!("the credentials are as they were last read: {error}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What a run is given.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Variables of its environment.
    pub(super) env: BTreeMap<String, SecretString>,
    /// What only its isolate sees.
    pub(super) secrets: Secrets,
    /// Headers of every request to a server behind HTTP.
    pub(super) headers: HeaderMap,
    /// Takes the values out of what its server writes.
    pub(super) redactor: Option<Arc<Redactor>>,
}

/// Opens what a slot's run is to be given.
///
/// # Errors
/// [`Verdict::CredentialMissing`] with the commands that set what is missing; an internal one, if
/// a value does not open.
pub(super) fn given(ctx: &Ctx, slot: &Slot) -> Result<Given, Verdict> {
    let mcp = &slot.mcp;
    if mcp.credentials.is_empty() {
        return Ok(Given::default());
    }
    let holder = holder_of(slot);
    let stored = ctx.credentials.of(&holder.id(), &mcp.id);
    let missing: Vec<&CredentialName> = mcp
        .credentials
        .iter()
        .filter(|(_, wanted)| wanted.need == Need::Required)
        .map(|(name, _)| name)
        .filter(|name| !stored.iter().any(|one| one.name == **name))
        .collect();
    if !missing.is_empty() {
        return Err(not_set(slot, &holder, &missing));
    }
    let failed = |detail: String| Verdict::Internal { detail };
    let keys = ctx.vault.keys();
    let keys = keys.ok_or_else(|| failed("the keys are not loaded yet".to_owned()))?;
    let mut given = Given::default();
    let mut values: Vec<(&CredentialName, SecretSlice<u8>)> = Vec::new();
    for (name, wanted) in &mcp.credentials {
        let Some(one) = stored.iter().find(|one| one.name == *name) else {
            continue;
        };
        let value = open(&keys, one).map_err(|error| does_not_open(one, &error))?;
        match &wanted.delivery {
            Delivery::Env(variable) => {
                // It was set while the slot was a file's.
                let text = text(&value).ok_or_else(|| Verdict::NotStarted {
                    step: "credentials".to_owned(),
                    detail: format!(
                        "credential {name} is no text that fits into the variable {variable}; set \
                         another value, or hand it over as a file (legation mcp update {} \
                         --credential {name}=file:FILENAME)",
                        mcp.name
                    ),
                })?;
                given.env.insert(variable.to_string(), text);
            }
            Delivery::File(file) => {
                given.secrets.files.insert(file.to_string(), value.clone());
            }
            Delivery::Fd(descriptor) => {
                let number = i32::from(descriptor.number());
                given.secrets.descriptors.insert(number, value.clone());
            }
            Delivery::Header(field) => {
                // It was set while the slot was another's.
                let header = header(&value).ok_or_else(|| Verdict::NotStarted {
                    step: "credentials".to_owned(),
                    detail: format!(
                        "credential {name} is no text that can be sent as the header {field}; set \
                         another value (legation credential set)"
                    ),
                })?;
                given.headers.insert(field.name().clone(), header);
                // Its server may repeat what follows `Bearer` without it.
                if let Some(bare) = bare(&value) {
                    values.push((name, bare));
                }
            }
        }
        values.push((name, value));
    }
    let texts = values
        .iter()
        .map(|(name, value)| (*name, value.expose_secret()));
    given.redactor = Redactor::new(texts).map(Arc::new);
    Ok(given)
}

/// Whose values a slot's runs are given. A run that only discovers has no user.
fn holder_of(slot: &Slot) -> Holder {
    match slot.key.principal.user() {
        Some(user) if slot.mcp.sharing != Sharing::Shared => Holder::User(user.clone()),
        _ => Holder::Shared,
    }
}

/// Trying again cannot help: it is damaged or was moved. Setting it ends the quarantine.
fn does_not_open(stored: &Stored, error: &SealError) -> Verdict {
    let (name, version) = (&stored.name, stored.version);
    tracing::error!(
        credential.holder = %stored.holder,
        mcp.id = %stored.mcp,
        credential.name = %name,
        credential.version = version,
        "a credential does not open: {error}"
    );
    Verdict::NotStarted {
        step: "credentials".to_owned(),
        detail: format!(
            "the credential `{name}` (version {version}) does not open: {error}; set it again: \
             legation credential set"
        ),
    }
}

fn not_set(slot: &Slot, holder: &Holder, missing: &[&CredentialName]) -> Verdict {
    let whose = match (holder, &slot.owner) {
        (Holder::User(_), Some(owner)) => format!("--user {}", owner.name),
        (Holder::User(user), None) => format!("--user {user}"),
        (Holder::Shared, _) => "--shared".to_owned(),
    };
    let names: Vec<_> = missing.iter().map(|name| name.as_str()).collect();
    let commands: Vec<_> = names
        .iter()
        .map(|name| {
            format!(
                "legation credential set {whose} --mcp {} {name}",
                slot.mcp.name
            )
        })
        .collect();
    Verdict::CredentialMissing {
        names: names.join(", "),
        commands: commands.join("; "),
    }
}

/// Seals a value for its place.
pub(super) fn seal(
    master: &MasterKeys,
    holder: &UserId,
    mcp: &McpId,
    name: &CredentialName,
    value: &SecretSlice<u8>,
) -> Result<String, SealError> {
    let place = Place {
        user: holder,
        mcp,
        field: name.as_str(),
    };
    let bytes = value.expose_secret();
    Ok(master.seal(place, super::clock::random(), bytes)?.to_text())
}

/// A value as text for a variable, if it is any: variables hold no zero byte.
fn text(value: &SecretSlice<u8>) -> Option<SecretString> {
    let text = std::str::from_utf8(value.expose_secret()).ok()?;
    (!text.contains('\0')).then(|| SecretString::from(text))
}

/// A value as a header, if it can be one.
pub(super) fn header(value: &SecretSlice<u8>) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_bytes(value.expose_secret()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The part of a header's value after its scheme.
fn bare(value: &SecretSlice<u8>) -> Option<SecretSlice<u8>> {
    let bytes = value.expose_secret();
    let at = memchr::memchr(b' ', bytes)?;
    let rest = bytes.get(at + 1..)?.trim_ascii();
    (!rest.is_empty()).then(|| SecretSlice::from(rest.to_vec()))
}

fn open(master: &MasterKeys, stored: &Stored) -> Result<SecretSlice<u8>, SealError> {
    let place = Place {
        user: &stored.holder,
        mcp: &stored.mcp,
        field: stored.name.as_str(),
    };
    master.open(place, &Sealed::parse(&stored.sealed)?)
}

/// For the audit log's capture of arguments: the values that a user's runs of an mcp are given.
pub(super) struct Known(pub(super) std::sync::Weak<Ctx>);

impl KnownSecrets for Known {
    fn of(&self, user: &UserId, mcp: &McpId) -> Option<Redactor> {
        let ctx = self.0.upgrade()?;
        let keys = ctx.vault.keys()?;
        let shared = Holder::Shared.id();
        let values: Vec<_> = [user, &shared]
            .into_iter()
            .flat_map(|holder| ctx.credentials.of(holder, mcp))
            .filter_map(|stored| Some((open(&keys, &stored).ok()?, stored.name)))
            .collect();
        let values = values
            .iter()
            .map(|(value, name)| (name, value.expose_secret()));
        Redactor::of_texts(values, AUDIT_ARGUMENTS_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;
    use secrecy::SecretBox;

    #[test]
    fn a_value_opens_only_in_its_place() {
        let master = MasterKeys::first(SecretBox::new(Box::new([7; 32])));
        let (ada, eve) = (
            UserId::from_random([1; ID_BYTES]),
            UserId::from_random([2; ID_BYTES]),
        );
        let mcp = McpId::from_random([3; ID_BYTES]);
        let name = CredentialName::parse("TOKEN").unwrap();
        let value = SecretSlice::from(b"s3cret \0\xff".to_vec());
        let sealed = seal(&master, &ada, &mcp, &name, &value).unwrap();
        assert!(!sealed.contains("s3cret"));
        let mut stored = Stored {
            holder: ada,
            mcp,
            name,
            sealed,
            version: 1,
            set_at: 0,
            set_by: String::new(),
        };
        let opened = open(&master, &stored).unwrap();
        assert_eq!(opened.expose_secret(), b"s3cret \0\xff");
        assert!(text(&opened).is_none(), "it is no text");
        stored.holder = eve;
        assert!(open(&master, &stored).is_err());
    }
}
