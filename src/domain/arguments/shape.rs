//! What a schema can cost: its subschemas as a graph, in which references are edges like others.
//!
//! A checker that follows references visits a subschema once for every way that leads to it, so a
//! few lines can ask for more steps than there are atoms. Ways are counted here before they are
//! walked, and the deepest of them is measured, for the stack.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::places::places;
use super::{Unfit, quoted};
use crate::domain::limits::{
    ARGUMENT_DEPTH_MAX, SCHEMA_DEPTH_MAX, SCHEMA_PATTERNS_MAX, SCHEMA_VALUES_MAX,
};

/// Bytes of a text that a pattern reads in about the time of one step.
const PATTERN_BYTES_A_STEP: usize = 16;
/// Bytes of a text that are counted, or compared, in about that time.
const TEXT_BYTES_A_STEP: usize = 64;
/// Values of a schema that take about the room of one pattern, compiled.
const PATTERN_WEIGHT: u64 = 500;

/// One subschema.
#[derive(Debug, Default, Clone)]
struct Node {
    /// Values in it that are no subschemas: options of an `enum`, for example.
    weight: u64,
    /// Patterns that its texts, or names of its members, are held against.
    patterns: u64,
    /// Subschemas for the same value.
    same: Vec<usize>,
    /// For members of these names.
    named: HashMap<Box<str>, usize>,
    /// For any member.
    members: Vec<usize>,
    /// For the items at these places.
    placed: Vec<usize>,
    /// For any item.
    items: Vec<usize>,
    /// For the names of members.
    names: Vec<usize>,
    /// Whether items are held against each other.
    unique: bool,
    /// Whether what is left over is held against something.
    unevaluated: bool,
}

/// A schema's subschemas; the first is the whole.
#[derive(Debug)]
pub(super) struct Shape {
    nodes: Vec<Node>,
    /// All weights together, and what patterns take.
    weight: u64,
    /// Whether nothing in it is followed, matched or evaluated again.
    plain: bool,
    /// Whether items are held against each other anywhere in it.
    unique: bool,
    /// Steps for one value if it were held against everything; `None` if it leads back to itself.
    unrolled: Option<u64>,
}

/// Where a walk is with a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    Open,
    /// With its height, and what it is written out.
    Done(usize, u64),
}

// === impl Shape ===

impl Shape {
    /// Measures a schema.
    pub(super) fn of(schema: &Value) -> Result<Self, Unfit> {
        let mut reading = Reading {
            root: schema,
            places: places(schema)?,
            known: HashMap::new(),
            open: Vec::new(),
            refers: false,
            patterns: 0,
        };
        reading.node(schema);
        let mut nodes: Vec<Node> = Vec::new();
        while let Some(value) = reading.open.get(nodes.len()).copied() {
            nodes.push(reading.read(value)?);
        }
        let again = nodes.iter().any(|node| node.unevaluated);
        let weight: u64 = nodes.iter().map(|node| node.weight).sum();
        let mut shape = Self {
            weight: weight.saturating_add(reading.patterns * PATTERN_WEIGHT),
            plain: !reading.refers && !again && reading.patterns == 0,
            unique: nodes.iter().any(|node| node.unique),
            nodes,
            unrolled: None,
        };
        if again {
            shape.evaluate_again();
        }
        shape
            .walk(|node| node.same.clone())?
            .ok_or(Unfit::Endless)?;
        shape.unrolled = shape.walk(Node::all)?;
        match shape.unrolled {
            Some(steps) if steps > SCHEMA_VALUES_MAX as u64 * 2 => Err(Unfit::Many),
            // It is compiled once for every way, too: what that makes must be known.
            Some(steps) if again => {
                shape.weight = shape.weight.max(steps);
                Ok(shape)
            }
            None if again => Err(Unfit::Unsupported(
                "`unevaluatedItems` or `unevaluatedProperties` beside a `$ref` in a circle",
            )),
            _ => Ok(shape),
        }
    }

    /// What is left over is found by holding the value against each subschema for the same value, and
    /// then, if it fits, looking into that in the same way, with all that is in it once more. That is a
    /// second graph beside the first, into which the nodes lead that ask for it.
    fn evaluate_again(&mut self) {
        let first = self.nodes.len();
        let mut again = self.nodes.clone();
        for node in &mut again {
            let both = |next: usize| [next, next + first];
            node.same = node.same.iter().copied().flat_map(both).collect();
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if node.unevaluated {
                node.same.push(at + first);
            }
        }
        self.nodes.append(&mut again);
    }

    /// Whether nothing in it is followed, matched or evaluated again: what it costs is plain to see.
    pub(super) const fn is_plain(&self) -> bool {
        self.plain
    }

    pub(super) fn weight(&self) -> usize {
        usize::try_from(self.weight).unwrap_or(usize::MAX)
    }

    /// What the whole is, written out along these edges; `None` if they lead in a circle.
    fn walk(&self, edges: fn(&Node) -> Vec<usize>) -> Result<Option<u64>, Unfit> {
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut circle = false;
        for at in 0..self.nodes.len() {
            self.visit(at, 1, edges, &mut marks, &mut circle)?;
        }
        Ok(match marks.first() {
            Some(Mark::Done(_, steps)) if !circle => Some(*steps),
            _ => None,
        })
    }

    fn visit(
        &self,
        at: usize,
        depth: usize,
        edges: fn(&Node) -> Vec<usize>,
        marks: &mut [Mark],
        circle: &mut bool,
    ) -> Result<(usize, u64), Unfit> {
        match marks.get(at) {
            Some(Mark::Done(height, steps)) => return Ok((*height, *steps)),
            Some(Mark::Open) => {
                *circle = true;
                return Ok((0, 0));
            }
            _ => {}
        }
        let Some(node) = self.nodes.get(at) else {
            return Ok((0, 0));
        };
        let put = |marks: &mut [Mark], mark: Mark| {
            if let Some(place) = marks.get_mut(at) {
                *place = mark;
            }
        };
        put(marks, Mark::Open);
        let (mut height, mut steps) = (0, node.weight);
        for next in edges(node) {
            // Before it goes on: a chain of thousands must not be walked to its end.
            if depth >= SCHEMA_DEPTH_MAX {
                return Err(Unfit::Deep);
            }
            let (below, more) = self.visit(next, depth + 1, edges, marks, circle)?;
            height = height.max(below);
            steps = steps.saturating_add(more);
        }
        if height >= SCHEMA_DEPTH_MAX {
            return Err(Unfit::Deep);
        }
        put(marks, Mark::Done(height + 1, steps));
        Ok((height + 1, steps))
    }

    /// Whether a value of so many values and bytes can be checked in so many steps, whatever is in it.
    pub(super) fn is_walked_in(
        &self,
        steps_max: u64,
        value: &Value,
        values: usize,
        bytes: usize,
    ) -> bool {
        // Everything against everything: mostly that is little enough.
        let each = (values + bytes / PATTERN_BYTES_A_STEP) as u64;
        let rough = self.unrolled.map(|steps| steps.saturating_mul(each));
        if !self.unique && rough.is_some_and(|steps| steps <= steps_max) {
            return true;
        }
        let mut left = steps_max;
        self.simulate(0, value, 0, &mut left).is_some()
    }

    /// Walks as a checker would that never stops early.
    fn simulate(&self, at: usize, value: &Value, depth: usize, left: &mut u64) -> Option<()> {
        let node = self.nodes.get(at)?;
        if depth > SCHEMA_DEPTH_MAX + 2 * ARGUMENT_DEPTH_MAX {
            return None;
        }
        let read = |text: &str| node.patterns * (text.len() / PATTERN_BYTES_A_STEP) as u64;
        *left = left.checked_sub(node.weight)?;
        for next in &node.same {
            self.simulate(*next, value, depth + 1, left)?;
        }
        match value {
            Value::String(text) => {
                let bytes = (text.len() / TEXT_BYTES_A_STEP) as u64;
                *left = left.checked_sub(bytes + read(text))?;
            }
            Value::Array(items) => {
                if node.unique {
                    // Those can be made to collide: then each is held against each.
                    let inner = items.iter().filter(|one| one.is_array() || one.is_object());
                    let count = inner.count() as u64;
                    *left = left.checked_sub(items.len() as u64 + count * count / 2)?;
                }
                for (place, item) in items.iter().enumerate() {
                    for next in node.placed.get(place).into_iter().chain(&node.items) {
                        self.simulate(*next, item, depth + 1, left)?;
                    }
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    *left = left.checked_sub(1 + node.patterns + read(name))?;
                    if !node.names.is_empty() {
                        let name = Value::String(name.clone());
                        for next in &node.names {
                            self.simulate(*next, &name, depth + 1, left)?;
                        }
                    }
                    let named = node.named.get(name.as_str());
                    for next in named.into_iter().chain(&node.members) {
                        self.simulate(*next, member, depth + 1, left)?;
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Some(())
    }
}

impl Node {
    fn all(&self) -> Vec<usize> {
        let lists = [
            &self.same,
            &self.members,
            &self.placed,
            &self.items,
            &self.names,
        ];
        let listed = lists.into_iter().flatten().copied();
        listed.chain(self.named.values().copied()).collect()
    }
}

/// A schema as it is read: each of its subschemas once, however many ways lead to it.
struct Reading<'a> {
    root: &'a Value,
    /// What a reference may lead to.
    places: HashSet<*const Value>,
    known: HashMap<*const Value, usize>,
    open: Vec<&'a Value>,
    /// Whether there are references.
    refers: bool,
    /// Patterns in all.
    patterns: u64,
}

impl<'a> Reading<'a> {
    fn node(&mut self, value: &'a Value) -> usize {
        let open = &mut self.open;
        *self
            .known
            .entry(std::ptr::from_ref(value))
            .or_insert_with(|| {
                open.push(value);
                open.len() - 1
            })
    }

    fn read(&mut self, value: &'a Value) -> Result<Node, Unfit> {
        let mut node = Node {
            weight: 1,
            ..Node::default()
        };
        let Value::Object(schema) = value else {
            return Ok(node);
        };
        for (keyword, value) in schema {
            node.weight += 1;
            self.keyword(&mut node, keyword, value)?;
        }
        node.unevaluated = schema
            .keys()
            .any(|keyword| keyword.starts_with("unevaluated"));
        self.patterns += node.patterns;
        if self.patterns > SCHEMA_PATTERNS_MAX as u64 {
            return Err(Unfit::Patterns);
        }
        Ok(node)
    }

    fn keyword(&mut self, node: &mut Node, keyword: &str, value: &'a Value) -> Result<(), Unfit> {
        match keyword {
            "$ref" => {
                self.refers = true;
                let target = self.target(value)?;
                node.same.push(self.node(target));
            }
            "$dynamicRef" => return Err(Unfit::Unsupported("$dynamicRef")),
            "$recursiveRef" => return Err(Unfit::Unsupported("$recursiveRef")),
            "allOf" | "anyOf" | "oneOf" => {
                for one in value.as_array().into_iter().flatten() {
                    node.same.push(self.node(one));
                }
            }
            "not" | "if" | "then" | "else" => node.same.push(self.node(value)),
            "dependentSchemas" | "dependencies" => {
                for one in value.as_object().into_iter().flat_map(Map::values) {
                    match one {
                        Value::Array(names) => node.weight += names.len() as u64,
                        schema => node.same.push(self.node(schema)),
                    }
                }
            }
            "properties" => {
                for (name, one) in value.as_object().into_iter().flatten() {
                    node.weight += 1;
                    node.named.insert(name.as_str().into(), self.node(one));
                }
            }
            "patternProperties" => {
                for one in value.as_object().into_iter().flat_map(Map::values) {
                    node.patterns += 1;
                    node.members.push(self.node(one));
                }
            }
            "additionalProperties" | "unevaluatedProperties" => {
                node.members.push(self.node(value));
            }
            "propertyNames" => node.names.push(self.node(value)),
            "uniqueItems" => node.unique = *value == Value::Bool(true),
            "items" if value.is_array() => self.places(node, value),
            "prefixItems" => self.places(node, value),
            "items" | "additionalItems" | "unevaluatedItems" | "contains" => {
                node.items.push(self.node(value));
            }
            // Used only where something refers to them.
            "$defs" | "definitions" => {}
            "pattern" => node.patterns += 1,
            _ => node.weight += values_in(value),
        }
        Ok(())
    }

    fn places(&mut self, node: &mut Node, value: &'a Value) {
        for one in value.as_array().into_iter().flatten() {
            let at = self.node(one);
            node.placed.push(at);
        }
    }

    /// What a reference means: the whole, or a place in it.
    fn target(&self, reference: &Value) -> Result<&'a Value, Unfit> {
        let text = reference.as_str().unwrap_or_default();
        let outside = || Unfit::Outside(quoted(text));
        let pointer = text.strip_prefix('#').ok_or_else(outside)?;
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(Unfit::Unsupported("$anchor"));
        }
        if pointer.contains('%') {
            return Err(Unfit::Unsupported("$ref with percent-encoding"));
        }
        let target = self.root.pointer(pointer).ok_or_else(outside)?;
        if !self.places.contains(&std::ptr::from_ref(target)) {
            return Err(Unfit::Unsupported("$ref to what is no schema"));
        }
        Ok(target)
    }
}

fn values_in(value: &Value) -> u64 {
    // As deep as it could be read.
    1 + match value {
        Value::Array(items) => items.iter().map(values_in).sum(),
        Value::Object(members) => members.values().map(values_in).sum(),
        _ => 0,
    }
}
