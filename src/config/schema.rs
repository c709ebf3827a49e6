//! What a section is made of: one declaration gives the struct, its defaults, its documentation
//! and the way values get in and out, so that none of them can disagree.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::cidr::Cidr;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `"…"`; from the environment and flags as it is.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `["…", "…"]`; from the environment and flags also `a,b`.
    List,
}

impl Kind {
    /// What a value of it is.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::List => "a list of texts",
        }
    }
}

/// One configurable value.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// The smallest and largest integer it may be.
    pub range: Option<(u64, u64)>,
}

/// Types a value can have.
pub(super) trait Kinded {
    /// How it is written.
    const KIND: Kind;
}

macro_rules! kinded {
    ($($kind:ident: $($type:ty),+;)+) => {
        $($(impl Kinded for $type { const KIND: Kind = Kind::$kind; })+)+
    };
}

kinded! {
    Text: String, PathBuf, SocketAddr,
        super::client::Tls, super::server::Durability, super::server::Level,
        super::server::Format, crate::domain::dsn::Dsn, crate::domain::confinement::Profile,
        super::ops::Listen, super::ops::IsolatesPage, crate::domain::egress::site::Site;
    Integer: u64, u32, usize;
    Boolean: bool;
    List: Vec<String>, Vec<Cidr>;
}

impl<T: Kinded> Kinded for Option<T> {
    const KIND: Kind = T::KIND;
}

/// An integer's bounds, both included.
pub(super) const fn within(min: u64, max: u64) -> Option<(u64, u64)> {
    Some((min, max))
}

/// No bounds: not an integer.
pub(super) const fn any() -> Option<(u64, u64)> {
    None
}

/// A value as TOML; `None` if it is not set.
pub(super) fn to_toml<T: serde::Serialize>(value: &T) -> Option<toml::Value> {
    toml::Value::try_from(value).ok()
}

macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $section:ident = $name:literal {
            $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, $range:expr;)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $section {
            $($(#[doc = $doc])+ pub $key: $type,)+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $section {
            pub(super) const ABOUT: &'static str = concat!($($about),+);

            pub(super) const KEYS: &'static [$crate::config::schema::Key] = &[$(
                $crate::config::schema::Key {
                    section: $name,
                    name: stringify!($key),
                    doc: concat!($($doc),+),
                    kind: <$type as $crate::config::schema::Kinded>::KIND,
                    range: $range,
                },
            )+];

            pub(super) fn set(
                &mut self,
                key: &str,
                value: toml::Value,
            ) -> Result<(), toml::de::Error> {
                match key {
                    $(stringify!($key) => self.$key = value.try_into::<$type>()?,)+
                    _ => {}
                }
                Ok(())
            }

            pub(super) fn get(&self, key: &str) -> Option<toml::Value> {
                match key {
                    $(stringify!($key) => $crate::config::schema::to_toml(&self.$key),)+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use section;
