use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::talk::Question;

fn params(line: &[u8]) -> Value {
    assert!(line.ends_with(b"\n"));
    let line: Value = serde_json::from_slice(line).unwrap();
    line["params"].clone()
}

#[test]
fn every_request_says_who_asks() {
    let can = Questions::NONE
        .with(Question::Roots)
        .with(Question::Sampling);
    let about = about(can, Some(Level::Error), false, &Extensions::NONE);
    let meta = envelope::Meta {
        members: b"\"a\":1",
        progress: true,
    };
    let line = tool_call(
        7,
        "add",
        b"{\"x\":1}",
        meta,
        (&about, b"\"requestState\":\"s\""),
    );
    let said = params(&line);
    assert_eq!(said["name"], "add");
    assert_eq!(said["arguments"], json!({"x": 1}));
    assert_eq!(said["requestState"], "s");
    let meta = &said["_meta"];
    assert_eq!((&meta["a"], &meta["progressToken"]), (&json!(1), &json!(7)));
    assert_eq!(meta[format!("{OURS}protocolVersion")], modern::VERSION);
    assert_eq!(meta[format!("{OURS}logLevel")], "error");
    assert_eq!(
        meta[format!("{OURS}clientCapabilities")],
        json!({"roots": {}, "sampling": {}})
    );
    let takes = |can: Questions| {
        let about = super::about(can, None, true, &Extensions::NONE);
        let about: Value = serde_json::from_str(&format!("{{{about}}}")).unwrap();
        about[format!("{OURS}clientCapabilities")].clone()
    };
    let extensions = json!({tasks::EXTENSION: {}});
    assert_eq!(takes(Questions::NONE), json!({"extensions": extensions}));
    assert_eq!(
        takes(can),
        json!({"roots": {}, "sampling": {}, "extensions": extensions})
    );
    let own: Value = serde_json::from_slice(&own_params("\"a\":2")).unwrap();
    assert_eq!(own["a"], 2);
}

#[test]
fn parameters_get_what_is_missing() {
    let about = about(Questions::NONE, None, false, &Extensions::NONE);
    for (given, brought, wanted) in [
        ("{}", "", json!({})),
        (" { } ", "\"b\":1", json!({"b": 1})),
        (r#"{"uri":"u"}"#, "", json!({"uri": "u"})),
        (r#"{"_meta":{"x":1},"uri":"u"}"#, "", json!({"uri": "u"})),
        (
            r#"{"uri":"u","_meta": { } } "#,
            "\"b\":1",
            json!({"uri": "u", "b": 1}),
        ),
        (
            r#"{"uri":"u","requestState":"old","inputResponses":{}}"#,
            "\"requestState\":\"new\"",
            json!({"uri": "u", "requestState": "new"}),
        ),
    ] {
        let line = method(
            1,
            "resources/read",
            given.as_bytes(),
            &about,
            brought.as_bytes(),
        );
        let mut said = params(&line);
        let meta = said.as_object_mut().unwrap().remove("_meta").unwrap();
        assert_eq!(said, wanted, "{given}");
        assert_eq!(meta[format!("{OURS}protocolVersion")], modern::VERSION);
        assert_eq!(meta.get("x").is_some(), given.contains('x'), "{given}");
    }
}

#[test]
fn a_server_says_what_it_is() {
    let result = json!({"resultType": "complete", "supportedVersions": [modern::VERSION],
        "capabilities": {"tools": {}, "resources": {"subscribe": true}}, "instructions": "first a",
        "_meta": {format!("{OURS}serverInfo"): {"name": "s", "version": "1"}}});
    let Ok(Found::Modern(info)) = read_discover(result.to_string().as_bytes()) else {
        panic!("not modern");
    };
    let card = &info.card;
    assert_eq!((&*card.name, &*card.version), ("s", "1"));
    assert_eq!(card.instructions, "first a");
    assert!(info.abilities.tools && info.abilities.subscribe && !info.abilities.prompts);
    assert!(!info.abilities.tasks);
    // Tasks of the older era are none of this one's.
    let able = |capabilities: Value| abilities(&capabilities.to_string());
    let older = able(json!({"tasks": {"requests": {"tools": {"call": {}}}, "cancel": {}}}));
    assert!(!older.tasks && !older.tasks_cancel);
    let newer = able(json!({"tools": {"listChanged": true}, "extensions": {tasks::EXTENSION: {}}}));
    assert!(newer.tasks && newer.tasks_cancel);
    for older in [
        json!({}),
        json!([]),
        json!({"supportedVersions": []}),
        json!({"supportedVersions": ["2027-01-01", "2025-06-18"]}),
    ] {
        let found = read_discover(older.to_string().as_bytes());
        assert_eq!(found, Ok(Found::Older), "{older}");
    }
    let newer = json!({"supportedVersions": ["2027-01-01"]}).to_string();
    assert!(
        read_discover(newer.as_bytes())
            .unwrap_err()
            .contains("2027-01-01")
    );
    let refused = |error: Value| read_refusal(error.to_string().as_bytes());
    for older in [
        json!({"code": -32601, "message": "m"}),
        json!({"code": -32602, "message": "m"}),
        json!({"code": -32022, "data": {"supported": ["2025-11-25"]}}),
        json!({"code": "x"}),
        json!(7),
    ] {
        assert_eq!(refused(older.clone()), Ok(Found::Older), "{older}");
    }
    let failed = json!({"code": -32603, "message": "m"});
    assert_eq!(refused(failed), Ok(Found::Unsaid));
    let again = json!({"code": -32022, "data": {"supported": [modern::VERSION]}});
    assert_eq!(refused(again), Ok(Found::Again));
    for ours in [
        json!({"code": -32022, "data": {"supported": ["2027-01-01"]}}),
        json!({"code": -32020, "message": "headers"}),
    ] {
        assert!(refused(ours.clone()).is_err(), "{ours}");
    }
}

#[test]
fn results_and_errors_are_for_older_clients() {
    assert_eq!(said(b"{}"), Said::Complete);
    assert_eq!(said(br#"{"resultType":"input_required"}"#), Said::Asks);
    assert_eq!(
        said(br#"{"resultType":"task"}"#),
        Said::Unknown("\\\"task\\\"".into())
    );
    assert!(matches!(
        said(br#"{"resultType":1,"resultType":2}"#),
        Said::Unknown(_)
    ));
    let result = format!(
        r#"{{"resultType":"complete","ttlMs":5,"cacheScope":"public","content":[ 1.0e2 ],"_meta":{{"a":1,"{OURS}serverInfo":{{}}}}}}"#
    );
    let older = older_result(result.as_bytes()).unwrap();
    assert_eq!(&older[..], br#"{"content":[ 1.0e2 ],"_meta":{"a":1}}"#);
    let only = format!(r#"{{"_meta":{{"{OURS}serverInfo":{{}}}},"x":1}}"#);
    assert_eq!(&older_result(only.as_bytes()).unwrap()[..], br#"{"x":1}"#);
    assert!(older_result(br#"{"a":1,"a":2}"#).is_err());
    let code = |code: i64, method: &str| {
        let error = json!({"code": code, "message": "m", "data": {"uri": "u"}}).to_string();
        older_error(error.as_bytes(), method).map(|error| {
            let error: Value = serde_json::from_slice(&error).unwrap();
            error["code"].as_i64().unwrap()
        })
    };
    assert_eq!(code(-32602, "resources/read"), Some(-32002));
    assert_eq!(code(-32602, "tools/call"), None);
    assert_eq!(code(-32021, "tools/call"), Some(-32603));
    assert_eq!(code(-32000, "tools/call"), None);
}

proptest! {
    #[test]
    fn any_parameters_stay_an_object_with_all_that_was_there(
        members in prop::collection::btree_map("[a-z]{1,6}", any::<i32>(), 0..5),
        own in prop::option::of(prop::collection::btree_map("[a-z]{1,6}", any::<i32>(), 0..3)),
    ) {
        let mut value = json!(members);
        if let Some(own) = &own {
            value["_meta"] = json!(own);
        }
        let line = method(1, "m", value.to_string().as_bytes(), &about(Questions::NONE, None, false, &Extensions::NONE), b"\"zz_more\":1");
        let said = params(&line);
        for (key, wanted) in members {
            prop_assert_eq!(&said[&key], &json!(wanted));
        }
        for (key, wanted) in own.unwrap_or_default() {
            prop_assert_eq!(&said["_meta"][&key], &json!(wanted));
        }
        prop_assert_eq!(&said["zz_more"], &json!(1));
    }
}
