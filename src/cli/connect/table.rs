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
    let own = |entry: Option<&Table>| {
        let mut entry = entry.cloned().unwrap_or_default();
        members
            .iter()
            .for_each(|(member, _)| _ = entry.remove(*member));
        entry
    };
    // What its user added to it stays; one that starts a program is another thing.
    let found = get(&before, outer, name);
    let amends = found.is_some_and(|entry| !entry.contains_key("command"));
    let kept = own(found.filter(|_| amends));
    let made = match amends {
        true => amend(text, &path, members),
        false => replace(text, &path, &body),
    };
    let after: Table = made
        .parse()
        .map_err(|error| format!("`[{path}]` cannot be set by its lines: {error}"))?;
    let is_set = members.iter().all(|(member, value)| {
        get(&after, outer, name).and_then(|entry| entry.get(*member)?.as_str()) == Some(value)
    });
    let keeps = own(get(&after, outer, name)) == kept;
    if is_set && keeps && without(before, outer, name) == without(after, outer, name) {
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

/// Sets these members of the table by their lines, the missing ones behind its header.
fn amend(text: &str, path: &str, members: &[(&str, &str)]) -> String {
    let line_of = |(member, value): &(&str, &str)| format!("{member} = {}\n", Value::from(*value));
    let of_line = |line: &str| {
        let name = line.split_once('=')?.0.trim().trim_matches('"').to_owned();
        members.iter().find(|(member, _)| *member == name)
    };
    let mut is_inside = false;
    let is_ours = |line: &str, is_inside: &mut bool| {
        if let Some(header) = header(line) {
            *is_inside = header == path;
            return false;
        }
        *is_inside
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let there: Vec<&str> = lines
        .iter()
        .filter(|line| is_ours(line, &mut is_inside))
        .filter_map(|line| of_line(line).map(|(member, _)| *member))
        .collect();
    is_inside = false;
    let mut out = String::with_capacity(text.len() + 128);
    for line in lines {
        match is_ours(line, &mut is_inside)
            .then(|| of_line(line))
            .flatten()
        {
            Some(member) => out.push_str(&line_of(member)),
            None => {
                out.push_str(line);
                if is_inside && header(line).is_some() {
                    if !line.ends_with('\n') {
                        out.push('\n');
                    }
                    let missing = members.iter().filter(|(member, _)| !there.contains(member));
                    missing.for_each(|member| out.push_str(&line_of(member)));
                }
            }
        }
    }
    out
}

/// Takes the table's lines and those of its inner tables out, and puts the new ones in their place, or
/// at the end.
fn replace(text: &str, path: &str, body: &str) -> String {
    let inner = format!("{path}.");
    let mut out = String::with_capacity(text.len() + body.len());
    let mut is_inside = false;
    let mut is_written = false;
    // Comments before the next table are of that one.
    let mut aside = String::new();
    for line in text.split_inclusive('\n') {
        if let Some(header) = header(line) {
            let is_ours = header == path || header.starts_with(&inner);
            if is_ours && !is_written {
                out.push_str(body);
                is_written = true;
            }
            if is_inside && !is_ours {
                out.push('\n');
                out.push_str(aside.trim_start_matches(['\r', '\n']));
            }
            aside.clear();
            is_inside = is_ours;
        }
        match line.trim_start().chars().next() {
            _ if !is_inside => out.push_str(line),
            None | Some('#') => aside.push_str(line),
            Some(_) => aside.clear(),
        }
    }
    if is_inside && aside.contains('#') {
        out.push('\n');
        out.push_str(aside.trim_start_matches(['\r', '\n']));
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
    fn what_its_user_added_stays_and_comments_are_the_next_tables() {
        let old = "[mcp_servers.legation]\nurl = \"old\" \nstartup_timeout_sec = 9 # slow\n\n# Of x.\n[profiles.x]\n";
        insta::assert_snapshot!(made(old).unwrap(), @r#"
        [mcp_servers.legation]
        bearer_token_env_var = "LEGATION_KEY"
        url = "u"
        startup_timeout_sec = 9 # slow

        # Of x.
        [profiles.x]
        "#);
        let program = "[mcp_servers.legation]\ncommand = \"z\"\n\n# Of x.\n[profiles.x]\n";
        insta::assert_snapshot!(made(program).unwrap(), @r#"
        [mcp_servers.legation]
        url = "u"
        bearer_token_env_var = "LEGATION_KEY"

        # Of x.
        [profiles.x]
        "#);
        let tricky = "[mcp_servers.legation]\nx = \"\"\"\nurl = 1\n\"\"\"\n";
        assert!(made(tricky).is_err(), "{:?}", made(tricky));
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
