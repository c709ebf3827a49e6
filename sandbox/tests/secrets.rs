//! Credentials that are files: seen by their isolate alone, and never on a disk.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sandbox::host::HostError;
use sandbox::plan::build::Refused;
use sandbox::plan::secret::{Secret, SecretFiles};
use sandbox::plan::view;
use sandbox::status::Record;
use sandbox::{Facility, Profile, SpawnSpec};

use crate::walls::{Home, host, within};
use crate::world::{self, Run, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        "secret_files_are_their_isolates_alone",
        secret_files_are_their_isolates_alone,
    ),
    (
        "the_most_and_largest_secret_files_fit",
        the_most_and_largest_secret_files_fit,
    ),
    (
        "secret_files_are_refused_without_a_mount_namespace",
        secret_files_are_refused_without_a_mount_namespace,
    ),
];

/// Hostile in every way a file may be.
const VALUE: &[u8] = b"\0s3cret\xff\n\r\n'$(x)";

fn given(mut spec: SpawnSpec, dir: &Path, files: &[(&str, &[u8])]) -> SpawnSpec {
    let secret = |value: &[u8]| Secret::new(value.to_vec().into());
    let files: BTreeMap<_, _> = files
        .iter()
        .map(|(name, value)| ((*name).to_owned(), secret(value)))
        .collect();
    let dir = dir.to_owned();
    spec.secrets = Some(SecretFiles { dir, files });
    spec
}

fn secret_files_are_their_isolates_alone() -> Outcome {
    let host = host()?;
    let home = Home::new();
    // A directory all may pass, and one that the view of `none` hides.
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let closed = home.path().parent().unwrap().join("secrets");
    std::fs::create_dir(&closed).unwrap();
    for (profile, dir) in [
        (Profile::Strict, Path::new(view::SECRETS)),
        (Profile::Standard, Path::new(view::SECRETS)),
        (Profile::None, open.path()),
        (Profile::None, &closed),
    ] {
        let at = dir.display();
        let script = format!(
            "cd {at} || exit 1; ls; od -An -v -tx1 key | tr -d ' \\n'; echo; stat -c %a . key; \
             for what in ': > key' ': > new' 'rm -f key' 'chmod 600 key' 'chmod 700 .' \
             'mv key k' 'umount .' 'mount -o remount,rw .'; do \
             (eval \"$what\") 2>/dev/null && echo \"did $what\"; done; echo done; read x"
        );
        let spec = within(shell(&script), profile, &home.path());
        let mut run = Run::start(&host, &given(spec, dir, &[("key", VALUE)]));
        let mut lines: Vec<String> = Vec::new();
        while lines
            .last()
            .is_none_or(|line| line != "done" && !line.is_empty())
        {
            lines.push(run.line());
        }
        let hex: String = VALUE.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = ["key", &hex, "500", "400", "done"];
        assert_eq!(lines, expected, "{profile} {at}");
        // While it runs: neither mount nor file is the host's, and its neighbours have neither.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!(" {at} ")), "{profile}: {mounts}");
        assert!(!dir.join("key").exists(), "{profile} {at}");
        let look = shell(&format!(
            "cat {at}/key 2>/dev/null; ls -A {at} 2>/dev/null; true"
        ));
        let mut other = Run::start(&host, &within(look, profile, &home.path()));
        assert_eq!(other.output(), "", "{profile} {at}");
        run.write("\n");
        assert_eq!(run.ending(), Record::Exited(0), "{profile} {at}");
    }
    Ok(())
}

fn the_most_and_largest_secret_files_fit() -> Outcome {
    const LARGEST: usize = 64 << 10;
    let host = host()?;
    let home = Home::new();
    let value = vec![0xfe; LARGEST];
    let names: Vec<String> = (0..16).map(|n| format!("file-{n}")).collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), value.as_slice()))
        .collect();
    let dir = Path::new(view::SECRETS);
    let script = format!("cat {}/* | wc -c", dir.display());
    let spec = within(shell(&script), Profile::Strict, &home.path());
    let mut run = Run::start(&host, &given(spec, dir, &files));
    assert_eq!(run.output().trim(), (16 * LARGEST).to_string());
    Ok(())
}

fn secret_files_are_refused_without_a_mount_namespace() -> Outcome {
    let host = world::without(&[Facility::MountNamespace]);
    let home = Home::new();
    let spec = within(shell("exit 0"), Profile::None, &home.path());
    let refused = host.spawn(&given(spec, home.0.path(), &[("key", VALUE)]));
    match refused {
        Err(HostError::Unavailable(Refused::SecretFiles { missing })) => {
            assert_eq!(missing.facility, Facility::MountNamespace);
            Ok(())
        }
        other => panic!("{other:?}"),
    }
}
