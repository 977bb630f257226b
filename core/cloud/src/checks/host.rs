//! A host's settings.

use crate::{CloudError, FieldError, Result};

/// Longest reason of an operator, in characters.
const MOST_WHY: usize = 500;

/// Why an operator does something to a host, of `least` characters at least.
pub(crate) fn why(why: &str, least: usize) -> Result<String> {
    let why = why.trim();
    let long = why.chars().count();
    if !(least..=MOST_WHY).contains(&long) || why.chars().any(char::is_control) {
        let message = format!("say why in {least} to {MOST_WHY} characters, without line breaks");
        return Err(CloudError::field(FieldError::new("why", "why.invalid", message)));
    }
    Ok(why.to_owned())
}

/// Overcommit ratios are finite, above 0 and at most 100.
pub(crate) fn ratios(cpu: Option<f64>, memory: Option<f64>, disk: Option<f64>) -> Vec<FieldError> {
    let asked = [("cpu_ratio", cpu), ("memory_ratio", memory), ("disk_ratio", disk)];
    asked
        .into_iter()
        .filter(|(_, ratio)| ratio.is_some_and(|r| !(r.is_finite() && r > 0.0 && r <= 100.0)))
        .map(|(field, _)| FieldError::new(field, "host.ratio_invalid", "a ratio is above 0 and at most 100"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{MOST_WHY, ratios, why};

    #[test]
    fn a_reason_is_one_line_of_text_that_is_not_too_long() {
        assert_eq!(why("  a fan is broken ", 1).unwrap(), "a fan is broken");
        assert_eq!(why(" ", 0).unwrap(), "");
        assert!(why(&"é".repeat(MOST_WHY), 1).is_ok());
        for (bad, least) in [("", 1), ("a\nb", 0), (&*"x".repeat(MOST_WHY + 1), 0)] {
            assert_eq!(why(bad, least).unwrap_err().code(), "why.invalid", "{bad}");
        }
    }

    #[test]
    fn ratios_are_sane_numbers() {
        assert!(ratios(Some(4.0), Some(0.5), None).is_empty());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 101.0] {
            assert_eq!(ratios(Some(bad), None, Some(bad)).len(), 2, "{bad}");
        }
    }
}
