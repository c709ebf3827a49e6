//! Connections on loan. sqlx's own pool would do but for three things: it waits without a bound
//! on a server that has gone silent when a connection is given back, it cannot close what was
//! left in the middle of an answer, and each of its waiters knocks at a server that is away.
//!
//! Here a connection is lent only while the lock is ours ([`super::lock`]), belongs to the epoch
//! of the lock it was opened under, and is dropped, which closes it, unless it comes back whole.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgArguments;
use sqlx::{Connection as _, Executor as _, PgConnection, Postgres as Pg};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::error::{Fault, NotLent, fault_of, is_victim};
use super::super::lane::{Lent, Source, Statement, Steps};
use super::super::stats::{Class, PoolNumbers};
use super::connect::How;
use super::{lock, victims_pause};
use crate::domain::limits::{
    STORE_ANSWER_MAX, STORE_IDLE_MAX, STORE_TRY_AFTER, STORE_TRY_MAX, STORE_WRITE_TRIES,
};

/// A lock lost for less than this is waited for: it is most often a database that restarts.
const BLIP: Duration = Duration::from_millis(500);

/// The pool, and the keeper of the lock.
#[derive(Clone)]
pub(in super::super) struct Pool {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
}

/// The task that keeps the lock; it ends with the last handle of the pool.
struct Keeper(Mutex<Option<JoinHandle<()>>>);

/// What borrowers and the keeper share.
pub(super) struct Shared {
    pub(super) how: How,
    max: u32,
    wait: Duration,
    permits: Arc<Semaphore>,
    open: AtomicU32,
    idle: Mutex<Vec<Idle>>,
    standing: watch::Sender<Standing>,
    closing: watch::Sender<bool>,
    doubt: Notify,
    /// Backends that were left in the middle of a statement, and of which kind it was.
    left: Mutex<Vec<(i32, Class)>>,
    /// How often what is stored may have changed without our knowing.
    turns: AtomicU64,
    /// Something was written since the last beat.
    written: AtomicBool,
    /// Why this process must not go on.
    superseded: OnceLock<String>,
}

struct Idle {
    connection: Counted,
    since: Instant,
    epoch: u64,
}

/// A connection that is counted for as long as it is open.
struct Counted {
    connection: PgConnection,
    pid: i32,
    shared: Arc<Shared>,
}

/// Whether connections may be lent.
#[derive(Debug, Clone)]
enum Standing {
    /// The lock is ours, since this epoch.
    Ours(u64),
    /// It is not, since when and why.
    Lost { since: Instant, why: NotLent },
}

/// A connection on loan.
pub(in super::super) struct OnLoan {
    connection: Option<Counted>,
    epoch: u64,
    shared: Arc<Shared>,
    // After the connection: its place is free when it is back.
    _permit: OwnedSemaphorePermit,
}

// === impl Pool ===

impl Pool {
    /// A pool of so many connections beside the session that holds the lock since this epoch.
    pub(super) fn new(
        how: How,
        (max, wait): (u32, Duration),
        (session, last): (PgConnection, lock::Last),
    ) -> Self {
        let shared = Arc::new(Shared {
            how,
            max,
            wait,
            permits: Arc::new(Semaphore::new(max as usize)),
            open: AtomicU32::new(0),
            idle: Mutex::default(),
            standing: watch::Sender::new(Standing::Ours(last.epoch)),
            closing: watch::Sender::new(false),
            doubt: Notify::new(),
            left: Mutex::default(),
            turns: AtomicU64::new(0),
            // That this life began.
            written: AtomicBool::new(true),
            superseded: OnceLock::new(),
        });
        let keeper = tokio::spawn(lock::keep(Arc::clone(&shared), (session, last)));
        Self {
            shared,
            keeper: Arc::new(Keeper(Mutex::new(Some(keeper)))),
        }
    }

    /// Waits for what is on loan, within a bound, then closes all and gives the lock back.
    pub(super) async fn close(&self) {
        let shared = &self.shared;
        if shared.closing.send_replace(true) {
            return;
        }
        let all = timeout(STORE_TRY_MAX, shared.permits.acquire_many(shared.max)).await;
        shared.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *shared.idle());
        drop(idle);
        let keeper = self.keeper.take();
        if let Some(keeper) = keeper {
            // It closes the lock's session within a bound of its own.
            let _ = keeper.await;
        }
    }

    /// How often what is stored may have changed without our knowing: the lock was lost meanwhile,
    /// or a change that nobody waited for was brought to its end.
    pub(super) fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Acquire)
    }

    /// Why this process must not go on, if it must not.
    pub(super) fn superseded(&self) -> Option<&str> {
        self.shared.superseded()
    }

    pub(super) fn numbers(&self) -> PoolNumbers {
        PoolNumbers {
            max: self.shared.max,
            open: self.shared.open.load(Ordering::Relaxed),
            idle: u32::try_from(self.shared.idle().len()).unwrap_or(u32::MAX),
        }
    }
}

impl Keeper {
    fn take(&self) -> Option<JoinHandle<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.take() {
            task.abort();
        }
    }
}

impl Source for Pool {
    type DB = Pg;
    type Lent = OnLoan;
    const ANSWER_MAX: Option<Duration> = Some(STORE_ANSWER_MAX);
    /// With the lock of those who write, as [`lock`] numbers them: freed with the transaction.
    const BEGIN_WRITE: &'static str = "BEGIN; SELECT pg_advisory_xact_lock(1279608641, 2)";
    const BEGIN_READ: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

    async fn lend(&self) -> Result<OnLoan, sqlx::Error> {
        let shared = &self.shared;
        shared.standing().await?;
        let permit = timeout(shared.wait, Arc::clone(&shared.permits).acquire_owned())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let epoch = shared.standing().await?;
        let connected = async {
            match shared.tried(epoch).await {
                Some(connection) => Ok(connection),
                None => shared.opened(epoch).await,
            }
        };
        // A silent database is noticed by one, and then nobody waits for it.
        let connection = tokio::select! {
            biased;
            done = connected => done?,
            why = shared.ended(epoch) => return Err(why.into()),
        };
        Ok(OnLoan {
            connection: Some(connection),
            epoch,
            shared: Arc::clone(shared),
            _permit: permit,
        })
    }

    fn copy(arguments: &PgArguments) -> Option<PgArguments> {
        Some(arguments.clone())
    }

    /// What the database gave up for another's sake had no effect. A lost connection may have
    /// had one, so only what reads is tried again on another, once.
    fn again(class: Class, error: &sqlx::Error, n: u32) -> Option<Duration> {
        if is_victim(error) {
            return (n < STORE_WRITE_TRIES).then(|| victims_pause(n));
        }
        let stale = class == Class::Read && n == 1 && !NotLent::is(error);
        (stale && OnLoan::is_lost(error)).then_some(Duration::ZERO)
    }
}

// === impl Shared ===

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch of the lock, if it is ours or is so again in a moment.
    async fn standing(&self) -> Result<u64, sqlx::Error> {
        if *self.closing.borrow() {
            return Err(sqlx::Error::PoolClosed);
        }
        let (since, why) = match &*self.standing.borrow() {
            Standing::Ours(epoch) => return Ok(*epoch),
            Standing::Lost { since, why, .. } => (*since, why.clone()),
        };
        let mut changes = self.standing.subscribe();
        let ours = changes.wait_for(|standing| matches!(standing, Standing::Ours(_)));
        if let Ok(Ok(standing)) = timeout_at(since + BLIP, ours).await
            && let Standing::Ours(epoch) = *standing
        {
            return Ok(epoch);
        }
        Err(why.into())
    }

    /// An idle connection of this epoch that answers, the last used first.
    async fn tried(&self, epoch: u64) -> Option<Counted> {
        loop {
            let mut idle = self.idle().pop()?;
            if idle.epoch != epoch {
                continue;
            }
            if idle.since.elapsed() < STORE_TRY_AFTER {
                return Some(idle.connection);
            }
            match timeout(STORE_TRY_MAX, idle.connection.connection.ping()).await {
                Ok(Ok(())) => return Some(idle.connection),
                _ => self.doubt.notify_one(),
            }
        }
    }

    async fn opened(self: &Arc<Self>, epoch: u64) -> Result<Counted, sqlx::Error> {
        let opened = async {
            let mut connection = self.how.connect().await?;
            let entered = timeout(STORE_TRY_MAX, lock::enter(&mut connection, epoch)).await;
            match entered.unwrap_or_else(|_| Err(NotLent::Silent.into()))? {
                Some(pid) => Ok((connection, pid)),
                None => Err(NotLent::Held("its epoch is later than ours".to_owned()).into()),
            }
        };
        let (connection, pid) = opened
            .await
            .inspect_err(|_: &sqlx::Error| self.doubt.notify_one())?;
        self.open.fetch_add(1, Ordering::Relaxed);
        // Who had its number before is gone.
        self.gone(&[pid]);
        Ok(Counted {
            connection,
            pid,
            shared: Arc::clone(self),
        })
    }

    /// Closes what has been idle for long.
    pub(super) fn close_idle(&self) {
        let old = |idle: &mut Idle| idle.since.elapsed() >= STORE_IDLE_MAX;
        let closed: Vec<Idle> = self.idle().extract_if(.., old).collect();
        drop(closed);
    }

    /// Somebody had reason to doubt that the database answers.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Resolves when the pool closes.
    pub(super) async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        // The sender is ours, so it does not go away.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// The lock is not ours: what was opened under it is closed, now or when it comes back.
    pub(super) fn lost(&self, why: NotLent) {
        self.standing.send_modify(|standing| match standing {
            Standing::Ours(_) => {
                tracing::error!("the store is away: {why}");
                *standing = Standing::Lost {
                    since: Instant::now(),
                    why,
                };
            }
            Standing::Lost { why: known, .. } => *known = why,
        });
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    /// The backends that were left in the middle of a statement.
    pub(super) fn left(&self) -> Vec<i32> {
        self.abandoned().iter().map(|(pid, _)| *pid).collect()
    }

    /// These of them are gone: what they did is done, or never will be.
    pub(super) fn gone(&self, pids: &[i32]) {
        let gone = |(pid, _): &mut (i32, Class)| pids.contains(pid);
        let gone: Vec<_> = self.abandoned().extract_if(.., gone).collect();
        if gone.iter().any(|(_, class)| *class != Class::Read) {
            self.turns.fetch_add(1, Ordering::Release);
        }
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<(i32, Class)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        self.written.store(true, Ordering::Release);
    }

    /// Whether something was written since this was asked last.
    pub(super) fn take_written(&self) -> bool {
        self.written.swap(false, Ordering::AcqRel)
    }

    /// This process must not go on; gives the reason.
    pub(super) fn supersede(&self, why: &str) -> String {
        self.superseded.get_or_init(|| why.to_owned()).clone()
    }

    pub(super) fn superseded(&self) -> Option<&str> {
        self.superseded.get().map(String::as_str)
    }

    /// The lock is ours again, since this epoch.
    pub(super) fn held(&self, epoch: u64) {
        // Whoever was left is buried, and others may have written.
        self.abandoned().clear();
        self.turns.fetch_add(1, Ordering::Release);
        self.standing.send_replace(Standing::Ours(epoch));
    }

    /// Resolves when this epoch of the lock has ended, with the reason.
    async fn ended(&self, epoch: u64) -> NotLent {
        let mut changes = self.standing.subscribe();
        let ended = changes
            .wait_for(|standing| !matches!(standing, Standing::Ours(now) if *now == epoch))
            .await;
        match ended.as_deref() {
            Ok(Standing::Lost { why, .. }) => why.clone(),
            _ => NotLent::Away("the connection was lost".to_owned()),
        }
    }

    fn is_epoch(&self, epoch: u64) -> bool {
        matches!(*self.standing.borrow(), Standing::Ours(now) if now == epoch)
    }
}

// === impl OnLoan ===

impl Lent<Pg> for OnLoan {
    async fn run(&mut self, statement: Statement<Pg>) -> Result<Steps<Pg>, sqlx::Error> {
        let counted = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        let running = counted.connection.fetch_many(statement).try_collect();
        // Without the lock it must not go on, and from a silent server no answer will come.
        tokio::select! {
            biased;
            done = running => done,
            why = self.shared.ended(self.epoch) => Err(why.into()),
        }
    }

    fn is_lost(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
            // A server that shuts down says so in its last words; a session that may only read
            // will never do anything else.
            other => matches!(fault_of(other), Fault::Away | Fault::ReadOnly),
        }
    }

    fn spoil(&mut self, class: Class) -> bool {
        if let Some(connection) = self.connection.take() {
            self.shared.abandoned().push((connection.pid, class));
        }
        self.shared.doubt.notify_one();
        true
    }

    fn wrote(&self) {
        self.shared.wrote();
    }
}

impl Drop for OnLoan {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.shared.is_epoch(self.epoch) && !*self.shared.closing.borrow() {
            self.shared.idle().push(Idle {
                connection,
                since: Instant::now(),
                epoch: self.epoch,
            });
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}
