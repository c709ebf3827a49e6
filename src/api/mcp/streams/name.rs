//! The ids of events: which stream, and which of its events. Nobody can guess one of another stream, and one that
//! was found out is good for its own session only.

use crate::domain::hex::hex;

/// What a stream is found by.
pub(super) type Token = [u8; 16];

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer to a request.
    Answer,
    /// What is about no request.
    Listen,
}

impl Kind {
    const fn letter(self) -> char {
        match self {
            Self::Answer => 'a',
            Self::Listen => 'l',
        }
    }
}

/// The id of an event.
pub(super) fn id_of(kind: Kind, token: &Token, number: u64) -> String {
    format!("{}{}-{number}", kind.letter(), hex(token))
}

/// The event that an id is of.
pub(super) fn read(id: &str) -> Option<(Kind, Token, u64)> {
    let kind = [Kind::Answer, Kind::Listen]
        .into_iter()
        .find(|kind| id.starts_with(kind.letter()))?;
    let (name, number) = id.get(1..)?.split_once('-')?;
    if name.len() != 32 || number.len() > 19 || number.starts_with('+') {
        return None;
    }
    let mut token = Token::default();
    for (at, byte) in token.iter_mut().enumerate() {
        let digits = name.get(2 * at..2 * at + 2)?;
        // A sign is no digit.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some((kind, token, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_id_is_none() {
        let good = id_of(Kind::Answer, &[7; 16], 12);
        assert_eq!(read(&good), Some((Kind::Answer, [7; 16], 12)));
        for bad in [
            "",
            "a",
            "7",
            "a-1",
            "a0707-1",
            &good.replace('-', "_"),
            &good.replace("-12", "-"),
            &good.replace("-12", "-+1"),
            &good.replace("-12", "-99999999999999999999"),
            &good.replace("07", "+7"),
            &good.replace('a', "x"),
            &format!("{good} "),
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_says_what_it_is_of(token: Token, number in 0u64..1 << 60, listens: bool) {
            let kind = if listens { Kind::Listen } else { Kind::Answer };
            let id = id_of(kind, &token, number);
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(read(&id), Some((kind, token, number)));
        }

        #[test]
        fn any_text_is_taken(text in ".{0,80}") {
            let _ = read(&text);
        }
    }
}
