//! Uids for a test's isolates that no other test of this host has: gateways of different tests run
//! at once, and each claims its range for itself.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;

use nix::libc;

/// Uids of one slice.
pub(crate) const COUNT: u32 = 256;
/// The first of all slices; below is systemd's, above are the defaults.
const FIRST: u32 = 1_900_000_000;
/// Slices there are.
const SLICES: u32 = 4096;

/// A slice that is ours while this lives.
pub(crate) struct Slice {
    pub(crate) base: u32,
    _lock: File,
}

impl Slice {
    /// Takes a free one; only root needs any.
    pub(crate) fn take() -> Self {
        let folder = std::env::temp_dir().join("legation-test-uids");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .unwrap();
        for slice in 0..SLICES {
            let lock = File::create(folder.join(slice.to_string())).unwrap();
            match lock.try_lock() {
                Ok(()) => {
                    let base = FIRST + slice * COUNT;
                    if is_free(base) {
                        return Self { base, _lock: lock };
                    }
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("no lock: {error}"),
            }
        }
        panic!("all {SLICES} slices are taken")
    }
}

/// Whether no server of this host has claimed uids of the slice: one that is no test's, perhaps.
fn is_free(base: u32) -> bool {
    let Ok(claims) = File::open("/run/legation/uids") else {
        return true;
    };
    let short = |word: i32| i16::try_from(word).unwrap();
    let mut wanted = libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: i64::from(base),
        l_len: i64::from(COUNT),
        l_pid: 0,
    };
    let asked = nix::fcntl::fcntl(&claims, nix::fcntl::FcntlArg::F_OFD_GETLK(&mut wanted));
    asked.is_ok() && wanted.l_type == short(libc::F_UNLCK)
}
