//! Small conversions between text and values: what people type and what they read.

use std::time::Duration;

use serde::Serialize;
use skyloom_model::Timestamp;

/// `text` without control characters, so that what others wrote cannot drive the reader's terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// As [`clean`], but line ends stay: for logs of a guest.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && !matches!(c, '\t' | '\n' | '\r') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The word that an enum of the model has in JSON.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

/// How long ago: `8s`, `5m`, `3h`, `12d`.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long it took: `0.4s`, `3m12s`.
pub(crate) fn took(from: Timestamp, to: Timestamp) -> String {
    let ms = to.duration_since(from).as_millis().max(0);
    if ms < 120_000 {
        format!("{}.{}s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60)
    }
}

/// Bytes for people: `512 B`, `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut unit = 0;
    let mut divisor: u64 = 1024;
    while unit + 1 < UNITS.len() && count / divisor >= 1024 {
        unit += 1;
        divisor *= 1024;
    }
    let tenths = u128::from(count) * 10 / u128::from(divisor);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// MiB for people: `512 MiB`, `4 GiB`.
pub(crate) fn mib(count: u64) -> String {
    if count >= 1024 && count.is_multiple_of(1024) {
        format!("{} GiB", count / 1024)
    } else {
        format!("{count} MiB")
    }
}

/// clap: `90`, `90s`, `5m`, `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "is no duration: write 90s, 5m or 1h30m".to_owned())
}

/// clap: `key=value`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not of the form key=value".to_owned()),
    }
}

/// clap: a size in `unit`s (MiB or GiB): a bare number counts in them, a suffix M, G or T says otherwise.
fn parse_size(text: &str, unit: u64) -> Result<u64, String> {
    let wrong = || "is no size: write 512M, 4G or 1T".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let mib: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => return Ok(number),
        "m" | "mib" => 1,
        "g" | "gib" => 1024,
        "t" | "tib" => 1024 * 1024,
        _ => return Err(wrong()),
    };
    let total = number.checked_mul(mib).ok_or_else(wrong)?;
    if total.is_multiple_of(unit) {
        Ok(total / unit)
    } else {
        Err("is not a whole number of GiB".to_owned())
    }
}

/// clap: memory, in MiB when nothing else is said.
pub(crate) fn parse_mib(text: &str) -> Result<u64, String> {
    parse_size(text, 1)
}

/// clap: disk, in GiB when nothing else is said.
pub(crate) fn parse_gib(text: &str) -> Result<u64, String> {
    parse_size(text, 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations_as_people_write_them() {
        assert_eq!(parse_mib("512"), Ok(512));
        assert_eq!(parse_mib("4G"), Ok(4096));
        assert_eq!(parse_gib("10"), Ok(10));
        assert_eq!(parse_gib("2TiB"), Ok(2048));
        for bad in [
            "",
            "G",
            "4X",
            "-1",
            "99999999999999999999",
            "18446744073709551615T",
        ] {
            assert!(parse_mib(bad).is_err(), "{bad}");
        }
        assert!(parse_gib("1500M").is_err());
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "soon", "-5m"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_pair("=x").is_err() && parse_pair("x").is_err());
    }

    #[test]
    fn amounts_as_people_read_them() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536 * 1024 * 1024), "1.5 GiB");
        assert_eq!((mib(512), mib(4096)), ("512 MiB".into(), "4 GiB".into()));
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        assert_eq!(age(at(100), at(55)), "45s");
        assert_eq!(age(at(100), at(200)), "0s");
        assert_eq!(age(at(100_000), at(0)), "27h");
        assert_eq!(took(at(0), at(192)), "3m12s");
    }

    proptest! {
        #[test]
        fn no_number_of_bytes_breaks_the_text(count: u64) {
            let text = bytes(count);
            prop_assert!(text.len() <= 14, "{}", text);
        }
        #[test]
        fn no_size_text_breaks_the_parser(text in "\\PC{0,12}") {
            let _ = (parse_mib(&text), parse_gib(&text), parse_duration(&text));
        }
    }
}
