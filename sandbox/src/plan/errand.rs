//! What init does to files of isolates in the stead of a gateway that has not their ids: where it is not root, only
//! the spawner's user namespace has them ([`crate::uids::subordinate`]).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One errand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Gives a home, and what is in it, its owner's id, and records that in the owner's directory.
    Settle {
        /// The directory of all homes.
        root: PathBuf,
        /// The owner's directory beneath it.
        owner: String,
        /// The home beneath that.
        name: String,
        /// The id.
        id: u32,
    },
    /// Gives a directory, and what is in it, to the gateway.
    Reclaim {
        /// The directory.
        dir: PathBuf,
        /// The gateway's uid.
        uid: u32,
        /// The gateway's gid.
        gid: u32,
    },
    /// Writes to stdout how many bytes of the disk a directory takes.
    Weigh {
        /// The directory.
        dir: PathBuf,
        /// Entries that are looked at, at most.
        entries: u32,
    },
}
