//! How fast an isolate may read from and write to the disk of the homes: by `io.max` of v2, which knows whose a delayed
//! write is, or `blkio.throttle` of v1, which knows that of reads and of direct writes only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::mounts::Kind;
use super::{CgroupError, write};

/// A whole disk, which is what the kernel limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    major: u64,
    minor: u64,
}

/// What an isolate may have of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimit {
    /// Which; `None` if the files are on no disk of this host's.
    pub disk: Option<Disk>,
    /// Bytes in a second, each way.
    pub bytes_per_second: u64,
}

/// A limit no isolate meets while it is probed.
const PROBE_BYTES: u64 = 1 << 40;

impl Disk {
    /// The disk that a directory is on, or will be.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let dev = dir.ancestors().find_map(|dir| dir.metadata().ok())?.dev();
        let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
        let block = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
        let block = block.canonicalize().ok()?;
        let whole = match block.join("partition").exists() {
            true => block.parent()?.to_owned(),
            false => block,
        };
        Self::parse(&fs::read_to_string(whole.join("dev")).ok()?)
    }

    /// `MAJOR:MINOR`.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl IoLimit {
    /// The same, for a group that nobody is in.
    pub(super) const fn probe(self) -> Self {
        Self {
            bytes_per_second: PROBE_BYTES,
            ..self
        }
    }

    /// Writes it into a group.
    pub(super) fn put(self, group: &Path, kind: Kind) -> Result<(), CgroupError> {
        let Some(Disk { major, minor }) = self.disk else {
            let error = std::io::Error::from_raw_os_error(libc::ENODEV);
            return Err(CgroupError::io(
                "find the disk of the homes for",
                group,
                error,
            ));
        };
        let bytes = self.bytes_per_second;
        match kind {
            Kind::V1 => ["read", "write"].iter().try_for_each(|way| {
                let file = group.join(format!("blkio.throttle.{way}_bps_device"));
                write(&file, &format!("{major}:{minor} {bytes}"))
            }),
            Kind::V2 | Kind::Unified | Kind::Freezer => {
                let line = format!("{major}:{minor} rbps={bytes} wbps={bytes}");
                write(&group.join("io.max"), &line)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_as_the_kernel_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "io.max",
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
        ];
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let limit = IoLimit {
            disk: Disk::parse("8:16\n"),
            bytes_per_second: 1 << 20,
        };
        limit.put(dir.path(), Kind::V2).unwrap();
        limit.put(dir.path(), Kind::V1).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read(files[0]), "8:16 rbps=1048576 wbps=1048576");
        assert_eq!(
            (read(files[1]), read(files[2])),
            ("8:16 1048576".into(), "8:16 1048576".into())
        );
        for text in ["", "8", "a:b", "8:", ":1"] {
            assert_eq!(Disk::parse(text), None, "{text}");
        }
        let nowhere = IoLimit {
            disk: None,
            ..limit
        };
        assert_eq!(
            nowhere.put(dir.path(), Kind::V2).unwrap_err().errno(),
            Some(libc::ENODEV)
        );
    }

    #[test]
    fn what_is_on_no_disk_has_none() {
        assert_eq!(Disk::of(Path::new("/proc/self")), None);
        assert_eq!(Disk::of(Path::new("/proc/no/such/directory")), None);
    }
}
