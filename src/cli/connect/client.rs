//! The AI tools that `connect` knows, and the form each one's configuration has.
//!
//! The key is never written: each form names a variable, or has the AI tool ask for it.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::Value;

use super::json::{self, Ordered};
use super::table;
use crate::cli::bridge::{KEY_VARIABLE, unquoted};

/// An AI tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    ClaudeCode,
    Vscode,
    Cursor,
    Gemini,
    Codex,
    Opencode,
}

/// What VS Code calls the question for the key: one for each server, which may be another's.
fn input_of(name: &str) -> String {
    format!("{name}-key")
}

// === impl Client ===

impl Client {
    /// What people call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "Claude Code",
            Self::Vscode => "VS Code",
            Self::Cursor => "Cursor",
            Self::Gemini => "Gemini CLI",
            Self::Codex => "Codex",
            Self::Opencode => "OpenCode",
        }
    }

    /// Where it reads its MCP servers from, by the variables that it looks at as well. `None` without a home.
    pub(super) fn file(self, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
        let at = |path: &str| variable("HOME").map(|home| home.join(path));
        let within = |name: &str, usual: &str| {
            let own = variable(name).filter(|folder| folder.is_absolute());
            own.or_else(|| at(usual))
        };
        match self {
            Self::ClaudeCode => Some(PathBuf::from(".mcp.json")),
            Self::Vscode => Some(PathBuf::from(".vscode/mcp.json")),
            Self::Cursor => at(".cursor/mcp.json"),
            Self::Gemini => at(".gemini/settings.json"),
            Self::Codex => Some(within("CODEX_HOME", ".codex")?.join("config.toml")),
            Self::Opencode => {
                let folder = within("XDG_CONFIG_HOME", ".config")?.join("opencode");
                let (plain, commented) =
                    (folder.join("opencode.json"), folder.join("opencode.jsonc"));
                let is_other = commented.exists() && !plain.exists();
                Some(if is_other { commented } else { plain })
            }
        }
    }

    /// Whether it asks for the key itself; else it reads the variable.
    pub(super) const fn asks(self) -> bool {
        matches!(self, Self::Vscode)
    }

    /// Whether it trusts a further certificate by `NODE_EXTRA_CA_CERTS`: it runs on Node, Bun or Electron.
    pub(super) const fn runs_on_node(self) -> bool {
        !matches!(self, Self::Codex)
    }

    /// What its user does next.
    pub(super) const fn next(self) -> &'static str {
        match self {
            Self::ClaudeCode => "start `claude` in this directory and look with /mcp",
            Self::Vscode => {
                "open this directory in VS Code and start the server from .vscode/mcp.json; it asks for the key"
            }
            Self::Cursor => "restart Cursor and look under Settings, MCP",
            Self::Gemini => "start `gemini` and look with /mcp",
            Self::Codex => "start `codex` and look with /mcp",
            Self::Opencode => "start `opencode`; its tools are there",
        }
    }

    /// The file's text with this server in it. The same text, if it is there already.
    ///
    /// # Errors
    /// What is in the way, and on which line.
    pub(super) fn edit(self, text: &str, name: &str, url: &str) -> Result<String, String> {
        if self == Self::Codex {
            return edit_codex(text, name, url);
        }
        let entry = self.entry(text, name, url);
        let path = self.path(text);
        let path: Vec<&str> = path.iter().copied().chain([name]).collect();
        let wanted = entry.value();
        let is_in = |text: &str| json::get(text, &path).is_some_and(|found| has(&found, &wanted));
        let edited = match is_in(text) {
            true => text.to_owned(),
            // What is ours of it: its user may have added to it. One that starts a program is another thing.
            false => match json::get(text, &path) {
                Some(Value::Object(found)) if !found.contains_key("command") => {
                    json::set_each(text, &path, &entry)?
                }
                _ => json::set(text, &path, &entry)?,
            },
        };
        if !is_in(&edited) {
            return Err(format!("`{}` is there twice", path.join(".")));
        }
        match self {
            Self::Vscode => json::add(&edited, "inputs", &input_of(name), &input(name)),
            _ => Ok(edited),
        }
    }

    /// Where in the file the servers are.
    fn path(self, text: &str) -> Vec<&'static str> {
        match self {
            Self::Vscode => vec!["servers"],
            Self::Opencode if is_opencode_2(text) => vec!["mcp", "servers"],
            Self::Opencode => vec!["mcp"],
            _ => vec!["mcpServers"],
        }
    }

    fn entry(self, text: &str, name: &str, url: &str) -> Ordered {
        let headers = |reference: &str| {
            let bearer = Ordered::text(&format!("Bearer {reference}"));
            ("headers", Ordered::object([("Authorization", bearer)]))
        };
        let url = Ordered::text(url);
        match self {
            Self::ClaudeCode => Ordered::object([
                ("type", Ordered::text("http")),
                ("url", url),
                headers(&format!("${{{KEY_VARIABLE}}}")),
            ]),
            Self::Vscode => Ordered::object([
                ("type", Ordered::text("http")),
                ("url", url),
                headers(&format!("${{input:{}}}", input_of(name))),
            ]),
            Self::Cursor => {
                Ordered::object([("url", url), headers(&format!("${{env:{KEY_VARIABLE}}}"))])
            }
            Self::Gemini => {
                Ordered::object([("httpUrl", url), headers(&format!("${{{KEY_VARIABLE}}}"))])
            }
            // Codex has no JSON; its form is in `edit_codex`.
            Self::Opencode | Self::Codex => {
                let reference = format!("{{env:{KEY_VARIABLE}}}");
                let mut members = vec![
                    ("type".to_owned(), Ordered::text("remote")),
                    ("url".to_owned(), url),
                ];
                if !is_opencode_2(text) {
                    members.push(("enabled".to_owned(), Ordered::Plain(Value::from(true))));
                }
                let (name, value) = headers(&reference);
                members.push((name.to_owned(), value));
                Ordered::Object(members)
            }
        }
    }
}

/// Whether an entry has all that is wanted; what its user added stays.
fn has(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| found.get(name).is_some_and(|found| has(found, value))),
        _ => found == wanted,
    }
}

/// Whether the file has the form of OpenCode 2: its servers one level deeper.
fn is_opencode_2(text: &str) -> bool {
    let of_a_server = ["url", "type", "command"];
    json::get(text, &["mcp", "servers"]).is_some_and(|servers| {
        let is_one = of_a_server
            .iter()
            .any(|member| servers.get(member).is_some());
        !is_one
    })
}

/// The question for the key.
fn input(name: &str) -> Ordered {
    let description = match name {
        "legation" => "Legation key".to_owned(),
        other => format!("Legation key of {other}"),
    };
    Ordered::object([
        ("id", Ordered::text(&input_of(name))),
        ("type", Ordered::text("promptString")),
        ("description", Ordered::text(&description)),
        ("password", Ordered::Plain(Value::from(true))),
    ])
}

fn edit_codex(text: &str, name: &str, url: &str) -> Result<String, String> {
    const OUTER: &str = "mcp_servers";
    let members = [("url", url), ("bearer_token_env_var", KEY_VARIABLE)];
    let table: toml::Table = text.parse().map_err(|error| unquoted(&error, text))?;
    let is_there = table::get(&table, OUTER, name).is_some_and(|entry| {
        members
            .iter()
            .all(|(member, value)| entry.get(*member).and_then(toml::Value::as_str) == Some(value))
    });
    match is_there {
        true => Ok(text.to_owned()),
        false => table::set(text, OUTER, name, &members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://tools.example:8443/mcp";

    fn form(client: Client) -> String {
        let made = client.edit("", "legation", URL).unwrap();
        // A second time changes nothing.
        assert_eq!(client.edit(&made, "legation", URL).unwrap(), made);
        let moved = client
            .edit(&made, "legation", "https://other.example/mcp")
            .unwrap();
        assert!(
            moved.contains("other.example") && !moved.contains(URL),
            "{moved}"
        );
        made
    }

    #[test]
    fn claude_code_reads_a_variable() {
        insta::assert_snapshot!(form(Client::ClaudeCode), @r#"
        {
          "mcpServers": {
            "legation": {
              "type": "http",
              "url": "https://tools.example:8443/mcp",
              "headers": {
                "Authorization": "Bearer ${LEGATION_KEY}"
              }
            }
          }
        }
        "#);
    }

    #[test]
    fn vs_code_asks_for_the_key() {
        insta::assert_snapshot!(form(Client::Vscode), @r#"
        {
          "servers": {
            "legation": {
              "type": "http",
              "url": "https://tools.example:8443/mcp",
              "headers": {
                "Authorization": "Bearer ${input:legation-key}"
              }
            }
          },
          "inputs": [
            {
              "id": "legation-key",
              "type": "promptString",
              "description": "Legation key",
              "password": true
            }
          ]
        }
        "#);
    }

    #[test]
    fn cursor_reads_a_variable_in_its_own_way() {
        insta::assert_snapshot!(form(Client::Cursor), @r#"
        {
          "mcpServers": {
            "legation": {
              "url": "https://tools.example:8443/mcp",
              "headers": {
                "Authorization": "Bearer ${env:LEGATION_KEY}"
              }
            }
          }
        }
        "#);
    }

    #[test]
    fn gemini_has_another_name_for_the_address() {
        insta::assert_snapshot!(form(Client::Gemini), @r#"
        {
          "mcpServers": {
            "legation": {
              "httpUrl": "https://tools.example:8443/mcp",
              "headers": {
                "Authorization": "Bearer ${LEGATION_KEY}"
              }
            }
          }
        }
        "#);
    }

    #[test]
    fn codex_has_a_table() {
        insta::assert_snapshot!(form(Client::Codex), @r#"
        [mcp_servers.legation]
        url = "https://tools.example:8443/mcp"
        bearer_token_env_var = "LEGATION_KEY"
        "#);
    }

    #[test]
    fn opencode_has_two_forms_and_the_file_tells_which() {
        insta::assert_snapshot!(form(Client::Opencode), @r#"
        {
          "mcp": {
            "legation": {
              "type": "remote",
              "url": "https://tools.example:8443/mcp",
              "enabled": true,
              "headers": {
                "Authorization": "Bearer {env:LEGATION_KEY}"
              }
            }
          }
        }
        "#);
        let two = "{\"mcp\": {\"servers\": {\"a\": {\"type\": \"remote\"}}}}";
        let made = Client::Opencode.edit(two, "legation", URL).unwrap();
        let entry = json::get(&made, &["mcp", "servers", "legation"]).unwrap();
        assert_eq!(entry["url"], URL);
        assert!(entry.get("enabled").is_none(), "{entry}");
        assert_eq!(Client::Opencode.edit(&made, "legation", URL).unwrap(), made);
    }

    #[test]
    fn what_its_user_added_to_the_entry_stays() {
        let mine = format!(
            "{{\"mcpServers\": {{\"legation\": {{\"httpUrl\": \"{URL}\", \"timeout\": 9, \
             \"headers\": {{\"Authorization\": \"Bearer ${{LEGATION_KEY}}\"}}}}}}}}"
        );
        assert_eq!(Client::Gemini.edit(&mine, "legation", URL).unwrap(), mine);
    }

    #[test]
    fn what_is_there_twice_is_refused() {
        let twice = "{\"mcpServers\": {}, \"mcpServers\": {}}";
        let told = Client::Cursor.edit(twice, "legation", URL).unwrap_err();
        assert!(told.contains("mcpServers.legation"), "{told}");
    }

    #[test]
    fn files_are_where_the_tools_look() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/ada"));
        for client in Client::value_variants() {
            let file = client.file(&home).unwrap();
            let is_project = matches!(client, Client::ClaudeCode | Client::Vscode);
            assert_eq!(file.is_relative(), is_project, "{client:?}");
            assert_eq!(client.file(&|_| None).is_some(), is_project, "{client:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let own = |name: &str| match name {
            "CODEX_HOME" | "XDG_CONFIG_HOME" => Some(folder.path().to_owned()),
            other => home(other),
        };
        let file = |client: Client| client.file(&own).unwrap();
        assert_eq!(file(Client::Codex), folder.path().join("config.toml"));
        let opencode = folder.path().join("opencode");
        assert_eq!(file(Client::Opencode), opencode.join("opencode.json"));
        std::fs::create_dir(&opencode).unwrap();
        std::fs::write(opencode.join("opencode.jsonc"), "{}").unwrap();
        assert_eq!(file(Client::Opencode), opencode.join("opencode.jsonc"));
    }

    #[test]
    fn what_its_user_added_to_an_entry_stays_when_the_address_changes() {
        let mine = "{\"mcpServers\": {\"legation\": {\"httpUrl\": \"https://old/mcp\", \"timeout\": 9,\n\
                    \"headers\": {\"X-Team\": \"a\"}}}}";
        let edited = Client::Gemini.edit(mine, "legation", URL).unwrap();
        let entry = json::get(&edited, &["mcpServers", "legation"]).unwrap();
        assert_eq!(
            (&entry["httpUrl"], &entry["timeout"]),
            (&URL.into(), &9.into())
        );
        assert_eq!(entry["headers"]["X-Team"], "a");
        assert!(entry["headers"]["Authorization"].is_string(), "{edited}");
        // One that started a program is another server.
        let other = "{\"mcpServers\": {\"legation\": {\"command\": \"npx\"}}}";
        let edited = Client::Gemini.edit(other, "legation", URL).unwrap();
        assert!(!edited.contains("npx"), "{edited}");
        // A server of OpenCode's that is called `servers`.
        let named = "{\"mcp\": {\"servers\": {\"type\": \"local\", \"command\": [\"x\"]}}}";
        let edited = Client::Opencode.edit(named, "legation", URL).unwrap();
        assert!(
            json::get(&edited, &["mcp", "legation", "url"]).is_some(),
            "{edited}"
        );
    }
}
