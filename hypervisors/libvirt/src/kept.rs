//! What we keep of a domain in its own definition: one element of our namespace below `<metadata>`.
//!
//! ```text
//!  <domain xmlns="urn:skyloom:domain:1" format="1" generation="7" project="…"><spec>{ the VmSpec as JSON }</spec></domain>
//! ```
//!
//! libvirt writes a definition in one step that survives a crash, so that this is as durable as the domain itself. The
//! attributes are for people; what counts is the spec, and both must agree. JSON is written in ASCII: XML cannot hold
//! every character, and libvirt may re-indent.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{Half, Stream, VmSpec};
use skyloom_model::{ProjectId, ServerId};

/// Our namespace: changes with the format.
pub(crate) const NAMESPACE: &str = "urn:skyloom:domain:1";
/// The prefix that libvirt gives it in its files.
pub(crate) const PREFIX: &str = "skyloom";
const FORMAT: u16 = 1;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) spec: VmSpec,
    /// What there is to know of a crash since its last start.
    pub(crate) crash: Option<Crash>,
    /// Its way to another host, or from one.
    pub(crate) way: Way,
}

/// What is known of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Way {
    pub(crate) half: Half,
    /// Where it goes.
    pub(crate) to: Option<String>,
    /// For how many milliseconds it may be held, if that was ordered.
    pub(crate) downtime: Option<u64>,
    /// How it ended for a guest that is handed over and has no process any more.
    pub(crate) ended: Option<Stream>,
}

/// A crash. Libvirt knows of it, too, until its daemon is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Crash {
    /// There was one.
    Noted,
    /// A stop has come since: the domain is stopped now.
    Seen,
}

/// The element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "domain")]
pub(crate) struct Element {
    #[serde(rename = "@xmlns", skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(rename = "@format")]
    format: u16,
    #[serde(rename = "@generation")]
    generation: u64,
    #[serde(rename = "@project")]
    project: ProjectId,
    #[serde(rename = "@crash", default, skip_serializing_if = "Option::is_none")]
    crash: Option<Crash>,
    #[serde(rename = "@half", default, skip_serializing_if = "Option::is_none")]
    half: Option<Half>,
    #[serde(rename = "@to", default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(rename = "@downtime", default, skip_serializing_if = "Option::is_none")]
    downtime: Option<u64>,
    #[serde(rename = "@ended", default, skip_serializing_if = "Option::is_none")]
    ended: Option<Stream>,
    spec: String,
}

impl Kept {
    pub(crate) fn new(spec: VmSpec) -> Self {
        Self {
            spec,
            crash: None,
            way: Way::default(),
        }
    }

    fn element(&self, namespace: Option<&str>) -> Result<Element, String> {
        let json = serde_json::to_string(&self.spec).map_err(|e| e.to_string())?;
        Ok(Element {
            namespace: namespace.map(str::to_owned),
            format: FORMAT,
            generation: self.spec.generation,
            project: self.spec.project,
            crash: self.crash,
            half: (self.way.half != Half::Whole).then_some(self.way.half),
            to: self.way.to.clone(),
            downtime: self.way.downtime,
            ended: self.way.ended,
            spec: ascii(&json),
        })
    }

    /// As a part of a whole definition.
    pub(crate) fn part(&self) -> Result<Element, String> {
        self.element(Some(NAMESPACE))
    }

    /// As libvirt takes it alone: it adds the namespace itself.
    pub(crate) fn alone(&self) -> Result<String, String> {
        quick_xml::se::to_string(&self.element(None)?).map_err(|e| e.to_string())
    }

    /// Reads what libvirt gives back. It must be of the domain that it was found in.
    pub(crate) fn read(id: ServerId, xml: &str) -> Result<Self, String> {
        let element: Element = quick_xml::de::from_str(xml).map_err(|e| e.to_string())?;
        if element.format != FORMAT {
            return Err(format!(
                "its format is {}, this program knows {FORMAT}",
                element.format
            ));
        }
        let spec: VmSpec = serde_json::from_str(&element.spec).map_err(|e| e.to_string())?;
        if spec.id != id {
            return Err(format!("it is of the domain {}", spec.id));
        }
        if (spec.generation, spec.project) != (element.generation, element.project) {
            return Err("its attributes and its spec disagree".to_owned());
        }
        Ok(Self {
            spec,
            crash: element.crash,
            way: Way {
                half: element.half.unwrap_or_default(),
                to: element.to,
                downtime: element.downtime,
                ended: element.ended,
            },
        })
    }
}

/// The same JSON without any character beyond ASCII. Such stand in strings only.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::tests::spec;
    use proptest::prelude::*;
    use skyloom_model::Name;

    #[test]
    fn what_is_not_ours_or_not_sound_is_refused() {
        let kept = Kept::new(spec());
        let good = kept.alone().unwrap();
        let id = kept.spec.id;
        assert_eq!(Kept::read(id, &good).unwrap(), kept);
        let other = ServerId::from_uuid(uuid::Uuid::from_u128(1));
        assert!(Kept::read(other, &good).unwrap_err().contains("it is of"));
        for (from, to) in [
            ("format=\"1\"", "format=\"2\""),
            ("generation=\"1\"", "generation=\"2\""),
            ("<spec>", "<spec>x"),
            ("</spec>", ""),
            ("project=\"", "project=\"0"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(Kept::read(id, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_crash_is_kept() {
        for crash in [None, Some(Crash::Noted), Some(Crash::Seen)] {
            let mut kept = Kept::new(spec());
            kept.crash = crash;
            assert_eq!(Kept::read(kept.spec.id, &kept.alone().unwrap()).unwrap(), kept);
        }
    }

    #[test]
    fn a_way_is_kept() {
        for half in [Half::Whole, Half::Sending, Half::HandedOver, Half::Receiving] {
            let mut kept = Kept::new(spec());
            kept.way = Way {
                half,
                to: Some("[::1]:7".to_owned()),
                downtime: Some(3),
                ended: Some(Stream::Complete),
            };
            assert_eq!(Kept::read(kept.spec.id, &kept.alone().unwrap()).unwrap(), kept);
        }
    }

    proptest! {
        #[test]
        fn any_name_comes_back_and_no_text_leaves_its_element(name in "\\PC{1,40}", path in "/[ -~]{1,40}") {
            let Ok(name) = Name::new(name) else { return Ok(()) };
            let mut spec = spec();
            spec.name = name;
            spec.disks[0].path = path.into();
            let kept = Kept::new(spec);
            let xml = kept.alone().unwrap();
            prop_assert!(xml.is_ascii());
            prop_assert_eq!(xml.matches('<').count(), 4);
            prop_assert_eq!(Kept::read(kept.spec.id, &xml).unwrap(), kept);
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,200}") {
            let _ = Kept::read(spec().id, &text);
        }
    }
}
