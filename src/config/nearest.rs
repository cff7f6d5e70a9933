//! The known word that somebody who wrote an unknown one probably meant.

/// The known word that differs least from the given one, if it is alike enough. Case, `-` and `_` do not count.
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let given = plain(given);
    // A long text is no misspelt word, and the comparison takes the square of its length.
    if given.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|word| (distance(&given, &plain(word)), word))
        .filter(|(distance, word)| *distance <= word.len().div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn plain(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// How many letters to insert, to drop, to replace or to swap with their neighbour.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in right.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == right[j - 1] && left[i - 1] == *to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let known = ["cache", "docker", "update-interval", "id", "from_container"];
        for (given, meant) in [
            ("cahce", Some("cache")),
            ("Cache", Some("cache")),
            ("updateinterval", Some("update-interval")),
            ("update-intervall", Some("update-interval")),
            ("dockr", Some("docker")),
            ("di", Some("id")),
            ("fromcontainer", Some("from_container")),
            ("verbose", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
