use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::domain::limits::THREAD_STACK_BYTES;

mod hostile;

/// Hostile input must be told from good in less than this, also where nothing is optimised.
const SOON: Duration = Duration::from_secs(20);

fn compile(schema: &Value) -> Result<ArgumentSchema, Unfit> {
    let since = Instant::now();
    let compiled = ArgumentSchema::compile(&json!({ "inputSchema": schema }).to_string());
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    compiled.map(|schema| schema.expect("it declares one"))
}

fn unfit(schema: &Value) -> String {
    compile(schema).unwrap_err().to_string()
}

fn hold(schema: &Value, arguments: &str) -> Held {
    let schema = compile(schema).unwrap();
    let since = Instant::now();
    let held = schema.hold(arguments, ARGUMENT_STEPS_MAX);
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    held
}

fn misfit(schema: &Value, arguments: &Value) -> Misfit {
    match hold(schema, &arguments.to_string()) {
        Held::Misfit(misfit) => misfit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_complaint_names_place_rule_and_what_is_wanted() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": ["integer", "null"], "minimum": 3}},
            "mode": {"enum": ["fast", "slow", null, 7]},
            "name": {"type": "string", "maxLength": 3, "pattern": "^[a-z]*$"},
            "where": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        },
        "required": ["a"],
        "additionalProperties": false,
    });
    for (arguments, told) in [
        (json!({}), "the arguments: `a` is required (`required`)"),
        (
            json!({"a": [3, "s3cret"]}),
            "`/a/1`: must be of type null or integer (`type`)",
        ),
        (json!({"a": [2]}), "`/a/0`: must be at least 3 (`minimum`)"),
        (json!({"a": 7}), "`/a`: must be of type array (`type`)"),
        (
            json!({"a": [], "mode": "s3cret"}),
            "`/mode`: must be one of `fast`, `slow`, null, 7 (`enum`)",
        ),
        (
            json!({"a": [], "name": "s3cret"}),
            "`/name`: must have at most 3 characters (`maxLength`)",
        ),
        (
            json!({"a": [], "name": "S3"}),
            "`/name`: must match `^[a-z]*$` (`pattern`)",
        ),
        (
            json!({"a": [], "where": ["s3cret"]}),
            "`/where`: fits none of the alternatives (`oneOf`)",
        ),
        (
            json!({"a": [], "b": "s3cret"}),
            "the arguments: has no member `b` (`additionalProperties`)",
        ),
    ] {
        let found = misfit(&schema, &arguments).to_string();
        assert_eq!(found, told);
        assert!(!found.contains("s3cret"));
    }
    assert_eq!(hold(&schema, r#"{"a":[3,null],"where":1}"#), Held::Fit);
    assert_eq!(
        misfit(&schema, &json!({"a": [2]})).rule,
        "/properties/a/items/minimum"
    );
}

#[test]
fn what_servers_declare_is_taken() {
    for (schema, fits, not) in [
        // As pydantic writes it.
        (
            json!({"$defs": {"P": {"type": "object", "properties": {"x": {"type": "number"}},
                "required": ["x"]}}, "properties": {"p": {"$ref": "#/$defs/P"}}, "type": "object"}),
            r#"{"p":{"x":1}}"#,
            r#"{"p":{}}"#,
        ),
        // As zod-to-json-schema does.
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
                "properties": {"e": {"anyOf": [{"type": "string"}, {"$ref": "#/properties/e2"}]},
                "e2": {"type": "array", "items": {"type": "string", "format": "uri"}}},
                "additionalProperties": false}),
            r#"{"e":["no uri, which nobody is asked to check"]}"#,
            r#"{"e":7}"#,
        ),
        // A tree.
        (
            json!({"$id": "https://example.com/tree", "properties": {"n": {"type": "integer"},
                "kids": {"type": "array", "items": {"$ref": "#"}}}, "required": ["n"]}),
            r#"{"n":1,"kids":[{"n":2,"kids":[{"n":3}]}]}"#,
            r#"{"n":1,"kids":[{"n":2,"kids":[{}]}]}"#,
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-04/schema#", "type": "object",
                "properties": {"n": {"type": "integer", "minimum": 0, "exclusiveMinimum": true}}}),
            r#"{"n":1}"#,
            r#"{"n":0}"#,
        ),
        (json!({}), r#"{"x":[[]]}"#, ""),
    ] {
        assert_eq!(hold(&schema, fits), Held::Fit, "{schema}");
        if !not.is_empty() {
            assert!(matches!(hold(&schema, not), Held::Misfit(_)), "{schema}");
        }
    }
    assert!(
        ArgumentSchema::compile(r#"{"name":"t"}"#)
            .unwrap()
            .is_none()
    );
    assert!(
        ArgumentSchema::compile(r#"{"inputSchema":[]}"#)
            .unwrap()
            .is_none()
    );
    assert!(ArgumentSchema::compile("nonsense").unwrap().is_none());
}

#[test]
fn nothing_is_fetched() {
    for reference in [
        "http://127.0.0.1:1/schema.json",
        "https://example.com/schema.json#/x",
        "file:///etc/passwd",
        "other.json",
        "#/nowhere",
        "//host/x",
    ] {
        let why = unfit(&json!({"properties": {"a": {"$ref": reference}}}));
        assert!(why.contains("nothing else is ever fetched"), "{why}");
    }
    let why = unfit(&json!({"$schema": "http://127.0.0.1:1/meta", "type": "object"}));
    assert!(!why.is_empty());
    // Within another base, a place in the text is none in it.
    let moved = json!({"properties": {"a": {"$id": "file:///etc/", "$ref": "passwd"}}});
    assert!(compile(&moved).is_err());
    let moved = json!({"properties": {"a": {"$id": "file:///etc/passwd", "type": "string"}}});
    assert!(unfit(&moved).contains("$id"));
    assert!(unfit(&json!({"$ref": "#x"})).contains("$anchor"));
    assert!(unfit(&json!({"$dynamicRef": "#"})).contains("$dynamicRef"));
}

#[test]
fn a_reference_that_goes_nowhere_is_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}},
            "$ref": "#/$defs/a"}),
    ] {
        assert_eq!(compile(&schema).unwrap_err(), Unfit::Endless, "{schema}");
    }
}

/// Each definition refers to the next twice.
fn doubling(levels: usize, with: &str, end: &Value) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        defs.insert(format!("d{level}"), json!({ with: [next, next] }));
    }
    defs.insert(format!("d{levels}"), end.clone());
    json!({"$defs": defs, "$ref": "#/$defs/d0"})
}

#[test]
fn references_that_multiply_are_refused_before_they_do() {
    for with in ["allOf", "anyOf", "oneOf"] {
        let bomb = doubling(30, with, &json!({"type": "object"}));
        assert_eq!(compile(&bomb).unwrap_err(), Unfit::Many);
    }
    let few = doubling(6, "allOf", &json!({"type": "object"}));
    assert_eq!(hold(&few, "{}"), Held::Fit);
    // By members: each level of the schema is one of the arguments.
    let mut nested = json!({"type": "object"});
    for _ in 0..20 {
        nested = json!({"properties": {"a": nested, "b": nested}});
        if nested.to_string().len() > SCHEMA_BYTES_MAX {
            break;
        }
    }
    assert!(matches!(compile(&nested).unwrap_err(), Unfit::Large(_)));
}

#[test]
fn recursion_that_doubles_with_each_level_of_the_arguments_is_counted_first() {
    let node = json!({"$ref": "#/$defs/n"});
    let schema = json!({
        "$defs": {"n": {"properties": {"a": {"anyOf": [
            {"allOf": [node, {"required": ["never"]}]},
            {"allOf": [node, node]},
        ]}}}},
        "$ref": "#/$defs/n",
    });
    let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    assert_eq!(hold(&schema, &nested(3)), Held::Fit);
    assert_eq!(
        hold(&schema, &nested(50)),
        Held::Unchecked(Unchecked::Costly)
    );
    // One way, however deep: that is little.
    let tree = json!({"properties": {"a": {"$ref": "#"}}, "type": ["object", "integer"]});
    assert_eq!(hold(&tree, &nested(ARGUMENT_DEPTH_MAX)), Held::Fit);
}

#[test]
fn depth_is_bounded_for_schemas_and_arguments() {
    let mut deep = json!({"type": "object"});
    for _ in 0..55 {
        deep = json!({"not": deep});
    }
    hold(&deep, "{}");
    let mut chain = serde_json::Map::new();
    for level in 0..2_000 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        chain.insert(format!("d{level}"), next);
    }
    chain.insert("d2000".to_owned(), json!(true));
    let chain = json!({"$defs": chain, "$ref": "#/$defs/d0"});
    assert_eq!(compile(&chain).unwrap_err(), Unfit::Deep);
    let text = format!(
        r#"{{"inputSchema":{}true{}}}"#,
        r#"{"not":"#.repeat(30_000),
        "}".repeat(30_000)
    );
    let deep = ArgumentSchema::compile(&text).unwrap_err();
    assert!(
        matches!(deep, Unfit::Unreadable(Unreadable::Deep(_))),
        "{deep}"
    );
    let any = json!({"type": "object"});
    let nested = format!(r#"{{"a":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let deep = Unreadable::Deep(ARGUMENT_DEPTH_MAX);
    assert_eq!(
        hold(&any, &nested),
        Held::Unchecked(Unchecked::Unreadable(deep))
    );
}

/// The deepest that is taken, on half of the stack that threads of the runtime have, where nothing is
/// optimised.
#[test]
fn the_deepest_that_is_taken_fits_on_the_stack() {
    const LEVELS: usize = SCHEMA_DEPTH_MAX + 2 * ARGUMENT_DEPTH_MAX;
    let nested =
        |depth: usize, end: &str| format!("{}{end}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    // Each level of arguments is 53 of the schema; three fit.
    let wraps: [fn(Value) -> Value; 5] = [
        |step| json!({"allOf": [step]}),
        |step| json!({"anyOf": [step]}),
        |step| json!({"oneOf": [step]}),
        |step| json!({"if": true, "then": step}),
        |step| json!({"not": {"not": step}}),
    ];
    let work = move || {
        for wrap in wraps {
            let mut step = json!({"$ref": "#/$defs/n"});
            let mut levels = 2;
            while levels < 50 {
                step = wrap(step);
                levels += match step.get("not") {
                    Some(_) => 2,
                    None => 1,
                };
            }
            let schema = json!({"$defs": {"n": {"properties": {"a": step},
                "type": ["object", "integer"]}}, "$ref": "#/$defs/n"});
            let schema = compile(&schema).unwrap();
            let mut deepest = 0;
            for depth in 1..=ARGUMENT_DEPTH_MAX {
                let fit = schema.hold(&nested(depth, "1"), ARGUMENT_STEPS_MAX);
                let not = schema.hold(&nested(depth, "true"), ARGUMENT_STEPS_MAX);
                match fit {
                    Held::Fit => deepest = depth,
                    other => assert_eq!(other, Held::Unchecked(Unchecked::Costly)),
                }
                assert_eq!(matches!(not, Held::Misfit(_)), depth == deepest, "{not:?}");
            }
            assert!((3..=LEVELS).contains(&deepest), "{deepest}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES / 2);
    thread.spawn(work).unwrap().join().unwrap();
}

#[test]
fn patterns_do_not_backtrack() {
    for pattern in ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*x"] {
        let schema = json!({"properties": {"t": {"pattern": pattern}}});
        let text = format!(r#"{{"t":"{}!"}}"#, "a".repeat(100_000));
        assert!(matches!(hold(&schema, &text), Held::Misfit(_)), "{pattern}");
        let names = json!({"patternProperties": {pattern: false}});
        let text = format!(r#"{{"{}!":1}}"#, "a".repeat(100_000));
        assert_eq!(hold(&names, &text), Held::Fit, "{pattern}");
    }
    for pattern in ["(a{1000}){1000}", "(?=a)b", "(a)\\1", "("] {
        let why = unfit(&json!({"properties": {"t": {"pattern": pattern}}}));
        assert!(why.contains("linear time"), "{pattern}: {why}");
        compile(&json!({"patternProperties": {pattern: true}})).unwrap_err();
    }
}

#[test]
fn sizes_are_bounded() {
    let options: Vec<_> = (0..30_000).map(|n| n.to_string()).collect();
    let many = Unreadable::Many(SCHEMA_VALUES_MAX);
    let huge = json!({"properties": {"t": {"enum": options}}});
    assert_eq!(compile(&huge).unwrap_err(), Unfit::Unreadable(many));
    let large = json!({"description": "x".repeat(SCHEMA_BYTES_MAX)});
    assert!(matches!(compile(&large).unwrap_err(), Unfit::Large(_)));
    // A large enum against many items.
    let options: Vec<_> = (0..9_000).map(|n| json!([n])).collect();
    let schema = json!({"properties": {"t": {"items": {"enum": options}}}});
    assert_eq!(hold(&schema, r#"{"t":[[1]]}"#), Held::Fit);
    let items = format!(r#"{{"t":[{}[7]]}}"#, "[8999],".repeat(50_000));
    assert_eq!(hold(&schema, &items), Held::Unchecked(Unchecked::Costly));
    let any = json!({"type": "object"});
    let values = format!(r#"{{"t":[{}1]}}"#, "1,".repeat(ARGUMENT_VALUES_MAX));
    let many = Unreadable::Many(ARGUMENT_VALUES_MAX);
    assert_eq!(
        hold(&any, &values),
        Held::Unchecked(Unchecked::Unreadable(many))
    );
    let unique = json!({"properties": {"t": {"uniqueItems": true}}});
    for (count, inner, held) in [
        (90_000, false, Held::Fit),
        (2_000, true, Held::Fit),
        (90_000, true, Held::Unchecked(Unchecked::Costly)),
    ] {
        let mut items = String::new();
        for n in 0..count {
            let _ = match inner {
                true => write!(items, "[{n}],"),
                false => write!(items, "{n},"),
            };
        }
        assert_eq!(hold(&unique, &format!(r#"{{"t":[{items}true]}}"#)), held);
    }
}

#[test]
fn what_is_read_in_two_ways_is_not_taken() {
    let schema = json!({"properties": {"path": {"enum": ["safe"]}}});
    for arguments in [
        r#"{"path":"/etc/passwd","path":"safe"}"#,
        r#"{"path":"safe","p\u0061th":"/etc/passwd"}"#,
    ] {
        let twice = Held::Unchecked(Unchecked::Unreadable(Unreadable::Twice));
        assert_eq!(hold(&schema, arguments), twice);
    }
    let twice = ArgumentSchema::compile(r#"{"inputSchema":{"type":"object","type":"array"}}"#);
    assert_eq!(twice.unwrap_err(), Unfit::Unreadable(Unreadable::Twice));
}

#[test]
fn words_of_others_are_short_and_on_one_line() {
    let name = "n\n".repeat(1_000);
    let schema = json!({"additionalProperties": false, "properties": {&name: {"type": "string"}}});
    let told = misfit(&schema, &json!({&name: 1})).to_string();
    assert!(told.len() < 600 && !told.contains('\n'), "{told}");
}
