//! What an mcp's server may say to its clients beside answers, and how closely what they say to it is looked at.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Kinds of questions that a server asks its client: what a client can answer, what an operator permits, and what
/// a server was told when it was started, which is both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Questions(u8);

/// One kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// To have a model say something.
    Sampling,
    /// The same, with tools for the model.
    SamplingTools,
    /// To have a form filled in.
    Elicitation,
    /// To have an address visited.
    ElicitationUrl,
    /// Which directories it works on.
    Roots,
}

impl Question {
    /// All, in the order they are shown.
    pub const ALL: [Self; 5] = [
        Self::Sampling,
        Self::SamplingTools,
        Self::Elicitation,
        Self::ElicitationUrl,
        Self::Roots,
    ];

    /// Its word in lists.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::SamplingTools => "sampling.tools",
            Self::Elicitation => "elicitation",
            Self::ElicitationUrl => "elicitation.url",
            Self::Roots => "roots",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Sampling => 1,
            Self::SamplingTools => 2,
            Self::Elicitation => 4,
            Self::ElicitationUrl => 8,
            Self::Roots => 16,
        }
    }
}

impl Questions {
    /// None.
    pub const NONE: Self = Self(0);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, question: Question) -> Self {
        Self(self.0 | question.bit())
    }

    /// What is in both.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the question is in it.
    #[must_use]
    pub const fn has(self, question: Question) -> bool {
        self.0 & question.bit() != 0
    }

    /// As a number, to keep.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From such a number; what is no question in it is left out.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 31)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn each(self) -> impl Iterator<Item = Question> {
        Question::ALL
            .into_iter()
            .filter(move |question| self.has(*question))
    }

    /// What an operator permits by a word: `sampling` and `elicitation` with all that belongs to them.
    ///
    /// # Errors
    /// The words there are.
    pub fn permitted(word: &str) -> Result<Self, String> {
        match word {
            "sampling" => Ok(Self::NONE
                .with(Question::Sampling)
                .with(Question::SamplingTools)),
            "elicitation" => Ok(Self::NONE
                .with(Question::Elicitation)
                .with(Question::ElicitationUrl)),
            other => Question::ALL
                .into_iter()
                .find(|question| question.word() == other)
                .map(|question| Self::NONE.with(question))
                .ok_or_else(|| {
                    let words = Question::ALL.map(Question::word).join(", ");
                    format!(
                        "`{}` is no question; there are {words}",
                        other.escape_debug()
                    )
                }),
        }
    }
}

impl std::ops::BitOr for Questions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.each().map(Question::word).collect();
        f.pad(&words.join(","))
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Questions({self})")
    }
}

impl Serialize for Questions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.each().map(Question::word))
    }
}

impl<'de> Deserialize<'de> for Questions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.iter().try_fold(Self::NONE, |all, word| {
            let known = Question::ALL.into_iter().find(|one| one.word() == word);
            match known {
                Some(question) => Ok(all.with(question)),
                None => Err(serde::de::Error::custom(
                    Self::permitted(word).err().unwrap_or_default(),
                )),
            }
        })
    }
}

/// Whether a call's arguments are held against the schema of its tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// No: the server does it (the default).
    #[default]
    Off,
    /// Yes, and what does not fit is logged and passed on.
    Warn,
    /// Yes, and what does not fit is not passed on.
    Enforce,
}

/// What comes of it when a server says that its tools have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChanges {
    /// It is recorded; what was discovered stays until somebody discovers again (the default).
    #[default]
    Keep,
    /// They are discovered again, and offered as they are then.
    Adopt,
}

impl ToolChanges {
    /// Its word in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Adopt => "adopt",
        }
    }
}

/// What passes between a server and its clients beside answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Talk {
    /// What the server may ask a client that can answer it.
    pub questions: Questions,
    /// Whether arguments are held against the tool's schema.
    pub arguments: Check,
    /// What comes of it when the server says that its tools have changed.
    pub tool_changes: ToolChanges,
}

/// How grave a log message of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What happens and matters.
    Notice,
    /// What may become an error.
    Warning,
    /// What failed.
    Error,
    /// What failed and others need.
    Critical,
    /// What somebody must see to at once.
    Alert,
    /// The system cannot be used.
    Emergency,
}

impl Level {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// The level of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(level, word)| (word == name).then_some(level))
    }

    /// The level of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(level, _)| (level as u8 == number).then_some(level))
    }

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(level, word)| (level == self).then_some(word))
            .unwrap_or("debug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_permit_and_lists_are_exact() {
        let all = Questions::permitted("sampling").unwrap()
            | Questions::permitted("elicitation").unwrap()
            | Questions::permitted("roots").unwrap();
        assert_eq!(
            all.to_string(),
            "sampling,sampling.tools,elicitation,elicitation.url,roots"
        );
        let form = Questions::NONE.with(Question::Elicitation);
        assert_eq!(serde_json::to_string(&form).unwrap(), r#"["elicitation"]"#);
        let read: Questions = serde_json::from_str(r#"["elicitation"]"#).unwrap();
        assert_eq!(read, form);
        assert_eq!(all.both(form), form);
        assert!(serde_json::from_str::<Questions>(r#"["x"]"#).is_err());
        assert!(Questions::permitted("x\n").unwrap_err().contains("roots"));
    }

    #[test]
    fn what_is_not_said_is_none() {
        assert_eq!(serde_json::from_str::<Talk>("{}").unwrap(), Talk::default());
        assert!(serde_json::from_str::<Talk>(r#"{"other":1}"#).is_err());
    }
}
