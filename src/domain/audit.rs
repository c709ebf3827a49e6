//! The audit log's form: what a record is, how records are chained, what a checkpoint signs, and
//! how all of it is checked. No files here: lines go in, findings come out.
//!
//! `docs/audit.md` describes the exact bytes for auditors, with an example that a test checks.

pub mod chain;
pub mod check;
pub mod checkpoint;
pub mod events;
pub mod filter;
pub mod redact;

use serde::{Deserialize, Serialize};

/// The kind of a record: the part of its event's name before the first dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Who was let in and who was not.
    Auth,
    /// Tool calls.
    Call,
    /// What administrators did.
    Admin,
    /// The lives of isolates and shared instances.
    Isolate,
    /// Kill switches.
    Kill,
    /// Credentials of users.
    Credential,
    /// The server itself.
    System,
}

impl Category {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Auth,
        Self::Call,
        Self::Admin,
        Self::Isolate,
        Self::Kill,
        Self::Credential,
        Self::System,
    ];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Call => "call",
            Self::Admin => "admin",
            Self::Isolate => "isolate",
            Self::Kill => "kill",
            Self::Credential => "credential",
            Self::System => "system",
        }
    }

    /// Under which name it is counted how many of its records were lost: not its word, under which other records
    /// name a call.
    #[must_use]
    pub const fn lost(self) -> &'static str {
        match self {
            Self::Auth => "lost_auth",
            Self::Call => "lost_call",
            Self::Admin => "lost_admin",
            Self::Isolate => "lost_isolate",
            Self::Kill => "lost_kill",
            Self::Credential => "lost_credential",
            Self::System => "lost_system",
        }
    }

    /// Its place in [`Category::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The category of an event. A name of no known kind is the system's.
    #[must_use]
    pub fn of(event: &str) -> Self {
        let word = event.split('.').next().unwrap_or_default();
        Self::parse(word).unwrap_or(Self::System)
    }

    /// The category with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// A set of categories: those whose work is refused when its record cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Required(u8);

impl Required {
    /// Every category.
    #[must_use]
    pub fn all() -> Self {
        Category::ALL.into_iter().collect()
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn has(self, category: Category) -> bool {
        self.0 & (1 << category.index()) != 0
    }
}

impl FromIterator<Category> for Required {
    fn from_iter<I: IntoIterator<Item = Category>>(categories: I) -> Self {
        Self(
            categories
                .into_iter()
                .fold(0, |set, one| set | 1 << one.index()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_category_is_the_part_before_the_first_dot() {
        for category in Category::ALL {
            assert_eq!(
                Category::of(&format!("{}.x.y", category.as_str())),
                category
            );
            assert_eq!(category.lost(), format!("lost_{}", category.as_str()));
            assert_eq!(Category::ALL[category.index()], category);
            assert!(Required::all().has(category));
        }
        assert_eq!(Category::of("nonsense"), Category::System);
        let some: Required = [Category::Call, Category::Kill].into_iter().collect();
        assert!(some.has(Category::Kill) && !some.has(Category::Auth));
    }

    #[test]
    fn the_example_for_auditors_is_right() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md");
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|l| l.starts_with("{\"seq\":"))
            .collect();
        let mut walk = check::Walk::new(None, Vec::new());
        walk.segment(&check::segment_name(1)).unwrap();
        for line in &lines {
            walk.line(line.as_bytes()).unwrap();
        }
        let last = walk.tip().unwrap();
        assert_eq!((lines.len(), last.seq), (2, 2));
        // The calculation by hand is of the same record.
        let prev = chain::Line::parse(lines[0].as_bytes()).unwrap().hash;
        let body = text
            .lines()
            .find_map(|line| line.strip_prefix("body='"))
            .unwrap();
        let body = body.strip_suffix('\'').unwrap();
        assert!(text.contains(&format!("prev={prev}\n")));
        let by_hand = chain::Hash::of_bytes(format!("{prev}{body}").as_bytes());
        assert_eq!(by_hand, last.hash);
        assert!(text.contains(&format!("# {}", last.hash)));
    }
}
