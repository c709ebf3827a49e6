//! From a profile to a plan: a pure function of the order, what the run needs, and what the host
//! can do. What cannot be had is refused or named, never left out in silence.

use std::collections::BTreeMap;

use super::secret::{OwnedFiles, Secret, SecretFiles};
use super::view::{Accounts, Needs, View};
use super::{Identity, Plan, Program, Rlimits, Step};
use crate::facility::{Facility, Missing};
use crate::profile::{Network, Profile};
use crate::sys;

/// Isolates go before the gateway when the host runs out of memory.
const OOM_SCORE: i32 = 500;
/// Bytes a process may lock in memory.
const LOCKED_BYTES: u64 = 64 << 10;
/// What an isolate calls its machine.
const HOST_NAME: &str = "isolate";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// How thick the walls are to be.
    pub profile: Profile,
    /// What it may reach.
    pub network: Network,
    /// Ports of the hosts it may reach ([`Network::Allowlist`]).
    pub ports: &'a [u16],
    /// Whom it runs as, where we may choose.
    pub identity: Option<Identity>,
    /// Its home and working directory.
    pub home: &'a std::path::Path,
    /// What it must see.
    pub needs: &'a Needs,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of the largest file a process may write.
    pub file_bytes: u64,
    /// Files that only it sees.
    pub secrets: Option<&'a SecretFiles>,
    /// Values in descriptors of its server.
    pub descriptors: &'a BTreeMap<i32, Secret>,
    /// What is run.
    pub program: &'a Program,
}

/// What the host can do, as the probe found it.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// Who we are.
    pub own: Own,
    /// Namespaces come with a user namespace, because we may not make them as we are.
    pub user_namespace: bool,
    /// What the probe found missing, with why.
    pub missing: Vec<Missing>,
    /// What may be missing.
    pub allowed: Vec<Facility>,
    /// A limit on disks was asked for.
    pub limits_io: bool,
}

/// Our own ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Own {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
}

/// A plan, and what it takes to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// `CLONE_NEW*` flags of the clone.
    pub namespaces: u64,
    /// What the profile asks for and this run does without.
    pub degraded: Vec<Facility>,
}

/// A facility that is needed is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The profile needs it.
    #[error(
        "profile {profile} needs {missing}; or name it in sandbox.allow_degraded, or give the mcp a \
         thinner profile"
    )]
    Profile {
        /// The profile.
        profile: Profile,
        /// What is missing, why, and how to get it.
        missing: Missing,
    },
    /// An allowlist needs a network of the isolate's own.
    #[error(
        "network allowlist needs an own network, which {}; give the mcp profile standard or strict",
        match missing {
            Some(missing) => format!("cannot be had: {missing}"),
            None => format!("profile {profile} does not have"),
        }
    )]
    Allowlist {
        /// The profile.
        profile: Profile,
        /// What is missing, if that is why.
        missing: Option<Missing>,
    },
    /// Who has the host's network is kept from metadata addresses, or does not have it.
    #[error(
        "network host needs {missing}; or name it in sandbox.allow_degraded, which lets isolates \
         reach the metadata of a cloud"
    )]
    HostNetwork {
        /// What is missing, why, and how to get it.
        missing: Missing,
    },
    /// Secret files need it. Without it they would lie on a disk, where others see them: nobody
    /// can allow that by naming it.
    #[error(
        "credentials that are files need {missing}; sandbox.allow_degraded is no help here, for \
         without it they would lie on a disk; or hand them over as variables (env:VARIABLE)"
    )]
    SecretFiles {
        /// What is missing, why, and how to get it.
        missing: Missing,
    },
}

impl Refused {
    /// The facility that is not there, or is not used.
    #[must_use]
    pub const fn facility(&self) -> Facility {
        match self {
            Self::Profile { missing, .. }
            | Self::SecretFiles { missing }
            | Self::HostNetwork { missing } => missing.facility,
            Self::Allowlist { .. } => Facility::NetworkNamespace,
        }
    }
}

impl Ground {
    fn lack(&self, facility: Facility) -> Option<&Missing> {
        self.missing.iter().find(|lack| lack.facility == facility)
    }

    fn has(&self, facility: Facility) -> bool {
        self.lack(facility).is_none()
    }

    /// Whether the operator allowed it to be missing. Under root an own uid is not for sale.
    fn may_lack(&self, facility: Facility) -> bool {
        let is_root = self.own.uid == 0 && facility == Facility::UserRange;
        !is_root && self.allowed.contains(&facility)
    }

    /// What `profile` requires here, the ground of all profiles included.
    fn required(&self, profile: Profile) -> Vec<Facility> {
        let mut all = [&Facility::GROUND[..], profile.required()].concat();
        if self.own.uid == 0 && !all.contains(&Facility::UserRange) {
            all.push(Facility::UserRange);
        }
        if self.limits_io {
            all.push(Facility::CgroupIo);
        }
        all
    }

    /// Whether `profile` can be had; what it does without, if that is allowed.
    ///
    /// # Errors
    /// [`Refused`] names the first facility that may not be missing.
    pub fn check(&self, profile: Profile) -> Result<Vec<Facility>, Refused> {
        let mut degraded = Vec::new();
        for facility in self.required(profile) {
            match self.lack(facility) {
                None => {}
                Some(_) if self.may_lack(facility) => degraded.push(facility),
                Some(missing) => {
                    return Err(Refused::Profile {
                        profile,
                        missing: missing.clone(),
                    });
                }
            }
        }
        let wanted = profile.wanted().iter().copied();
        degraded.extend(wanted.filter(|facility| !self.has(*facility)));
        Ok(degraded)
    }
}

impl Order<'_> {
    /// The plan for it on this ground.
    ///
    /// # Errors
    /// [`Refused`] if the profile cannot be had.
    pub fn build(&self, ground: &Ground) -> Result<Built, Refused> {
        let mut degraded = ground.check(self.profile)?;
        if self.network == Network::Host
            && self.profile != Profile::None
            && let Some(missing) = ground.lack(Facility::NetworkGuard)
        {
            if !ground.may_lack(Facility::NetworkGuard) {
                let missing = missing.clone();
                return Err(Refused::HostNetwork { missing });
            }
            degraded.push(Facility::NetworkGuard);
        }
        let uses = |facility| self.uses(ground, facility);
        let chooses = ground.has(Facility::UserRange);
        let identity = self.identity.filter(|_| chooses);
        if identity.is_none() && chooses {
            return Err(Refused::Profile {
                profile: self.profile,
                missing: Missing {
                    facility: Facility::UserRange,
                    why: "no uid was given to the isolate".to_owned(),
                },
            });
        }
        let who = identity.unwrap_or(Identity {
            uid: ground.own.uid,
            gid: ground.own.gid,
        });
        if self.secrets.is_some()
            && let Some(missing) = ground.lack(Facility::MountNamespace)
        {
            let missing = missing.clone();
            return Err(Refused::SecretFiles { missing });
        }
        let view = uses(Facility::MountNamespace)
            .then(|| self.view(who))
            .flatten();
        let view = match self.secrets {
            Some(secrets) => Some(view.unwrap_or_else(View::host).with_dir(&secrets.dir)),
            None => view,
        };
        let secrets = self.secrets.map(|files| {
            Step::Secrets(OwnedFiles {
                files: files.clone(),
                owner: who,
            })
        });
        let namespaces = self.namespaces(ground, view.is_some());
        let step = |wanted: bool, step: Step| wanted.then_some(step);
        if self.network == Network::Allowlist && namespaces & sys::CLONE_NEWNET == 0 {
            // Never in the host's network: there its route would cut the host off.
            return Err(Refused::Allowlist {
                profile: self.profile,
                missing: ground.lack(Facility::NetworkNamespace).cloned(),
            });
        }
        let in_user_namespace = namespaces & sys::CLONE_NEWUSER != 0;
        let privileged = chooses || in_user_namespace;
        let landlock = view
            .as_ref()
            .filter(|_| uses(Facility::Landlock))
            .map(|view| Step::Landlock {
                writable: view.writable(),
            });
        let steps = [
            step(
                in_user_namespace,
                Step::UserMap {
                    uid: ground.own.uid,
                    gid: ground.own.gid,
                },
            ),
            step(uses(Facility::CgroupNamespace), Step::CgroupNamespace),
            self.network_step(namespaces),
            Some(Step::Session),
            step(
                namespaces & sys::CLONE_NEWUTS != 0,
                Step::HostName(HOST_NAME.to_owned()),
            ),
            step(namespaces & sys::CLONE_NEWPID == 0, Step::Subreaper),
            Some(Step::OomScore(OOM_SCORE)),
            view.map(Step::Mounts),
            secrets,
            Some(Step::Rlimits(Rlimits {
                open_files: self.open_files,
                file_bytes: self.file_bytes,
                locked_bytes: LOCKED_BYTES,
                message_queue_bytes: 0,
            })),
            step(privileged, Step::DropBounding),
            identity.map(Step::Become),
            Some(Step::NoNewPrivs),
            landlock,
            Some(Step::Workdir(self.home.to_owned())),
            step(
                !self.descriptors.is_empty(),
                Step::Pipes(self.descriptors.clone()),
            ),
            step(uses(Facility::Seccomp), Step::Seccomp),
        ];
        Ok(Built {
            plan: Plan {
                steps: steps.into_iter().flatten().collect(),
                program: Some(self.program.clone()),
            },
            namespaces,
            degraded,
        })
    }

    fn network_step(&self, namespaces: u64) -> Option<Step> {
        match self.network {
            _ if namespaces & sys::CLONE_NEWNET == 0 => None,
            Network::None | Network::Host => None,
            Network::Loopback => Some(Step::Loopback),
            Network::Allowlist => Some(Step::Doors {
                ports: self.ports.to_vec(),
            }),
        }
    }

    /// Whether this run uses a facility: its profile asks for it and the host has it.
    fn uses(&self, ground: &Ground, facility: Facility) -> bool {
        let asked = match facility {
            // Shows the home through a closed directory: of use only where we change the uid.
            Facility::MountNamespace if self.profile == Profile::None => {
                ground.has(Facility::UserRange)
            }
            Facility::NetworkNamespace if self.network == Network::Host => false,
            other => {
                self.profile.wanted().contains(&other)
                    || ground.required(self.profile).contains(&other)
            }
        };
        asked && ground.has(facility)
    }

    fn view(&self, who: Identity) -> Option<View> {
        if self.profile == Profile::None {
            return View::of_host(self.needs, self.home);
        }
        let accounts = Accounts {
            uid: who.uid,
            gid: who.gid,
        };
        Some(View::own(self.needs, self.home, self.network, accounts))
    }

    fn namespaces(&self, ground: &Ground, mounts: bool) -> u64 {
        let mut flags = 0;
        for (facility, flag) in [
            (Facility::PidNamespace, sys::CLONE_NEWPID),
            (Facility::NetworkNamespace, sys::CLONE_NEWNET),
            (Facility::IpcNamespace, sys::CLONE_NEWIPC),
            (Facility::UtsNamespace, sys::CLONE_NEWUTS),
        ] {
            if self.uses(ground, facility) {
                flags |= flag;
            }
        }
        if mounts {
            flags |= sys::CLONE_NEWNS;
        }
        if ground.user_namespace && flags != 0 {
            flags |= sys::CLONE_NEWUSER;
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    static NONE: BTreeMap<i32, Secret> = BTreeMap::new();

    fn order<'a>(
        profile: Profile,
        network: Network,
        needs: &'a Needs,
        program: &'a Program,
    ) -> Order<'a> {
        Order {
            profile,
            network,
            ports: &[443],
            identity: Some(Identity { uid: 9, gid: 9 }),
            home: Path::new("/h/u/m"),
            needs,
            open_files: 1,
            file_bytes: 1,
            secrets: None,
            descriptors: &NONE,
            program,
        }
    }

    fn lacking(facilities: &[Facility], allowed: &[Facility], uid: u32) -> Ground {
        Ground {
            own: Own { uid, gid: uid },
            user_namespace: uid != 0,
            missing: facilities
                .iter()
                .map(|&facility| Missing {
                    facility,
                    why: "tried".to_owned(),
                })
                .collect(),
            allowed: allowed.to_vec(),
            limits_io: true,
        }
    }

    fn names(built: &Built) -> String {
        let names: Vec<_> = built.plan.steps.iter().map(|s| s.place().name()).collect();
        names.join(" ")
    }

    fn built(profile: Profile, network: Network, ground: &Ground) -> Result<Built, Refused> {
        let program = Program {
            path: "/bin/true".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let built = order(profile, network, &Needs::default(), &program).build(ground)?;
        built.plan.check().unwrap();
        Ok(built)
    }

    #[test]
    fn plans_by_profile_network_and_ground() {
        use Facility as F;
        let root = lacking(&[], &[], 0);
        let ordinary = lacking(&[F::UserRange], &[F::UserRange], 1000);
        let old = lacking(&[F::Landlock], &[F::Landlock], 0);
        // An ordinary user whose spawner has a range of ids in a user namespace of its own.
        let ranged = Ground {
            user_namespace: false,
            ..lacking(&[], &[], 1000)
        };
        for (profile, network, ground, expected) in [
            (
                Profile::Strict,
                Network::None,
                &root,
                "cgroup_namespace session host_name oom_score mounts rlimits capabilities user \
                 no_new_privs landlock workdir seccomp",
            ),
            (
                Profile::Strict,
                Network::Loopback,
                &root,
                "cgroup_namespace network session host_name oom_score mounts rlimits \
                 capabilities user no_new_privs landlock workdir seccomp",
            ),
            (
                Profile::Standard,
                Network::None,
                &old,
                "cgroup_namespace session host_name oom_score mounts rlimits capabilities user \
                 no_new_privs workdir seccomp",
            ),
            (
                Profile::Strict,
                Network::None,
                &ordinary,
                "user_map cgroup_namespace session host_name oom_score mounts rlimits \
                 capabilities no_new_privs landlock workdir seccomp",
            ),
            (
                Profile::Strict,
                Network::None,
                &ranged,
                "cgroup_namespace session host_name oom_score mounts rlimits capabilities user \
                 no_new_privs landlock workdir seccomp",
            ),
            (
                Profile::None,
                Network::None,
                &root,
                "session oom_score rlimits capabilities user no_new_privs workdir",
            ),
        ] {
            let built = built(profile, network, ground).unwrap();
            assert_eq!(names(&built), expected, "{profile} {network}");
        }
    }

    #[test]
    fn secret_files_bring_own_mounts_in_every_profile_or_are_refused() {
        let program = Program {
            path: "/bin/true".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let secrets = SecretFiles {
            dir: "/x/secrets".into(),
            files: BTreeMap::new(),
        };
        let needs = Needs::default();
        let with = |profile, ground: &Ground| {
            let mut order = order(profile, Network::None, &needs, &program);
            order.secrets = Some(&secrets);
            order.build(ground)
        };
        for (profile, uid) in [(Profile::Strict, 0), (Profile::None, 0), (Profile::None, 7)] {
            let allowed = [Facility::UserRange];
            let lacking = lacking(if uid == 0 { &[] } else { &allowed }, &allowed, uid);
            let built = with(profile, &lacking).unwrap();
            built.plan.check().unwrap();
            assert_ne!(built.namespaces & sys::CLONE_NEWNS, 0, "{profile} {uid}");
            assert!(
                names(&built).contains("mounts secrets rlimits"),
                "{profile} {uid}"
            );
            let owner = built.plan.steps.iter().find_map(|step| match step {
                Step::Secrets(secrets) => Some(secrets.owner.uid),
                _ => None,
            });
            assert_eq!(owner, Some(if uid == 0 { 9 } else { uid }));
        }
        let lack = [Facility::MountNamespace];
        for profile in Profile::ALL {
            let refused = with(profile, &super::tests::lacking(&lack, &lack, 0)).unwrap_err();
            assert!(
                matches!(refused, Refused::SecretFiles { .. }),
                "{profile}: {refused}"
            );
        }
    }

    #[test]
    fn the_network_of_the_host_is_had_only_by_asking() {
        let root = lacking(&[], &[], 0);
        let own = |profile, network| {
            built(profile, network, &root).unwrap().namespaces & sys::CLONE_NEWNET != 0
        };
        assert!(own(Profile::Strict, Network::None));
        assert!(own(Profile::Standard, Network::Loopback));
        assert!(!own(Profile::Strict, Network::Host));
        assert!(!own(Profile::None, Network::None));
    }

    #[test]
    fn the_network_of_the_host_is_guarded_or_refused() {
        let lack = [Facility::NetworkGuard];
        let host = |allowed: &[Facility], profile, network| {
            built(profile, network, &lacking(&lack, allowed, 0))
        };
        let refused = host(&[], Profile::Strict, Network::Host).unwrap_err();
        assert_eq!(refused.facility(), Facility::NetworkGuard);
        let text = refused.to_string();
        assert!(
            text.contains("network host needs network_guard")
                && text.contains("sandbox.allow_degraded"),
            "{text}"
        );
        let degraded = host(&lack, Profile::Strict, Network::Host).unwrap();
        assert_eq!(degraded.degraded, lack);
        // Who has no such network has no need of it.
        for (profile, network) in [
            (Profile::Strict, Network::None),
            (Profile::Standard, Network::Allowlist),
            (Profile::None, Network::None),
        ] {
            let built = host(&[], profile, network).unwrap();
            assert_eq!(built.degraded, [], "{profile} {network}");
        }
    }

    #[test]
    fn an_allowlist_never_touches_the_network_of_the_host() {
        let no_network = lacking(
            &[Facility::NetworkNamespace],
            &[Facility::NetworkNamespace],
            0,
        );
        for refused in [
            built(Profile::None, Network::Allowlist, &lacking(&[], &[], 0)),
            built(Profile::Strict, Network::Allowlist, &no_network),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.facility(), Facility::NetworkNamespace);
        }
        let plan = built(Profile::Strict, Network::Allowlist, &lacking(&[], &[], 0)).unwrap();
        let doors = Step::Doors { ports: vec![443] };
        assert!(plan.plan.steps.contains(&doors));
    }

    #[test]
    fn each_lack_refuses_or_is_named() {
        let walls = Facility::ALL.into_iter();
        for facility in walls.filter(|facility| *facility != Facility::NetworkGuard) {
            let refused = built(
                Profile::Strict,
                Network::None,
                &lacking(&[facility], &[], 0),
            );
            let text = refused.unwrap_err().to_string();
            let start = format!("profile strict needs {facility}: tried; ");
            assert!(text.starts_with(&start), "{text}");
            assert!(text.contains("sandbox.allow_degraded"), "{text}");
            let allowed = lacking(&[facility], &[facility], 0);
            let built = built(Profile::Strict, Network::None, &allowed);
            if facility == Facility::UserRange {
                assert!(built.is_err(), "root is not degradable");
            } else {
                assert_eq!(built.unwrap().degraded, [facility]);
            }
        }
    }

    #[test]
    fn root_is_given_up_in_every_profile() {
        for profile in Profile::ALL {
            let plan = built(profile, Network::None, &lacking(&[], &[], 0))
                .unwrap()
                .plan;
            let becomes = |step: &Step| matches!(step, Step::Become(identity) if identity.uid == 9);
            assert!(plan.steps.iter().any(becomes), "{profile}");
            let lack = lacking(&[Facility::UserRange], &[Facility::UserRange], 0);
            let refused = built(profile, Network::None, &lack).unwrap_err();
            assert_eq!(refused.facility(), Facility::UserRange);
        }
    }

    #[test]
    fn landlock_is_wanted_by_standard_and_its_lack_is_told() {
        let lack = lacking(&[Facility::Landlock], &[], 0);
        let built = built(Profile::Standard, Network::None, &lack).unwrap();
        assert_eq!(built.degraded, [Facility::Landlock]);
    }
}
