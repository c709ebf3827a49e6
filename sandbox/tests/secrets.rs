//! Credentials that are files: seen by their isolate alone, and never on a disk.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sandbox::host::HostError;
use sandbox::plan::build::Refused;
use sandbox::plan::secret::{DESCRIPTOR_BYTES_MAX, Secret, SecretFiles};
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
        "secrets_in_descriptors_are_read_once_and_inherited_by_nobody_else",
        secrets_in_descriptors_are_read_once_and_inherited_by_nobody_else,
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

/// Every number, the largest value, in every profile; nothing else is open, and the environment knows nothing.
fn secrets_in_descriptors_are_read_once_and_inherited_by_nobody_else() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let largest = vec![b'x'; DESCRIPTOR_BYTES_MAX];
    for profile in Profile::ALL {
        // By numbers that shells know; the largest by its length; then once more, when it is empty.
        let script = "for n in 3 4 5 6 7 8; do eval \"od -An -v -tx1 <&$n\" | tr -d ' \\n'; echo; done; \
            wc -c <&9; wc -c <&3; test -e /proc/self/fd/10 || echo nothing at 10; \
            grep -c [s]3cret /proc/self/environ; read x";
        let mut spec = within(shell(script), profile, &home.path());
        for number in 3..=9 {
            let value = if number == 9 {
                largest.as_slice()
            } else {
                VALUE
            };
            spec.descriptors
                .insert(number, Secret::new(value.to_vec().into()));
        }
        let mut run = Run::start(&host, &spec);
        let hex: String = VALUE.iter().map(|byte| format!("{byte:02x}")).collect();
        for number in 3..=8 {
            assert_eq!(run.line(), hex, "{number} in {profile}");
        }
        assert_eq!(run.line().trim(), largest.len().to_string(), "{profile}");
        assert_eq!(run.line().trim(), "0", "read once, in {profile}");
        assert_eq!(run.line(), "nothing at 10");
        assert_eq!(run.line(), "0", "nothing of it is in the environment");
    }
    for (number, value) in [(2, VALUE), (3, &vec![0; DESCRIPTOR_BYTES_MAX + 1])] {
        let mut spec = within(shell("exit 0"), Profile::None, &home.path());
        spec.descriptors
            .insert(number, Secret::new(value.to_vec().into()));
        let refused = host.spawn(&spec).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("descriptor {number}")),
            "{refused}"
        );
    }
    Ok(())
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
