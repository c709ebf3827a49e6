//! MCP 2026-07-28, the version without sessions: what each request says of itself, whether its headers say
//! the same, and what an answer must have that older servers do not write.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::talk::{Level, Questions};

use super::extensions::Extensions;
use super::{jsonrpc, questions, tasks};

/// The version.
pub const VERSION: &str = "2026-07-28";
/// A header is missing, or does not say what the message says.
pub const HEADER_MISMATCH: i64 = -32020;
/// The client does not say that it can do what the request needs.
pub const CAPABILITY_MISSING: i64 = -32021;
/// The version is not spoken here.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// What older versions answer for a resource that is not there.
pub(super) const OLD_RESOURCE_NOT_FOUND: i64 = -32002;
/// What one of them answers where its user is to visit an address first.
const OLD_URL_NEEDED: f64 = -32042.0;
/// Codes that this version keeps for itself.
pub(super) const RESERVED: std::ops::RangeInclusive<f64> = -32099.0..=-32020.0;

/// What the members of `_meta` that are the protocol's own begin with.
pub(super) const OURS: &str = "io.modelcontextprotocol/";
/// Those that a server of an older version knows nothing of.
const ONLY_MODERN: [&str; 6] = [
    "protocolVersion",
    "clientInfo",
    "clientCapabilities",
    "logLevel",
    "subscriptionId",
    "serverInfo",
];

/// The headers of a request that repeat what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Says {
    /// `MCP-Protocol-Version`
    pub version: Option<String>,
    /// `Mcp-Method`
    pub method: Option<String>,
    /// `Mcp-Name`
    pub name: Option<String>,
    /// One of them is there twice, or is no text.
    pub unclear: bool,
}

/// Why a request is not taken: a JSON-RPC error, with the status 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its code.
    pub code: i64,
    /// In words.
    pub message: String,
    /// What else is said; JSON.
    pub data: Option<String>,
}

impl Wrong {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }
}

/// Whether a member of `_meta` is one that a server of an older version knows nothing of.
#[must_use]
pub fn is_only_modern(key: &str) -> bool {
    key.strip_prefix(OURS)
        .is_some_and(|name| ONLY_MODERN.contains(&name))
}

/// Whether it is the one that says who answers.
pub(super) fn names_server(key: &str) -> bool {
    key.strip_prefix(OURS) == Some("serverInfo")
}

impl Says {
    /// Whether the headers are those of a client of this version, or of one that we do not know yet.
    #[must_use]
    pub fn is_modern(&self, legacy: &[&str]) -> bool {
        match &self.version {
            Some(version) => !legacy.contains(&version.as_str()),
            None => self.method.is_some(),
        }
    }

    /// Its version, if its headers are clear.
    fn version(&self) -> Result<&str, Wrong> {
        let wrong = |text: &str| Err(Wrong::new(HEADER_MISMATCH, text));
        match &self.version {
            _ if self.unclear => wrong("a header of MCP is there twice, or is no text"),
            None => wrong("the header MCP-Protocol-Version is missing"),
            Some(version) => Ok(version),
        }
    }

    /// Whether they are of a message of this method, if they say of which.
    fn is_of(&self, method: &str) -> Result<(), Wrong> {
        match &self.method {
            Some(said) if said != method => {
                let text = format!(
                    "Mcp-Method is `{}`, and the message says `{}`",
                    shown(said),
                    shown(method)
                );
                Err(Wrong::new(HEADER_MISMATCH, text))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "taskId")]
    task: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    level: Option<&'a RawValue>,
}

/// What a request that is taken says of its client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// What it can answer.
    pub questions: Questions,
    /// From which level on it wants to hear what servers log.
    pub level: Option<Level>,
    /// Whether it takes tasks for results.
    pub tasks: bool,
    /// Its other extensions.
    pub extensions: Extensions,
}

/// Whether the message itself says that it is of a client without sessions.
#[must_use]
pub fn claims(params: Option<&RawValue>) -> bool {
    let given = params.map_or("", RawValue::get);
    if !given.contains(OURS) {
        return false;
    }
    let params: Option<Params<'_>> = serde_json::from_str(given).ok();
    let meta = params.and_then(|params| params.meta).map(RawValue::get);
    let meta: Option<Meta<'_>> = meta.and_then(|meta| serde_json::from_str(meta).ok());
    meta.is_some_and(|meta| meta.version.is_some() || meta.capabilities.is_some())
}

/// Checks a request against its headers, in the order that the specification has.
///
/// # Errors
/// [`Wrong`].
pub fn check(says: &Says, method: &str, params: Option<&RawValue>) -> Result<Declared, Wrong> {
    let mismatch = |text: String| Err(Wrong::new(HEADER_MISMATCH, text));
    let version = says.version()?;
    let given = params.map_or("", RawValue::get);
    let given = if given.starts_with('{') { given } else { "{}" };
    let params: Params<'_> = serde_json::from_str(given).map_err(|why| {
        Wrong::new(
            jsonrpc::INVALID_PARAMS,
            format!("these are no parameters: {why}"),
        )
    })?;
    let incomplete = |what: &str| {
        let text = format!("`params._meta` must be an object with `{OURS}{what}`");
        Wrong::new(jsonrpc::INVALID_PARAMS, text)
    };
    let meta = params.meta.map_or("", RawValue::get);
    let meta: Meta<'_> = match meta.starts_with('{') {
        true => serde_json::from_str(meta).map_err(|_| incomplete("protocolVersion"))?,
        false => return Err(incomplete("protocolVersion")),
    };
    let Some(meant) = meta.version else {
        return Err(incomplete("protocolVersion"));
    };
    let capabilities = meta.capabilities.map_or("", RawValue::get);
    if !capabilities.starts_with('{') {
        return Err(incomplete("clientCapabilities"));
    }
    if version != meant {
        return mismatch(format!(
            "MCP-Protocol-Version is `{}`, and the message says `{}`",
            shown(version),
            shown(&meant)
        ));
    }
    if meant != VERSION {
        return Err(unsupported(&meant));
    }
    if says.method.is_none() {
        return mismatch("the header Mcp-Method is missing".to_owned());
    }
    says.is_of(method)?;
    let wanted = match method {
        "tools/call" | "prompts/get" => Some(params.name),
        "resources/read" => Some(params.uri),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some(params.task),
        _ => None,
    };
    match (&says.name, wanted) {
        (None, Some(_)) => return mismatch("the header Mcp-Name is missing".to_owned()),
        (Some(said), Some(Some(wanted))) if decoded(said).as_ref() != Some(&wanted) => {
            return mismatch(format!(
                "Mcp-Name is `{}`, and the message says `{}`",
                shown(said),
                shown(&wanted)
            ));
        }
        // What is missing in the message is its own error.
        _ => {}
    }
    Ok(Declared {
        questions: questions::declared(capabilities),
        level: level(meta.level)?,
        tasks: tasks::taken(capabilities),
        extensions: Extensions::declared(capabilities),
    })
}

/// The same of a notification, which need not say anything beside its version.
///
/// # Errors
/// [`Wrong`].
pub fn check_notification(says: &Says, method: &str) -> Result<(), Wrong> {
    let version = says.version()?;
    if version != VERSION {
        return Err(unsupported(version));
    }
    says.is_of(method)
}

fn unsupported(version: &str) -> Wrong {
    let text = format!(
        "version `{}` is not spoken here; {VERSION} is",
        shown(version)
    );
    let requested = serde_json::to_string(version).unwrap_or_default();
    Wrong {
        data: Some(format!(
            "{{\"supported\":[\"{VERSION}\"],\"requested\":{requested}}}"
        )),
        ..Wrong::new(UNSUPPORTED_VERSION, text)
    }
}

fn level(given: Option<&RawValue>) -> Result<Option<Level>, Wrong> {
    let Some(given) = given.map(RawValue::get).filter(|given| *given != "null") else {
        return Ok(None);
    };
    match serde_json::from_str(given) {
        Ok(level) => Ok(Some(level)),
        Err(_) => {
            let text = format!(
                "`{OURS}logLevel` is {}, which is no level of logging",
                shown(given)
            );
            Err(Wrong::new(jsonrpc::INVALID_PARAMS, text))
        }
    }
}

pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    cut.escape_debug().to_string()
}

/// A header's text: as it is, or what `=?base64?…?=` stands for.
pub fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let inner = text
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    match inner {
        None => Some(Cow::Borrowed(text)),
        Some(inner) => {
            let bytes = STANDARD.decode(inner).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
    }
}

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
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

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
                let Ok(split) = super::meta::split(Some(value)) else {
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

/// A server's error with the code that this version has for it; `None` if it is the same. Codes that are the
/// protocol's own, and mean something to its clients, are not a server's of an older version to use.
#[must_use]
pub fn error(error: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: serde_json::Number,
        #[serde(borrow, default)]
        message: Option<&'a RawValue>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let read: Error<'_> = serde_json::from_slice(error).ok()?;
    let number = read.code.as_f64()?;
    let is = |code: i64| number.to_string() == code.to_string();
    let reserved = number == OLD_URL_NEEDED || RESERVED.contains(&number);
    let (code, data) = if is(OLD_RESOURCE_NOT_FOUND) {
        (
            jsonrpc::INVALID_PARAMS,
            read.data.map(|data| data.get().to_owned()),
        )
    } else if reserved {
        let was = format!("{{\"legation/code\":{}}}", read.code);
        (jsonrpc::INTERNAL_ERROR, Some(was))
    } else {
        return None;
    };
    let message = read.message.map_or("\"the server failed\"", RawValue::get);
    let data = data.map_or_else(String::new, |data| format!(",\"data\":{data}"));
    Some(format!("{{\"code\":{code},\"message\":{message}{data}}}").into())
}

/// `_meta` of a message of a subscription; `id` is its request's, raw.
#[must_use]
pub fn of_subscription(id: &str) -> String {
    format!("\"_meta\":{{\"{OURS}subscriptionId\":{id}}}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NAMED: &str = r#"{"name":"x","version":"1"}"#;

    fn says(version: &str, method: &str, name: Option<&str>) -> Says {
        Says {
            version: Some(version.to_owned()),
            method: Some(method.to_owned()),
            name: name.map(ToOwned::to_owned),
            unclear: false,
        }
    }

    fn params(version: &str, more: Value) -> Box<RawValue> {
        let mut params = json!({"_meta": {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {}}});
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        RawValue::from_string(params.to_string()).unwrap()
    }

    #[test]
    fn a_request_says_the_same_in_its_headers_as_in_itself() {
        let call = json!({"name": "add"});
        let params = params(VERSION, call);
        let fine = says(VERSION, "tools/call", Some("add"));
        assert!(check(&fine, "tools/call", Some(&params)).is_ok());
        let coded = says(VERSION, "tools/call", Some("=?base64?YWRk?="));
        assert!(check(&coded, "tools/call", Some(&params)).is_ok());
        let code = |says: &Says, method: &str, params: Option<&RawValue>| {
            check(says, method, params).unwrap_err().code
        };
        for (says, why) in [
            (
                Says {
                    version: None,
                    ..fine.clone()
                },
                "no version",
            ),
            (
                Says {
                    method: None,
                    ..fine.clone()
                },
                "no method",
            ),
            (
                Says {
                    name: None,
                    ..fine.clone()
                },
                "no name",
            ),
            (
                Says {
                    unclear: true,
                    ..fine.clone()
                },
                "twice",
            ),
            (
                says("2025-11-25", "tools/call", Some("add")),
                "another version",
            ),
            (says(VERSION, "Tools/call", Some("add")), "another case"),
            (says(VERSION, "tools/call", Some("Add")), "another name"),
            (
                says(VERSION, "tools/call", Some("=?base64?!?=")),
                "no base64",
            ),
        ] {
            assert_eq!(
                code(&says, "tools/call", Some(&params)),
                HEADER_MISMATCH,
                "{why}"
            );
        }
        for meta in [
            json!({}),
            json!({"_meta": {}}),
            json!({"_meta": []}),
            json!({"_meta": {"io.modelcontextprotocol/protocolVersion": VERSION}}),
            json!({"_meta": {"io.modelcontextprotocol/protocolVersion": VERSION,
                "io.modelcontextprotocol/clientCapabilities": null}}),
        ] {
            let raw = RawValue::from_string(meta.to_string()).unwrap();
            assert_eq!(
                code(&fine, "tools/call", Some(&raw)),
                jsonrpc::INVALID_PARAMS,
                "{meta}"
            );
        }
        assert_eq!(code(&fine, "tools/call", None), jsonrpc::INVALID_PARAMS);
    }

    #[test]
    fn a_version_that_is_not_spoken_is_told_which_is() {
        let wrong = check(
            &says("2027-01-01", "tools/list", None),
            "tools/list",
            Some(&params("2027-01-01", json!({}))),
        )
        .unwrap_err();
        assert_eq!(wrong.code, UNSUPPORTED_VERSION);
        let data: Value = serde_json::from_str(&wrong.data.unwrap()).unwrap();
        assert_eq!(
            data,
            json!({"supported": [VERSION], "requested": "2027-01-01"})
        );
    }

    #[test]
    fn a_notification_says_its_version_as_well() {
        let cancelled = "notifications/cancelled";
        let code = |says: &Says| check_notification(says, cancelled).map_err(|wrong| wrong.code);
        let fine = says(VERSION, cancelled, None);
        assert_eq!(code(&fine), Ok(()));
        let silent = Says {
            method: None,
            ..fine.clone()
        };
        assert_eq!(code(&silent), Ok(()));
        let other = says(VERSION, "notifications/other", None);
        assert_eq!(code(&other), Err(HEADER_MISMATCH));
        let versionless = Says {
            version: None,
            ..fine
        };
        assert_eq!(code(&versionless), Err(HEADER_MISMATCH));
        let unknown = says("2031-01-01", cancelled, None);
        assert_eq!(code(&unknown), Err(UNSUPPORTED_VERSION));
    }

    #[test]
    fn who_is_of_which_era() {
        let legacy = ["2025-11-25"];
        let of = |version: Option<&str>, method: Option<&str>| Says {
            version: version.map(ToOwned::to_owned),
            method: method.map(ToOwned::to_owned),
            ..Says::default()
        };
        assert!(!of(None, None).is_modern(&legacy));
        assert!(!of(Some("2025-11-25"), None).is_modern(&legacy));
        // SDKs of both eras send the header of the newer one along.
        assert!(!of(Some("2025-11-25"), Some("initialize")).is_modern(&legacy));
        assert!(of(Some(VERSION), None).is_modern(&legacy));
        assert!(of(None, Some("tools/list")).is_modern(&legacy));
    }

    #[test]
    fn a_result_gets_what_is_missing_and_its_values_keep_their_bytes() {
        let of = |text: &str, kept| {
            let mut out = BytesMut::new();
            let put = put_complete(&mut out, text.as_bytes(), NAMED, kept);
            put.map(|()| out.freeze())
        };
        let whole = of(r#" { "content" :[ 1.0e2 ] } "#, Kept::For(5)).unwrap();
        let text = std::str::from_utf8(&whole).unwrap();
        assert!(text.ends_with(r#","content":[ 1.0e2 ]}"#), "{text}");
        let value: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(
            (&value["resultType"], &value["ttlMs"]),
            (&json!("complete"), &json!(5))
        );
        assert_eq!(
            value["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
            "x"
        );
        // What a server of an older version says of it is not heeded, and nothing stands there twice.
        let own = r#"{"_meta":{"a":1,"io.modelcontextprotocol/subscriptionId":7},"resultType":null,"ttlMs":9,"cacheScope":"public"}"#;
        let own = of(own, Kept::For(5)).unwrap();
        let Ok(Members(members)) = serde_json::from_slice(&own) else {
            panic!("twice: {own:?}");
        };
        assert_eq!(members.len(), 4);
        let value: Value = serde_json::from_slice(&own).unwrap();
        assert_eq!(
            (&value["cacheScope"], &value["_meta"]["a"]),
            (&json!("private"), &json!(1))
        );
        assert!(
            value["_meta"]
                .get("io.modelcontextprotocol/subscriptionId")
                .is_none()
        );
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"resultType":"input_required"}"#,
            r#"{"resultType":7}"#,
            r#"{"_meta":[]}"#,
            r#"{"_meta":{"a":1,"a":2}}"#,
            "[]",
        ] {
            assert!(of(bad, Kept::Unsaid).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_of_this_version_says_itself_who_it_is() {
        let name = |info: &str| {
            let result =
                format!(r#"{{"_meta":{{"io.modelcontextprotocol/serverInfo":{info},"a":1}}}}"#);
            let whole = complete(result.as_bytes(), NAMED, Kept::Unsaid).unwrap();
            let whole: Value = serde_json::from_slice(&whole).unwrap();
            assert_eq!(whole["_meta"]["a"], 1);
            whole["_meta"]["io.modelcontextprotocol/serverInfo"].clone()
        };
        let own = json!({"name": "own", "version": "9", "icons": [{}]});
        assert_eq!(name(&own.to_string()), own);
        assert_eq!(name("7")["name"], "x");
        assert_eq!(name("null")["name"], "x");
    }

    #[test]
    fn a_resource_that_is_not_there_has_another_code() {
        let old = br#"{"code":-32002,"message":"gone","data":{"uri":"a"}}"#;
        let new: Value = serde_json::from_slice(&error(old).unwrap()).unwrap();
        assert_eq!(
            new,
            json!({"code": -32602, "message": "gone", "data": {"uri": "a"}})
        );
        for code in ["-32601", "-32000", "1"] {
            let same = format!("{{\"code\":{code},\"message\":\"x\"}}");
            assert_eq!(error(same.as_bytes()), None, "{code}");
        }
        for code in ["-32020", "-32022", "-32042", "-32021.0"] {
            let taken = format!("{{\"code\":{code},\"message\":\"x\",\"data\":{{\"url\":1}}}}");
            let new: Value = serde_json::from_slice(&error(taken.as_bytes()).unwrap()).unwrap();
            assert_eq!(
                (&new["code"], &new["data"]["url"]),
                (&json!(-32603), &Value::Null),
                "{code}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_completed_result_is_json_and_has_all_that_was_there(
            members in prop::collection::btree_map("[a-z]{1,6}", any::<i32>(), 0..5)
        ) {
            let text = serde_json::to_vec(&members).unwrap();
            let whole: Value = serde_json::from_slice(&complete(&text, NAMED, Kept::For(0)).unwrap()).unwrap();
            for (key, value) in members {
                prop_assert_eq!(&whole[&key], &json!(value));
            }
        }
    }
}
