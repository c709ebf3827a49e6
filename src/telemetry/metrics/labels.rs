//! The sets of label values, as enums: what is not in one cannot be a label.

use super::family::{Label, Values};
use crate::domain::audit::Category;
use crate::domain::kill::{Kind, Scope};

/// An enum whose values are a label's.
pub trait Labelled: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];
    /// The value.
    fn as_str(self) -> &'static str;
    /// Its place in `ALL`.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $name:ident $label:literal { $($(#[doc = $what:literal])+ $value:ident $text:literal,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $what])+ $value,)+
        }

        impl $name {
            /// The label with its set.
            pub const LABEL: Label = Label {
                name: $label,
                values: Values::Of(&[$($text,)+]),
            };
        }

        impl Labelled for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

mod actors;
mod calls;
mod clients;
mod isolates;

pub use actors::*;
pub use calls::*;
pub use clients::*;
pub use isolates::*;

/// Enums of the domain that are labels as they are.
macro_rules! labels_of_domain {
    ($($(#[doc = $doc:literal])+ $const:ident $type:ty, $label:literal $word:ident;)+) => {$(
        $(#[doc = $doc])+
        pub const $const: Label = {
            const WORDS: [&str; <$type>::ALL.len()] = {
                let mut words = [""; <$type>::ALL.len()];
                let mut at = 0;
                while at < words.len() {
                    words[at] = <$type>::ALL[at].$word();
                    at += 1;
                }
                words
            };
            Label { name: $label, values: Values::Of(&WORDS) }
        };

        impl Labelled for $type {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &<$type>::ALL;

            fn as_str(self) -> &'static str {
                self.$word()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels_of_domain! {
    /// How far a deny reaches.
    SCOPE Scope, "scope" word;
    /// Kill switch or suspension.
    DENY_KIND Kind, "kind" word;
    /// The kind of an audit record.
    CATEGORY Category, "category" as_str;
}

/// The label value of a text that is meant to be in a set.
#[must_use]
pub fn known<L: Labelled>(text: &str) -> Option<L> {
    L::ALL.iter().copied().find(|one| one.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::code::Code;
    use crate::domain::verdict::Verdict;

    #[test]
    fn calls_are_counted_by_what_their_caller_can_do() {
        for (code, refused, failed) in [
            (Code::ToolUnknown, Outcome::Denied, Outcome::Denied),
            (Code::KillSwitchActive, Outcome::Denied, Outcome::Killed),
            (Code::UserDisabled, Outcome::Denied, Outcome::Killed),
            (Code::SessionSuspended, Outcome::Denied, Outcome::Killed),
            (Code::Cancelled, Outcome::Killed, Outcome::Killed),
            (Code::RunEnded, Outcome::Unavailable, Outcome::Unavailable),
            (
                Code::IsolatesMax,
                Outcome::RateLimited,
                Outcome::RateLimited,
            ),
            (Code::HostFull, Outcome::Unavailable, Outcome::Unavailable),
            (
                Code::CredentialMissing,
                Outcome::Unavailable,
                Outcome::Unavailable,
            ),
        ] {
            assert_eq!(Outcome::of(code, Stage::Admission), refused, "{code}");
            assert_eq!(Outcome::of(code, Stage::UnderWay), failed, "{code}");
        }
        let missing = Verdict::CredentialMissing {
            names: "TOKEN".to_owned(),
            commands: String::new(),
        };
        assert_eq!(GaveUp::of(&missing), GaveUp::Credential);
        let gave_up = |code| GaveUp::of(&Verdict::Exited { code });
        assert_eq!(gave_up(127), GaveUp::Hopeless);
        assert_eq!(gave_up(1), GaveUp::Failures);
        assert_eq!(Auth::of(Code::KeyUnknown), Auth::Invalid);
        assert_eq!(Auth::of(Code::StoreUnavailable), Auth::Unavailable);
        assert_eq!(Class::of(204), Class::Success);
        assert_eq!(Class::of(503), Class::Server);
        assert_eq!(known::<Phase>("list_tools"), Some(Phase::ListTools));
        assert_eq!(known::<Phase>("lunch"), None);
    }
}
