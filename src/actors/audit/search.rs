//! Finding things in the log, newest first: by the index, and by reading what the index does not
//! have yet. A call is one thing with both its records.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::domain::audit::check::segment_name;
use crate::domain::audit::filter::{CALL_END, CALL_START, Columns, Filter, Item};
use crate::domain::limits::{AUDIT_INDEX_WAIT, AUDIT_OPEN_CALLS_MAX, AUDIT_PAGE_MAX};
use crate::storage::{Found, IndexError, Spot};

use super::follow::Follow;
use super::index::Index;
use super::{Audit, files};

/// How long one answer may be looked for; then it says how far it came.
const SEARCH_MAX: Duration = Duration::from_secs(20);

/// One page of what was found, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// The things.
    pub items: Vec<Item>,
    /// Where the next page begins; none if this is the last. Records that come meanwhile never
    /// shift a page.
    pub cursor: Option<u64>,
    /// The last record of the log when it was searched.
    pub tip: u64,
    /// Names of the users and mcps in it, by id.
    pub names: BTreeMap<String, String>,
}

/// Both records of a thing, as lines.
struct Pair {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

/// What the end of the log holds that the index has not.
#[derive(Default)]
struct Tail {
    found: BTreeMap<u64, Item>,
    /// Ends of calls whose start is in the index.
    ends: HashMap<String, Vec<u8>>,
}

impl Pair {
    fn item(&self, filter: &Filter) -> Option<Item> {
        let start = Columns::of(&self.start)?;
        let end = self.end.as_deref().and_then(Columns::of);
        let texts: Vec<&[u8]> = [Some(&self.start), self.end.as_ref()]
            .into_iter()
            .flatten()
            .map(Vec::as_slice)
            .collect();
        if !filter.fits(&start) || !filter.fits_whole(&start, end.as_ref(), &texts) {
            return None;
        }
        let value = |line: &[u8]| serde_json::from_slice(line).unwrap_or_default();
        let is_call = start.event == CALL_START;
        Some(Item {
            seq: start.seq,
            at: start.at,
            event: if is_call {
                "call".to_owned()
            } else {
                start.event
            },
            record: value(&self.start),
            end: self.end.as_deref().map(value),
        })
    }
}

/// Finds what fits before a record, or before the end.
///
/// # Errors
/// What the file system says. An index that fails is not needed.
pub(in crate::actors) async fn search(
    audit: &Audit,
    index: Option<Arc<Index>>,
    filter: Filter,
    before: Option<u64>,
    most: usize,
) -> std::io::Result<Page> {
    let most = most.clamp(1, AUDIT_PAGE_MAX);
    let filter = filter.of_things();
    let all = filter.clone();
    let tip = audit.written().borrow().tip.seq;
    let before = before.unwrap_or(u64::MAX);
    let high = match &index {
        Some(index) => caught_up(audit, index, tip).await,
        None => 0,
    };
    let dir = audit.setup().dir.clone();
    let mut tail = {
        let (dir, filter) = (dir.clone(), filter.clone());
        blocking(move || read_tail(dir, high, tip, &filter, before, most)).await?
    };
    let mut items: Vec<Item> = std::mem::take(&mut tail.found)
        .into_values()
        .rev()
        .collect();
    let mut cursor = None;
    let mut from = before.min(high + 1);
    let deadline = Instant::now() + SEARCH_MAX;
    while items.len() < most
        && let Some(index) = &index
    {
        let found = match index.db.find(&filter, from, most).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("a search reads the log itself: {error}");
                if matches!(error, IndexError::Damaged(_)) {
                    index.wrong.notify_one();
                }
                return Box::pin(search(audit, None, all, Some(before), most)).await;
            }
        };
        let Some(last) = found.last() else { break };
        from = last.seq;
        let (dir, filter) = (dir.clone(), filter.clone());
        let ends = std::mem::take(&mut tail.ends);
        let (more, ends) = blocking(move || Ok((load(&dir, &filter, &found, &ends), ends))).await?;
        let Some(more) = more else {
            // It is made anew, and until then the log itself is read.
            index.wrong.notify_one();
            return Box::pin(search(audit, None, all, Some(before), most)).await;
        };
        tail.ends = ends;
        items.extend(more);
        if Instant::now() > deadline {
            // Who asks on goes on from here.
            cursor = Some(from);
            break;
        }
    }
    if items.len() >= most {
        items.truncate(most);
        cursor = items.last().map(|item| item.seq);
    }
    Ok(Page {
        items,
        cursor,
        tip,
        names: BTreeMap::new(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

/// Gives the index a moment to catch up; up to where it goes then.
async fn caught_up(audit: &Audit, index: &Index, tip: u64) -> u64 {
    let deadline = Instant::now() + AUDIT_INDEX_WAIT;
    while audit.stats().indexed_seq < tip && Instant::now() < deadline {
        index.hurry.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match index.db.high().await {
        Ok(high) => high.map_or(0, |high| high.seq),
        Err(_) => 0,
    }
}

fn read_tail(
    dir: PathBuf,
    high: u64,
    tip: u64,
    filter: &Filter,
    before: u64,
    most: usize,
) -> std::io::Result<Tail> {
    let mut tail = Tail::default();
    let mut open: HashMap<String, Vec<u8>> = HashMap::new();
    let mut follow = Follow::from(dir, high + 1);
    while let Some(record) = follow.next(tip)? {
        let Some(columns) = Columns::of(&record.line) else {
            continue;
        };
        let call = columns.call.clone().unwrap_or_default();
        match columns.event.as_str() {
            CALL_START
                if open.len() < AUDIT_OPEN_CALLS_MAX
                    && columns.seq < before
                    && filter.fits(&columns) =>
            {
                open.insert(call, record.line);
            }
            CALL_END => match open.remove(&call) {
                Some(start) => tail.keep(start, Some(record.line), filter, most),
                None if tail.ends.len() < AUDIT_OPEN_CALLS_MAX => {
                    tail.ends.insert(call, record.line);
                }
                None => {}
            },
            _ if columns.seq < before => tail.keep(record.line, None, filter, most),
            _ => {}
        }
    }
    for (_, start) in open {
        tail.keep(start, None, filter, most);
    }
    Ok(tail)
}

impl Tail {
    fn keep(&mut self, start: Vec<u8>, end: Option<Vec<u8>>, filter: &Filter, most: usize) {
        if let Some(item) = (Pair { start, end }).item(filter) {
            self.found.insert(item.seq, item);
            if self.found.len() > most {
                self.found.pop_first();
            }
        }
    }
}

/// Reads the lines that were found, and takes what really fits. `None`: the segment is there, and where the index says
/// that a record is, it is not.
fn load(
    dir: &Path,
    filter: &Filter,
    found: &[Found],
    ends: &HashMap<String, Vec<u8>>,
) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    for one in found {
        // What retention took meanwhile is gone.
        let Some(start) = line(dir, &one.spot)? else {
            continue;
        };
        let columns = Columns::of(&start).filter(|columns| columns.seq == one.seq)?;
        let end = match &one.end {
            Some(spot) => line(dir, spot)?,
            None => None,
        };
        let is_its = |end: &Vec<u8>| {
            let of = Columns::of(end);
            of.is_some_and(|of| of.event == CALL_END && of.call == columns.call)
        };
        if !end.as_ref().is_none_or(is_its) {
            return None;
        }
        let end = end.or_else(|| ends.get(columns.call.as_deref()?).cloned());
        items.extend((Pair { start, end }).item(filter));
    }
    Some(items)
}

/// The line at a place; `Some(None)` if its segment is gone or cannot be read, `None` if no line is there.
fn line(dir: &Path, spot: &Spot) -> Option<Option<Vec<u8>>> {
    match files::line_at(&dir.join(segment_name(spot.segment)), spot.place) {
        Ok(line) => Some(Some(line)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
        Err(_) => Some(None),
    }
}
