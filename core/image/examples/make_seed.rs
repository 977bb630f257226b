//! Writes a config drive for the demo guest: `make_seed OUT.iso HOSTNAME INSTANCE-ID MAC ADDRESS/PREFIX [GATEWAY]`.

use std::collections::BTreeMap;
use std::error::Error;

use skyloom_image::{SeedNic, SeedSpec};
use skyloom_model::Hostname;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, hostname, instance_id, mac, address, rest @ ..] = args.as_slice() else {
        return Err("usage: make_seed OUT.iso HOSTNAME INSTANCE-ID MAC ADDRESS/PREFIX [GATEWAY]".into());
    };
    let (address, prefix) = address.split_once('/').ok_or("the address needs a /PREFIX")?;
    let spec = SeedSpec {
        instance_id: instance_id.clone(),
        hostname: Hostname::new(hostname.as_str())?,
        default_user: "skyloom".to_owned(),
        ssh_keys: Vec::new(),
        password_hash: None,
        user_data: None,
        metadata: BTreeMap::new(),
        nics: vec![SeedNic {
            mac: mac.parse()?,
            address: address.parse()?,
            prefix_len: prefix.parse()?,
            gateway: rest.first().map(|gateway| gateway.parse()).transpose()?,
            dns: Vec::new(),
        }],
    };
    std::fs::write(out, spec.iso()?)?;
    Ok(())
}
