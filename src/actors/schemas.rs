//! The schemas of tools, compiled when a call first needs them, and kept as long as the routes that
//! hold them. A snapshot of routes takes over what its predecessor had of the same definitions.
//!
//! Compiling, and checks that may take long, are done off the runtime's workers, a few at a time: no
//! schema and no arguments keep others from being served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use crate::domain::arguments::{ArgumentSchema, Held, Unchecked, Unfit};
use crate::domain::limits::{
    ARGUMENT_BYTES_INLINE, ARGUMENT_LOG_EVERY, ARGUMENT_STEPS_INLINE, ARGUMENT_STEPS_MAX,
    ARGUMENT_WAIT, SCHEMAS_AT_ONCE, SCHEMAS_VALUES_MAX,
};
use crate::domain::mcp::Tool;

use super::views::UnfitSchema;

/// What all schemas share: turns to work on them, and room to keep them.
#[derive(Debug)]
pub struct Schemas {
    turns: Semaphore,
    values: AtomicUsize,
    began: Instant,
}

/// One tool's schema.
#[derive(Debug)]
pub struct ToolSchema {
    definition: Arc<RawValue>,
    compiled: OnceCell<Compiled>,
    /// Calls of one tool have one turn together: a flood of one keeps no other from having its own.
    turn: Semaphore,
    /// When the log was last told of it, in milliseconds since the beginning; 0: never.
    told_ms: AtomicU64,
}

#[derive(Debug)]
struct Compiled {
    schema: Result<Option<Arc<ArgumentSchema>>, Unfit>,
    _room: Option<Taken>,
}

/// Room that is given back when the schema goes.
#[derive(Debug)]
struct Taken {
    of: Arc<Schemas>,
    values: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.values.fetch_sub(self.values, Ordering::AcqRel);
    }
}

impl Default for Schemas {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(SCHEMAS_AT_ONCE),
            values: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }
}

impl Schemas {
    /// Does work off the workers, when it has its turn; `None` if that does not come in time, or the
    /// work failed. The turn lasts as long as the work, whoever waits for it.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = timeout(ARGUMENT_WAIT, self.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else {
            return None;
        };
        // It goes with the work: back by hand, since a borrowed permit cannot move into a thread.
        turn.forget();
        let back = Back(Arc::clone(self));
        let worked = tokio::task::spawn_blocking(move || {
            let _back = back;
            work()
        });
        worked.await.ok()
    }

    fn take(self: &Arc<Self>, values: usize) -> Option<Taken> {
        let fits = |taken: usize| {
            let sum = taken.checked_add(values)?;
            (sum <= SCHEMAS_VALUES_MAX).then_some(sum)
        };
        let (set, read) = (Ordering::AcqRel, Ordering::Acquire);
        self.values.fetch_update(set, read, fits).ok()?;
        Some(Taken {
            of: Arc::clone(self),
            values,
        })
    }

    /// Which of these tools declare schemas that cannot be used, and why.
    pub(super) async fn examine(self: &Arc<Self>, tools: Vec<Tool>) -> Vec<UnfitSchema> {
        let look = move || {
            let unfit = tools.into_iter().filter_map(|tool| {
                let why = ArgumentSchema::compile(&tool.definition).err()?;
                Some(UnfitSchema {
                    tool: tool.name.to_string(),
                    why: why.to_string(),
                })
            });
            unfit.collect()
        };
        self.work(look).await.unwrap_or_default()
    }
}

struct Back(Arc<Schemas>);

impl Drop for Back {
    fn drop(&mut self) {
        self.0.turns.add_permits(1);
    }
}

impl ToolSchema {
    /// That a tool's definition declares.
    pub(super) fn new(definition: Arc<RawValue>) -> Self {
        Self {
            definition,
            compiled: OnceCell::new(),
            turn: Semaphore::new(1),
            told_ms: AtomicU64::new(0),
        }
    }

    /// Whether it is of this definition.
    pub(super) fn is_of(&self, definition: &RawValue) -> bool {
        self.definition.get() == definition.get()
    }

    /// Holds arguments against it.
    ///
    /// # Errors
    /// [`Unfit`]: it is not used, for anybody's.
    pub(super) async fn hold(
        &self,
        schemas: &Arc<Schemas>,
        arguments: &str,
    ) -> Result<Held, &Unfit> {
        let busy = Ok(Held::Unchecked(Unchecked::Busy));
        let Some(compiled) = self.compiled(schemas).await else {
            return busy;
        };
        let schema = match compiled.schema.as_ref() {
            Ok(Some(schema)) => schema,
            Ok(None) => return Ok(Held::Fit),
            Err(unfit) => return Err(unfit),
        };
        if schema.is_plain() && arguments.len() <= ARGUMENT_BYTES_INLINE {
            match schema.hold(arguments, ARGUMENT_STEPS_INLINE) {
                Held::Unchecked(Unchecked::Costly) => {}
                held => return Ok(held),
            }
        }
        let Ok(Ok(_turn)) = timeout(ARGUMENT_WAIT, self.turn.acquire()).await else {
            return busy;
        };
        let (schema, arguments) = (Arc::clone(schema), arguments.to_owned());
        let work = move || schema.hold(&arguments, ARGUMENT_STEPS_MAX);
        schemas.work(work).await.map_or(busy, Ok)
    }

    async fn compiled(&self, schemas: &Arc<Schemas>) -> Option<&Compiled> {
        let compile = || async {
            let definition = Arc::clone(&self.definition);
            let work = move || ArgumentSchema::compile(definition.get());
            let compiled = schemas.work(work).await.ok_or(())?;
            Ok::<_, ()>(match compiled {
                Ok(Some(schema)) => match schemas.take(schema.weight()) {
                    Some(room) => Compiled {
                        schema: Ok(Some(Arc::new(schema))),
                        _room: Some(room),
                    },
                    None => Compiled::without_room(Err(Unfit::NoRoom)),
                },
                Ok(None) => Compiled::without_room(Ok(None)),
                Err(unfit) => Compiled::without_room(Err(unfit)),
            })
        };
        self.compiled.get_or_try_init(compile).await.ok()
    }

    /// Whether the log is to be told of it now: not more often than every [`ARGUMENT_LOG_EVERY`].
    pub(super) fn is_worth_telling(&self, schemas: &Schemas) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(schemas.began.elapsed()).saturating_add(1);
        let last = self.told_ms.load(Ordering::Relaxed);
        if last != 0 && now - last.min(now) < millis(ARGUMENT_LOG_EVERY) {
            return false;
        }
        let order = Ordering::Relaxed;
        self.told_ms
            .compare_exchange(last, now, order, order)
            .is_ok()
    }
}

impl Compiled {
    const fn without_room(schema: Result<Option<Arc<ArgumentSchema>>, Unfit>) -> Self {
        Self {
            schema,
            _room: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(input: &str) -> ToolSchema {
        let text = format!(r#"{{"name":"t","inputSchema":{input}}}"#);
        ToolSchema::new(RawValue::from_string(text).unwrap().into())
    }

    #[tokio::test]
    async fn a_schema_is_compiled_once_and_gives_its_room_back() {
        let schemas = Arc::new(Schemas::default());
        let one = schema(r#"{"properties":{"a":{"type":"integer"}}}"#);
        assert_eq!(schemas.values.load(Ordering::Relaxed), 0);
        for (arguments, fits) in [(r#"{"a":1}"#, true), (r#"{"a":"x"}"#, false), ("{}", true)] {
            let held = one.hold(&schemas, arguments).await.unwrap();
            assert_eq!(held == Held::Fit, fits, "{arguments}: {held:?}");
        }
        assert!(schemas.values.load(Ordering::Relaxed) > 0);
        drop(one);
        assert_eq!(schemas.values.load(Ordering::Relaxed), 0);
        assert_eq!(schemas.turns.available_permits(), SCHEMAS_AT_ONCE);
    }

    #[tokio::test]
    async fn without_room_or_turns_nobody_waits_for_ever() {
        let schemas = Arc::new(Schemas::default());
        let full = schemas.take(SCHEMAS_VALUES_MAX).unwrap();
        let one = schema(r#"{"type":"object"}"#);
        assert_eq!(one.hold(&schemas, "{}").await, Err(&Unfit::NoRoom));
        drop(full);
        tokio::time::pause();
        let turns = schemas.turns.acquire_many(2).await.unwrap();
        let two = schema(r#"{"type":"object"}"#);
        let busy = Ok(Held::Unchecked(Unchecked::Busy));
        assert_eq!(two.hold(&schemas, "{}").await, busy);
        drop(turns);
        tokio::time::resume();
        assert_eq!(two.hold(&schemas, "{}").await, Ok(Held::Fit));
    }

    #[tokio::test]
    async fn a_flood_of_one_tool_leaves_a_turn_to_the_others() {
        let schemas = Arc::new(Schemas::default());
        let (flood, other) = (
            schema(r#"{"minProperties":1}"#),
            schema(r#"{"minProperties":1}"#),
        );
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(ARGUMENT_BYTES_INLINE));
        for tool in [&flood, &other] {
            assert_eq!(tool.hold(&schemas, &large).await, Ok(Held::Fit));
        }
        let (schemas, large) = (&schemas, large.as_str());
        let calls = (0..50).map(|_| flood.hold(schemas, large));
        let mut calls = std::pin::pin!(futures_util::future::join_all(calls));
        // All have begun, and the first may be done already.
        assert!(futures_util::poll!(calls.as_mut()).is_pending());
        assert!(schemas.turns.available_permits() >= SCHEMAS_AT_ONCE - 1);
        assert_eq!(other.hold(schemas, large).await, Ok(Held::Fit));
        assert!(calls.await.iter().all(|held| *held == Ok(Held::Fit)));
        assert_eq!(schemas.turns.available_permits(), SCHEMAS_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_told_now_and_then() {
        let schemas = Schemas::default();
        let one = schema("{}");
        assert!(one.is_worth_telling(&schemas));
        assert!(!one.is_worth_telling(&schemas));
        tokio::time::advance(ARGUMENT_LOG_EVERY).await;
        assert!(one.is_worth_telling(&schemas));
        assert!(!one.is_worth_telling(&schemas));
    }

    #[tokio::test]
    async fn what_is_followed_matched_or_evaluated_again_is_never_checked_on_a_worker() {
        let schemas = Arc::new(Schemas::default());
        for (input, inline) in [
            (r#"{"properties":{"a":{"minimum":1}}}"#, true),
            (r##"{"properties":{"a":{"$ref":"#"}}}"##, false),
            (r#"{"properties":{"a":{"pattern":"x"}}}"#, false),
            (r#"{"patternProperties":{"x":true}}"#, false),
            (r#"{"unevaluatedProperties":true}"#, false),
        ] {
            let one = schema(input);
            assert_eq!(one.hold(&schemas, "{}").await, Ok(Held::Fit));
            let turns = schemas.turns.acquire_many(2).await.unwrap();
            let held = futures_util::poll!(std::pin::pin!(one.hold(&schemas, "{}")));
            assert_eq!(held.is_ready(), inline, "{input}");
            drop(turns);
        }
    }

    #[tokio::test]
    async fn what_is_too_much_inline_is_checked_elsewhere() {
        let schemas = Arc::new(Schemas::default());
        let one = schema(r#"{"properties":{"a":{"items":{"type":"integer"}}}}"#);
        let many = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(ARGUMENT_BYTES_INLINE));
        assert_eq!(one.hold(&schemas, &many).await, Ok(Held::Fit));
        let wrong = format!(r#"{{"a":[{}"x"]}}"#, "1,".repeat(ARGUMENT_BYTES_INLINE));
        let held = one.hold(&schemas, &wrong).await.unwrap();
        assert!(matches!(held, Held::Misfit(_)), "{held:?}");
    }
}
