//! Whose limit on processes left none for a server that was to start.

use sandbox::Host;

use crate::domain::ids::UserId;
use crate::domain::verdict::{OomScope, Verdict};

use super::super::launcher::{Launch, LaunchError};

/// Init and its server: what the smallest isolate needs.
const PROCESSES_MIN: u64 = 2;

/// The limits that a start is held against.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    user: Option<UserId>,
    isolate_max: u64,
    user_max: u64,
}

impl Crowd {
    pub(super) fn of(launch: &Launch) -> Self {
        Self {
            user: launch.user.clone(),
            isolate_max: launch.limits.pids,
            user_max: launch.user_limits.pids,
        }
    }

    /// Says of a start that found no process whose limit it was; leaves other failures as they are.
    pub(super) fn named(&self, error: LaunchError, host: &Host) -> LaunchError {
        let LaunchError::NoProcess = error else {
            return error;
        };
        let user = self.user.as_ref();
        let now = user.and_then(|user| host.processes_of(user.short()));
        LaunchError::Over(self.verdict(now))
    }

    /// `now`: processes of all isolates of the user.
    fn verdict(&self, now: Option<u64>) -> Verdict {
        // Nobody but its init is in the isolate yet.
        let (scope, limit) = if self.isolate_max < PROCESSES_MIN {
            (OomScope::Isolate, Some(self.isolate_max))
        // That init may be gone again.
        } else if now.is_some_and(|now| now + PROCESSES_MIN > self.user_max) {
            (OomScope::User, Some(self.user_max))
        } else {
            (OomScope::Host, None)
        };
        Verdict::OutOfProcesses { scope, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_that_is_reached_is_named() {
        let verdict = |isolate_max, now| {
            let crowd = Crowd {
                user: None,
                isolate_max,
                user_max: 128,
            };
            crowd.verdict(now)
        };
        let of = |scope, limit| Verdict::OutOfProcesses { scope, limit };
        assert_eq!(verdict(1, Some(128)), of(OomScope::Isolate, Some(1)));
        for now in [127, 128] {
            assert_eq!(verdict(64, Some(now)), of(OomScope::User, Some(128)));
        }
        assert_eq!(verdict(64, Some(20)), of(OomScope::Host, None));
        assert_eq!(verdict(64, None), of(OomScope::Host, None));
    }
}
