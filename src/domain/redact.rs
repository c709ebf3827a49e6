//! Taking known secret values out of what servers write.
//!
//! A [`Redactor`] is built once for a run from the values it was started with, and finds each of
//! them as it is, in base64 (at every alignment, with either alphabet), percent-encoded and escaped
//! as JSON; a value of several lines also line by line. It is a net against accidents, such as a
//! server that logs its own token, and no wall: a server that wants to give a value away can write
//! it backwards.

mod forms;

use std::borrow::Cow;
use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use zeroize::Zeroizing;

use super::limits::{REDACT_BYTES_MIN, REDACT_TEXT_BYTES_MAX};
use super::name::CredentialName;

/// Whether a text is all there is of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// It is.
    Whole,
    /// It was cut: it may end within a secret.
    Cut,
}

/// Finds values that must not be seen. Holds them; its `Debug` does not show them.
pub struct Redactor {
    automaton: AhoCorasick,
    /// The pattern and whose it is, by the automaton's numbers; then those that are longer than any
    /// text, of which only a beginning can be seen.
    patterns: Vec<(Zeroizing<Vec<u8>>, usize)>,
    names: Vec<CredentialName>,
    /// Bytes of a text that are looked at.
    text_max: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// A place in the text and the pattern that covers most of it.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    name: usize,
    longest: usize,
}

// === impl Redactor ===

impl Redactor {
    /// Of these values, for lines that servers write; `None` if there is nothing to look for.
    #[must_use]
    pub fn new<'a>(
        values: impl IntoIterator<Item = (&'a CredentialName, &'a [u8])>,
    ) -> Option<Self> {
        Self::of_texts(values, REDACT_TEXT_BYTES_MAX)
    }

    /// The same for texts of which no more than so many bytes are kept.
    #[must_use]
    pub fn of_texts<'a>(
        values: impl IntoIterator<Item = (&'a CredentialName, &'a [u8])>,
        text_max: usize,
    ) -> Option<Self> {
        let mut names = Vec::new();
        let mut patterns: Vec<(Zeroizing<Vec<u8>>, usize)> = Vec::new();
        for (name, value) in values {
            let own = forms::of(value, text_max).into_iter();
            patterns.extend(own.map(|form| (form, names.len())));
            names.push(name.clone());
        }
        // What fits into a text first: the automaton numbers them as they stand here.
        patterns.sort_by_key(|(form, _)| form.len() > text_max);
        for (form, _) in &mut patterns {
            form.truncate(text_max + 1);
        }
        if patterns.is_empty() {
            return None;
        }
        let searched = patterns
            .iter()
            .map(|(form, _)| form.as_slice())
            .take_while(|form| form.len() <= text_max);
        // All matches, also those that overlap: what two values share must not show the rest of one.
        // In any case: a name server folds what a program puts into a name.
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::Standard)
            .build(searched)
            .ok()?;
        Some(Self {
            automaton,
            patterns,
            names,
            text_max,
        })
    }

    /// Bytes of a text that are kept of it.
    #[must_use]
    pub const fn text_max(&self) -> usize {
        self.text_max
    }

    /// The text with `[redacted:NAME]` in place of each value.
    ///
    /// At most [`Self::text_max`] bytes of the text are kept; what is cut off here counts as
    /// [`Extent::Cut`].
    #[must_use]
    pub fn redact<'a>(&self, text: &'a [u8], extent: Extent) -> Cow<'a, [u8]> {
        let kept = text.get(..self.text_max).unwrap_or(text);
        let cut = extent == Extent::Cut || kept.len() < text.len();
        let mut spans = self.spans(kept);
        if cut {
            spans.extend(self.tail(kept));
        }
        if spans.is_empty() {
            return Cow::Borrowed(kept);
        }
        let mut out = Vec::with_capacity(kept.len());
        let mut at = 0;
        for span in merged(spans) {
            out.extend_from_slice(kept.get(at..span.start).unwrap_or_default());
            out.extend_from_slice(b"[redacted:");
            let name = self.names.get(span.name).map(CredentialName::as_str);
            out.extend_from_slice(name.unwrap_or_default().as_bytes());
            out.push(b']');
            at = span.end;
        }
        out.extend_from_slice(kept.get(at..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The same for what we say about a server, a text of our own.
    #[must_use]
    pub fn redact_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact(text.as_bytes(), Extent::Cut)).into_owned()
    }

    fn spans(&self, text: &[u8]) -> Vec<Span> {
        self.automaton
            .find_overlapping_iter(text)
            .map(|hit| Span {
                start: hit.start(),
                end: hit.end(),
                name: self.name_of(hit.pattern().as_usize()),
                longest: hit.len(),
            })
            .collect()
    }

    fn name_of(&self, pattern: usize) -> usize {
        self.patterns.get(pattern).map_or(0, |(_, name)| *name)
    }

    /// The longest end of a cut text that is the beginning of a value.
    fn tail(&self, text: &[u8]) -> Option<Span> {
        let mut found: Option<Span> = None;
        for (form, name) in &self.patterns {
            let shortest = found.map_or(REDACT_BYTES_MIN, |span| span.longest + 1);
            let longest = (form.len().saturating_sub(1)).min(text.len());
            let seen = (shortest..=longest).rev().find(|length| {
                form.get(..*length)
                    .is_some_and(|start| text.ends_with(start))
            });
            if let Some(length) = seen {
                found = Some(Span {
                    start: text.len() - length,
                    end: text.len(),
                    name: *name,
                    longest: length,
                });
            }
        }
        found
    }
}

/// Spans that touch none other, in their order.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.start, span.end));
    let mut out: Vec<Span> = Vec::new();
    for span in spans {
        match out.last_mut() {
            Some(last) if span.start < last.end => {
                last.end = last.end.max(span.end);
                if span.longest > last.longest {
                    last.longest = span.longest;
                    last.name = span.name;
                }
            }
            _ => out.push(span),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> CredentialName {
        CredentialName::parse(text).unwrap()
    }

    fn redactor(values: &[(&str, &[u8])]) -> Redactor {
        let named: Vec<_> = values.iter().map(|(n, v)| (name(n), *v)).collect();
        Redactor::new(named.iter().map(|(n, v)| (n, *v))).unwrap()
    }

    fn whole(redactor: &Redactor, text: &str) -> String {
        let out = redactor.redact(text.as_bytes(), Extent::Whole);
        String::from_utf8(out.into_owned()).unwrap()
    }

    /// It was asked for as a host's name, which is told in small letters.
    #[test]
    fn a_value_is_found_in_small_and_in_capital_letters() {
        let redactor = redactor(&[("T", b"gHp_S3cret")]);
        for text in ["ghp_s3cret.example.com", "GHP_S3CRET.example.com"] {
            assert_eq!(whole(&redactor, text), "[redacted:T].example.com");
        }
    }

    #[test]
    fn a_value_is_found_in_all_its_clothes() {
        let value = "gh\"p_s3cr3t/+\u{e4} 1";
        let redactor = redactor(&[("T", value.as_bytes())]);
        let basic = STANDARD.encode(format!("ada:{value}@x"));
        let mut percent = String::new();
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => percent.push(byte.into()),
                _ => percent.push_str(&format!("%{byte:02x}")),
            }
        }
        for text in [
            value.to_owned(),
            STANDARD.encode(value),
            URL_SAFE_NO_PAD.encode(value),
            percent.clone(),
            percent
                .to_uppercase()
                .replace("GH", "gh")
                .replace("P_S3CR3T", "p_s3cr3t"),
            serde_json::to_string(value)
                .unwrap()
                .trim_matches('"')
                .to_owned(),
        ] {
            let said = whole(&redactor, &format!("token={text}; bye"));
            assert!(
                said.starts_with("token=[redacted:T]") && said.ends_with("; bye"),
                "{text}: {said}"
            );
        }
        for user in ["a", "ad", "ada", "adam"] {
            let basic = STANDARD.encode(format!("{user}:{value}@x"));
            let said = whole(&redactor, &format!("Basic {basic}"));
            assert!(said.contains("[redacted:T]"), "{basic}: {said}");
        }
        assert_ne!(whole(&redactor, &basic), basic);
        assert_eq!(whole(&redactor, "nothing here"), "nothing here");
        assert!(!format!("{redactor:?}").contains("s3cr3t"));
    }

    #[test]
    fn what_overlaps_is_hidden_whole() {
        let redactor = redactor(&[
            ("A", b"aaaabbbb"),
            ("B", b"bbbbcccccc"),
            ("C", b"aaaabbbbcc"),
        ]);
        assert_eq!(whole(&redactor, "xaaaabbbbcccccc y"), "x[redacted:C] y");
        assert_eq!(
            whole(&redactor, "aaaabbbbaaaabbbb"),
            "[redacted:A][redacted:A]"
        );
    }

    #[test]
    fn several_lines_are_found_one_by_one() {
        let pem = b"-----BEGIN KEY-----\nMIIabcdefgh\r\nshort\nZZZZZZZZZ==\n";
        let redactor = redactor(&[("K", pem)]);
        assert_eq!(whole(&redactor, "at MIIabcdefgh."), "at [redacted:K].");
        assert_eq!(whole(&redactor, "ZZZZZZZZZ=="), "[redacted:K]");
        assert_eq!(whole(&redactor, "short"), "short", "too short to tell");
        let json = serde_json::to_string(std::str::from_utf8(pem).unwrap()).unwrap();
        assert_eq!(whole(&redactor, &json), "\"[redacted:K]\\n\"");
    }

    #[test]
    fn a_cut_line_does_not_end_in_the_beginning_of_a_value() {
        let redactor = redactor(&[("T", b"abcdefghij")]);
        let cut = |text: &[u8]| redactor.redact(text, Extent::Cut).into_owned();
        assert_eq!(cut(b"x abcdefg"), b"x [redacted:T]");
        assert_eq!(cut(b"x abc"), b"x abc", "three bytes tell nothing");
        assert_eq!(
            whole(&redactor, "x abcdefg"),
            "x abcdefg",
            "nothing follows"
        );
        let mut long = vec![b'.'; REDACT_TEXT_BYTES_MAX - 5];
        long.extend(b"abcdefghij and more");
        let said = redactor.redact(&long, Extent::Whole);
        assert!(said.ends_with(b".[redacted:T]"));
    }

    #[test]
    fn a_value_longer_than_any_line_leaves_no_beginning() {
        let value: Vec<u8> = (0..20_000u32).map(|n| b'a' + (n * n % 23) as u8).collect();
        let redactor = redactor(&[("L", &value)]);
        let mut line = b"key: ".to_vec();
        line.extend(&value);
        assert_eq!(
            redactor.redact(&line, Extent::Whole).as_ref(),
            b"key: [redacted:L]"
        );
    }

    #[test]
    fn nothing_to_hide_is_no_redactor() {
        let (empty, short) = (name("E"), name("S"));
        assert!(Redactor::new([(&empty, &b""[..]), (&short, &b"abc"[..])]).is_none());
        assert!(Redactor::new([]).is_none());
    }

    proptest! {
        #[test]
        fn no_value_survives(
            value in proptest::collection::vec(any::<u8>(), 4..60),
            before in ".{0,20}", after in ".{0,20}",
        ) {
            // A line break at its end is not looked for: a log line would not show it either.
            prop_assume!(!matches!(value.last(), Some(b'\n' | b'\r')));
            let redactor = redactor(&[("V", &value)]);
            let text = [before.as_bytes(), &value, after.as_bytes()].concat();
            let said = redactor.redact(&text, Extent::Whole);
            let shown = b"[redacted:V]";
            prop_assert!(said.windows(shown.len()).any(|part| part == shown));
            let left = said.len().saturating_sub(shown.len());
            prop_assert!(left <= before.len() + after.len());
        }
    }
}
