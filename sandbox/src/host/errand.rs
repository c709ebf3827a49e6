//! Errands among the files of isolates, where the gateway has not their ids: an init without a program does them in
//! the spawner's user namespace, and ends.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Host, HostError, link, probe};
use crate::facility::Facility;
use crate::homes;
use crate::plan::build::Built;
use crate::plan::errand::Errand;
use crate::plan::{Plan, Step};
use crate::status::Record;
use crate::sys;

/// What an errand says: a number.
const SAID_BYTES_MAX: u64 = 32;

impl Host {
    /// Whether isolates' ids are ours to give: as root, or a range that the host gave our account.
    #[must_use]
    pub fn gives_ids(&self) -> bool {
        let missing = &self.0.ground.missing;
        missing
            .iter()
            .all(|lack| lack.facility != Facility::UserRange)
    }

    /// Bytes on the disk beneath a home, as far as so many entries tell. Blocks.
    #[must_use]
    pub fn weigh(&self, dir: &Path, entries: u32) -> u64 {
        if self.0.range.is_none() {
            return homes::weigh(dir, entries);
        }
        let errand = Errand::Weigh {
            dir: dir.to_owned(),
            entries,
        };
        // A home that is not there weighs nothing, and of a spawner that is away we hear elsewhere.
        self.errand(errand).unwrap_or(0)
    }

    /// Makes a directory that was an isolate's, and what is in it, ours; nobody may write there any more. Blocks.
    ///
    /// # Errors
    /// The disk, or a tree that is too deep.
    pub fn reclaim(&self, dir: &Path) -> io::Result<()> {
        if self.0.range.is_none() || dir.symlink_metadata().is_err() {
            return Ok(());
        }
        self.errand(Errand::Reclaim {
            dir: dir.to_owned(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        })
        .map(drop)
    }

    pub(crate) fn errand(&self, errand: Errand) -> io::Result<u64> {
        let plan = Plan {
            steps: vec![Step::Errand(errand)],
            program: None,
        };
        let built = Built {
            plan,
            namespaces: sys::CLONE_NEWPID,
            degraded: Vec::new(),
        };
        let spawned = link::spawn(&self.link(), &built, &[], false, &[], || Ok(()));
        let passes = || io::Error::from_raw_os_error(libc::EAGAIN);
        let (process, ends) = spawned.map_err(|error| match error {
            // It is started again by itself.
            HostError::SpawnerLost(_) => passes(),
            HostError::Clone(source) => source,
            other => io::Error::other(other),
        })?;
        let told = probe::read(&process, ends.status.into()).map_err(io::Error::other)?;
        match told.into_iter().next() {
            Some(Record::Started) => {}
            Some(Record::Failed(failure)) => return Err(refused(&failure.text, failure.errno)),
            // Somebody ended it.
            _ => return Err(passes()),
        }
        let mut said = String::new();
        File::from(ends.stdout)
            .take(SAID_BYTES_MAX)
            .read_to_string(&mut said)?;
        said.parse().map_err(io::Error::other)
    }
}

/// The kernel's own error, where there is one: what passes is told apart from what does not.
fn refused(text: &str, errno: i32) -> io::Error {
    match errno {
        libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::ENOMEM => {
            io::Error::from_raw_os_error(errno)
        }
        _ => io::Error::other(text.to_owned()),
    }
}
