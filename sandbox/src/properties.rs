//! Properties of all that reads text of the kernel's or of another process: nothing panics on any text, and what a kernel
//! would write is read back as it was meant.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::cgroup::properties as cgroup;
use crate::plan::errand::Errand;
use crate::plan::secret::{OwnedFiles, Secret, SecretFiles};
use crate::plan::view::{Access, Base, Kind, Mount, Presence, View};
use crate::plan::{Identity, Plan, Program, Rlimits, Step};
use crate::status::{Decoder, Failure, Record, encode};
use crate::{procfs, wire};

/// Lines as the kernel's files have them, whole and broken.
fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "\\PC{0,60}",
        "[a-z_]{1,16} [0-9]{1,24}",
        "[0-9]{1,3}:[a-z,=]{0,20}:/[ -~]{0,20}",
        "[0-9]+ [0-9]+ [0-9]+:[0-9]+ /[ -~]{0,12} /[ -~]{0,24} rw - cgroup2? [a-z0-9]+ rw,[a-z,]{0,20}",
        "(some|full) avg10=[0-9.]{0,6} avg60=0.00 avg300=0.00 total=[0-9]{0,24}",
    ];
    vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

fn path() -> impl Strategy<Value = PathBuf> {
    "(/[a-zA-Z0-9._ ä-]{1,12}){1,4}".prop_map(PathBuf::from)
}

fn identity() -> impl Strategy<Value = Identity> {
    (any::<u32>(), any::<u32>()).prop_map(|(uid, gid)| Identity { uid, gid })
}

fn secret() -> impl Strategy<Value = Secret> {
    vec(any::<u8>(), 0..64).prop_map(|bytes| Secret::new(Zeroizing::new(bytes)))
}

fn kind() -> impl Strategy<Value = Kind> {
    let access = prop_oneof![
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Device)
    ];
    let presence = prop_oneof![Just(Presence::Required), Just(Presence::IfThere)];
    prop_oneof![
        (access, presence).prop_map(|(access, presence)| Kind::Bind(access, presence)),
        (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(bytes, files, mode)| Kind::Tmpfs {
            bytes,
            files,
            mode
        }),
        Just(Kind::Proc),
        Just(Kind::Dir),
        Just(Kind::Cover),
        Just(Kind::StandIn),
        "\\PC{0,40}".prop_map(Kind::Text),
        path().prop_map(Kind::Link),
    ]
}

fn view() -> impl Strategy<Value = View> {
    let base = prop_oneof![Just(Base::Empty), Just(Base::Host)];
    let mount = (path(), kind()).prop_map(|(at, kind)| Mount { at, kind });
    (base, vec(mount, 0..8), btree_map(path(), path(), 0..3))
        .prop_map(|(base, mounts, ends)| View { base, mounts, ends })
}

fn step() -> impl Strategy<Value = Step> {
    let files = (path(), btree_map("[a-z.]{1,8}", secret(), 0..3), identity());
    let files = files.prop_map(|(dir, files, owner)| OwnedFiles {
        files: SecretFiles { dir, files },
        owner,
    });
    let errand = prop_oneof![
        (path(), any::<u32>()).prop_map(|(dir, entries)| Errand::Weigh { dir, entries }),
        (path(), "\\PC{0,9}", "\\PC{0,9}", any::<u32>()).prop_map(|(root, owner, name, id)| {
            Errand::Settle {
                root,
                owner,
                name,
                id,
            }
        }),
    ];
    prop_oneof![
        errand.prop_map(Step::Errand),
        Just(Step::CgroupNamespace),
        vec(any::<u16>(), 0..9).prop_map(|ports| Step::Doors { ports }),
        "\\PC{0,12}".prop_map(Step::HostName),
        any::<i32>().prop_map(Step::OomScore),
        view().prop_map(Step::Mounts),
        files.prop_map(Step::Secrets),
        (any::<u64>(), any::<u64>()).prop_map(|(open_files, file_bytes)| Step::Rlimits(Rlimits {
            open_files,
            file_bytes,
            locked_bytes: 0,
            message_queue_bytes: 0,
        })),
        identity().prop_map(Step::Become),
        vec(path(), 0..3).prop_map(|writable| Step::Landlock { writable }),
        path().prop_map(Step::Workdir),
        btree_map(any::<i32>(), secret(), 0..3).prop_map(Step::Pipes),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let env = btree_map("\\PC{0,8}", "\\PC{0,20}", 0..4);
    let program = (path(), vec("\\PC{0,20}", 0..4), env).prop_map(|(path, args, env)| Program {
        path,
        args,
        env: env
            .into_iter()
            .map(|(name, value)| (name, Zeroizing::new(value)))
            .collect::<BTreeMap<_, _>>(),
    });
    (vec(step(), 0..8), proptest::option::of(program)).prop_map(|(mut steps, program)| {
        steps.sort_by_key(Step::place);
        steps.dedup_by_key(|step| step.place());
        Plan { steps, program }
    })
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        Just(Record::Started),
        any::<i32>().prop_map(Record::Exited),
        any::<i32>().prop_map(Record::Signaled),
        ("\\PC{0,8}", any::<i32>(), "\\PC{0,600}")
            .prop_map(|(step, errno, text)| Record::Failed(Failure::new(&step, errno, &text))),
    ]
}

proptest! {
    #[test]
    fn no_text_of_the_kernel_s_is_too_much(text in lines()) {
        cgroup::reads(&text);
        procfs::state_and_parent(&text);
    }

    #[test]
    fn what_a_kernel_counts_is_read_back(
        counts in btree_map("[a-z_]{1,12}", any::<u64>(), 1..8), pids in vec(1i32.., 0..8),
    ) {
        cgroup::keyed_is_read_back(&counts)?;
        cgroup::pids_are_read_back(&pids)?;
    }

    #[test]
    fn mounts_and_own_paths_are_read_back(
        point in "(/[ -~]{1,8}){1,3}", controllers in vec("[a-z]{2,8}", 1..3), path in "(/[a-z:]{1,8}){1,3}",
    ) {
        cgroup::mounts_are_read_back(&point, &controllers, &path)?;
    }

    #[test]
    fn a_name_forges_neither_state_nor_parent(name in "\\PC{0,15}", parent in any::<i32>()) {
        let stat = format!("12 ({name}) S {parent} 5 6");
        prop_assert_eq!(procfs::state_and_parent(&stat), Some(('S', parent)));
    }

    #[test]
    fn a_plan_is_the_same_on_the_other_side_or_refused_on_both(plan in plan()) {
        let sealed = plan.seal().unwrap();
        match (plan.check(), Plan::unseal(sealed)) {
            (Ok(()), Ok(read)) => prop_assert_eq!(read, plan),
            (Err(_), Err(_)) => {}
            (here, there) => prop_assert!(false, "{here:?}, {there:?}"),
        }
    }

    #[test]
    fn a_plan_that_was_damaged_is_none_or_one_that_holds(
        plan in plan(), at in any::<proptest::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut text = serde_json::to_vec(&plan).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(read) = serde_json::from_slice::<Plan>(&text) {
            let _ = read.check();
        }
    }

    #[test]
    fn what_init_tells_is_heard_however_it_is_cut(
        records in vec(record(), 0..6), size in 1usize..64, noise in vec(any::<u8>(), 0..64),
    ) {
        let bytes: Vec<u8> = records.iter().flat_map(encode).collect();
        let mut decoder = Decoder::default();
        let heard: Vec<Record> = bytes.chunks(size).flat_map(|part| decoder.feed(part)).collect();
        prop_assert_eq!(&heard, &records);
        let mut decoder = Decoder::default();
        decoder.feed(&noise);
        let after = decoder.feed(&[b"\n", bytes.as_slice()].concat());
        prop_assert!(after.ends_with(&records));
    }

    #[test]
    fn a_request_is_the_same_on_the_other_side_and_any_other_is_none(bytes in any::<[u8; 16]>()) {
        if let Some(request) = wire::Request::decode(bytes) {
            prop_assert_eq!(request.encode(), bytes);
        }
    }
}
