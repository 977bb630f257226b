//! Requested NICs.

use skyloom_model::NicKind;

use crate::{CloudError, FieldError, NetworkRequest, Result};

/// Most NICs of a server.
const MAX_NICS: usize = 8;

/// What each NIC becomes; without a request one NIC on the user network.
pub(crate) fn check(asked: Option<&[NetworkRequest]>) -> Result<Vec<NicKind>> {
    let Some(asked) = asked else {
        return Ok(vec![NicKind::User]);
    };
    if asked.len() > MAX_NICS {
        let message = format!("{} NICs; at most {MAX_NICS} are allowed", asked.len());
        return Err(CloudError::field(FieldError::new(
            "networks",
            "network.too_many",
            message,
        )));
    }
    asked.iter().enumerate().map(|(i, nic)| one(i, nic)).collect()
}

fn one(i: usize, nic: &NetworkRequest) -> Result<NicKind> {
    let wrong = |field: &str, code: &str, message: String| {
        CloudError::field(FieldError::new(format!("networks[{i}].{field}"), code, message))
    };
    match nic.vnic_type.as_deref().unwrap_or("normal") {
        "normal" => {}
        "direct-physical" => {
            let message = "a physical function would hand the host's own card to the guest".to_owned();
            return Err(wrong("vnic_type", "network.physical_function_refused", message)
                .hint("leave vnic_type out, or say normal"));
        }
        other => {
            return Err(wrong(
                "vnic_type",
                "network.unsupported",
                format!("the vnic_type {other:?} is not supported"),
            ));
        }
    }
    match nic.kind.as_deref().unwrap_or("user") {
        "user" => Ok(NicKind::User),
        other => Err(wrong(
            "kind",
            "network.unsupported",
            format!("the network kind {other:?} is not supported"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(kind: Option<&str>, vnic_type: Option<&str>) -> NetworkRequest {
        NetworkRequest {
            kind: kind.map(str::to_owned),
            vnic_type: vnic_type.map(str::to_owned),
        }
    }

    #[test]
    fn nics_have_defaults() {
        assert_eq!(check(None).unwrap(), vec![NicKind::User]);
        assert_eq!(check(Some(&[])).unwrap(), vec![]);
        assert_eq!(
            check(Some(&[nic(None, None), nic(Some("user"), Some("normal"))]))
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn what_is_refused_is_named() {
        for (bad, code, field) in [
            (
                nic(None, Some("direct-physical")),
                "network.physical_function_refused",
                "networks[1].vnic_type",
            ),
            (
                nic(None, Some("direct")),
                "network.unsupported",
                "networks[1].vnic_type",
            ),
            (
                nic(None, Some("DIRECT-PHYSICAL")),
                "network.unsupported",
                "networks[1].vnic_type",
            ),
            (
                nic(Some("bridge"), None),
                "network.unsupported",
                "networks[1].kind",
            ),
        ] {
            let error = check(Some(&[nic(None, None), bad])).unwrap_err();
            assert_eq!(
                (error.code(), error.wrong_fields()[0].field.as_str()),
                (code, field)
            );
        }
        assert_eq!(
            check(Some(&vec![nic(None, None); 9])).unwrap_err().code(),
            "network.too_many"
        );
        assert!(check(Some(&vec![nic(None, None); 8])).is_ok());
    }
}
