//! What the properties of the crate say about the readers of this module.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{stats, text};

type Checked = Result<(), TestCaseError>;

/// Reads a text by all readers.
pub(crate) fn reads(any: &str) {
    let _ = (text::keyed(any, "oom"), text::pids(any), text::mounts(any));
    let _ = (
        text::own_path(any, None),
        text::own_path(any, Some("memory")),
    );
    let _ = stats::stall_of(any);
}

pub(crate) fn keyed_is_read_back(counts: &BTreeMap<String, u64>) -> Checked {
    let lines: Vec<String> = counts
        .iter()
        .map(|(key, n)| format!("{key} {n}\n"))
        .collect();
    let file = lines.concat();
    for (key, count) in counts {
        prop_assert_eq!(text::keyed(&file, key), Some(*count));
    }
    prop_assert_eq!(text::keyed(&file, "NOT THERE"), None);
    Ok(())
}

pub(crate) fn pids_are_read_back(pids: &[i32]) -> Checked {
    let lines: Vec<String> = pids.iter().map(|pid| format!("{pid}\n")).collect();
    prop_assert_eq!(text::pids(&lines.concat()), pids);
    Ok(())
}

/// As the kernel escapes them.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\134").replace(' ', "\\040")
}

pub(crate) fn mounts_are_read_back(point: &str, controllers: &[String], path: &str) -> Checked {
    let list = controllers.join(",");
    let at = escaped(point);
    let info = format!(
        "26 24 0:24 / {at} rw,relatime shared:1 - cgroup cgroup rw,{list}\n\
         27 24 0:25 / {at} rw - cgroup2 none rw,nsdelegate\n28 24 0:26 / /x rw - ext4 /dev/x rw\n"
    );
    let mounts = text::mounts(&info);
    prop_assert_eq!(mounts.len(), 2);
    for mount in &mounts {
        prop_assert_eq!(&mount.point, &PathBuf::from(point));
    }
    // Options that say how it is mounted are no controllers.
    let wanted: Vec<String> = controllers
        .iter()
        .filter(|name| *name != "rw" && *name != "ro")
        .cloned()
        .collect();
    prop_assert_eq!(
        mounts.first().and_then(|mount| mount.controllers.clone()),
        Some(wanted)
    );
    let own = format!("4:{list}:{path}\n0::{path}/v2\n");
    for controller in controllers {
        prop_assert_eq!(text::own_path(&own, Some(controller)), Some(path.into()));
    }
    prop_assert_eq!(
        text::own_path(&own, None),
        Some(format!("{path}/v2").into())
    );
    Ok(())
}
