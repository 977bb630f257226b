//! Which accelerator runs the guests' CPUs, and why.
//!
//! `/dev/kvm` that opens is not enough: on machines whose CPU shows neither `vmx` nor `svm` a VM can be made there, and
//! its kernel hangs.

use std::io;

use serde::{Deserialize, Serialize};

/// The choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Which.
    pub kind: AcceleratorKind,
    /// Why, for people.
    pub reason: String,
}

/// A way to run CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorKind {
    /// The CPU's own virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl AcceleratorKind {
    /// The name that QEMU uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
    /// The CPU model: all that the accelerator can give.
    #[must_use]
    pub const fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// Chooses by the text of `/proc/cpuinfo` and what opening `/dev/kvm` for reading and writing gave.
#[must_use]
pub fn choose(cpuinfo: &str, open_kvm: &io::Result<()>) -> Accelerator {
    let flag = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() == "flags")
        .flat_map(|(_, flags)| flags.split_ascii_whitespace())
        .find(|flag| matches!(*flag, "vmx" | "svm"));
    let tcg = |reason: String| Accelerator {
        kind: AcceleratorKind::Tcg,
        reason,
    };
    match (flag, open_kvm) {
        (Some(flag), Ok(())) => Accelerator {
            kind: AcceleratorKind::Kvm,
            reason: format!("the CPU shows {flag} and /dev/kvm opens"),
        },
        (Some(flag), Err(e)) => tcg(format!("the CPU shows {flag}, but /dev/kvm does not open: {e}")),
        (None, Ok(())) => {
            tcg("/dev/kvm opens, but the CPU shows neither vmx nor svm: guests would hang".into())
        }
        (None, Err(_)) => tcg("the CPU shows neither vmx nor svm".into()),
    }
}

/// Looks at this machine.
#[must_use]
pub fn probe() -> Accelerator {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    choose(
        &cpuinfo,
        &std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_the_flag_and_the_device() {
        let missing = || Err(io::Error::from(io::ErrorKind::NotFound));
        let with = |flags: &str| {
            format!("processor\t: 0\nmodel name\t: svm vmx\nflags\t\t: fpu {flags} sse\nbugs\t: x\n")
        };
        let table = [
            (
                with("vmx"),
                Ok(()),
                AcceleratorKind::Kvm,
                "the CPU shows vmx and /dev/kvm opens",
            ),
            (
                with("svm"),
                Ok(()),
                AcceleratorKind::Kvm,
                "the CPU shows svm and /dev/kvm opens",
            ),
            (
                with("vmx"),
                missing(),
                AcceleratorKind::Tcg,
                "/dev/kvm does not open",
            ),
            (
                with("vmxx"),
                Ok(()),
                AcceleratorKind::Tcg,
                "neither vmx nor svm: guests would hang",
            ),
            (with(""), missing(), AcceleratorKind::Tcg, "neither vmx nor svm"),
            (String::new(), Ok(()), AcceleratorKind::Tcg, "neither vmx nor svm"),
        ];
        for (cpuinfo, open, kind, reason) in table {
            let choice = choose(&cpuinfo, &open);
            assert_eq!(choice.kind, kind, "{cpuinfo} {open:?}");
            assert!(choice.reason.contains(reason), "{}", choice.reason);
        }
    }
}
