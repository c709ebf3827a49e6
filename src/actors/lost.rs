//! A database that knows of nothing where a server has lived: it was lost, or another one is named.
//!
//! Started on it, the server would be healthy and empty: no user, no key, no mcp, and nothing that says so. What tells
//! of an earlier life is its audit log and its homes. A database is known by a mark that is in it before either
//! is made, so that a first start that failed half-way is no lost one.

use std::fmt;
use std::path::{Path, PathBuf};

use super::audit;
use super::vault;
use crate::domain::account::Millis;
use crate::storage::{Store, StoreError};

/// The setting that says since when a database is in use.
const MARK: &str = "in_use_since";

/// What tells of an earlier life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(Vec<PathBuf>);

impl Traces {
    /// How a start without them is had.
    #[must_use]
    pub fn next(&self) -> String {
        let moves: Vec<String> = self.0.iter().map(|place| moved(place)).collect();
        format!(
            "restore the database from a backup (docs/install.md, \"Backup\"), or name the right one; or, to start \
             anew without its users, keys and mcps, move away what is left: {}",
            moves.join(" && ")
        )
    }
}

fn moved(place: &Path) -> String {
    let place = place.display();
    format!("mv {place} {place}.before")
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|one| one.display().to_string()).collect();
        f.write_str(&all.join(" and "))
    }
}

/// What is left of an earlier life that this database knows nothing of; `None` for one that is in use, and for one that is
/// new where nothing is left. That one is marked.
pub(super) async fn look(
    store: &Store,
    log: &audit::Setup,
    homes: &Path,
    now: Millis,
) -> Result<Option<Traces>, StoreError> {
    if store.setting(MARK).await?.is_some() {
        return Ok(None);
    }
    // One of a version without the mark.
    if !vault::is_sealed(store).await? {
        let (log, homes) = (log.clone(), homes.to_owned());
        let found = tokio::task::spawn_blocking(move || traces(&log, &homes)).await;
        let found = found.unwrap_or_default();
        if !found.is_empty() {
            return Ok(Some(Traces(found)));
        }
    }
    store.init_setting(MARK, &now.to_string()).await?;
    Ok(None)
}

fn traces(log: &audit::Setup, homes: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if audit::has_records(log) {
        found.push(log.dir.clone());
    }
    if std::fs::read_dir(homes).is_ok_and(|mut homes| homes.next().is_some()) {
        found.push(homes.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::audit::{Audit, Durability, Entry, Setup};

    #[tokio::test]
    async fn a_new_database_is_refused_where_a_server_has_lived() {
        let dir = tempfile::tempdir().unwrap();
        let (log, homes) = (dir.path().join("audit"), dir.path().join("homes"));
        std::fs::create_dir_all(&log).unwrap();
        std::fs::create_dir_all(&homes).unwrap();
        let setup = Setup::new(&log, Durability::Durable);
        let first = Store::open(&dir.path().join("db")).await.unwrap();
        assert_eq!(look(&first, &setup, &homes, 1).await.unwrap(), None);

        // It ended before anything was sealed: what it wrote is its own.
        let audit = Audit::start(setup.clone()).unwrap();
        audit.post(Entry::new("server.started", 1));
        audit.close(std::time::Duration::from_secs(5)).await;
        assert_eq!(look(&first, &setup, &homes, 2).await.unwrap(), None);

        let other = Store::open(&dir.path().join("other")).await.unwrap();
        let lost = look(&other, &setup, &homes, 3).await.unwrap().unwrap();
        assert_eq!(lost.to_string(), log.display().to_string());
        std::fs::create_dir(homes.join("usr_x")).unwrap();
        let lost = look(&other, &setup, &homes, 3).await.unwrap().unwrap();
        assert!(lost.next().contains("homes.before"), "{}", lost.next());
        for place in [&log, &homes] {
            std::fs::rename(place, place.with_extension("before")).unwrap();
        }
        assert_eq!(look(&other, &setup, &homes, 4).await.unwrap(), None);
    }
}
