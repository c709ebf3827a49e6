//! A gateway that is not root and was given a range of ids: each user's isolates run as one of them.
//!
//! Under root the test becomes an ordinary user, in a mount namespace where `/etc/subuid` gives that one a range.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use sandbox::homes::{self, Homes};
use sandbox::status::Record;
use sandbox::uids::subordinate;
use sandbox::{Facility, Host, Profile, SpawnSpec};

use crate::world::{self, Run, eventually, probe, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[(
    "an_ordinary_user_gives_ids_of_its_own_range",
    an_ordinary_user_gives_ids_of_its_own_range,
)];

/// Who it becomes, and what that one is given.
const NOBODY: &str = "65534";
const GIVEN: &str = "65534:1400000000:4096\n";
/// What the other one says when it has come through.
const WELL: &str = "came through";

fn an_ordinary_user_gives_ids_of_its_own_range() -> Outcome {
    if nix::unistd::geteuid().is_root() {
        return as_ordinary_user();
    }
    if crate::hoards::is_emulated() {
        return Err("not yet seen to pass in the guest of the emulator".to_owned());
    }
    through()
}

/// Runs the test once more as an ordinary user with a range.
fn as_ordinary_user() -> Outcome {
    if crate::hoards::is_emulated() {
        return Err("the delegated run is an ordinary user's".to_owned());
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !Path::new(file).exists() {
            return Err(format!("there is no {file} to put a range into"));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), at("test")).unwrap();
    std::fs::write(at("given"), GIVEN).unwrap();
    std::fs::create_dir(at("tmp")).unwrap();
    std::fs::set_permissions(at("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    let script = "mount --bind $1/given /etc/subuid && mount --bind $1/given /etc/subgid && \
                  TMPDIR=$1/tmp exec setpriv --reuid $2 --regid $2 --clear-groups \
                  $1/test --exact an_ordinary_user_gives_ids_of_its_own_range";
    let ran = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(dir.path())
        .arg(NOBODY)
        .output();
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) => return Err(format!("unshare is not installed: {error}")),
    };
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    if let Some((_, why)) = said.split_once("skipped: ") {
        return Err(why.lines().next().unwrap_or_default().to_owned());
    }
    assert!(ran.status.success() && said.contains(WELL), "{said}");
    Ok(())
}

struct Place {
    host: Host,
    homes: Homes,
    dir: tempfile::TempDir,
}

fn place() -> Result<Place, String> {
    let mut config = world::config();
    config.subordinate = subordinate::of_account(None);
    let range = config.subordinate.clone()?;
    let host = Host::start(config).unwrap();
    let missing = &host.capabilities().missing;
    let lack = |facility| missing.iter().find(|lack| lack.facility == facility);
    if let Some(lack) = lack(Facility::UserRange) {
        return Err(lack.to_string());
    }
    for wall in Profile::Strict.required() {
        // An old kernel may have no landlock; nothing else of strict is missing for want of root.
        assert!(
            lack(*wall).is_none() || *wall == Facility::Landlock,
            "{wall}"
        );
    }
    assert!(host.gives_ids());
    let dir = tempfile::tempdir().unwrap();
    let claim = range.claim_given(dir.path()).unwrap();
    let again = range.claim_given(dir.path()).unwrap_err().to_string();
    assert!(again.contains("another legation server"), "{again}");
    let homes = Homes::open(&dir.path().join("homes"), Some(claim), Some(host.clone())).unwrap();
    Ok(Place { host, homes, dir })
}

impl Place {
    fn spec(&self, owner: &str, script: &str) -> SpawnSpec {
        let home = self.homes.prepare(owner, "one").unwrap();
        let mut spec = shell(script);
        spec.leaf.user = Some(owner.to_owned());
        spec.profile = Profile::Strict;
        spec.workdir = home.path;
        spec.identity = home.identity;
        spec
    }
}

fn through() -> Outcome {
    let place = place()?;
    let own = nix::unistd::geteuid().as_raw();
    let (ada, bob) = (place.spec("ada", ""), place.spec("bob", ""));
    let (ada, bob) = (ada.identity.unwrap(), bob.identity.unwrap());
    assert!(ada.uid != bob.uid && ada.uid != own && bob.uid != own);
    runs_as_its_user(&place, ada.uid);
    dies_like_any_other(&place);
    belongs_to_whom(&place, ada.uid, own);
    a_new_spawner_has_them_too(&place, bob.uid);
    println!("{WELL}");
    Ok(())
}

fn runs_as_its_user(place: &Place, uid: u32) {
    let script = "id -u; grep -E 'CapEff|CapBnd|Groups' /proc/self/status; umask 077; \
                  mkdir -p deep; echo mine >deep/file; cat deep/file; ls -d $PWD/../../bob 2>&1";
    let mut run = Run::start(&place.host, &place.spec("ada", script));
    let out = run.output();
    // The last command's, which found nothing: 2 of coreutils, 1 of busybox.
    assert!(matches!(run.ending(), Record::Exited(1 | 2)), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], uid.to_string(), "{out}");
    for line in &lines[1..4] {
        let value = line.split_once(':').unwrap().1.trim();
        assert!(value.trim_start_matches('0').is_empty(), "{line}");
    }
    assert_eq!(lines[4], "mine");
    assert!(lines[5].contains("No such file"), "{out}");
    // What the others are tested for holds for such a one as well.
    let mut walls = probe(&["walls"]);
    let home = place.spec("ada", "");
    (walls.profile, walls.workdir, walls.identity) = (Profile::Strict, home.workdir, home.identity);
    let mut run = Run::start(&place.host, &walls);
    let out = run.output();
    assert!(
        out.contains("NoNewPrivs:\t1") || out.contains("no_new_privs"),
        "{out}"
    );
}

fn dies_like_any_other(place: &Place) {
    let mut run = Run::start(
        &place.host,
        &place.spec("ada", "trap '' TERM; sleep 1000 & echo up; sleep 1000"),
    );
    assert_eq!(run.line(), "up");
    run.process.terminate();
    run.kill();
    assert_eq!(world::children(), [place.host.spawner_pid().unwrap()]);
}

fn belongs_to_whom(place: &Place, uid: u32, own: u32) {
    let home = place.homes.root().join("ada/one");
    let owner = |path: &Path| path.symlink_metadata().unwrap().uid();
    let owners = home.parent().unwrap().metadata().unwrap();
    assert_eq!(
        (owners.uid(), owners.gid(), owners.mode() & 0o7777),
        (own, uid, 0o710)
    );
    assert_eq!(owner(&home), uid);
    std::fs::read_dir(&home).unwrap_err();
    // What the gateway may not read is weighed, and given back, by who may.
    assert_eq!(homes::weigh(&home, 100), 0);
    assert!(place.host.weigh(&home, 100) >= 2 * homes::ENTRY_BYTES);
    assert_eq!(place.host.weigh(&place.dir.path().join("nothing"), 100), 0);
    place.host.reclaim(&home).unwrap();
    assert_eq!(owner(&home.join("deep/file")), own);
    assert!(homes::weigh(&home, 100) >= 2 * homes::ENTRY_BYTES);
    // Its next start gives it to its user again.
    let again = place.homes.prepare("ada", "one").unwrap();
    assert_eq!(again.identity.unwrap().uid, uid);
    assert_eq!(owner(&home), uid);
    let mut run = Run::start(&place.host, &place.spec("ada", "cat deep/file"));
    assert_eq!(run.output(), "mine\n");
}

fn a_new_spawner_has_them_too(place: &Place, uid: u32) {
    let pid = place.host.spawner_pid().unwrap();
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the spawner is gone", || {
        place.host.heal().unwrap();
        place
            .host
            .spawner_pid()
            .is_some_and(|new| new != pid.as_raw())
    });
    let mut run = Run::start(&place.host, &place.spec("bob", "id -u"));
    assert_eq!(run.output().trim(), uid.to_string());
}
