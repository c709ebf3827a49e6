//! Setting one table of a TOML file by its lines, and proving that nothing else changed.
//!
//! A table that is written in another way (inline, or with dotted keys) is refused, never guessed.

use toml::{Table, Value};

/// The text with `[outer.name]` of these members.
///
/// # Errors
/// What is in the way.
pub(super) fn set(
    text: &str,
    outer: &str,
    name: &str,
    members: &[(&str, &str)],
) -> Result<String, String> {
    let before: Table = text.parse().map_err(|error| format!("{error}"))?;
    let path = format!("{outer}.{}", key(name));
    let mut body = format!("[{path}]\n");
    for (member, value) in members {
        body.push_str(&format!("{member} = {}\n", Value::from(*value)));
    }
    let made = replace(text, &path, &body);
    let after: Table = made
        .parse()
        .map_err(|error| format!("`[{path}]` cannot be set by its lines: {error}"))?;
    let is_set = members.iter().all(|(member, value)| {
        get(&after, outer, name).and_then(|entry| entry.get(*member)?.as_str()) == Some(value)
    });
    if is_set && without(before, outer, name) == without(after, outer, name) {
        Ok(made)
    } else {
        Err(format!(
            "`{path}` is there in another form than a table `[{path}]`"
        ))
    }
}

/// A table of a table.
pub(super) fn get<'a>(table: &'a Table, outer: &str, name: &str) -> Option<&'a Table> {
    table.get(outer)?.as_table()?.get(name)?.as_table()
}

fn without(mut table: Table, outer: &str, name: &str) -> Table {
    if let Some(Value::Table(inner)) = table.get_mut(outer) {
        inner.remove(name);
        if inner.is_empty() {
            table.remove(outer);
        }
    }
    table
}

/// Takes the table's lines and those of its inner tables out, and puts the new ones in their place, or
/// at the end.
fn replace(text: &str, path: &str, body: &str) -> String {
    let inner = format!("{path}.");
    let mut out = String::with_capacity(text.len() + body.len());
    let mut is_inside = false;
    let mut is_written = false;
    for line in text.split_inclusive('\n') {
        if let Some(header) = header(line) {
            let is_ours = header == path || header.starts_with(&inner);
            if is_ours && !is_written {
                out.push_str(body);
                is_written = true;
            }
            if is_inside && !is_ours {
                out.push('\n');
            }
            is_inside = is_ours;
        }
        if !is_inside {
            out.push_str(line);
        }
    }
    if !is_written {
        if !out.is_empty() {
            let ends = out.ends_with('\n');
            out.push_str(if ends { "\n" } else { "\n\n" });
        }
        out.push_str(body);
    }
    out
}

/// The name of a table that a line begins, without blanks.
fn header(line: &str) -> Option<String> {
    let line = line.trim();
    let line = line
        .split_once('#')
        .map_or(line, |(before, _)| before.trim_end());
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    Some(name.chars().filter(|c| !c.is_whitespace()).collect())
}

/// A key, quoted where it must be.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [(&str, &str); 2] = [("url", "u"), ("bearer_token_env_var", "LEGATION_KEY")];

    fn made(text: &str) -> Result<String, String> {
        set(text, "mcp_servers", "legation", &MEMBERS)
    }

    #[test]
    fn a_table_is_added_at_the_end_and_set_again_in_its_place() {
        let text = "model = \"x\" # mine\n\n[mcp_servers.other]\ncommand = \"y\"";
        let first = made(text).unwrap();
        insta::assert_snapshot!(first, @r#"
        model = "x" # mine

        [mcp_servers.other]
        command = "y"

        [mcp_servers.legation]
        url = "u"
        bearer_token_env_var = "LEGATION_KEY"
        "#);
        assert_eq!(made(&first).unwrap(), first);
        let old = "[mcp_servers.legation]\ncommand = \"z\"\n[mcp_servers.legation.env]\nA = \"b\"\n\n[after]\nx = [\n 1,\n]\n";
        let new = made(old).unwrap();
        insta::assert_snapshot!(new, @r#"
        [mcp_servers.legation]
        url = "u"
        bearer_token_env_var = "LEGATION_KEY"

        [after]
        x = [
         1,
        ]
        "#);
        assert_eq!(made("").unwrap(), made("").unwrap().trim_start());
    }

    #[test]
    fn what_cannot_be_set_by_lines_is_refused() {
        for text in [
            "mcp_servers = { legation = { url = \"z\" } }",
            "[mcp_servers]\nlegation = { url = \"z\" }",
            "[mcp_servers]\nlegation.url = \"z\"",
            "x = ",
            "text = \"\"\"\n[mcp_servers.legation]\n\"\"\"\n",
        ] {
            assert!(made(text).is_err(), "{text}: {:?}", made(text));
        }
        assert!(made("\n\nx = ").unwrap_err().contains("line 3"));
    }
}
