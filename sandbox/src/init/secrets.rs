//! Secret files: a small tmpfs in the isolate's own mount namespace, gone with it.
//!
//! The host sees an empty directory and no mount. No disk sees the files where the kernel can keep
//! the memory out of swap (6.4, and not inside a user namespace).

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::mount::{MsFlags, mount as kernel_mount};
use nix::unistd::{Gid, Uid, fchown};

use super::failed;
use crate::plan::secret::OwnedFiles;
use crate::plan::{Identity, Place};
use crate::status::Failure;
use crate::sys;
use crate::sys::mount::{Attributes, Reach, set_attributes};

/// Mounts memory over the directory, writes the files, and lets nobody write any more.
pub(super) fn mount(secrets: &OwnedFiles) -> Result<(), Failure> {
    let (files, Identity { uid, gid }) = (&secrets.files, secrets.owner);
    let dir = &files.dir;
    let fail = |what: &str, error: &io::Error| {
        let what = format!("{what} `{}`", dir.display());
        failed(Place::Secrets, &what, error)
    };
    let options = format!(
        "size={},nr_inodes={},mode=0500,uid={uid},gid={gid}",
        files.room(),
        files.files.len() + 1
    );
    tmpfs(dir, &options).map_err(|e| fail("mount memory over", &e))?;
    for (name, value) in &files.files {
        write(&dir.join(name), value.bytes(), secrets.owner)
            .map_err(|e| fail(&format!("write `{name}` in"), &e))?;
    }
    std::fs::File::open(dir)
        .and_then(|own| set_attributes(own.as_fd(), Attributes::READ_ONLY, Reach::One))
        .map_err(|e| fail("make read-only", &e))
}

/// A pipe with the value and then its end, at this number and open in what is executed.
pub(super) fn pipe(number: i32, value: &[u8]) -> io::Result<()> {
    let (out, back) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // It fits, or the pipe is not what it should be.
    if nix::unistd::write(&back, value)? != value.len() {
        return Err(Errno::EAGAIN.into());
    }
    drop(back);
    fcntl(&out, FcntlArg::F_SETFL(OFlag::empty()))?;
    if out.as_raw_fd() == number {
        fcntl(&out, FcntlArg::F_SETFD(FdFlag::empty()))?;
        // The server's from here on.
        let _ = out.into_raw_fd();
        return Ok(());
    }
    sys::duplicate(out.as_raw_fd(), number, sys::Place::Exactly)?;
    Ok(())
}

fn write(path: &Path, value: &[u8], owner: Identity) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    file.write_all(value)?;
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(fchown(&file, Some(uid), Some(gid))?)
}

fn tmpfs(dir: &Path, options: &str) -> io::Result<()> {
    let walls = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mount =
        |options: &str| kernel_mount(Some("secrets"), dir, Some("tmpfs"), walls, Some(options));
    match mount(&format!("{options},noswap")) {
        // An older kernel, or a user namespace: it does not know the word, or does not grant it.
        Err(Errno::EINVAL | Errno::EPERM) => Ok(mount(options)?),
        other => Ok(other?),
    }
}
