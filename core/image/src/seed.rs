//! NoCloud config drives: what a guest reads at its first boot.
//!
//! Everything is rendered by a JSON serializer (JSON is YAML), never pasted, so no value can become a key. A user's own
//! user-data is handed on byte by byte: our settings then stand in `vendor-data`, which cloud-init merges *under* it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use skyloom_model::{Hostname, MacAddr, Reason, Secret};

use crate::iso9660::{self, IsoFile};

/// Most bytes of a user's own user-data.
pub const MAX_USER_DATA: usize = 64 << 10;

/// What a guest is told.
#[derive(Debug, Clone)]
pub struct SeedSpec {
    /// Changes when the guest should do its first-boot work again: 1 to 64 of `A-Z a-z 0-9 . _ -`
    pub instance_id: String,
    /// What the guest calls itself.
    pub hostname: Hostname,
    /// Name of the first user.
    pub default_user: String,
    /// OpenSSH public keys of the first user, one line each.
    pub ssh_keys: Vec<String>,
    /// crypt(3) hash of the first user's password; without one the password is locked.
    pub password_hash: Option<Secret<String>>,
    /// The user's own user-data, in any form that cloud-init knows.
    pub user_data: Option<Secret<String>>,
    /// Free values; in the guest under `metadata` of `meta-data`.
    pub metadata: BTreeMap<String, String>,
    /// The NICs, in device order.
    pub nics: Vec<SeedNic>,
}

/// A NIC with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedNic {
    /// Which NIC.
    pub mac: MacAddr,
    /// Its address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix_len: u8,
    /// Its default gateway.
    pub gateway: Option<IpAddr>,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
}

/// The files of a config drive.
#[derive(Clone, PartialEq, Eq)]
pub struct SeedFiles {
    /// Identity and metadata, JSON.
    pub meta_data: String,
    /// The user's own text, or our cloud-config.
    pub user_data: String,
    /// Our cloud-config, when `user_data` is the user's own.
    pub vendor_data: Option<String>,
    /// Netplan version 2, JSON.
    pub network_config: String,
}

impl fmt::Debug for SeedFiles {
    // The files hold a password hash and what the user kept private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeedFiles(…)")
    }
}

impl SeedSpec {
    /// Renders the files.
    ///
    /// # Errors
    /// `seed.instance_id`, `seed.user_name`, `seed.ssh_key`, `seed.password_hash`, `seed.nic`, `seed.too_large`.
    pub fn render(&self) -> Result<SeedFiles, Reason> {
        self.check()?;
        let cloud_config = format!("#cloud-config\n{}", line(&self.cloud_config())?);
        let (user_data, vendor_data) = match &self.user_data {
            Some(own) => (own.expose().clone(), Some(cloud_config)),
            None => (cloud_config, None),
        };
        let meta_data = MetaData {
            instance_id: &self.instance_id,
            local_hostname: self.hostname.as_str(),
            metadata: &self.metadata,
        };
        let ethernets = self
            .nics
            .iter()
            .enumerate()
            .map(|(n, nic)| (format!("eth{n}"), nic.render(n)));
        let network = Network {
            version: 2,
            ethernets: ethernets.collect(),
        };
        Ok(SeedFiles {
            meta_data: line(&meta_data)?,
            user_data,
            vendor_data,
            network_config: line(&network)?,
        })
    }

    /// Renders the files into a volume with the label `cidata`.
    ///
    /// # Errors
    /// See [`SeedSpec::render`].
    pub fn iso(&self) -> Result<Vec<u8>, Reason> {
        self.render()?.iso()
    }

    fn check(&self) -> Result<(), Reason> {
        let id = &self.instance_id;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=64).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(Reason::new(
                "seed.instance_id",
                format!("{id:?} is no instance id"),
            ));
        }
        let user = &self.default_user;
        let starts = user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if !starts || user.len() > 32 || !user.bytes().all(rest) {
            return Err(Reason::new("seed.user_name", format!("{user:?} is no user name")));
        }
        if let Some(at) = self.ssh_keys.iter().position(|key| !one_line(key)) {
            let message = format!("SSH key number {} is not one line of text", at + 1);
            return Err(Reason::new("seed.ssh_key", message));
        }
        let hash = self.password_hash.as_ref().map(Secret::expose);
        if hash.is_some_and(|hash| !one_line(hash) || hash.contains(':') || !hash.starts_with('$')) {
            return Err(Reason::new(
                "seed.password_hash",
                "the password hash is not of crypt(3) form",
            ));
        }
        if self
            .user_data
            .as_ref()
            .is_some_and(|own| own.expose().len() > MAX_USER_DATA)
        {
            let message = format!("user-data may have {MAX_USER_DATA} bytes");
            return Err(Reason::new("seed.too_large", message));
        }
        self.nics.iter().try_for_each(SeedNic::check)
    }

    fn cloud_config(&self) -> CloudConfig<'_> {
        let hash = self.password_hash.as_ref().map(|hash| hash.expose().as_str());
        CloudConfig {
            hostname: self.hostname.as_str(),
            ssh_pwauth: hash.is_some(),
            users: [User {
                name: &self.default_user,
                groups: ["sudo"],
                sudo: ["ALL=(ALL) NOPASSWD:ALL"],
                shell: "/bin/bash",
                lock_passwd: hash.is_none(),
                hashed_passwd: hash,
                ssh_authorized_keys: &self.ssh_keys,
            }],
        }
    }
}

/// One line of JSON.
fn line(value: &impl Serialize) -> Result<String, Reason> {
    let mut text =
        serde_json::to_string(value).map_err(|error| Reason::new("seed.render", error.to_string()))?;
    text.push('\n');
    Ok(text)
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    instance_id: &'a str,
    local_hostname: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct CloudConfig<'a> {
    hostname: &'a str,
    ssh_pwauth: bool,
    users: [User<'a>; 1],
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    groups: [&'a str; 1],
    sudo: [&'a str; 1],
    shell: &'a str,
    lock_passwd: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hashed_passwd: Option<&'a str>,
    ssh_authorized_keys: &'a [String],
}

#[derive(Serialize)]
struct Network<'a> {
    version: u8,
    ethernets: BTreeMap<String, Ethernet<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ethernet<'a> {
    #[serde(rename = "match")]
    select: Select,
    set_name: String,
    dhcp4: bool,
    dhcp6: bool,
    addresses: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<[Route; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nameservers: Option<Nameservers<'a>>,
}

#[derive(Serialize)]
struct Select {
    macaddress: MacAddr,
}

#[derive(Serialize)]
struct Route {
    to: &'static str,
    via: IpAddr,
}

#[derive(Serialize)]
struct Nameservers<'a> {
    addresses: &'a [IpAddr],
}

fn one_line(text: &str) -> bool {
    !text.trim().is_empty() && !text.chars().any(char::is_control)
}

impl SeedNic {
    fn check(&self) -> Result<(), Reason> {
        let longest = if self.address.is_ipv4() { 32 } else { 128 };
        if !(1..=longest).contains(&self.prefix_len) {
            let message = format!("{}/{} is no address with a prefix", self.address, self.prefix_len);
            return Err(Reason::new("seed.nic", message));
        }
        match self.gateway {
            Some(gateway) if gateway.is_ipv4() != self.address.is_ipv4() => {
                let message = format!("{gateway} cannot be the gateway of {}", self.address);
                Err(Reason::new("seed.nic", message))
            }
            _ => Ok(()),
        }
    }

    fn render(&self, n: usize) -> Ethernet<'_> {
        Ethernet {
            select: Select { macaddress: self.mac },
            set_name: format!("eth{n}"),
            dhcp4: false,
            dhcp6: false,
            addresses: [format!("{}/{}", self.address, self.prefix_len)],
            routes: self.gateway.map(|via| {
                let to = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                [Route { to, via }]
            }),
            nameservers: (!self.dns.is_empty()).then_some(Nameservers { addresses: &self.dns }),
        }
    }
}

impl SeedFiles {
    /// The files as a volume with the label `cidata`.
    ///
    /// # Errors
    /// `seed.too_large`, when the files do not fit a volume.
    pub fn iso(&self) -> Result<Vec<u8>, Reason> {
        let mut files = vec![
            IsoFile {
                name: "meta-data",
                content: self.meta_data.as_bytes(),
            },
            IsoFile {
                name: "network-config",
                content: self.network_config.as_bytes(),
            },
            IsoFile {
                name: "user-data",
                content: self.user_data.as_bytes(),
            },
        ];
        if let Some(vendor_data) = &self.vendor_data {
            files.push(IsoFile {
                name: "vendor-data",
                content: vendor_data.as_bytes(),
            });
        }
        iso9660::volume("cidata", &files)
    }
}
