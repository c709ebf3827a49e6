//! The landlock step: a second wall behind the view, and the only one around signals and abstract
//! sockets where the network is the host's.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::plan::Place;
use crate::status::Failure;

/// What must be had: rules on files as they first came, with kernel 5.13.
const LEAST: ABI = ABI::V1;
/// What is had where the kernel knows it.
const MOST: ABI = ABI::V6;

/// Reading everywhere in the view, writing in these directories only.
pub(super) fn restrict(writable: &[PathBuf]) -> Result<(), Failure> {
    apply(writable).map_err(|why| {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let text = format!("cannot restrict files with landlock: {why}");
        Failure::new(Place::Landlock.name(), errno, &text)
    })
}

fn apply(writable: &[PathBuf]) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))
        .map_err(|e| told(&e))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(MOST))
        .map_err(|e| told(&e))?
        .scope(Scope::from_all(MOST))
        .map_err(|e| told(&e))?;
    let rule = |path: &Path, access| {
        let opened = PathFd::new(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(PathBeneath::new(opened, access))
    };
    let mut rules = ruleset
        .create()
        .map_err(|e| told(&e))?
        .set_compatibility(CompatLevel::BestEffort)
        .add_rule(rule(Path::new("/"), AccessFs::from_read(MOST))?)
        .map_err(|e| told(&e))?;
    for path in writable {
        rules = rules
            .add_rule(rule(path, AccessFs::from_all(MOST))?)
            .map_err(|e| told(&e))?;
    }
    match rules.restrict_self().map_err(|e| told(&e))?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel does not enforce it".to_owned()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}
