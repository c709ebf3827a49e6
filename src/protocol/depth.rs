//! How deep JSON is nested, without reading it: what is skipped here may be read by somebody who goes as deep as it does.

/// Whether a text is nested deeper than so many objects and arrays. Of what is no JSON the answer may be either.
#[must_use]
pub fn is_deeper(text: &[u8], most: usize) -> bool {
    // Most messages do not open so many at all.
    if memchr::memchr2_iter(b'[', b'{', text).nth(most).is_none() {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in text {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn brackets_in_texts_are_none() {
        assert!(!is_deeper(br#"["[[[[", {"\"[[": "]{{"}]"#, 2));
        assert!(is_deeper(br#"["]", [["\\"]]]"#, 2));
        let wide = format!("[{}]", "{},".repeat(1000));
        assert!(!is_deeper(wide.as_bytes(), 2));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i32>().prop_map(Into::into),
            "[\\[\\]{}\"\\\\a]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(8, 64, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec(("[{a\"]{0,3}", inner), 0..4).prop_map(|members| {
                    let members = members.into_iter();
                    members.collect::<serde_json::Map<_, _>>().into()
                }),
            ]
        })
    }

    fn depth(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
            serde_json::Value::Object(all) => 1 + all.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn the_depth_is_what_a_reader_finds(value in json(), most in 0usize..10) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(is_deeper(&text, most), depth(&value) > most);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_deeper(&bytes, 1);
        }
    }
}
