//! Patterns: `rack1-*` picks names, `web-{n}` makes them.

use serde::{Deserialize, Serialize};

/// Picks names: `*` stands for any text, `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

/// Makes names: `{n}` becomes a number, as wide as the greatest one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Numbered(String);

impl Glob {
    /// The pattern `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether `name` is one of those that are meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut p, mut n) = (0, 0);
        // Where the last star was, and what it stands for so far.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, stood)) => {
                        star = Some((at, stood + 1));
                        p = at + 1;
                        n = stood + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

impl Default for Glob {
    fn default() -> Self {
        Self::new("*")
    }
}

impl Numbered {
    /// The pattern `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it can make more than one name.
    #[must_use]
    pub fn varies(&self) -> bool {
        self.0.contains("{n}")
    }
    /// The name of number `n`, of `most` names in all.
    #[must_use]
    pub fn name(&self, n: usize, most: usize) -> String {
        let width = most.to_string().len();
        self.0.replace("{n}", &format!("{n:0width$}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "anything", true),
            ("rack1-*", "rack1-07", true),
            ("rack1-*", "rack10-7", false),
            ("rack?-07", "rack2-07", true),
            ("*-07", "rack1-07", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("", "", true),
            ("", "a", false),
            ("web", "web-1", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn numbers_are_as_wide_as_the_greatest() {
        let pattern = Numbered::new("web-{n}");
        assert_eq!(
            (pattern.name(7, 300), pattern.name(7, 7)),
            ("web-007".into(), "web-7".into())
        );
        assert!(!Numbered::new("db").varies());
    }

    proptest! {
        #[test]
        fn a_name_with_parts_left_out_is_met(name in "[a-c]{0,12}", from in 0usize..12, len in 0usize..12) {
            let from = from.min(name.len());
            let to = (from + len).min(name.len());
            let pattern = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert!(Glob::new(pattern).matches(&name));
        }
        #[test]
        fn no_text_breaks_it(pattern in "[*?a\\PC]{0,16}", name in "\\PC{0,32}") {
            let _ = Glob::new(pattern).matches(&name);
        }
    }
}
