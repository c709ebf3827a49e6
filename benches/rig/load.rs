//! The load: so many connections, each with one call in flight, for so long. Every answer must
//! hold the nonce of its own call. All sessions use the same ids on purpose (within a session no
//! id is used twice, as the protocol wants): a hop that mixes sessions up is caught, not measured.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http::{Connection, Endpoint};

/// Longest wait for one answer; past it the call is an error and the connection is given up.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// What every nonce begins with, so that another call's nonce is recognised.
const NONCE_MARK: &str = "nonce-";
/// Errors kept for the report.
const ERRORS_KEPT: usize = 3;

/// How a call is written and where the answer's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `tools/call` as JSON-RPC with a numeric id.
    Rpc,
    /// The same with a string id.
    RpcStringId,
    /// `tools/call` of a client without a session, which says everything with every request.
    RpcStateless,
    /// `POST /v1/tools/invoke` of the standard client.
    Invoke,
}

/// One session of a target, ready to be called.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) endpoint: Endpoint,
    /// The request's head up to the length.
    pub(crate) head: Arc<str>,
    pub(crate) dialect: Dialect,
    /// The echo tool, as this target calls it.
    pub(crate) tool: Arc<str>,
    /// The argument that holds the text.
    pub(crate) argument: Arc<str>,
}

/// What one measured stretch gave.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Latencies of good calls, nanoseconds, sorted.
    pub(crate) latencies: Vec<u64>,
    /// Calls without a good answer.
    pub(crate) bad: u64,
    /// Of these, answers with the nonce of another call.
    pub(crate) foreign: u64,
    pub(crate) errors: Vec<String>,
    /// Calls made by each session, good and bad.
    pub(crate) made: Vec<u64>,
    pub(crate) seconds: f64,
}

impl Sample {
    /// A stretch in which nothing could be called.
    pub(crate) fn failed(why: &anyhow::Error) -> Self {
        Self {
            bad: 1,
            errors: vec![format!("{why:#}")],
            seconds: f64::INFINITY,
            ..Self::default()
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// Microseconds that this share of the calls did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length is an index"
        )]
        let index = (last as f64 * share).round() as usize;
        self.latencies
            .get(index)
            .map_or(f64::NAN, |nanos| *nanos as f64 / 1000.0)
    }
}

/// Loads `sessions` over `connections` connections for `time`.
pub(crate) async fn run(
    sessions: &[Session],
    connections: usize,
    time: Duration,
) -> Result<Sample> {
    ensure!(!sessions.is_empty(), "no session to load");
    let mut open = Vec::new();
    for index in 0..connections {
        let session = sessions[index % sessions.len()].clone();
        let connection = Connection::open(&session.endpoint).await?;
        open.push((index, session, connection));
    }
    let began = Instant::now();
    let until = began + time;
    let mut workers = JoinSet::new();
    for (index, session, connection) in open {
        let lane = Lane {
            connection: index,
            first_id: (index / sessions.len()) as u64 + 1,
            id_step: connections.div_ceil(sessions.len()) as u64,
        };
        workers.spawn(async move { (index, worker(lane, session, connection, until).await) });
    }
    let mut sum = Sample {
        made: vec![0; sessions.len()],
        ..Sample::default()
    };
    while let Some(done) = workers.join_next().await {
        let (index, sample) = done?;
        sum.made[index % sessions.len()] += sample.latencies.len() as u64 + sample.bad;
        sum.latencies.extend(sample.latencies);
        sum.bad += sample.bad;
        sum.foreign += sample.foreign;
        sum.errors.extend(sample.errors);
    }
    sum.seconds = began.elapsed().as_secs_f64();
    sum.latencies.sort_unstable();
    sum.errors.truncate(ERRORS_KEPT);
    Ok(sum)
}

/// Which connection it is and which ids of its session are its own.
struct Lane {
    connection: usize,
    first_id: u64,
    id_step: u64,
}

async fn worker(
    lane: Lane,
    session: Session,
    mut connection: Connection,
    until: Instant,
) -> Sample {
    let mut sample = Sample::default();
    let mut body = String::new();
    let mut nonce = String::new();
    let mut ids = (lane.first_id..).step_by(usize::try_from(lane.id_step).unwrap_or(1));
    while Instant::now() < until {
        let Some(id) = ids.next() else { break };
        nonce.clear();
        let _ = write!(nonce, "\"{NONCE_MARK}{}-{id}\"", lane.connection);
        write_call(&mut body, &session, id, &nonce);
        let began = Instant::now();
        let answer = timeout(
            ANSWER_MAX,
            connection.exchange(&session.head, body.as_bytes()),
        )
        .await;
        let took = began.elapsed();
        let error = match answer {
            Ok(Ok(answer)) => match verdict(answer.status, answer.body, &session, id, &nonce) {
                None => {
                    sample
                        .latencies
                        .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                    continue;
                }
                Some((foreign, error)) => {
                    sample.foreign += u64::from(foreign);
                    Ok(error)
                }
            },
            Ok(Err(why)) => Err(format!("{why:#}")),
            Err(_) => Err(format!("no answer in {} s", ANSWER_MAX.as_secs())),
        };
        sample.bad += 1;
        let lost = error.is_err();
        if sample.errors.len() < ERRORS_KEPT {
            sample.errors.push(error.unwrap_or_else(|why| why));
        }
        if lost {
            match Connection::open(&session.endpoint).await {
                Ok(again) => connection = again,
                Err(_) => break,
            }
        }
    }
    sample
}

fn write_call(body: &mut String, session: &Session, id: u64, nonce: &str) {
    body.clear();
    let Session { tool, argument, .. } = session;
    let _ = match session.dialect {
        Dialect::Invoke => write!(
            body,
            r#"{{"tool":"{tool}","arguments":{{"{argument}":{nonce}}}}}"#
        ),
        Dialect::Rpc => write!(
            body,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"{argument}":{nonce}}}}}}}"#
        ),
        Dialect::RpcStateless => write!(
            body,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"{argument}":{nonce}}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        ),
        Dialect::RpcStringId => write!(
            body,
            r#"{{"jsonrpc":"2.0","id":"{id}","method":"tools/call","params":{{"name":"{tool}","arguments":{{"{argument}":{nonce}}}}}}}"#
        ),
    };
}

/// What is wrong with an answer, and whether it is another call's; nothing when it is right.
fn verdict(
    status: u16,
    body: &[u8],
    session: &Session,
    id: u64,
    nonce: &str,
) -> Option<(bool, String)> {
    let own_nonce = memchr::memmem::find(body, nonce.as_bytes()).is_some();
    let own_id = match session.dialect {
        Dialect::Invoke => true,
        Dialect::Rpc | Dialect::RpcStateless => has_id(body, &id.to_string()),
        Dialect::RpcStringId => has_id(body, &format!("\"{id}\"")),
    };
    if status == 200 && own_nonce && own_id {
        return None;
    }
    let foreign = !own_nonce && memchr::memmem::find(body, NONCE_MARK.as_bytes()).is_some();
    let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
    let what = if foreign {
        "ANOTHER CALL'S NONCE"
    } else {
        "bad answer"
    };
    Some((
        foreign,
        format!("{what}: status {status}, id {id}, nonce {nonce}: {text}"),
    ))
}

/// Whether the body has this `id`, as JSON text, with nothing after it that would make it longer.
fn has_id(body: &[u8], id: &str) -> bool {
    memchr::memmem::find_iter(body, b"\"id\":").any(|at| {
        let rest = body.get(at + 5..).unwrap_or_default();
        let rest = rest.trim_ascii_start();
        rest.starts_with(id.as_bytes()) && !rest.get(id.len()).is_some_and(u8::is_ascii_digit)
    })
}
