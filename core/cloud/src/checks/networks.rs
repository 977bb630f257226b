//! Requested NICs.

use skyloom_model::PortId;

use crate::{CloudError, CreatePort, FieldError, NetworkRequest, Result};

/// What a NIC is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nic {
    /// On the user network.
    User,
    /// A new port of a network.
    New(CreatePort),
    /// A port that there is.
    Port(PortId),
}

/// Most NICs of a server.
pub(crate) const MAX_NICS: usize = 8;

/// What each NIC becomes; without a request one NIC on the user network.
pub(crate) fn check(asked: Option<&[NetworkRequest]>) -> Result<Vec<Nic>> {
    let Some(asked) = asked else {
        return Ok(vec![Nic::User]);
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

fn one(i: usize, nic: &NetworkRequest) -> Result<Nic> {
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
    let inside = [
        ("subnet", nic.subnet.is_some()),
        ("fixed_address", nic.fixed_address.is_some()),
        ("security_groups", nic.security_groups.is_some()),
    ];
    let given = inside.iter().find(|(_, given)| *given).map(|(field, _)| *field);
    let only_with = |what: &str| {
        let message = format!("it goes with {what} only");
        move |field: &str| Err(wrong(field, "network.ambiguous", message))
    };
    match (&nic.network, nic.port, nic.kind.as_deref()) {
        (Some(_), Some(_), _) => only_with("a network, or without one")("port"),
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => only_with("neither a network nor a port")("kind"),
        (Some(network), None, None) => Ok(Nic::New(CreatePort {
            network: network.clone(),
            subnet: nic.subnet,
            fixed_address: nic.fixed_address,
            security_groups: nic.security_groups.clone(),
            ..CreatePort::default()
        })),
        (None, _, _) if given.is_some() => only_with("a network")(given.unwrap_or_default()),
        (None, Some(port), None) => Ok(Nic::Port(port)),
        (None, None, None | Some("user")) => Ok(Nic::User),
        (None, None, Some(other)) => Err(wrong(
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
            ..NetworkRequest::default()
        }
    }

    #[test]
    fn a_nic_is_of_one_thing() {
        let network = NetworkRequest {
            network: Some("backend".to_owned()),
            ..NetworkRequest::default()
        };
        let port = NetworkRequest {
            port: Some(PortId::from_uuid(uuid::Uuid::nil())),
            ..NetworkRequest::default()
        };
        let address = Some("10.0.0.5".parse().unwrap());
        let asked = CreatePort {
            network: "backend".to_owned(),
            ..CreatePort::default()
        };
        let id = PortId::from_uuid(uuid::Uuid::nil());
        let good = check(Some(&[network.clone(), port.clone()])).unwrap();
        assert_eq!(good, [Nic::New(asked), Nic::Port(id)]);
        for (bad, field) in [
            (
                NetworkRequest {
                    port: Some(id),
                    ..network.clone()
                },
                "port",
            ),
            (
                NetworkRequest {
                    kind: Some("user".to_owned()),
                    ..network.clone()
                },
                "kind",
            ),
            (
                NetworkRequest {
                    kind: Some("user".to_owned()),
                    ..port.clone()
                },
                "kind",
            ),
            (
                NetworkRequest {
                    fixed_address: address,
                    ..port.clone()
                },
                "fixed_address",
            ),
            (
                NetworkRequest {
                    fixed_address: address,
                    ..NetworkRequest::default()
                },
                "fixed_address",
            ),
            (
                NetworkRequest {
                    security_groups: Some(vec![]),
                    ..port
                },
                "security_groups",
            ),
        ] {
            let error = check(Some(&[bad])).unwrap_err();
            assert_eq!(error.code(), "network.ambiguous");
            assert_eq!(error.wrong_fields()[0].field, format!("networks[0].{field}"));
        }
    }

    #[test]
    fn nics_have_defaults() {
        assert_eq!(check(None).unwrap(), vec![Nic::User]);
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
