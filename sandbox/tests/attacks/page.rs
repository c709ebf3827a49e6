//! The table as a page: `docs/security-model.md`.

use std::fmt::Write as _;

use sandbox::{Facility, Profile};

use super::table::{KINDS, Succeeds};

/// What is no attack and has no table.
const BESIDES: &str = "
## Whose ids

Under root each user's isolates run as a uid of the range that is set (`sandbox.uid_base`). A server that is not root gives ids of the
range that `/etc/subuid` and `/etc/subgid` give its account, by `newuidmap` and `newgidmap` (package `uidmap`), once for its
spawner (`sandbox/tests/subordinate.rs`, decision 0123):

```console
# usermod --add-subuids 700000000-700065535 --add-subgids 700000000-700065535 legation
```

The range must be this account's alone: who has some of it in `/etc/subuid` as well may become those ids and end their servers, so such a range
is refused. Above 600100000 (`SUB_UID_MAX` of `/etc/login.defs`) `useradd` gives none of it to the next account.

A systemd unit needs `Delegate=cpu io memory pids` on a host with cgroup v2 (systemd gives v1 controllers to root only) and must not set
`NoNewPrivileges=`. Without such a range `user_range` is missing, and
`legation doctor` says why. Homes belong to those ids then: take the range away, and root has to give the files back.

A uid is nobody else's after `user remove` either: the user's empty directory in `homes/` stays as its record, so that what they left in a writable place is not the next one's to read
([decision 0168](decisions/0168-a-uid-stays-with-who-had-it.md)). Where all of a range are given, raise `sandbox.uid_count`; or, if nothing of a removed user is left anywhere, remove that directory while the server is stopped.

## What is shown of the host

Read-only, the same in every isolate of `strict` and `standard`: its programs and libraries (`/usr`, `/bin`, `/sbin`, `/lib*`, and `/nix/store` where there is one), and of
`/etc` what programs need and what tells nothing of users and keys (certificates, fonts, time zones, the linker's cache, `services`, `mime.types` and the like: `sandbox/src/plan/view/common.rs`,
which is the whole list). Who is on the host is not shown: `passwd`, `group`, `hosts` and `nsswitch.conf` are the isolate's own, `resolv.conf` as well unless the network is `host`. So no secret belongs beneath
`/usr`, `/etc/ssl` or `/etc/pki`: a private key there that all may read is read by servers too.

## What is shown of a project

A script brings the project it lies in (the nearest `package.json`, `pyproject.toml`, …), read-only. Its history and what its developers
and their tools are let in with are covered: `.git`, `.hg`, `.svn`, `.env`, `.env.*`, `.envrc`, `.npmrc`, `.pypirc`, `.netrc` and `.ssh`, in the directories from
the script up to the project's top. A server that reads its `.env` has it declared (`--read PATH`): what is declared is shown as it is, and nothing beside it. Credentials belong
into the vault. A cover lies on the file that was there at the start: one that is replaced on the host, or made, while a server runs is seen by it until its next start.

Links on the way to a declared path are followed only if root or the server's own account made them: an isolate that may write somewhere
cannot lead another one's view elsewhere.

## Processes

What an isolate may have of processes is its cgroup's to say, and its user's sum their group's. `RLIMIT_NPROC` stays as the gateway was given it: it counts for a
uid, so a bound there is one for all isolates of a user together.

## The disk

A home has no quota of the kernel's (decision 0124). What holds it: a bound on each file, the guard that ends who fills the disk, a rate where
`isolates.disk_bytes_per_second` is set (decision 0125), and quotas of your own on the range of uids (`setquota -u`), whose refusal is the server's alone to see.
";

pub(super) fn rendered() -> String {
    let mut out = String::from(
        "# What an isolate cannot do\n\n\
         Rendered from the table in `sandbox/tests/attacks/table.rs`, which is also the test: every attack \
         is tried by a\nserver in each profile, and the answers below are what the kernel must say. \
         **Nothing succeeds in `strict`\nor `standard`.** Profile `none` is the control: what succeeds \
         there shows that the attack works. The floods are\nnot tried there: without an own `/tmp` they would \
         flood the host.\n\n## Profiles\n\n\
         | facility | none | standard | strict |\n|---|---|---|---|\n",
    );
    for facility in Facility::ALL {
        let word = |profile: Profile| {
            let ground = Facility::GROUND.contains(&facility);
            if ground || profile.required().contains(&facility) {
                "required"
            } else if profile.wanted().contains(&facility) {
                "if there"
            } else if facility == Facility::UserRange {
                "required under root"
            } else if facility == Facility::CgroupIo {
                "required where isolates have a limit on the disk"
            } else if facility == Facility::NetworkGuard && profile != Profile::None {
                "required for network `host`"
            } else if facility == Facility::NetworkGuard {
                "if there"
            } else {
                "–"
            }
        };
        let [none, standard, strict] = Profile::ALL.map(word);
        writeln!(out, "| `{facility}` | {none} | {standard} | {strict} |").unwrap();
    }
    out.push_str(
        "\nA required facility that is missing refuses the start, unless `sandbox.allow_degraded` names \
         it; under root\nan own uid cannot be given up. `legation doctor` tries each of them.\n\n\
         With `seccomp`, init (pid 1 of the isolate, which no server reaches) has a filter of its own from the \
         server's\nexec on: it waits, reads a signal, reaps, passes TERM on, tells how the server ended and \
         goes; any other system\ncall ends the isolate (`sandbox/src/seccomp.rs`).\n",
    );
    out.push_str(BESIDES);
    for (kind, rows) in KINDS {
        writeln!(
            out,
            "\n## {kind}\n\n| attack | strict and standard answer | none |\n|---|---|---|"
        )
        .unwrap();
        for (_, what, expected, bare) in *rows {
            let answer = match expected {
                ["no effect"] => "no effect".to_owned(),
                ["SIGSYS"] => "killed by `SIGSYS`".to_owned(),
                ["SIGSYS", other] => format!("killed by `SIGSYS` or `{other}`"),
                several => several
                    .iter()
                    .map(|e| format!("`{e}`"))
                    .collect::<Vec<_>>()
                    .join(" or "),
            };
            let bare = if *bare == Succeeds { "succeeds" } else { "" };
            writeln!(out, "| {what} | {answer} | {bare} |").unwrap();
        }
    }
    out.push_str(
        "\n## Hoards\n\nTaken until the kernel says no, and held (`sandbox/tests/hoards.rs`): each is refused \
         at a limit of the isolate's own,\nor charged to its memory, and then the isolate is ended and its \
         limit named.\n\n",
    );
    for (_, what) in crate::hoards::KINDS {
        writeln!(out, "* {what}").unwrap();
    }
    out
}
