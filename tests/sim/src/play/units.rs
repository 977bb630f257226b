//! Times and sizes as people write them in a script.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longer than any day that is played: a year.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A length of time: `90s`, `10m`, `1h30m`, `250ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// A time of the day, or a while after the day has begun: `08:30`, `08:30:15` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Since midnight, in whole seconds.
    Clock(Duration),
    /// Since the day began.
    After(Span),
}

/// An amount of memory in MiB: `4096`, `"512M"` or `"4G"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mib(pub u64);

/// An amount of disk in GiB: `20`, `"500G"` or `"2T"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gib(pub u64);

impl Span {
    /// A span of whole milliseconds, at most a year.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self(Duration::from_millis(time.min(LONGEST).as_millis() as u64))
    }
    /// So many seconds.
    #[must_use]
    pub fn seconds(seconds: u64) -> Self {
        Self::new(Duration::from_secs(seconds))
    }
    /// As a duration.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no length of time: write \"90s\", \"10m\" or \"1h30m\"");
        let mut left = text;
        let mut sum: u64 = 0;
        while !left.is_empty() {
            let digits = left.bytes().take_while(u8::is_ascii_digit).count();
            let (number, more) = left.split_at(digits);
            let letters = more.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, more) = more.split_at(letters);
            let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            sum = number
                .checked_mul(*ms)
                .and_then(|part| sum.checked_add(part))
                .ok_or_else(wrong)?;
            left = more;
        }
        let span = Duration::from_millis(sum);
        if text.is_empty() {
            return Err(wrong());
        }
        if span > LONGEST {
            return Err(format!("\"{text}\" is longer than a year"));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis() as u64;
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if ms >= size {
                write!(f, "{}{unit}", ms / size)?;
                ms %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            let no_span = |_| format!("\"{text}\" is no time: write \"08:30\" or \"1h30m\" after the start");
            return text.parse().map(Self::After).map_err(no_span);
        }
        let wrong = || format!("\"{text}\" is no time of the day: write \"08:30\" or \"08:30:15\"");
        let parts: Vec<&str> = text.split(':').collect();
        let number = |part: &str, most: u64| {
            let short = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            part.parse()
                .ok()
                .filter(|n: &u64| short && *n <= most)
                .ok_or_else(wrong)
        };
        let (hours, minutes, seconds) = match parts[..] {
            [h, m] => (number(h, 99)?, number(m, 59)?, 0),
            [h, m, s] => (number(h, 99)?, number(m, 59)?, number(s, 59)?),
            _ => return Err(wrong()),
        };
        Ok(Self::Clock(Duration::from_secs(
            hours * 3600 + minutes * 60 + seconds,
        )))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock(time) => {
                let s = time.as_secs();
                write!(f, "{:02}:{:02}", s / 3600, s / 60 % 60)?;
                if s % 60 > 0 {
                    write!(f, ":{:02}", s % 60)?;
                }
                Ok(())
            }
            Self::After(span) => span.fmt(f),
        }
    }
}

/// A size in `unit`s of one MiB or one GiB (1024).
fn size(text: &str, unit: u64) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no size: write \"512M\", \"4G\" or \"2T\"");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let mib: u64 = match suffix {
        "M" => 1,
        "G" => 1024,
        "T" => 1024 * 1024,
        _ => return Err(wrong()),
    };
    let mib = number.checked_mul(mib).ok_or_else(wrong)?;
    if !mib.is_multiple_of(unit) {
        return Err(format!("\"{text}\" is not a whole number of GiB"));
    }
    Ok(mib / unit)
}

fn shown(count: u64, unit: u64) -> String {
    let mib = count.saturating_mul(unit);
    match mib {
        0 => "0M".to_owned(),
        m if m.is_multiple_of(1024 * 1024) => format!("{}T", m / 1024 / 1024),
        m if m.is_multiple_of(1024) => format!("{}G", m / 1024),
        m => format!("{m}M"),
    }
}

impl FromStr for Mib {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        size(text, 1).map(Self)
    }
}
impl FromStr for Gib {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        size(text, 1024).map(Self)
    }
}
impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0, 1))
    }
}
impl fmt::Display for Gib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0, 1024))
    }
}

/// Reads text; a number where that makes sense; and the time of day that TOML itself knows.
struct Read<T> {
    number: Option<fn(u64) -> T>,
    expected: &'static str,
}

impl<T: FromStr<Err = String>> Visitor<'_> for Read<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        match (u64::try_from(number), self.number) {
            (Ok(number), Some(make)) => Ok(make(number)),
            _ => Err(E::invalid_type(serde::de::Unexpected::Signed(number), &self)),
        }
    }
}

/// As [`Read`], and the time of day that TOML itself knows.
struct ReadMoment;

impl<'de> Visitor<'de> for ReadMoment {
    type Value = Moment;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as \"08:30\" or \"1h30m\"")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Moment, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Moment, A::Error> {
        let time = toml::value::Datetime::deserialize(MapAccessDeserializer::new(map))?;
        time.to_string().parse().map_err(A::Error::custom)
    }
}

macro_rules! as_text {
    ($type:ty, $deserialize:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($deserialize)
            }
        }
    };
}
as_text!(
    Span,
    Read {
        number: None,
        expected: "a length of time such as \"90s\" or \"1h30m\""
    }
);
as_text!(Moment, ReadMoment);
as_text!(
    Mib,
    Read {
        number: Some(Mib),
        expected: "memory such as \"4G\", or a number of MiB"
    }
);
as_text!(
    Gib,
    Read {
        number: Some(Gib),
        expected: "disk such as \"500G\", or a number of GiB"
    }
);

/// A moment of a play as it is shown: `08:30:15.250`, counted on from the time at which the day begins.
pub(super) fn clock(start: Duration, at: Duration) -> String {
    let ms = (start + at).as_millis();
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_people_write_them() {
        assert_eq!("90s".parse(), Ok(Span::seconds(90)));
        assert_eq!("1h30m".parse(), Ok(Span::seconds(5400)));
        assert_eq!("250ms".parse(), Ok(Span::new(Duration::from_millis(250))));
        for bad in [
            "",
            "90",
            "s",
            "1.5h",
            "-5m",
            "5 m",
            "99999999999999999999s",
            "2000d",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!("08:30".parse(), Ok(Moment::Clock(Duration::from_secs(30_600))));
        assert_eq!("26:00:01".parse(), Ok(Moment::Clock(Duration::from_secs(93_601))));
        assert_eq!("2h".parse(), Ok(Moment::After(Span::seconds(7200))));
        for bad in [
            "", "8", ":", "8:60", "008:00", "1:2:3:4", "-1:00", "8:+1", "100:00",
        ] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        assert_eq!(("4G".parse(), "512M".parse()), (Ok(Mib(4096)), Ok(Mib(512))));
        assert_eq!("2T".parse(), Ok(Gib(2048)));
        for bad in ["", "G", "4X", "4", "1500M", "99999999999999T"] {
            assert!(bad.parse::<Gib>().is_err(), "{bad}");
        }
        assert_eq!(
            clock(Duration::from_secs(8 * 3600), Duration::from_millis(61_005)),
            "08:01:01.005"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0u64..31_622_400_000, s in 0u64..360_000, size: u32) {
            let span = Span::new(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            for moment in [Moment::After(span), Moment::Clock(Duration::from_secs(s))] {
                prop_assert_eq!(moment.to_string().parse(), Ok(moment));
            }
            let (mib, gib) = (Mib(size.into()), Gib(size.into()));
            prop_assert_eq!((mib.to_string().parse(), gib.to_string().parse()), (Ok(mib), Ok(gib)));
        }
        #[test]
        fn no_text_breaks_the_parsers(text in "\\PC{0,12}|[0-9:dhmsGT]{0,14}") {
            let _ = (text.parse::<Span>(), text.parse::<Moment>(), text.parse::<Mib>(), text.parse::<Gib>());
        }
    }
}
