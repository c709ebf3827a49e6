//! Results as this version wants them, around the server's own bytes.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::OURS;

/// How long a result may be kept, where one must say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It does not say.
    Unsaid,
    /// This many milliseconds, by this client alone.
    For(u32),
}

impl Kept {
    /// Of a method's results, where its server gives no hint.
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "resources/list" | "resources/templates/list" | "resources/read" | "prompts/list" => {
                Self::For(0)
            }
            _ => Self::Unsaid,
        }
    }
}

/// The members of an object, in their order; none of them twice.
pub(in crate::protocol) struct Members<'a>(
    pub(in crate::protocol) Vec<(Cow<'a, str>, &'a RawValue)>,
);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut all: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Name(key), value)) = map.next_entry()? {
                    if all.len() >= RESULT_MEMBERS_MAX || all.iter().any(|(other, _)| *other == key)
                    {
                        return Err(A::Error::custom(
                            "a member stands there twice, or too many do",
                        ));
                    }
                    all.push((key, value));
                }
                Ok(Members(all))
            }
        }

        deserializer.deserialize_map(All)
    }
}

/// A key that is only copied if it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Members of a result; the specification has less than ten.
const RESULT_MEMBERS_MAX: usize = 64;

/// The member of a result that says who answers; `server` is the `serverInfo`, JSON. More members may follow within,
/// and then a brace.
#[must_use]
pub fn open_meta(server: &str) -> String {
    format!("\"_meta\":{{\"{OURS}serverInfo\":{server}")
}

/// The same, whole.
#[must_use]
pub fn server_info(server: &str) -> String {
    open_meta(server) + "}"
}

/// About what this version wants in a result.
pub const COMPLETION_BYTES: usize = 160;

/// The result of a server of this version, in the name of `server` if it does not say who it is.
///
/// # Errors
/// It is none that could be passed on: why.
pub fn complete(result: &[u8], server: &str, kept: Kept) -> Result<Bytes, &'static str> {
    let mut out = BytesMut::with_capacity(result.len() + COMPLETION_BYTES);
    put(&mut out, result, (server, true), kept)?;
    Ok(out.freeze())
}

/// The result of a server of an older version, with what this version wants in it, behind what stands there already. Its
/// values keep their bytes; what only this version knows is not the server's to say.
///
/// # Errors
/// It is none that could be passed on: why. What is behind then is of no use.
pub fn put_complete(
    out: &mut BytesMut,
    result: &[u8],
    server: &str,
    kept: Kept,
) -> Result<(), &'static str> {
    put(out, result, (server, false), kept)
}

fn put(
    out: &mut BytesMut,
    result: &[u8],
    (server, says): (&str, bool),
    kept: Kept,
) -> Result<(), &'static str> {
    const NONE: &str = "it has a member twice, or too many";
    let Ok(Members(members)) = serde_json::from_slice(result) else {
        return Err(NONE);
    };
    out.put_slice(b"{\"resultType\":\"complete\"");
    if let Kept::For(ms) = kept {
        out.put_slice(format!(",\"ttlMs\":{ms},\"cacheScope\":\"private\"").as_bytes());
    }
    let mut own = Vec::new();
    let mut named = None;
    for (key, value) in &members {
        match &**key {
            "resultType" if !matches!(value.get(), "null" | "\"complete\"") => {
                return Err("it is of a type that its version does not have");
            }
            "_meta" => {
                let Ok(split) = super::super::meta::split(Some(value)) else {
                    return Err("its `_meta` is no object of members that stand there once");
                };
                own = split.members;
                named = split.server.filter(|_| says);
                if let Some(token) = split.token {
                    let comma = if own.is_empty() { "" } else { "," };
                    own.extend(format!("{comma}\"progressToken\":{token}").into_bytes());
                }
            }
            _ => {}
        }
    }
    out.put_u8(b',');
    out.put_slice(open_meta(named.as_deref().unwrap_or(server)).as_bytes());
    if !own.is_empty() {
        out.put_u8(b',');
        out.put_slice(&own);
    }
    out.put_u8(b'}');
    for (key, value) in &members {
        if matches!(&**key, "resultType" | "ttlMs" | "cacheScope" | "_meta") {
            continue;
        }
        out.put_u8(b',');
        out.put_slice(serde_json::to_string(&**key).unwrap_or_default().as_bytes());
        out.put_u8(b':');
        out.put_slice(value.get().as_bytes());
    }
    out.put_u8(b'}');
    Ok(())
}
