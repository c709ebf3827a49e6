//! Looking into the audit log: search, streams, the check, the key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::super::audit::{self, Follow, Page, Selection, Verify, Written};
use super::super::ctx::Ctx;
use super::{Control, ControlError};
use crate::domain::audit::check::Report;
use crate::domain::audit::checkpoint::PublicKey;
use crate::domain::audit::filter::Filter;
use crate::domain::code::Code;
use crate::domain::limits::{AUDIT_STREAM_BYTES, AUDIT_STREAM_CHUNKS};
use crate::storage::StoreError;

/// Which records a stream has.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What they have in common.
    pub filter: Filter,
    /// Only records behind this one.
    pub after: u64,
    /// Goes on with what comes.
    pub follow: bool,
}

/// A stream's chunks: whole lines, each one record as it stands in the log.
pub type Chunks = mpsc::Receiver<std::io::Result<Bytes>>;

fn unreadable(what: impl std::fmt::Display) -> ControlError {
    ControlError::new(
        Code::AuditUnreadable,
        format!("the audit log cannot be read: {what}"),
    )
}

impl Control {
    /// One page of what fits the filter, newest first, with the names of the users and mcps in it.
    ///
    /// # Errors
    /// A named user or mcp does not exist, too many read the log already, or it cannot be read.
    pub async fn audit_search(
        &self,
        filter: Filter,
        before: Option<u64>,
        most: usize,
    ) -> Result<Page, ControlError> {
        let _permit = self.reader()?;
        let names = self.names().await;
        let filter = names.resolve(filter)?;
        let index = self.ctx.audit_index.load_full();
        let mut page = audit::search(&self.ctx.audit, index, filter, before, most)
            .await
            .map_err(unreadable)?;
        page.names = names.of(&page);
        Ok(page)
    }

    /// A stream of records, oldest first.
    ///
    /// # Errors
    /// As [`Control::audit_search`].
    pub async fn audit_stream(&self, wanted: Wanted) -> Result<Chunks, ControlError> {
        let permit = self.reader()?;
        let filter = self.names().await.resolve(wanted.filter)?;
        let dir = self.ctx.audit.setup().dir.clone();
        let reader = Reader {
            follow: Follow::from(dir, wanted.after.saturating_add(1)),
            selection: Selection::new(filter),
        };
        let (send, chunks) = mpsc::channel(AUDIT_STREAM_CHUNKS);
        // It ends with whoever reads the chunks, with the log, or with the server.
        tokio::spawn(pump(
            Arc::clone(&self.ctx),
            reader,
            wanted.follow,
            send,
            permit,
        ));
        Ok(chunks)
    }

    /// Checks the whole log up to now.
    ///
    /// # Errors
    /// It cannot be read, or too many read it already. That it is broken is no error, but in the
    /// report.
    pub async fn audit_verify(&self) -> Result<Report, ControlError> {
        let _permit = self.reader()?;
        let setup = self.ctx.audit.setup().clone();
        let tip = self.ctx.audit.written().borrow().tip;
        let witness = match self.ctx.audit_index.load_full() {
            Some(index) => index.high().await,
            None => None,
        };
        let check = tokio::task::spawn_blocking(move || {
            let key = setup.keys.join(audit::PUBLIC_KEY_NAME);
            let mut verify = Verify::of(&setup.dir, Some(&key))?.upto(tip);
            if let Some(high) = witness.filter(|high| high.seq <= tip.seq) {
                verify = verify.witness("the index", high);
            }
            verify.run()
        });
        let report = check
            .await
            .map_err(|error| unreadable(error.to_string()))?
            .map_err(unreadable)?;
        self.ctx.audit.checked(report.whole);
        if let Some(fault) = &report.fault {
            tracing::error!("the audit log is not whole: {fault}");
        }
        Ok(report)
    }

    /// The key that checks the log's checkpoints.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub async fn audit_key(&self) -> Result<PublicKey, ControlError> {
        let path = self.ctx.audit.setup().keys.join(audit::PUBLIC_KEY_NAME);
        let text = tokio::fs::read_to_string(&path).await;
        let text = text.map_err(|error| unreadable(format!("{}: {error}", path.display())))?;
        PublicKey::from_pem(&text)
            .map_err(|error| unreadable(format!("{}: {error}", path.display())))
    }

    fn reader(&self) -> Result<OwnedSemaphorePermit, ControlError> {
        let readers = Arc::clone(&self.ctx.audit_readers);
        readers.try_acquire_owned().map_err(|_| {
            let message = "as many as may read the audit log already";
            ControlError::new(Code::Busy, message).next("end one of them, or wait")
        })
    }

    async fn names(&self) -> Names {
        let read = async {
            let users = self.ctx.store.users().await?;
            Ok::<_, StoreError>((users, self.ctx.store.mcps().await?))
        };
        let mut names = Names::default();
        match read.await {
            Ok((users, mcps)) => {
                for user in users {
                    names.add(user.id.as_str(), user.name.as_str());
                }
                for mcp in mcps {
                    names.add(mcp.id.as_str(), mcp.name.as_str());
                }
            }
            // What calls are routed by knows the names of who is there.
            Err(error) => {
                let routes = self.ctx.routes.load();
                for (name, id) in &routes.directory.users {
                    names.add(id.as_str(), name.as_str());
                }
                for (name, id) in &routes.directory.mcps {
                    names.add(id.as_str(), name.as_str());
                }
                names.away = Some(error);
            }
        }
        names
    }
}

/// Names of users and mcps by id.
#[derive(Debug, Default)]
struct Names {
    by_id: BTreeMap<String, String>,
    /// Why there may be others.
    away: Option<StoreError>,
}

impl Names {
    fn add(&mut self, id: &str, name: &str) {
        self.by_id.insert(id.to_owned(), name.to_owned());
    }

    /// The filter with ids in place of names. What looks like an id is one, also of somebody who
    /// is no longer there.
    fn resolve(&self, mut filter: Filter) -> Result<Filter, ControlError> {
        for (kind, prefix, place) in [
            ("user", "usr_", &mut filter.user),
            ("mcp", "mcp_", &mut filter.mcp),
        ] {
            let Some(wanted) = place.as_mut().filter(|wanted| !wanted.starts_with(prefix)) else {
                continue;
            };
            let known = self
                .by_id
                .iter()
                .find(|(id, name)| id.starts_with(prefix) && *name == wanted);
            match known {
                Some((id, _)) => id.clone_into(wanted),
                None if let Some(away) = &self.away => {
                    let message = format!("{kind} `{wanted}` is not known: {away}");
                    let next = format!("name the {kind} by its id ({prefix}…)");
                    return Err(ControlError::new(away.code(), message).next(next));
                }
                None => {
                    let message = format!("{kind} `{wanted}` does not exist");
                    let next = format!("legation {kind} list, or its id, if it is gone");
                    return Err(ControlError::new(Code::NotFound, message).next(next));
                }
            }
        }
        Ok(filter)
    }

    /// Those that a page needs.
    fn of(&self, page: &Page) -> BTreeMap<String, String> {
        let ids: BTreeSet<&str> = page
            .items
            .iter()
            .flat_map(|item| ["user", "mcp"].map(|name| item.record[name].as_str()))
            .flatten()
            .collect();
        let named = ids.into_iter().filter_map(|id| {
            let name = self.by_id.get(id)?;
            Some((id.to_owned(), name.clone()))
        });
        named.collect()
    }
}

struct Reader {
    follow: Follow,
    selection: Selection,
}

impl Reader {
    /// The next lines, up to a bound; whether there may be more now.
    fn read(&mut self, upto: u64) -> std::io::Result<(Vec<u8>, bool)> {
        let mut chunk = Vec::new();
        while let Some(record) = self.follow.next(upto)? {
            if self.selection.takes(&record.line) {
                chunk.extend_from_slice(&record.line);
                chunk.push(b'\n');
            }
            if chunk.len() >= AUDIT_STREAM_BYTES {
                return Ok((chunk, true));
            }
        }
        Ok((chunk, false))
    }
}

async fn pump(
    ctx: Arc<Ctx>,
    mut reader: Reader,
    follow: bool,
    send: mpsc::Sender<std::io::Result<Bytes>>,
    _permit: OwnedSemaphorePermit,
) {
    let mut written: watch::Receiver<Written> = ctx.audit.written();
    let mut stopping = ctx.stopping.subscribe();
    let first = written.borrow().tip.seq;
    loop {
        let tip = match follow {
            true => written.borrow_and_update().tip.seq,
            false => first,
        };
        let read = tokio::task::spawn_blocking(move || {
            let read = reader.read(tip);
            (reader, read)
        });
        let Ok((back, read)) = read.await else { return };
        reader = back;
        let more = match read {
            Ok((chunk, more)) => {
                if !chunk.is_empty() && send.send(Ok(chunk.into())).await.is_err() {
                    return;
                }
                more
            }
            Err(error) => {
                let _ = send.send(Err(error)).await;
                return;
            }
        };
        if more {
            continue;
        }
        if !follow {
            return;
        }
        tokio::select! {
            changed = written.changed() => if changed.is_err() { return },
            () = send.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}
