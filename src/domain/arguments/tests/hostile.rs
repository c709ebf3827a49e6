//! Schemas and arguments that once hung, killed or misled what checks them.

use std::sync::mpsc;

use super::*;

/// Puts one more level around a schema.
type Chain = fn(Value) -> Value;

/// On a thread of its own: what hangs fails here, and does not hang the tests.
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, told) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    told.recv_timeout(SOON).expect("it takes too long")
}

fn held_soon(schema: Value, arguments: String) -> Held {
    soon(move || hold(&schema, &arguments))
}

fn refused_soon(schema: Value) -> Unfit {
    soon(move || compile(&schema).unwrap_err())
}

/// A place in the text that references lead to, and in which they mean others than they seem to.
fn two_faced(name: &str, inner: &Value) -> Value {
    json!({
        "$ref": "#/$defs/a/properties/b",
        "$defs": {"d0": true, "a": {
            name: "http://x.example/a",
            "properties": {"b": {"$ref": "#/$defs/d0"}},
            "$defs": inner,
        }},
    })
}

#[test]
fn an_id_on_the_way_of_a_reference_swaps_no_schema_for_another() {
    let mut chain = serde_json::Map::new();
    for level in 0..2_400 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        chain.insert(format!("d{level}"), json!({"anyOf": [next, false]}));
    }
    let mut doubled = doubling(45, "allOf", &json!(true));
    for inner in [Value::Object(chain), doubled["$defs"].take()] {
        for name in ["$id", "id", "$schema"] {
            let why = refused_soon(two_faced(name, &inner));
            assert_eq!(why, Unfit::Unsupported(name));
        }
    }
    // Where nothing leads, but where names are looked for.
    let base = json!({"$ref": "#/$defs/a", "$defs": {"a": true, "b": {"$id": "json-schema:///"}}});
    assert_eq!(refused_soon(base), Unfit::Unsupported("$id"));
    // Where names are not looked for, unless something leads there.
    let hidden = json!({"$ref": "#/default/a", "default": {"a": {"$id": "http://x.example/"}}});
    let why = refused_soon(hidden).to_string();
    assert!(why.contains("no schema"), "{why}");
}

#[test]
fn what_only_looks_like_a_name_of_a_schema_is_taken() {
    let schema = json!({
        "$id": "https://json-schema.org/draft/2020-12/schema",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {
            "id": {"type": "string", "default": "x"},
            "$id": {"$ref": "#/properties/id"},
            "default": {"type": "integer"},
            "same": {"$ref": "#/properties/default"},
            "of": {"enum": [{"id": "a"}], "examples": [{"$id": "b"}], "default": {"id": "a"}},
        },
        "required": ["id"],
    });
    let fits = r#"{"id":"a","$id":"b","same":1,"of":{"id":"a"}}"#;
    assert_eq!(hold(&schema, fits), Held::Fit);
    for wrong in [json!({"id": "a", "$id": 1}), json!({"id": "a", "same": ""})] {
        assert_eq!(misfit(&schema, &wrong).keyword, "type");
    }
}

#[test]
fn unevaluated_within_unevaluated_does_not_double_with_each_level() {
    let nested = |levels: usize| format!("{}\"bad\"{}", "[".repeat(levels), "]".repeat(levels));
    let of_members =
        |levels: usize| format!("{}\"bad\"{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let chains: [(Chain, bool); 6] = [
        (|below| json!({"unevaluatedItems": below}), true),
        (|below| json!({"unevaluatedProperties": below}), false),
        (
            |below| json!({"properties": {"a": below}, "unevaluatedProperties": false}),
            false,
        ),
        (
            |below| json!({"contains": below, "unevaluatedItems": true}),
            true,
        ),
        (
            |below| json!({"allOf": [below], "unevaluatedItems": false}),
            true,
        ),
        (
            |below| json!({"anyOf": [below], "unevaluatedProperties": false}),
            false,
        ),
    ];
    for (chain, of_items) in chains {
        for levels in [3, 12, 55] {
            let mut schema = json!({"type": "integer"});
            for _ in 0..levels {
                schema = chain(schema);
            }
            let arguments = match of_items {
                true => nested(levels),
                false => of_members(levels),
            };
            let done = soon(move || {
                let compiled = compile(&schema)?;
                Ok::<_, Unfit>(compiled.hold(&arguments, ARGUMENT_STEPS_MAX))
            });
            match (levels, done) {
                (3, done) => assert!(matches!(done, Ok(Held::Misfit(_))), "{done:?}"),
                (55, done) => assert!(matches!(done, Err(Unfit::Many | Unfit::Deep)), "{done:?}"),
                _ => {}
            }
        }
    }
    let circle = json!({"unevaluatedItems": {"$ref": "#"}});
    let why = refused_soon(circle).to_string();
    assert!(why.contains("unevaluatedItems"), "{why}");
    let usual = json!({"allOf": [{"properties": {"a": {"type": "string"}}}],
        "properties": {"b": true}, "unevaluatedProperties": false});
    assert_eq!(hold(&usual, r#"{"a":"x","b":1}"#), Held::Fit);
    assert_eq!(
        misfit(&usual, &json!({"c": 1})).keyword,
        "unevaluatedProperties"
    );
}

#[test]
fn patterns_are_counted() {
    let of = |count: usize, pattern: &str| {
        let mut members = serde_json::Map::new();
        for n in 0..count {
            members.insert(n.to_string(), json!({"pattern": format!("{pattern}{n}")}));
        }
        json!({ "properties": members })
    };
    assert_eq!(refused_soon(of(5_000, r"\p{L}")), Unfit::Patterns);
    let mut names = serde_json::Map::new();
    for n in 0..5_000 {
        names.insert(format!(r"\p{{L}}{n}"), json!(true));
    }
    let names = json!({ "patternProperties": names });
    assert_eq!(refused_soon(names), Unfit::Patterns);
    let some = soon(move || compile(&of(SCHEMA_PATTERNS_MAX, r"^\w+$|^\p{L}"))).unwrap();
    assert!(some.weight() > SCHEMA_PATTERNS_MAX * 500);
    assert!(!some.is_plain());
    // As large as people write them.
    for pattern in [
        r"^[\w.+-]+@[\w-]+\.[\w.-]+$",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        "^[a-zA-Z0-9_-]{1,256}$",
        r"^(?:https?://)?[^\s/]+(?:/\S*)?$",
    ] {
        compile(&json!({"properties": {"t": {"pattern": pattern}}})).unwrap();
    }
}

#[test]
fn names_are_held_against_what_names_are_held_against() {
    let alternatives: Vec<_> = (0..9_000).map(|_| json!({"maxLength": 1})).collect();
    let schema = json!({"propertyNames": {"anyOf": alternatives}});
    let name = "n".repeat(900_000);
    // The member is a number: it is the name that takes long.
    let held = held_soon(schema, format!(r#"{{"{name}":1}}"#));
    assert_eq!(held, Held::Unchecked(Unchecked::Costly));
    let schema = json!({"propertyNames": {"anyOf": [{"$ref": "#/$defs/n"}, {"maxLength": 2}]},
        "properties": {"a": {"$ref": "#"}}, "$defs": {"n": {"pattern": "^x"}}});
    let nested = r#"{"xyz":1,"a":{"xyz":1,"ab":2}}"#;
    assert_eq!(hold(&schema, nested), Held::Fit);
    let wrong = misfit(&schema, &json!({"a": {"abc": 1}}));
    assert_eq!(wrong.keyword, "propertyNames");
}

#[test]
fn unique_items_that_collide_are_counted_each_against_each() {
    // Trees of empty arrays: other ones, and alike to what tells items apart quickly.
    let mut items = Vec::new();
    for n in 0..8_000_u32 {
        let tree: Vec<_> = (0..13)
            .map(|bit| match n >> bit & 1 {
                1 => "[[],[]]",
                _ => "[[[]]]",
            })
            .collect();
        items.push(format!("[{}]", tree.join(",")));
    }
    let arguments = format!(r#"{{"t":[{}]}}"#, items[..4_000].join(","));
    let schema = json!({"properties": {"t": {"uniqueItems": true}}});
    let held = held_soon(schema.clone(), arguments);
    assert_eq!(held, Held::Unchecked(Unchecked::Costly));
    let few = format!(r#"{{"t":[{}]}}"#, items[..300].join(","));
    assert_eq!(held_soon(schema, few), Held::Fit);
}

#[test]
fn a_number_is_checked_as_what_it_is_sent_as() {
    let schema = json!({"properties": {"n": {"type": "integer", "maximum": 5}}});
    for sent in [
        "5.00000000000000000001",
        "5.0000000000000001",
        "500000000000000000001e-20",
        "-99999999999999999999",
    ] {
        let held = hold(&schema, &format!(r#"{{"n":{sent}}}"#));
        let inexact = Held::Unchecked(Unchecked::Unreadable(Unreadable::Inexact));
        assert_eq!(held, inexact, "{sent}");
    }
    for sent in ["5", "5.0", "0.5e1", "-9007199254740993"] {
        assert_eq!(hold(&schema, &format!(r#"{{"n":{sent}}}"#)), Held::Fit);
    }
}
