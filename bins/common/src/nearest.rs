//! "Did you mean …?"

/// Up to `count` of `known` that look like `wanted`, best first. Far-off words are left out.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|word| (likeness(&wanted, &word.to_lowercase()), word))
        .filter(|(score, _)| *score >= 0.7)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(count).map(|(_, word)| word).collect()
}

/// From 0 (nothing alike) to 1 (equal). A word inside the other counts as alike.
fn likeness(a: &str, b: &str) -> f64 {
    let score = strsim::jaro_winkler(a, b);
    let inside = a.len().min(b.len()) >= 3 && (a.contains(b) || b.contains(a));
    if inside { score.max(0.85) } else { score }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_best_come_first_and_strangers_stay_out() {
        let known = ["web-1", "web-2", "db-main", "cache"];
        assert_eq!(nearest("web1", known, 3), ["web-1", "web-2"]);
        assert_eq!(nearest("main", known, 3), ["db-main"]);
        assert!(nearest("zzzz", known, 3).is_empty());
        assert_eq!(nearest("WEB-2", known, 1), ["web-2"]);
    }
}
