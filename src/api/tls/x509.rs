//! What we need of X.509, read without an X.509 library: when a certificate ends, whether it says what its key is for,
//! and whether it is the one that we made.
//!
//! RFC 5280, section 4.1: `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version
//! OPTIONAL, serialNumber, signature, issuer, validity SEQUENCE { notBefore, notAfter }, subject,
//! subjectPublicKeyInfo, …, [3] SEQUENCE OF SEQUENCE { extnID, … } } … }`.

use crate::api::stamp::Day;
use crate::domain::account::Millis;

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const OBJECT_IDENTIFIER: u8 = 0x06;
const EXTENSIONS: u8 = 0xa3;
/// id-ce-keyUsage, 2.5.29.15 (RFC 5280, section 4.2.1.3).
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// id-at-commonName, 2.5.4.3 (RFC 5280, appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The end of the certificate's validity, or nothing if it is not a certificate.
pub(super) fn not_after(der: &[u8]) -> Option<Millis> {
    let (validity, _) = validity(der)?;
    let (_tag, _not_before, rest) = element(validity)?;
    let (tag, not_after, _) = element(rest)?;
    time(tag, not_after)
}

/// Whether it has the extension `keyUsage`; not, if it is not a certificate.
pub(super) fn has_key_usage(der: &[u8]) -> bool {
    extensions(der).is_some_and(|mut rest| {
        while let Some((extension, more)) = take(rest, SEQUENCE) {
            if take(extension, OBJECT_IDENTIFIER).is_some_and(|(id, _)| id == KEY_USAGE) {
                return true;
            }
            rest = more;
        }
        false
    })
}

/// Whether it is its own issuer's, and has this common name and no other name.
pub(super) fn is_self_signed_by(der: &[u8], common_name: &str) -> bool {
    let named = || {
        let (issuer, rest) = issuer(der)?;
        let (_validity, rest) = take(rest, SEQUENCE)?;
        let (subject, _) = take(rest, SEQUENCE)?;
        let (names, more) = take(subject, SET)?;
        let (attribute, others) = take(names, SEQUENCE)?;
        let (kind, value) = take(attribute, OBJECT_IDENTIFIER)?;
        let (_tag, value, _) = element(value)?;
        let is_one = more.is_empty() && others.is_empty() && kind == COMMON_NAME;
        Some(is_one && issuer == subject && value == common_name.as_bytes())
    };
    named().unwrap_or(false)
}

/// The value of `issuer`, and what follows it.
fn issuer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (certificate, _) = take(der, SEQUENCE)?;
    let (tbs, _) = take(certificate, SEQUENCE)?;
    let rest = take(tbs, VERSION).map_or(tbs, |(_, rest)| rest);
    let (_serial, rest) = take(rest, INTEGER)?;
    let (_signature, rest) = take(rest, SEQUENCE)?;
    take(rest, SEQUENCE)
}

/// The value of `validity`, and what follows it.
fn validity(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_issuer, rest) = issuer(der)?;
    take(rest, SEQUENCE)
}

/// The extensions, one after the other.
fn extensions(der: &[u8]) -> Option<&[u8]> {
    let (_, rest) = validity(der)?;
    let (_subject, rest) = take(rest, SEQUENCE)?;
    let (_public_key, mut rest) = take(rest, SEQUENCE)?;
    // Two unique identifiers may come first.
    loop {
        let (tag, value, more) = element(rest)?;
        if tag == EXTENSIONS {
            return take(value, SEQUENCE).map(|(extensions, _)| extensions);
        }
        rest = more;
    }
}

/// The first element, if it has this tag, and what follows it.
fn take(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = element(input)?;
    (tag == wanted).then_some((value, rest))
}

/// Tag, value and what follows; definite lengths of up to four bytes, as DER has them.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, input) = input.split_first()?;
    let (&first, input) = input.split_first()?;
    let (length, input) = if first < 0x80 {
        (usize::from(first), input)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (bytes, input) = input.split_at_checked(count)?;
        (
            bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte)),
            input,
        )
    };
    let (value, rest) = input.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// `YYMMDDHHMMSSZ` (1950 to 2049) or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<Millis> {
    let text = text.strip_suffix(b"Z")?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (short, rest) = text.split_at_checked(2)?;
            let short = number(short)?;
            (
                if short < 50 {
                    2000 + short
                } else {
                    1900 + short
                },
                rest,
            )
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let mut pairs = rest.chunks_exact(2).map(number);
    let mut next = || pairs.next().flatten();
    let (month, day) = (next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let days = Day { year, month, day }.to_epoch();
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 28);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn reads_both_ways_to_write_a_time() {
        // Before 2050 it is UTCTime, after it GeneralizedTime.
        for year in [2031, 2077] {
            let days = Day {
                year: i64::from(year),
                month: 2,
                day: 28,
            }
            .to_epoch();
            assert_eq!(
                not_after(&certificate(year)),
                Some(days * 86_400_000),
                "{year}"
            );
        }
    }

    #[test]
    fn what_the_key_is_for_is_found_among_the_extensions() {
        assert!(!has_key_usage(&certificate(2031)));
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let other = params.self_signed(&key).unwrap();
        assert!(!has_key_usage(other.der()));
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let with = params.self_signed(&key).unwrap();
        assert!(has_key_usage(with.der()));
        // Cut before, it is not seen; and nothing else happens.
        let whole: &[u8] = with.der();
        for cut in 0..whole.len() {
            has_key_usage(&whole[..cut]);
        }
        assert!(!has_key_usage(&whole[..200]));
    }

    #[test]
    fn who_signed_it_and_for_whom_is_told_by_its_names() {
        let named = |name: &str| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            params
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let own = named("ours").self_signed(&key).unwrap();
        assert!(is_self_signed_by(own.der(), "ours"));
        assert!(!is_self_signed_by(own.der(), "our"));
        let mut more = named("ours");
        more.distinguished_name
            .push(rcgen::DnType::OrganizationName, "x");
        let more = more.self_signed(&key).unwrap();
        assert!(!is_self_signed_by(more.der(), "ours"));
        let issuer = rcgen::Issuer::new(named("an authority"), rcgen::KeyPair::generate().unwrap());
        let leaf = named("ours").signed_by(&key, &issuer).unwrap();
        assert!(!is_self_signed_by(leaf.der(), "ours"));
        let whole: &[u8] = own.der();
        for cut in 0..whole.len() / 2 {
            is_self_signed_by(&whole[..cut], "ours");
        }
        assert!(!is_self_signed_by(b"rubbish", "ours"));
    }

    #[test]
    fn rubbish_has_no_end() {
        let whole = certificate(2031);
        assert_eq!(not_after(b""), None);
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(not_after(&[0x30, 0x80, 0x00]), None);
        for cut in 0..64 {
            assert_eq!(not_after(&whole[..cut]), None, "{cut}");
        }
    }
}
