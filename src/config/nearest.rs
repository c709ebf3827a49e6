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

/// The known word nearest to an unknown one; nothing is near to nothing.
pub(crate) fn word<'a>(words: &[&'a str], unknown: &str) -> Option<&'a str> {
    let words = words.iter().filter(|_| !unknown.is_empty());
    words
        .map(|word| (distance(word, unknown), *word))
        .filter(|(far, word)| *far <= near(word))
        .min_by_key(|(far, _)| *far)
        .map(|(_, word)| word)
}

/// How many letters may differ before it is another word.
fn near(word: &str) -> usize {
    1 + word.len() / 4
}

/// Levenshtein's distance with two letters that changed places as one change (optimal string alignment), of words
/// of at most 64 characters.
fn distance(one: &str, two: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let two: Vec<char> = two.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in two.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let change = at(&above, j) + usize::from(a != b);
            let mut least = change.min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let last = |of: &[char], n: usize| n.checked_sub(1).and_then(|n| of.get(n).copied());
            if last(&one, i) == Some(*b) && last(&two, j) == Some(*a) {
                least = least.min(at(&before, j.saturating_sub(1)) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
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
