//! The URIs of resources where all servers of a key are: `legation://<mcp>/<the server's own URI>`.
//!
//! Two servers may have the same URI, so each URI says whose it is. The server's own follows as it is, byte for byte:
//! no escape could be taken back once a client has expanded a template (RFC 6570) or put an escape of its own. Names of
//! mcps are `a-z 0-9 . _ -`, which a URI's authority may have (RFC 3986, `reg-name`), and no `/`; so the
//! first `/` behind the name ends it, whatever the server wrote.

use super::name::Name;

const SCHEME: &str = "legation://";

/// A server's own URI, or the template of one, as clients see it.
#[must_use]
pub fn exposed(mcp: &Name, own: &str) -> String {
    format!("{SCHEME}{mcp}/{own}")
}

/// The name of the mcp and the server's own URI, of one that clients see here; `None` if it is no such.
#[must_use]
pub fn split(uri: &str) -> Option<(Name, &str)> {
    // A client may have written scheme and authority in capitals: they are the same (RFC 3986, 6.2.2.1).
    let (scheme, rest) = uri.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let (mcp, own) = rest.split_once('/')?;
    let mcp = Name::parse(&mcp.to_ascii_lowercase()).ok()?;
    Some((mcp, own))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_uri_says_whose_it_is_and_stays_what_it_was() {
        for own in [
            "file:///home/ada/a%20b.txt?x=1#y",
            "urn:isbn:0451450523",
            "a:1",
            "http://[::1]:8080/x",
            "legation://inner/file:///a",
            "/no/uri",
            "",
        ] {
            let seen = exposed(&name("my_notes.2"), own);
            assert_eq!(split(&seen), Some((name("my_notes.2"), own)), "{seen}");
        }
        assert_eq!(
            split("LEGATION://Notes/File:///A"),
            Some((name("notes"), "File:///A"))
        );
        for other in [
            "file:///a",
            "legation:notes/x",
            "legation://notes",
            "legation://",
            "legation:///x",
            "legation://no name/x",
            "é",
        ] {
            assert_eq!(split(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_exposed_is_read_back(mcp in "[a-z0-9][a-z0-9._-]{0,63}", own in ".{0,80}") {
            let mcp = name(&mcp);
            let seen = exposed(&mcp, &own);
            prop_assert_eq!(split(&seen), Some((mcp, own.as_str())));
        }

        // A template is expanded by putting text where its braces are, and what we put in front has none.
        #[test]
        fn an_expanded_template_is_the_exposed_expansion(
            mcp in "[a-z0-9][a-z0-9._-]{0,20}",
            before in "[a-z:/?#%]{0,20}",
            after in "[a-z/]{0,20}",
            value in "[a-zA-Z0-9%._~/-]{0,20}",
        ) {
            let mcp = name(&mcp);
            let template = exposed(&mcp, &format!("{before}{{x}}{after}"));
            let expanded = template.replace("{x}", &value);
            let own = format!("{before}{value}{after}");
            prop_assert_eq!(split(&expanded), Some((mcp, own.as_str())));
        }
    }
}
