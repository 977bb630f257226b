//! A host's settings.

use crate::FieldError;

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
    use super::ratios;

    #[test]
    fn ratios_are_sane_numbers() {
        assert!(ratios(Some(4.0), Some(0.5), None).is_empty());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 101.0] {
            assert_eq!(ratios(Some(bad), None, Some(bad)).len(), 2, "{bad}");
        }
    }
}
