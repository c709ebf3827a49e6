//! The admin group on a real host: its members reach the socket and may administer; who is not in it may not; and what cannot
//! be true is refused before anything starts.
//!
//! The gateway sees accounts of our own in `/etc/passwd` and `/etc/group`, mounted over the host's in a namespace of its own.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::tools;
use crate::world::uids::Slice;
use crate::world::{LEGATION, PATIENCE, am_root, sandbox};

const GROUP: &str = "legation-test-admin";
const GID: u32 = 47_112;
/// In the group, beside their own.
const ADA: u32 = 47_110;
/// In no group but their own.
const EVE: u32 = 47_111;

/// A gateway among accounts of its own.
struct Host {
    dir: tempfile::TempDir,
    child: Option<Child>,
    uids: Slice,
}

impl Host {
    fn new() -> Option<Self> {
        let needed = ["setpriv", "unshare"].map(tools::on_path);
        if !am_root() || needed.iter().any(Option::is_none) {
            tools::skip("the admin group", "needs root, setpriv and unshare");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // Where others can run it.
        let program = dir.path().join("legation");
        if std::fs::hard_link(LEGATION, &program).is_err() {
            std::fs::copy(LEGATION, &program).unwrap();
        }
        let more = |file: &str, lines: &str| {
            let host = std::fs::read_to_string(format!("/etc/{file}")).unwrap();
            std::fs::write(dir.path().join(file), format!("{host}{lines}")).unwrap();
        };
        more(
            "passwd",
            &format!("leg-ada:x:{ADA}:{ADA}::/:/bin/false\nleg-eve:x:{EVE}:{EVE}::/:/bin/false\n"),
        );
        more(
            "group",
            &format!("leg-ada:x:{ADA}:\nleg-eve:x:{EVE}:\n{GROUP}:x:{GID}:leg-ada\n"),
        );
        Some(Self {
            dir,
            child: None,
            uids: Slice::take(),
        })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/admin.sock")
    }

    /// The product as root, among our accounts.
    fn command(&self) -> Command {
        let script =
            "mount --bind $1 /etc/passwd && mount --bind $2 /etc/group && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .args([
                self.dir.path().join("passwd"),
                self.dir.path().join("group"),
            ])
            .arg(LEGATION)
            .stdin(Stdio::null());
        command
    }

    /// A configuration with this in `[admin]`.
    fn configured(&self, admin: &str) -> PathBuf {
        let file = self.dir.path().join("legation.toml");
        let text = format!(
            "[client]\nlisten = \"127.0.0.1:0\"\ntls = \"off\"\n[ops]\nlisten = \"off\"\n{}[admin]\n{admin}",
            sandbox(Some(&self.uids))
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    fn serve(&self, file: &Path) -> Command {
        let mut command = self.command();
        command.args(["serve", "--config"]).arg(file);
        command.arg("--data-dir").arg(self.dir.path().join("data"));
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn start(&mut self, file: &Path) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = self.serve(file);
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let since = Instant::now();
        while self.asks(0, 0, &[]).status.code() != Some(0) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && since.elapsed() < PATIENCE,
                "{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The command line of this account.
    fn asks(&self, uid: u32, gid: u32, groups: &[u32]) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
        match groups {
            [] => command.arg("--clear-groups"),
            all => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                command.args(["--groups", &all.join(",")])
            }
        };
        command.arg(self.dir.path().join("legation"));
        command
            .args(["user", "list", "--socket"])
            .arg(self.socket());
        command.current_dir("/").output().unwrap()
    }

    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", self.log());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn members_of_the_admin_group_may_and_others_may_not() {
    let Some(mut host) = Host::new() else { return };
    let run = host.dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o750)).unwrap();
    chown(&run, None, Some(GID)).unwrap();
    let socket = host.socket();
    let file = host.configured(&format!(
        "group = \"{GROUP}\"\nsocket = \"{}\"\n",
        socket.display()
    ));
    host.start(&file);
    let is_shown = |host: &Host| {
        let meta = std::fs::metadata(host.socket()).ok()?;
        Some((meta.gid(), meta.mode() & 0o777))
    };
    let check = |host: &Host| {
        assert_eq!(is_shown(host), Some((GID, 0o660)));
        for (who, uid, gid, groups) in [
            ("a member", ADA, ADA, &[ADA, GID][..]),
            ("one whose own group it is", EVE, GID, &[]),
        ] {
            let output = host.asks(uid, gid, groups);
            assert_eq!(output.status.code(), Some(0), "{who}: {}", told(&output));
        }
        let output = host.asks(EVE, EVE, &[EVE]);
        assert_eq!(output.status.code(), Some(4), "{}", told(&output));
        // One who got hold of the group without being listed in it reaches the socket, and is refused by name.
        let output = host.asks(EVE, EVE, &[GID]);
        assert_eq!(output.status.code(), Some(4), "{}", told(&output));
        assert!(told(&output).contains(GROUP), "{}", told(&output));
    };
    check(&host);
    // One that is made again is theirs too.
    std::fs::remove_file(&socket).unwrap();
    let since = Instant::now();
    while is_shown(&host).is_none() {
        assert!(since.elapsed() < PATIENCE, "{}", host.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&host);
    host.stop();
}

/// Its members cannot look into the data directory, but where their socket is they can.
#[test]
fn a_member_is_told_that_the_server_is_stopped() {
    let Some(host) = Host::new() else { return };
    let asks = |run: &str| {
        let script = format!(
            "mount -t tmpfs none /var/lib && mkdir -m 700 /var/lib/legation && mount -t tmpfs -o mode=755 none /run && \
             {run} && exec setpriv --reuid {ADA} --regid {ADA} --groups {ADA},{GID} \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        command.arg("sh").arg(host.dir.path().join("legation"));
        command.arg("status").current_dir("/").output().unwrap()
    };
    let stopped = asks("mkdir -m 755 /run/legation");
    let said = told(&stopped);
    assert_eq!(stopped.status.code(), Some(3), "{said}");
    for word in ["/run/legation/admin.sock", "stopped", "/var/lib/legation"] {
        assert!(said.contains(word), "{said}");
    }
    let nowhere = asks("true");
    assert_eq!(nowhere.status.code(), Some(4), "{}", told(&nowhere));
}

#[test]
fn a_group_that_is_not_there_or_cannot_reach_the_socket_is_refused_before_a_start() {
    let Some(host) = Host::new() else { return };
    let nowhere = host.dir.path().join("nowhere/admin.sock");
    for (admin, words) in [
        (
            "group = \"no-such-group\"\n".to_owned(),
            ["admin.group", "groupadd"],
        ),
        (
            format!("group = \"{GROUP}\"\n"),
            ["admin.group", "admin.socket"],
        ),
    ] {
        let file = host.configured(&admin);
        let mut check = host.command();
        check.args(["config", "check"]).arg(&file);
        check.arg("--data-dir").arg(host.dir.path().join("data"));
        for mut command in [check, host.serve(&file)] {
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{}", told(&output));
            for word in words {
                assert!(told(&output).contains(word), "{word}: {}", told(&output));
            }
        }
    }
    // A directory of somebody's own that is shut is said, and may be meant.
    let run = host.dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o700)).unwrap();
    for (socket, code) in [(host.socket(), 0), (nowhere, 2)] {
        let file = host.configured(&format!(
            "group = \"{GROUP}\"\nsocket = \"{}\"\n",
            socket.display()
        ));
        let mut check = host.command();
        let output = check.args(["config", "check"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains("admin."), "{}", told(&output));
    }
}
