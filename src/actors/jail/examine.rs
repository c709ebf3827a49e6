//! What this host offers to isolates, for `legation doctor`: the probe of a start, without one.

use std::path::Path;

use sandbox::uids::{CLAIMS, Range, RangeError};
use sandbox::{Host, HostConfig};
use serde::Serialize;

use super::{Facility, Walls, refusal, walls};
use crate::actors::launcher::LaunchError;

/// How a facility is judged by the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is there.
    Ok,
    /// It is missing; isolates start without it and say so.
    Degraded,
    /// It is missing, and nothing here needs it.
    Unused,
    /// It is missing, and isolates do not start.
    Missing,
}

/// One facility, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, as in `sandbox.allow_degraded`.
    pub facility: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was tried, and what came of it.
    pub evidence: String,
    /// What to do, if something is to be done.
    pub fix: Option<String>,
}

/// Tries every facility, as `serve` would.
///
/// # Errors
/// The probe itself could not be made: no spawner, no such installation.
pub fn examine(operator: &Walls, allowed: &[Facility]) -> Result<Vec<Finding>, LaunchError> {
    // A name no installation has: nothing of a running server is touched.
    let id = format!("{:012x}", std::process::id());
    let mut config = HostConfig::new(&id);
    config.allow_degraded = Facility::ALL.to_vec();
    let range = operator.range()?;
    config.probe_identity = range.map(Range::probe);
    config.subordinate = operator.given();
    config.io = operator.io;
    let host = Host::start(config).map_err(|e| refusal(&e))?;
    let profile = walls::profile(operator.profile);
    let is_root = range.is_some();
    let asked = |facility: &Facility| *facility != Facility::CgroupIo || operator.io.is_some();
    let mut found: Vec<Finding> = Facility::ALL
        .into_iter()
        .filter(asked)
        .map(|facility| {
            let missing = &host.capabilities().missing;
            let lack = missing.iter().find(|lack| lack.facility == facility);
            let needed = Facility::GROUND.contains(&facility)
                || facility == Facility::CgroupIo
                || profile.required().contains(&facility)
                || (is_root && facility == Facility::UserRange);
            let forgiven =
                allowed.contains(&facility) && !(is_root && facility == Facility::UserRange);
            let verdict = match lack {
                None => Verdict::Ok,
                Some(_) if needed && !forgiven => Verdict::Missing,
                Some(_) if needed || profile.wanted().contains(&facility) => Verdict::Degraded,
                Some(_) => Verdict::Unused,
            };
            Finding {
                facility: facility.name().to_owned(),
                verdict,
                evidence: lack
                    .map_or_else(|| facility.evidence().to_owned(), |lack| lack.why.clone()),
                fix: lack.map(|_| facility.fix().to_owned()),
            }
        })
        .collect();
    found.extend(range.map(claimed));
    Ok(found)
}

/// Whether the range of uids is free of accounts. A running server of this configuration holds it.
fn claimed(range: Range) -> Finding {
    let (verdict, evidence) = match range.claim(Path::new(CLAIMS)) {
        Ok(_) => (Verdict::Ok, format!("uids {range} are free")),
        Err(RangeError::Taken(_)) => (Verdict::Ok, format!("uids {range} are a running server's")),
        Err(other) => (Verdict::Missing, other.to_string()),
    };
    let fix = "set sandbox.uid_base to a free range";
    Finding {
        facility: "uid_claim".to_owned(),
        verdict,
        evidence,
        fix: (verdict != Verdict::Ok).then(|| fix.to_owned()),
    }
}
