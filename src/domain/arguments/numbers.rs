//! Numbers that are checked as what is passed on: `5.00000000000000000001` is read as 5, and is not.

/// Digits that matter of the longest value there is.
const DIGITS_MAX: usize = 767;

/// Whether what is read of each number in a text that is JSON, written again, has the same digits.
pub(super) fn are_exact(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        at += match byte {
            b'"' => text_len(rest),
            b'-' | b'0'..=b'9' => {
                let is_of_number =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let len = rest.iter().take_while(|byte| is_of_number(byte)).count();
                if !text.get(at..at + len).is_some_and(is_exact) {
                    return false;
                }
                len
            }
            _ => 1,
        };
    }
    true
}

/// Bytes of a text in quotes.
fn text_len(quoted: &[u8]) -> usize {
    let mut len = 1;
    while let Some(byte) = quoted.get(len) {
        len += match byte {
            b'"' => return len + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    len
}

fn is_exact(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    }
    let Ok(read) = number.parse::<f64>() else {
        return false;
    };
    let wanted = digits(number);
    if wanted.len() > DIGITS_MAX {
        return false;
    }
    // Two shortest forms are as near where the value lies between them: writers differ then. And some
    // write more digits than the shortest form has.
    let shortest = [format!("{read:e}"), serde_json::json!(read).to_string()];
    let as_long = || format!("{read:.*e}", wanted.len().saturating_sub(1));
    shortest.iter().any(|one| digits(one) == wanted) || digits(&as_long()) == wanted
}

/// The digits that matter, without sign, point and exponent.
fn digits(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_are_others_when_read_are_told() {
        for exact in [
            "0",
            "-0",
            "-0.0",
            "0e9",
            "5.000",
            "0.1",
            "120.50",
            "1e3",
            "1E+300",
            "0.30000000000000004",
            "9007199254740993",
            "18446744073709551615",
            "-9223372036854775808",
            "2.2250738585072014e-308",
            "5e-324",
            "2188857666239429.2",
            "2188857666239429.3",
            "0.10000000000000001",
            "0.1000000000000000055511151231257827",
            r#"{"5.00000000000000000001":"5.00000000000000000001\\","\"1e-999":[1,2.5]}"#,
        ] {
            assert!(are_exact(exact), "{exact}");
        }
        for other in [
            "5.00000000000000000001",
            "5.0000000000000001",
            "-5.00000000000000000001",
            "500000000000000000001e-20",
            "1e-400",
            "9007199254740993.0",
            "0.100000000000000012",
            "18446744073709551616",
            "-9223372036854775809",
            r#"{"a":"\\","b":[1,{"c":1.00000000000000000001}]}"#,
        ] {
            assert!(!are_exact(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_programs_write_is_exact(float in any::<f64>(), whole in any::<i64>()) {
            prop_assume!(float.is_finite());
            let text = serde_json::json!([float, {"a": whole}]).to_string();
            prop_assert!(are_exact(&text), "{}", text);
            let text = format!("[{float:e}]");
            prop_assert!(are_exact(&text), "{}", text);
        }
    }
}
