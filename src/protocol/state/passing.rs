//! `requestState` of a server that holds no call, on its way through a client: sealed to the key, the address and
//! the request that it was given for, and good for a while. Nothing is kept here for it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::limits::REQUEST_STATE_BYTES_MAX;

use super::{Bound, MAC_BYTES, Refused, Sealer};

const VERSION: u8 = 2;
/// Version, process, end.
const PLAIN_BYTES: usize = 1 + 8 + 8;

impl Sealer {
    fn mac_passing(&self, plain: &[u8], bound: Bound<'_>) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.secret).into());
        mac.update(b"legation passing state");
        mac.update(&(plain.len() as u64).to_be_bytes());
        mac.update(plain);
        mac.update(bound.request);
        mac.update(bound.principal.as_bytes());
        mac
    }

    /// Seals a server's own state, which is raw JSON; none stands for a request that is only to be sent again.
    #[must_use]
    pub fn seal_passing(&self, own: Option<&str>, until: i64, bound: Bound<'_>) -> String {
        let own = own.unwrap_or_default();
        let mut bytes = Vec::with_capacity(PLAIN_BYTES + own.len() + MAC_BYTES);
        bytes.push(VERSION);
        bytes.extend(self.process);
        bytes.extend(until.to_be_bytes());
        bytes.extend(own.as_bytes());
        let mac = self.mac_passing(&bytes, bound).finalize().into_bytes();
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The server's own state, raw, if this is a state of such a server; else `None`, and it may be of a call that
    /// is held.
    ///
    /// # Errors
    /// [`Refused`]; never [`Refused::Gone`].
    pub fn open_passing(
        &self,
        text: &str,
        bound: Bound<'_>,
        now: i64,
    ) -> Result<Option<Option<String>>, Refused> {
        // Long ones are not decoded to be refused.
        if text.len() > 2 * (PLAIN_BYTES + REQUEST_STATE_BYTES_MAX + MAC_BYTES) {
            return Err(Refused::Foreign);
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else {
            return Err(Refused::Foreign);
        };
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (process, rest) = rest.split_first_chunk().ok_or(Refused::Foreign)?;
        if *process != self.process {
            return Err(Refused::Elsewhere);
        }
        let plain_len = bytes.len().checked_sub(MAC_BYTES);
        let (plain, mac) = plain_len
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(Refused::Foreign)?;
        self.mac_passing(plain, bound)
            .verify_slice(mac)
            .map_err(|_| Refused::Foreign)?;
        let (until, _) = rest.split_first_chunk().ok_or(Refused::Foreign)?;
        if i64::from_be_bytes(*until) <= now {
            return Err(Refused::Late);
        }
        let own = plain.get(PLAIN_BYTES..).unwrap_or_default();
        let own = String::from_utf8(own.to_vec()).map_err(|_| Refused::Foreign)?;
        Ok(Some((!own.is_empty()).then_some(own)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_good_for_what_it_was_given_for() {
        let sealer = Sealer::new([1; 8], [2; super::super::SECRET_BYTES]);
        let bound = Bound {
            principal: "ada",
            request: &[3; 32],
        };
        for own in [None, Some("\"state\"")] {
            let text = sealer.seal_passing(own, 10, bound);
            let opened = sealer.open_passing(&text, bound, 9);
            assert_eq!(opened, Ok(Some(own.map(str::to_owned))));
            assert_eq!(sealer.open_passing(&text, bound, 10), Err(Refused::Late));
            let bob = Bound {
                principal: "bob",
                ..bound
            };
            assert_eq!(sealer.open_passing(&text, bob, 9), Err(Refused::Foreign));
            let other = Bound {
                request: &[4; 32],
                ..bound
            };
            assert_eq!(sealer.open_passing(&text, other, 9), Err(Refused::Foreign));
            let elsewhere = Sealer::new([9; 8], [2; super::super::SECRET_BYTES]);
            assert_eq!(
                elsewhere.open_passing(&text, bound, 9),
                Err(Refused::Elsewhere)
            );
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                let opened = sealer.open_passing(&changed, bound, 9);
                assert!(!matches!(opened, Ok(Some(_))), "{at}");
            }
        }
        let stub = super::super::Stub {
            call: [0; 16],
            round: 1,
            until: 10,
        };
        let held = sealer.seal(stub, bound);
        assert_eq!(sealer.open_passing(&held, bound, 9), Ok(None));
        for bad in ["", "x", "Ag", "AgEB"] {
            assert!(
                !matches!(sealer.open_passing(bad, bound, 9), Ok(Some(_))),
                "{bad}"
            );
        }
    }
}
