//! What is said between a legacy (initialize-era) stdio server and us before it may serve, as
//! pure texts and parsers; the run actor does the talking.
//!
//! Source: MCP specification, lifecycle and tools pages of 2024-11-05 to 2025-11-25.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::limits::{
    SERVER_DETAIL_CHARS_MAX, TOOL_DEFINITION_BYTES_MAX, TOOLS_PER_MCP_MAX,
};
use crate::domain::mcp::Tool;
use crate::domain::name::ToolName;
use crate::domain::talk::Questions;

use super::card::{Card, Named};
use super::extensions::Extensions;
use super::{questions, tasks};

/// The newest protocol version of the initialize era, which we ask for.
pub const PROTOCOL_VERSION: &str = "2025-11-25";
/// All versions of that era, any of which a server may choose.
pub const PROTOCOL_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// What a server said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The version it chose.
    pub protocol_version: String,
    /// What it says of itself.
    pub card: Card,
    /// What it has.
    pub abilities: Abilities,
}

/// What a server has, as it declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Abilities {
    /// Tools.
    pub tools: bool,
    /// It tells when its list of them changes.
    pub tools_change: bool,
    /// Resources, to list and to read.
    pub resources: bool,
    /// Prompts.
    pub prompts: bool,
    /// Completions of arguments.
    pub completions: bool,
    /// Logs for its clients.
    pub logging: bool,
    /// It tells when a resource that somebody subscribed to changes.
    pub subscribe: bool,
    /// It tells when its list of resources does.
    pub resources_change: bool,
    /// The same of prompts.
    pub prompts_change: bool,
    /// Calls of tools that are tasks.
    pub tasks: bool,
    /// It can be told to stop working on one.
    pub tasks_cancel: bool,
}

impl Abilities {
    /// What this one or another has.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            tools: self.tools || other.tools,
            tools_change: self.tools_change || other.tools_change,
            resources: self.resources || other.resources,
            prompts: self.prompts || other.prompts,
            completions: self.completions || other.completions,
            logging: self.logging || other.logging,
            subscribe: self.subscribe || other.subscribe,
            resources_change: self.resources_change || other.resources_change,
            prompts_change: self.prompts_change || other.prompts_change,
            tasks: self.tasks || other.tasks,
            tasks_cancel: self.tasks_cancel || other.tasks_cancel,
        }
    }
}

/// The parameters of `initialize`; the client that is declared can answer these questions, and has these extensions.
#[must_use]
pub fn initialize_params(questions: Questions, extensions: &Extensions) -> Bytes {
    Bytes::from(format!(
        "{{\"protocolVersion\":\"{PROTOCOL_VERSION}\",\"capabilities\":{},\
         \"clientInfo\":{{\"name\":\"legation\",\"version\":\"{}\"}}}}",
        questions::with_member(
            questions::capabilities(questions),
            &extensions.member(false)
        ),
        env!("CARGO_PKG_VERSION")
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult<'a> {
    protocol_version: String,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default)]
    server_info: Named<'a>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resources: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    logging: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tasks: Option<&'a RawValue>,
}

/// A sentence with a server's output in it, as long as a verdict may be: a parser's error quotes
/// the whole value it does not like, and verdicts are kept, logged and sent to callers.
#[must_use]
pub fn cut(text: &str) -> String {
    // One line, whatever a server puts into a name: a log's reader shall not take it for another one.
    let chars = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    // Nothing behind it that says so: half a credential is only found at a text's very end.
    chars.take(SERVER_DETAIL_CHARS_MAX).collect()
}

/// Reads the result of `initialize`.
///
/// # Errors
/// A sentence for the verdict: what the server answered that it should not have.
pub fn read_initialize(result: &[u8]) -> Result<ServerInfo, String> {
    let shapeless = |error: serde_json::Error| {
        cut(&format!(
            "the answer to initialize is not of its shape: {error}"
        ))
    };
    let answer: InitializeResult<'_> = serde_json::from_slice(result).map_err(shapeless)?;
    if !PROTOCOL_VERSIONS.contains(&answer.protocol_version.as_str()) {
        let said: String = answer.protocol_version.chars().take(32).collect();
        return Err(format!(
            "known protocol versions are {}; the server chose {said}",
            PROTOCOL_VERSIONS.join(", ")
        ));
    }
    let capabilities = answer.capabilities.map_or("{}", RawValue::get);
    let declared: Capabilities<'_> = serde_json::from_str(capabilities).map_err(shapeless)?;
    Ok(ServerInfo {
        protocol_version: answer.protocol_version,
        card: Card::of(
            &answer.server_info,
            answer.instructions,
            answer.capabilities,
        ),
        abilities: declared.abilities(),
    })
}

/// What a server can do, by the capabilities that it declares; of what is none, nothing.
#[must_use]
pub fn abilities(capabilities: &str) -> Abilities {
    let declared: Capabilities<'_> = serde_json::from_str(capabilities).unwrap_or_default();
    declared.abilities()
}

impl Capabilities<'_> {
    fn abilities(&self) -> Abilities {
        Abilities {
            tools: self.tools.is_some(),
            tools_change: tells(self.tools).list_changed,
            resources: self.resources.is_some(),
            prompts: self.prompts.is_some(),
            completions: self.completions.is_some(),
            logging: self.logging.is_some(),
            subscribe: tells(self.resources).subscribe,
            resources_change: tells(self.resources).list_changed,
            prompts_change: tells(self.prompts).list_changed,
            tasks: tasks::declared(self.tasks).0,
            tasks_cancel: tasks::declared(self.tasks).1,
        }
    }
}

/// What a server tells of itself.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Tells {
    subscribe: bool,
    list_changed: bool,
}

fn tells(of: Option<&RawValue>) -> Tells {
    of.and_then(|of| serde_json::from_str(of.get()).ok())
        .unwrap_or_default()
}

/// One page of `tools/list`.
#[derive(Debug, Default)]
pub struct ToolPage {
    /// Its tools.
    pub tools: Vec<Tool>,
    /// Tools that cannot be offered, with the reason.
    pub refused: Vec<String>,
    /// The cursor of the next page, as JSON text.
    pub next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListResult<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    next_cursor: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolHead {
    name: String,
    #[serde(default)]
    description: Option<String>,
}

/// Reads one page of `tools/list`.
///
/// # Errors
/// A sentence for the verdict.
pub fn read_tools(result: &[u8]) -> Result<ToolPage, String> {
    let list: ListResult<'_> = serde_json::from_slice(result).map_err(|error| {
        cut(&format!(
            "the answer to tools/list is not of its shape: {error}"
        ))
    })?;
    if list.tools.len() > TOOLS_PER_MCP_MAX {
        return Err(format!(
            "{} tools on one page; the most is {TOOLS_PER_MCP_MAX}",
            list.tools.len()
        ));
    }
    let mut page = ToolPage {
        next: list.next_cursor.map(|cursor| cursor.get().to_owned()),
        ..ToolPage::default()
    };
    for raw in list.tools {
        match read_tool(raw.get()) {
            Ok(tool) => page.tools.push(tool),
            Err(why) => page.refused.push(cut(&why)),
        }
    }
    Ok(page)
}

fn read_tool(raw: &str) -> Result<Tool, String> {
    let head: ToolHead = serde_json::from_str(raw)
        .map_err(|error| format!("a tool without a usable name: {error}"))?;
    let name = ToolName::parse(&head.name).map_err(|error| error.to_string())?;
    if raw.len() > TOOL_DEFINITION_BYTES_MAX {
        return Err(format!(
            "the definition of tool `{name}` is {} bytes; the most is {TOOL_DEFINITION_BYTES_MAX}",
            raw.len()
        ));
    }
    Ok(Tool {
        name,
        // A zero character is valid JSON, but no text that every store can hold.
        description: head
            .description
            .unwrap_or_default()
            .replace('\0', "\u{fffd}"),
        definition: raw.to_owned(),
    })
}

/// The parameters of `tools/list`; `cursor` is JSON text.
#[must_use]
pub fn list_params(cursor: Option<&str>) -> Bytes {
    match cursor {
        Some(cursor) => Bytes::from(format!("{{\"cursor\":{cursor}}}")),
        None => Bytes::from_static(b"{}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_stays_on_its_line() {
        assert_eq!(cut("a\nERROR b\u{1b}[0m"), "a\u{fffd}ERROR b\u{fffd}[0m");
        let page = read_tools(br#"{"tools":[{"name":"x\n2026 ERROR forged"}]}"#).unwrap();
        assert!(!page.refused.concat().contains('\n'), "{page:?}");
    }

    #[test]
    fn reads_what_servers_say() {
        let info = read_initialize(
            br#"{"protocolVersion":"2024-11-05","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1","title":"X"},"instructions":"a\nb","extra":1}"#,
        )
        .unwrap();
        assert!(info.abilities.tools && !info.abilities.resources);
        let card = info.card;
        assert_eq!(
            (&*card.name, &*card.title, &*card.instructions),
            ("x", "X", "a\nb")
        );
        assert!(read_initialize(br#"{"protocolVersion":"1999-01-01","capabilities":{}}"#).is_err());
        assert!(read_initialize(b"[]").is_err());
    }

    #[test]
    fn tools_keep_their_definition_and_bad_names_are_named() {
        let page = read_tools(
            br#"{"tools":[{"name":"a","description":null,"x-new":{"deep":[1]}},{"name":"b c"},{"no":1}],"nextCursor":"n\n"}"#,
        )
        .unwrap();
        assert_eq!(page.tools.len(), 1);
        assert_eq!(
            page.tools[0].definition,
            r#"{"name":"a","description":null,"x-new":{"deep":[1]}}"#
        );
        assert_eq!(page.refused.len(), 2);
        assert_eq!(list_params(page.next.as_deref()), r#"{"cursor":"n\n"}"#);
    }

    #[test]
    fn a_servers_output_never_makes_a_verdict_long() {
        let long = "x".repeat(1 << 20);
        let text = serde_json::to_vec(&long).unwrap();
        let short = |said: &str| said.chars().count() <= SERVER_DETAIL_CHARS_MAX;
        assert!(short(&read_initialize(&text).unwrap_err()));
        assert!(short(&read_tools(&text).unwrap_err()));
        let list = serde_json::json!({"tools": [
            {"name": long},
            long,
            {"name": "big", "description": "y".repeat(TOOL_DEFINITION_BYTES_MAX)},
            {"name": "small"},
        ]});
        let page = read_tools(list.to_string().as_bytes()).unwrap();
        assert_eq!(page.tools.len(), 1);
        assert_eq!(page.refused.len(), 3);
        assert!(page.refused.iter().all(|why| short(why)), "{page:?}");
        assert!(page.refused[2].contains("`big`"), "{}", page.refused[2]);
    }

    /// The redactor knows half a credential at a text's end, and nowhere else.
    #[test]
    fn what_was_cut_of_a_servers_output_stands_at_the_end() {
        let version = format!("{}{}", "v".repeat(22), "Bearer of-ada");
        let text = serde_json::json!({
            "protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "a", "version": "1"},
        });
        let told = read_initialize(text.to_string().as_bytes()).unwrap_err();
        assert!(told.ends_with("vBearer of-"), "{told}");
        let before = "x".repeat(SERVER_DETAIL_CHARS_MAX - 10);
        assert!(cut(&format!("{before}Bearer of-ada")).ends_with("xBearer of-"));
    }
}
