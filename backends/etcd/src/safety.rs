//! Whether a server keeps what it acknowledges, as far as it tells.
//!
//! Not to be seen through etcd's API: `--unsafe-no-fsync`, the file system below, and how many disks a cluster's members
//! really have. The README says so.

/// The oldest version with everything that is used here.
const OLDEST: (u64, u64) = (3, 4);

/// `major.minor.patch` of a server; what follows (`-rc.1`, `+git`) does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64, u64, u64);

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|p| p.parse::<u64>().ok());
        let version = Self(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    pub(crate) fn too_old(self) -> bool {
        (self.0, self.1) < OLDEST
    }

    /// Why such a server in a cluster of `members` may lose or garble what it has acknowledged.
    pub(crate) fn danger(self, members: usize) -> Option<&'static str> {
        match self {
            Self(3, 5, 0..=2) => Some("etcd 3.5.0 to 3.5.2 can corrupt data when killed; upgrade it"),
            // https://github.com/etcd-io/etcd/issues/14370
            Self(3, 4, 0..=20) | Self(3, 5, 3 | 4) if members < 2 => {
                Some("a single etcd before 3.4.21 or 3.5.5 acknowledges before it has written; upgrade it")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(Version::parse("3.4.23"), Some(Version(3, 4, 23)));
        assert_eq!(Version::parse("3.6.0-rc.3"), Some(Version(3, 6, 0)));
        assert_eq!(Version::parse("3.5.1+git"), Some(Version(3, 5, 1)));
        for bad in ["", "3", "3.4", "3.4.x", "3.4.1.2", "v3.4.1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn old_and_dangerous_ones_are_known() {
        let of = |text: &str| Version::parse(text).unwrap();
        for (version, old) in [
            ("3.3.99", true),
            ("2.9.9", true),
            ("3.4.0", false),
            ("3.5.0", false),
            ("4.0.0", false),
        ] {
            assert_eq!(of(version).too_old(), old, "{version}");
        }
        for (version, members, danger) in [
            ("3.4.20", 1, true),
            ("3.4.20", 3, false),
            ("3.4.21", 1, false),
            ("3.4.23", 1, false),
            ("3.5.0", 3, true),
            ("3.5.2", 1, true),
            ("3.5.4", 1, true),
            ("3.5.4", 3, false),
            ("3.5.5", 1, false),
            ("3.6.0", 1, false),
        ] {
            assert_eq!(
                of(version).danger(members).is_some(),
                danger,
                "{version} of {members}"
            );
        }
    }
}
