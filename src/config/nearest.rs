//! What somebody may have meant.

use super::schema::Key;

/// The known key nearest to an unknown one: the same name in another section, or a name few
/// letters away.
pub(super) fn key<'a>(keys: &[&'a Key], section: &str, name: &str) -> Option<&'a Key> {
    let elsewhere = keys.iter().find(|key| key.name == name);
    if let Some(key) = elsewhere {
        return Some(key);
    }
    keys.iter()
        .map(|key| {
            let far = distance(key.section, section) + distance(key.name, name);
            (far, *key)
        })
        .filter(|(far, key)| *far <= near(key.name))
        .min_by_key(|(far, _)| *far)
        .map(|(_, key)| key)
}

/// The known word nearest to an unknown one.
pub(crate) fn word<'a>(words: &[&'a str], unknown: &str) -> Option<&'a str> {
    words
        .iter()
        .map(|word| (distance(word, unknown), *word))
        .filter(|(far, word)| *far <= near(word))
        .min_by_key(|(far, _)| *far)
        .map(|(_, word)| word)
}

/// How many letters may differ before it is another word.
fn near(word: &str) -> usize {
    1 + word.len() / 4
}

/// Levenshtein's distance, of words of at most 64 characters.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().take(64).enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(&two) {
            let change = corner + usize::from(a != *b);
            corner = *cell;
            left = change.min(left + 1).min(corner + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (one, two, far) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("ttl_ms", "tll_ms", 1),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(one, two), far, "{one} {two}");
            assert_eq!(distance(two, one), far, "{two} {one}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(word(&["client", "calls"], "clients"), Some("client"));
        assert_eq!(word(&["client", "calls"], "banana"), None);
    }
}
