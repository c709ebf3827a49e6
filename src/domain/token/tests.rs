//! Tokens and keys under honest and dishonest use.

#![expect(clippy::string_slice, reason = "tokens and keys are ASCII")]

use proptest::prelude::*;

use super::*;

fn key(id: u8, byte: u8) -> TokenKey {
    TokenKey {
        id,
        secret: SecretBox::new(Box::new([byte; TOKEN_KEY_BYTES])),
    }
}

fn session() -> SessionId {
    SessionId::from_random([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
}

fn pepper(id: i64, byte: u8) -> Pepper {
    Pepper::new(id, &SecretBox::new(Box::new([byte; 32])))
}

#[test]
fn a_token_says_what_was_signed() {
    let keys = TokenKeys::new(&key(7, 1), &[]).unwrap();
    let token = keys.sign(&session(), 1_790_000_000_123, &[9; TOKEN_RANDOM_BYTES]);
    let text = token.expose_secret();
    assert!(text.starts_with(TOKEN_PREFIX));
    assert_eq!(text.len(), TOKEN_PREFIX.len() + 88);
    let verified = keys.verify(text).unwrap();
    assert_eq!(verified.session_id(), session());
    assert_eq!(verified.issued_at, 1_790_000_000_123);
    assert_eq!(verified.signed_by_rotated, None);
    let other = keys.sign(&session(), 1_790_000_000_123, &[8; TOKEN_RANDOM_BYTES]);
    assert_ne!(other.expose_secret(), text);
}

#[test]
fn the_form_is_fixed_for_ever() {
    // Tokens outlive an upgrade of the server: this text must verify as long as version 1 does.
    let keys = TokenKeys::new(&key(7, 1), &[]).unwrap();
    let token = keys.sign(&session(), 1_790_000_000_123, &[9; TOKEN_RANDOM_BYTES]);
    insta::assert_snapshot!(token.expose_secret(), @"amb_st_AQcBAgMEBQYHCAkKAaDEUGx7CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQnP1ZcHAp3TdU0uyfWSYwhF");
    let mut state = HmacSha256::new_from_slice(&[1; TOKEN_KEY_BYTES]).unwrap();
    state.update(DOMAIN);
    let body = token.expose_secret().strip_prefix(TOKEN_PREFIX).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(body).unwrap();
    let (signed, tag) = bytes.split_at(50);
    state.update(signed);
    assert_eq!(&state.finalize().into_bytes()[..16], tag);
}

#[test]
fn rotated_keys_verify_and_say_so() {
    let before = TokenKeys::new(&key(1, 1), &[]).unwrap();
    let token = before.sign(&session(), 1000, &[0; TOKEN_RANDOM_BYTES]);
    let after = TokenKeys::new(&key(2, 2), &[(key(1, 1), 5000)]).unwrap();
    let verified = after.verify(token.expose_secret()).unwrap();
    assert_eq!(verified.signed_by_rotated, Some(5000));
    assert_eq!(verified.good_until(100_000, 60), 5060);
    assert_eq!(verified.good_until(10, 60), 1070);
    let gone = TokenKeys::new(&key(2, 2), &[]).unwrap();
    assert_eq!(
        gone.verify(token.expose_secret()),
        Err(TokenError::UnknownKey)
    );
    let impostor = TokenKeys::new(&key(1, 9), &[]).unwrap();
    assert_eq!(
        impostor.verify(token.expose_secret()),
        Err(TokenError::Forged)
    );
    assert_eq!(
        TokenKeys::new(&key(2, 2), &[(key(2, 3), 1)]).unwrap_err(),
        DoubleKeyId { id: 2 }
    );
}

#[test]
fn good_until_is_bounded_by_age_without_rotation() {
    let verified = Verified {
        session: [0; ID_BYTES],
        issued_at: 1000,
        signed_by_rotated: None,
    };
    assert_eq!(verified.good_until(500, 60), 1560);
    assert_eq!(verified.good_until(i64::MAX, 60), i64::MAX);
}

#[test]
fn times_out_of_range_are_bounded() {
    let keys = TokenKeys::new(&key(1, 1), &[]).unwrap();
    for (given, read) in [(-5, 0), (i64::MAX, (1 << 48) - 1), (0, 0)] {
        let token = keys.sign(&session(), given, &[0; TOKEN_RANDOM_BYTES]);
        assert_eq!(keys.verify(token.expose_secret()).unwrap().issued_at, read);
    }
}

#[test]
fn malformed_tokens_are_refused() {
    let keys = TokenKeys::new(&key(1, 1), &[]).unwrap();
    let good = keys.sign(&session(), 5, &[0; TOKEN_RANDOM_BYTES]);
    let good = good.expose_secret();
    let long = format!("{good}A");
    let padded = format!("{}=", &good[..good.len() - 1]);
    let slash = format!("{}/", &good[..good.len() - 1]);
    // Another version, otherwise well-formed.
    let newer = format!("{TOKEN_PREFIX}Ag{}", &good[TOKEN_PREFIX.len() + 2..]);
    for bad in [
        "",
        "amb_st_",
        "amb_pk_x",
        &good[1..],
        &good[..good.len() - 1],
        &long,
        &padded,
        &slash,
        &newer,
        &"ä".repeat(47),
    ] {
        assert_eq!(keys.verify(bad), Err(TokenError::Malformed), "{bad}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let keys = TokenKeys::new(&key(3, b'S'), &[(key(4, b'S'), 1)]).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "TokenKeys { current: 3, rotated: [4], .. }"
    );
    let key = PresharedKey::from_random(&[0x55; KEY_RANDOM_BYTES]);
    assert_eq!(format!("{key:?}"), "amb_pk_VVVVVVVV…[redacted]");
    assert_eq!(format!("{:?}", pepper(2, b'S')), "Pepper { id: 2, .. }");
}

#[test]
fn preshared_keys_have_one_form() {
    let key = PresharedKey::from_random(&[0xfb; KEY_RANDOM_BYTES]);
    let text = key.secret().expose_secret();
    assert_eq!(text.len(), 55);
    assert!(text.contains('-') || text.contains('_'));
    let parsed = PresharedKey::parse(text).unwrap();
    assert_eq!(parsed.public_prefix(), &text[7..15]);
    let star = format!("{}*", &text[..54]);
    let long = format!("{text}A");
    let spaced = format!(" {text}");
    for bad in [
        "",
        "amb_pk_",
        &text[..54],
        &long,
        &star,
        &spaced,
        &text[7..],
    ] {
        assert_eq!(
            PresharedKey::parse(bad).err(),
            Some(KeyFormatError),
            "{bad}"
        );
    }
    assert!(PresharedKey::parse(&text.replace("amb_pk_", "amb_ak_")).is_err());
}

#[test]
fn a_digest_depends_on_key_and_pepper() {
    let key = PresharedKey::from_random(&[1; KEY_RANDOM_BYTES]);
    let other = PresharedKey::from_random(&[2; KEY_RANDOM_BYTES]);
    let (salt, chili) = (pepper(1, 1), pepper(2, 2));
    let digest = key.digest(&salt);
    assert_eq!(digest.len(), 64);
    assert!(key.matches(&digest, &salt));
    assert!(!other.matches(&digest, &salt));
    assert!(!key.matches(&digest, &chili));
    assert!(!key.matches("", &salt));
    assert_eq!(chili.id(), 2);
    // Any auditor can check it: HMAC-SHA256 of the whole text under the pepper.
    let mut plain = HmacSha256::new_from_slice(&[1; 32]).unwrap();
    plain.update(key.secret().expose_secret().as_bytes());
    let hex: String = plain
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(hex, digest);
}

proptest! {
    #[test]
    fn signing_and_verifying_agree(
        bits in any::<[u8; ID_BYTES]>(),
        at in 0i64..(1 << 48),
        random in any::<[u8; TOKEN_RANDOM_BYTES]>(),
    ) {
        let keys = TokenKeys::new(&key(0, 3), &[]).unwrap();
        let token = keys.sign(&SessionId::from_random(bits), at, &random);
        let verified = keys.verify(token.expose_secret()).unwrap();
        prop_assert_eq!(verified.session, bits);
        prop_assert_eq!(verified.issued_at, at);
    }

    #[test]
    fn any_changed_character_is_refused(place in 0usize..88, to in "[A-Za-z0-9_-]") {
        let keys = TokenKeys::new(&key(0, 3), &[(key(1, 4), 5)]).unwrap();
        let token = keys.sign(&session(), 77, &[5; TOKEN_RANDOM_BYTES]);
        let good = token.expose_secret();
        let mut bad = good.to_owned();
        let place = TOKEN_PREFIX.len() + place;
        bad.replace_range(place..=place, &to);
        prop_assert_eq!(keys.verify(&bad).is_ok(), bad == good);
    }

    #[test]
    fn no_text_breaks_the_parsers(text in "\\PC{0,120}") {
        let keys = TokenKeys::new(&key(0, 3), &[]).unwrap();
        prop_assert!(keys.verify(&text).is_err());
        let (token, key) = (format!("amb_st_{text}"), format!("amb_pk_{text}"));
        prop_assert!(keys.verify(&token).is_err());
        prop_assert_eq!(PresharedKey::parse(&key).is_ok(), text.len() == KEY_CHARS
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
    }
}
