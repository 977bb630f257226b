//! What a rescue system says of a server's disks.
//!
//! ```text
//!  rescue system ── lines on the serial console ──> agent's log ── console query ──> RescueReport::parse ──> API, CLI
//! ```
//!
//! The lines come from a guest and may be anything: they are bounded, typed, and shown to the server's own people only.
//! What follows from them ([`Advice`]) is decided here, not by the guest.

use serde::{Deserialize, Serialize};

/// Most findings that are kept of one report.
pub const MAX_FINDINGS: usize = 256;
/// Most of a text that a finding may carry, in characters.
const MAX_TEXT: usize = 120;
/// Last lines of the console before the rescue system began.
const MAX_LAST_LINES: usize = 20;

const BEGIN: &str = "skyloom-rescue begin";
const FINDING: &str = "skyloom-rescue finding ";
const END: &str = "skyloom-rescue end ";

/// What a rescue system has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RescueReport {
    /// Whether the rescue system has told all.
    pub complete: bool,
    /// What it found, in the order in which it told.
    pub findings: Vec<Finding>,
    /// What follows from it for people.
    pub advice: Vec<Advice>,
    /// The last lines on the serial console before the rescue system: often why the server did not come up.
    pub last_console_lines: Vec<String>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Finding {
    /// A disk of the server.
    Disk {
        /// Its name in the server.
        disk: String,
        /// Its name in the rescue system.
        device: String,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A file system.
    Filesystem {
        /// On which disk.
        disk: String,
        /// Its device in the rescue system.
        device: String,
        /// Such as `ext4`.
        #[serde(rename = "type")]
        type_: String,
        /// Its label.
        #[serde(default)]
        label: String,
        /// Its id.
        #[serde(default)]
        uuid: String,
        /// Whether it is whole.
        state: FilesystemState,
    },
    /// How full a file system is.
    Usage {
        /// On which disk.
        disk: String,
        /// Its device in the rescue system.
        device: String,
        /// Used space in percent.
        used_percent: u64,
        /// Its size in KiB.
        size_kib: u64,
    },
    /// How many of a file system's inodes are used.
    Inodes {
        /// On which disk.
        disk: String,
        /// Its device in the rescue system.
        device: String,
        /// Used inodes in percent.
        used_percent: u64,
    },
    /// An operating system.
    System {
        /// On which disk.
        disk: String,
        /// Its device in the rescue system.
        device: String,
        /// What it calls itself.
        name: String,
        /// Kernels below `/boot`.
        kernels: u64,
    },
    /// A line of `/etc/fstab` that names what is not there.
    Fstab {
        /// On which disk the file is.
        disk: String,
        /// Its device in the rescue system.
        device: String,
        /// What is named.
        source: String,
        /// Where it is to be mounted.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// Whether a file system is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FilesystemState {
    /// Looked at; nothing wrong.
    Clean,
    /// Looked at; it has errors.
    Errors,
    /// Not looked at, or not to be told.
    Unknown,
}

/// What people may do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Advice {
    /// Stable, dotted: `rescue.disk_full`.
    pub code: &'static str,
    /// In English.
    pub en: String,
    /// In Chinese.
    pub zh: String,
}

impl RescueReport {
    /// The latest report in what a guest wrote to its console. Lines that are no findings are skipped.
    #[must_use]
    pub fn parse(console: &[u8]) -> Self {
        let text = String::from_utf8_lossy(console);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
        let Some(begin) = lines.iter().rposition(|line| line.ends_with(BEGIN)) else {
            return Self::default();
        };
        let (before, after) = lines.split_at(begin);
        let mut report = Self {
            last_console_lines: last_lines(before),
            ..Self::default()
        };
        for line in &after[1..] {
            if line.starts_with(END) {
                report.complete = true;
                break;
            }
            let Some(finding) = line.strip_prefix(FINDING) else {
                continue;
            };
            if report.findings.len() < MAX_FINDINGS
                && let Ok(finding) = serde_json::from_str::<Finding>(finding)
            {
                report.findings.push(finding.bounded());
            }
        }
        report.advice = report.findings.iter().filter_map(advice).collect();
        report
    }
}

impl Finding {
    /// With its texts cut to what is shown.
    fn bounded(mut self) -> Self {
        let texts: Vec<&mut String> = match &mut self {
            Self::Disk { disk, device, .. }
            | Self::Usage { disk, device, .. }
            | Self::Inodes { disk, device, .. } => vec![disk, device],
            Self::Filesystem {
                disk,
                device,
                type_,
                label,
                uuid,
                ..
            } => vec![disk, device, type_, label, uuid],
            Self::System {
                disk, device, name, ..
            } => vec![disk, device, name],
            Self::Fstab {
                disk,
                device,
                source,
                place,
                problem,
            } => vec![disk, device, source, place, problem],
        };
        for text in texts {
            *text = printable(text);
        }
        self
    }
}

/// Without what could steer a terminal, and not too long.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// The last lines that say something, without terminals' escapes.
fn last_lines(before: &[&str]) -> Vec<String> {
    let told = before.iter().rev().map(|line| printable(line));
    let mut last: Vec<String> = told
        .filter(|line| !line.trim().is_empty())
        .take(MAX_LAST_LINES)
        .collect();
    last.reverse();
    last
}

fn advice(finding: &Finding) -> Option<Advice> {
    match finding {
        Finding::Usage {
            device, used_percent, ..
        } if *used_percent >= 95 => Some(Advice {
            code: "rescue.disk_full",
            en: format!("{device} is {used_percent} % full: remove what is not needed, or grow the disk"),
            zh: format!("{device} 已使用 {used_percent}%：请清理文件或扩容磁盘"),
        }),
        Finding::Inodes {
            device, used_percent, ..
        } if *used_percent >= 95 => Some(Advice {
            code: "rescue.inodes_full",
            en: format!("{used_percent} % of the inodes of {device} are used: remove small files"),
            zh: format!("{device} 的 inode 已使用 {used_percent}%：请删除小文件"),
        }),
        Finding::Filesystem {
            device,
            state: FilesystemState::Errors,
            type_,
            ..
        } => Some(Advice {
            code: "rescue.filesystem_errors",
            en: format!(
                "the {type_} file system on {device} has errors: take a snapshot, then run `e2fsck -y /dev/{device}`"
            ),
            zh: format!(
                "{device} 上的 {type_} 文件系统有错误：请先创建快照，再运行 `e2fsck -y /dev/{device}`"
            ),
        }),
        Finding::Fstab { source, place, .. } => Some(Advice {
            code: "rescue.fstab_missing",
            en: format!(
                "/etc/fstab mounts {source} at {place}, which is not there: remove the line or mark it `nofail`"
            ),
            zh: format!("/etc/fstab 将 {source} 挂载到 {place}，但该设备不存在：请删除该行或加上 `nofail`"),
        }),
        Finding::System { name, kernels: 0, .. } => Some(Advice {
            code: "rescue.no_kernel",
            en: format!("{name} has no kernel below /boot: install one"),
            zh: format!("{name} 的 /boot 下没有内核：请安装内核"),
        }),
        Finding::Disk { .. }
        | Finding::Filesystem { .. }
        | Finding::Usage { .. }
        | Finding::Inodes { .. }
        | Finding::System { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOLD: &str = "old kernel: panic\r\n\x1b[2J\r\nskyloom-rescue begin\r\n\
        skyloom-rescue finding {\"kind\":\"disk\",\"disk\":\"root\",\"device\":\"vdb\",\"size_bytes\":12}\r\n\
        skyloom-rescue finding {\"kind\":\"usage\",\"disk\":\"root\",\"device\":\"vdb1\",\"used_percent\":99,\"size_kib\":5}\r\n\
        skyloom-rescue finding {\"kind\":\"evil\"}\r\n\
        skyloom-rescue finding {\"kind\":\"fstab\",\"disk\":\"root\",\"device\":\"vdb1\",\"source\":\"UUID=1\",\"place\":\"/d\\u001b[2J\",\"problem\":\"missing\"}\r\n\
        skyloom-rescue end n=3\r\nskyloom-rescue finding {\"kind\":\"disk\",\"disk\":\"late\",\"device\":\"x\",\"size_bytes\":1}\r\n";

    #[test]
    fn the_latest_report_is_read_and_advice_follows() {
        let twice = format!("skyloom-rescue begin\nskyloom-rescue end n=0\n{TOLD}");
        let report = RescueReport::parse(twice.as_bytes());
        assert!(report.complete);
        assert_eq!(report.findings.len(), 3);
        let codes: Vec<&str> = report.advice.iter().map(|a| a.code).collect();
        assert_eq!(codes, ["rescue.disk_full", "rescue.fstab_missing"]);
        assert!(report.last_console_lines.iter().any(|l| l == "old kernel: panic"));
        assert!(report.advice.iter().all(|a| !a.en.contains('\u{1b}')));
    }

    #[test]
    fn a_report_that_has_not_ended_says_so() {
        let cut = &TOLD[..TOLD.find("skyloom-rescue end").unwrap()];
        let report = RescueReport::parse(cut.as_bytes());
        assert!(!report.complete);
        assert_eq!(report.findings.len(), 3);
        assert_eq!(RescueReport::parse(b"login: "), RescueReport::default());
    }

    #[test]
    fn what_a_guest_tells_is_bounded() {
        let line = format!(
            "skyloom-rescue finding {{\"kind\":\"disk\",\"disk\":\"{}\",\"device\":\"x\",\"size_bytes\":1}}\n",
            "y".repeat(5000)
        );
        let report = RescueReport::parse(format!("{BEGIN}\n{}", line.repeat(MAX_FINDINGS + 9)).as_bytes());
        assert_eq!(report.findings.len(), MAX_FINDINGS);
        assert!(matches!(&report.findings[0], Finding::Disk { disk, .. } if disk.len() == MAX_TEXT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut told = b"skyloom-rescue begin\n".to_vec();
            told.extend(&bytes);
            let report = RescueReport::parse(&told);
            prop_assert!(report.findings.len() <= MAX_FINDINGS);
            prop_assert!(report.last_console_lines.iter().all(|l| l.chars().all(|c| !c.is_control())));
        }
    }
}
