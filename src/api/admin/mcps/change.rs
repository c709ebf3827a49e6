//! What an admin may say about a definition, and what is checked before it is believed.

mod checked;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::super::ApiError;
use crate::domain::confinement::{Confinement, Network, Profile};
use crate::domain::credential::{CredentialSlot, CredentialSlots};
use crate::domain::egress::Rule;
use crate::domain::ids::McpId;
use crate::domain::mcp::{Capture, Defaults, Mcp, McpState, Program, Sharing, Usual};
use crate::domain::name::{CredentialName, Name};
use crate::domain::package::{Install, Step};
use crate::domain::talk::{Check, Questions, Talk, ToolChanges};

pub use remote::RemoteChange;

use checked::checked;

/// A new definition.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddMcp {
    /// Its unique name.
    pub name: Name,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Who shares a process.
    #[serde(default)]
    pub sharing: Sharing,
    /// What is started.
    pub program: Program,
    /// Kernel limits of one isolate, where they are not the usual ones.
    #[serde(default)]
    pub limits: LimitsChange,
    /// Deadlines and idle time, where they are not the usual ones.
    #[serde(default)]
    pub times: TimesChange,
    /// Its walls, where they are not the usual ones.
    #[serde(default)]
    pub confinement: ConfinementChange,
    /// How its package is installed, if it is one.
    #[serde(default)]
    pub install: InstallChange,
    /// What the audit log keeps of a call's arguments.
    #[serde(default)]
    pub audit_arguments: Capture,
    /// The credentials its server is given.
    #[serde(default)]
    pub credentials: CredentialSlots,
    /// What passes between server and clients beside answers.
    #[serde(default)]
    pub talk: TalkChange,
}

/// A change of a definition: what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateMcp {
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who shares a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// What is started.
    pub program: ProgramChange,
    /// Kernel limits of one isolate.
    pub limits: LimitsChange,
    /// Deadlines and idle time.
    pub times: TimesChange,
    /// Limits and times that go back to the configuration's. A value given beside it goes before.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub as_configured: BTreeSet<Usual>,
    /// What the audit log keeps of a call's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_arguments: Option<Capture>,
    /// Credential slots to declare, or to take back where the value is null.
    pub credentials: BTreeMap<CredentialName, Option<CredentialSlot>>,
    /// Its walls.
    pub confinement: ConfinementChange,
    /// How its package is installed, if it is one.
    pub install: InstallChange,
    /// What passes between server and clients beside answers.
    pub talk: TalkChange,
}

/// A change of what passes between server and clients beside answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TalkChange {
    /// All that the server may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<Questions>,
    /// Whether arguments are held against the tool's schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Check>,
    /// What comes of it when the server says that its tools have changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_changes: Option<ToolChanges>,
}

/// A change of the install. A null time goes back to the usual one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstallChange {
    /// Whether it is made apart from the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Whether the packages' own programs run during it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scripts: Option<bool>,
    /// How long it may take.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<Option<u64>>,
}

/// A change of the walls. A null profile goes back to the operator's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfinementChange {
    /// How thick they are.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub profile: Option<Option<Profile>>,
    /// What may be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// All hosts that are reached. Naming some makes the network an allowlist, naming none ends it,
    /// unless the network is given as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<Rule>>,
    /// All paths that are seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Vec<PathBuf>>,
    /// All paths that may be written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Vec<PathBuf>>,
}

/// A change of what is started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramChange {
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// All its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Variables to set, or to remove where the value is null.
    pub env: BTreeMap<String, Option<String>>,
    /// Of a server behind HTTP.
    #[serde(skip_serializing_if = "RemoteChange::is_nothing")]
    pub remote: RemoteChange,
}

/// A change of the kernel limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsChange {
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Open files of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Bytes of the largest file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

/// A change of the times. Null is a value here: the start deadline goes back to the usual one,
/// the isolate never idles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimesChange {
    /// From admission to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_ms: Option<u64>,
    /// From spawn to ready.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<Option<u64>>,
    /// Without calls for this long, the isolate stops.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<Option<u64>>,
}

/// Tells a null from an absent field.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

// === impl AddMcp ===

impl AddMcp {
    pub(super) fn into_mcp(self, id: McpId, usual: &Defaults) -> Result<Mcp, ApiError> {
        let mut confinement = Confinement::default();
        self.confinement.apply(&mut confinement);
        let mut install = Install::default();
        self.install.apply(&mut install);
        let mut talk = Talk::default();
        self.talk.apply(&mut talk);
        let mut mcp = Mcp {
            id,
            name: self.name,
            description: self.description,
            state: McpState::Draft,
            sharing: self.sharing,
            program: self.program,
            limits: usual.limits,
            times: usual.times,
            as_configured: Usual::ALL.into(),
            confinement,
            install,
            audit_arguments: self.audit_arguments,
            credentials: self.credentials,
            talk,
        };
        self.limits.apply(&mut mcp);
        self.times.apply(&mut mcp);
        checked(mcp, None)
    }
}

// === impl UpdateMcp ===

fn put<T>(place: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *place = new;
    }
}

/// Sets a value that would be the configuration's otherwise.
fn own<T>(place: &mut T, new: Option<T>, value: Usual, left: &mut BTreeSet<Usual>) {
    if let Some(new) = new {
        *place = new;
        left.remove(&value);
    }
}

impl LimitsChange {
    fn apply(&self, mcp: &mut Mcp) {
        let (limits, left) = (&mut mcp.limits, &mut mcp.as_configured);
        let memory = &mut limits.memory_bytes;
        own(memory, self.memory_bytes, Usual::MemoryBytes, left);
        own(&mut limits.pids, self.pids, Usual::Pids, left);
        let cpu = &mut limits.cpu_millis;
        own(cpu, self.cpu_millis, Usual::CpuMillis, left);
        put(&mut limits.open_files, self.open_files);
        put(&mut limits.file_bytes, self.file_bytes);
    }
}

impl TimesChange {
    fn apply(&self, mcp: &mut Mcp) {
        let (times, left) = (&mut mcp.times, &mut mcp.as_configured);
        own(&mut times.call_ms, self.call_ms, Usual::CallMs, left);
        put(&mut times.start_ms, self.start_ms);
        own(&mut times.idle_ms, self.idle_ms, Usual::IdleMs, left);
    }
}

impl InstallChange {
    fn apply(&self, install: &mut Install) {
        put(&mut install.step, self.step);
        put(&mut install.scripts, self.scripts);
        put(&mut install.within_ms, self.within_ms);
    }
}

impl TalkChange {
    fn apply(self, talk: &mut Talk) {
        put(&mut talk.questions, self.questions);
        put(&mut talk.arguments, self.arguments);
        put(&mut talk.tool_changes, self.tool_changes);
    }
}

impl ConfinementChange {
    fn apply(self, walls: &mut Confinement) {
        put(&mut walls.profile, self.profile);
        if let (Some(hosts), None) = (&self.hosts, self.network) {
            match walls.network {
                Network::None if !hosts.is_empty() => walls.network = Network::Allowlist,
                Network::Allowlist if hosts.is_empty() => walls.network = Network::None,
                _ => {}
            }
        }
        put(&mut walls.hosts, self.hosts);
        put(&mut walls.network, self.network);
        put(&mut walls.read, self.read);
        put(&mut walls.write, self.write);
    }
}

impl ProgramChange {
    fn apply(self, program: &mut Program) -> Result<(), &'static str> {
        let of_command = self.command.is_some() || self.args.is_some() || !self.env.is_empty();
        match &mut program.remote {
            Some(_) if of_command => {
                return Err("it is a server behind HTTP and has no command; add another mcp");
            }
            Some(remote) => self.remote.apply(remote),
            None if !self.remote.is_nothing() => {
                return Err("it is a command and no server behind HTTP; add another mcp");
            }
            None => {
                put(&mut program.command, self.command);
                put(&mut program.args, self.args);
                for (name, value) in self.env {
                    match value {
                        Some(value) => program.env.insert(name, value),
                        None => program.env.remove(&name),
                    };
                }
            }
        }
        Ok(())
    }
}

impl UpdateMcp {
    pub(super) fn apply(self, old: Mcp, usual: &Defaults) -> Result<Mcp, ApiError> {
        let mut mcp = old.clone();
        put(&mut mcp.description, self.description);
        put(&mut mcp.sharing, self.sharing);
        self.program
            .apply(&mut mcp.program)
            .map_err(|why| ApiError::invalid(format!("mcp `{}`: {why}", mcp.name)))?;
        for value in self.as_configured {
            mcp.leave(value, usual);
        }
        self.limits.apply(&mut mcp);
        self.times.apply(&mut mcp);
        self.confinement.apply(&mut mcp.confinement);
        self.install.apply(&mut mcp.install);
        self.talk.apply(&mut mcp.talk);
        put(&mut mcp.audit_arguments, self.audit_arguments);
        for (name, slot) in self.credentials {
            match slot {
                Some(slot) => mcp.credentials.insert(name, slot),
                None => mcp.credentials.remove(&name),
            };
        }
        checked(mcp, Some(&old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::ids::ID_BYTES;
    use crate::domain::mcp::{Limits, Times};

    fn add(text: &str) -> Result<Mcp, String> {
        let wanted: AddMcp = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let id = McpId::from_random([1; ID_BYTES]);
        wanted
            .into_mcp(id, &Defaults::default())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn little_is_enough_and_the_rest_has_defaults() {
        let mcp = add(r#"{"name":"time","program":{"command":"uvx","args":["mcp-server-time"]}}"#);
        let mcp = mcp.unwrap();
        assert_eq!(mcp.state, McpState::Draft);
        assert_eq!(mcp.limits, Limits::default());
        assert_eq!(mcp.times, Times::default());
    }

    #[test]
    fn what_a_definition_does_not_say_is_the_configurations_and_can_be_again() {
        let mut config = Config::default();
        assert_eq!(
            config.mcp_defaults(),
            Defaults::default(),
            "one truth for the built-in values"
        );
        config.isolates.memory_bytes = 64 << 20;
        let usual = config.mcp_defaults();
        let text = r#"{"name":"a","program":{"command":"x"},"limits":{"pids":7}}"#;
        let wanted: AddMcp = serde_json::from_str(text).unwrap();
        let id = McpId::from_random([1; ID_BYTES]);
        let mcp = wanted.into_mcp(id, &usual).unwrap();
        assert_eq!((mcp.limits.memory_bytes, mcp.limits.pids), (64 << 20, 7));
        use Usual::{CallMs, CpuMillis, IdleMs, MemoryBytes, Pids};
        let all_but = |own: &[Usual]| {
            let left = Usual::ALL.into_iter().filter(|one| !own.contains(one));
            left.collect::<BTreeSet<_>>()
        };
        assert_eq!(mcp.as_configured, all_but(&[Pids]));
        let change = |mcp: &Mcp, text: &str| {
            let update: UpdateMcp = serde_json::from_str(text).unwrap();
            update.apply(mcp.clone(), &usual).unwrap()
        };
        // Never idling is an own value too.
        let own = r#"{"limits":{"cpu_millis":9000},"times":{"call_ms":1,"idle_ms":null}}"#;
        let mcp = change(&mcp, own);
        assert_eq!(
            mcp.as_configured,
            all_but(&[Pids, CpuMillis, CallMs, IdleMs])
        );
        let back = r#"{"as_configured":["pids","idle_ms"],"limits":{"memory_bytes":9999999}}"#;
        let mcp = change(&mcp, back);
        assert_eq!(
            mcp.as_configured,
            all_but(&[MemoryBytes, CpuMillis, CallMs])
        );
        assert_eq!(mcp.limits.pids, usual.limits.pids);
        assert_eq!(mcp.times.idle_ms, usual.times.idle_ms);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (body, word) in [
            (r#"{"name":"A","program":{"command":"x"}}"#, "valid name"),
            (r#"{"name":"a","program":{"command":" "}}"#, "command"),
            (
                r#"{"name":"a","program":{"command":"x","env":{"A=B":"c"}}}"#,
                "A=B",
            ),
            (r#"{"name":"a","program":{"command":"x\u0000"}}"#, "NUL"),
            (
                r#"{"name":"a","program":{"command":"x"},"limits":{"memory_bytes":1}}"#,
                "memory_bytes",
            ),
            (
                r#"{"name":"a","program":{"command":"x"},"limits":{"pids":0}}"#,
                "pids",
            ),
            (
                r#"{"name":"a","program":{"command":"x"},"times":{"call_ms":0}}"#,
                "call_ms",
            ),
            (
                r#"{"name":"a","program":{"command":"x"},"times":{"idle_ms":0}}"#,
                "idle_ms",
            ),
            (
                r#"{"name":"a","program":{"command":"x"},"memory":"1G"}"#,
                "unknown field",
            ),
            (r#"{"name":"a"}"#, "program"),
        ] {
            let error = add(body).unwrap_err();
            assert!(error.contains(word), "{body}: {error}");
        }
    }

    #[test]
    fn a_definition_is_bound_as_the_configuration_is() {
        let of = |part: &str| {
            add(&format!(
                r#"{{"name":"a","program":{{"command":"x"}},{part}}}"#
            ))
        };
        for key in ["memory_bytes", "pids", "cpu_millis", "idle_ms"] {
            let mut keys = Config::keys().into_iter();
            let key = keys
                .find(|one| one.section == "isolates" && one.name == key)
                .unwrap();
            let (min, max) = key.range.unwrap();
            let part = if key.name == "idle_ms" {
                "times"
            } else {
                "limits"
            };
            let with = |value: u64| of(&format!(r#""{part}":{{"{}":{value}}}"#, key.name));
            assert!(with(min).is_ok() && with(max).is_ok(), "{}", key.name);
            for outside in [min - 1, max + 1] {
                let text = with(outside).unwrap_err();
                let says = text.contains(&min.to_string()) && text.contains(&max.to_string());
                assert!(says && text.contains(key.name), "{text}");
            }
        }
        assert!(of(r#""times":{"idle_ms":null}"#).is_ok(), "never");
    }

    #[test]
    fn what_was_within_older_bounds_stays_and_only_new_values_are_held_to_the_newer_ones() {
        let mut old = add(r#"{"name":"a","program":{"command":"x"}}"#).unwrap();
        (old.limits.memory_bytes, old.limits.pids) = (1 << 20, 2);
        (old.times.idle_ms, old.times.call_ms) = (Some(1), 0);
        let change = |text: &str| {
            let update: UpdateMcp = serde_json::from_str(text).unwrap();
            update
                .apply(old.clone(), &Defaults::default())
                .map_err(|error| error.to_string())
        };
        let described = change(r#"{"description":"x"}"#).unwrap();
        assert_eq!(described.limits, old.limits);
        assert!(change(r#"{"limits":{"cpu_millis":500,"memory_bytes":1048576}}"#).is_ok());
        for (text, word) in [
            (r#"{"limits":{"memory_bytes":1048577}}"#, "memory_bytes"),
            (r#"{"limits":{"pids":3}}"#, "pids"),
            (r#"{"limits":{"cpu_millis":0}}"#, "cpu_millis"),
            (r#"{"limits":{"open_files":1}}"#, "open_files"),
            (r#"{"times":{"idle_ms":2}}"#, "idle_ms"),
            (r#"{"times":{"start_ms":0}}"#, "start_ms"),
        ] {
            let error = change(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let old =
            add(r#"{"name":"a","program":{"command":"x","args":["1"],"env":{"K":"v","L":"w"}}}"#);
        let old = old.unwrap();
        let text = r#"{"program":{"env":{"K":null,"M":"n"}},"times":{"idle_ms":null},
            "limits":{"pids":9}}"#;
        let update: UpdateMcp = serde_json::from_str(text).unwrap();
        let new = update
            .clone()
            .apply(old.clone(), &Defaults::default())
            .unwrap();
        assert_eq!(new.program.args, old.program.args);
        let env: Vec<_> = new.program.env.keys().map(String::as_str).collect();
        assert_eq!(env, ["L", "M"]);
        assert_eq!(new.times.idle_ms, None);
        assert_eq!(new.times.call_ms, old.times.call_ms);
        assert_eq!(
            (new.limits.pids, new.limits.cpu_millis),
            (9, old.limits.cpu_millis)
        );
        let again: UpdateMcp =
            serde_json::from_value(serde_json::to_value(&update).unwrap()).unwrap();
        assert_eq!(again, update, "null and absent survive the wire");
        let nothing = UpdateMcp::default().apply(old.clone(), &Defaults::default());
        assert_eq!(nothing.unwrap(), old);
    }
}
