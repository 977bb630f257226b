//! `skyloom server create`

use std::time::Duration;

use skyloom_model::{Flavor, Image, Keypair, OnCrash, Server};

use super::server::Outcome;
use super::server_volumes;
use super::{read_secret, read_text};
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::kind;
use crate::client::types::{CreateServer, NetworkRequest, ServerAccepted};
use crate::error::{CliError, Result};
use crate::out::{self, Format};
use crate::resolve;
use crate::text::{parse_duration, parse_pair};
use skyloom_model::Resource as _;

/// Largest user data that the cloud takes.
const MAX_USER_DATA: u64 = 64 * 1024;

pub(super) const EXAMPLES: &str = "Examples:
  skyloom server create web-1 --image debian --flavor small --key me --wait
  skyloom server create db-1 --image debian --flavor large --anti-affinity db --user-data init.yaml
  skyloom server create web-2 --flavor small --volume image=debian,size=20,boot --volume data --wait-for-room 2h
  TASK=$(skyloom server create web-3 --image debian --flavor small --no-wait -o name)";

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Display name; without it the host name is taken
    #[arg(required_unless_present = "hostname")]
    name: Option<String>,
    /// Image of the root disk: name, id or beginning of an id; none for a server that boots from a volume
    #[arg(long)]
    image: Option<String>,
    /// Size: name, id or beginning of an id
    #[arg(long)]
    flavor: String,
    /// SSH key for the first user; may be given several times
    #[arg(long = "key", value_name = "KEYPAIR")]
    keys: Vec<String>,
    /// What the guest calls itself; without it made from the name
    #[arg(long)]
    hostname: Option<String>,
    /// Attach no config drive: the guest gets no keys, password or user data
    #[arg(long)]
    no_config_drive: bool,
    /// First user's password from a file, or from stdin with `-`; without it one is made and shown once
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// cloud-init user data from a file, or from stdin with `-`
    #[arg(long, value_name = "FILE")]
    user_data: Option<String>,
    /// Metadata that the guest may read; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// A network interface: `user`, a network with `,address=` and `,group=` behind it, or `port=ID`; may be given several times
    #[arg(long = "network", value_name = "NIC", value_parser = parse_network)]
    networks: Vec<NetworkRequest>,
    /// A volume: one that is there by its name, or `size=GIB`, `image=IMAGE` or `snapshot=SNAPSHOT` for a new one; `,boot` behind it boots from it, `,delete-with-server` ends it with the server; may be given several times
    #[arg(long = "volume", value_name = "VOLUME", value_parser = server_volumes::parse)]
    volumes: Vec<server_volumes::Wanted>,
    /// Label of the server; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// Label that the host must carry; may be given several times
    #[arg(long = "host-label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    host_labels: Vec<(String, String)>,
    /// Keep the servers of this group on different hosts
    #[arg(long, value_name = "GROUP")]
    anti_affinity: Option<String>,
    /// Make so many alike; their names end in -1, -2, …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    count: Option<u32>,
    /// Make it and leave it off
    #[arg(long)]
    no_start: bool,
    /// What is done when its process ends by itself: `leave` it off, or `restart` it, each time later while it keeps ending
    #[arg(long, value_enum, default_value_t = CrashArg::Leave)]
    on_crash: CrashArg,
    /// Where no host has room, wait so long for it (90s, 2h; at most 23h)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait_for_room: Option<Duration>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `--on-crash`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum CrashArg {
    Leave,
    Restart,
}

impl From<CrashArg> for OnCrash {
    fn from(asked: CrashArg) -> Self {
        match asked {
            CrashArg::Leave => Self::Leave,
            CrashArg::Restart => Self::Restart,
        }
    }
}

const NETWORK_FORM: &str = "is none of user, user:VNIC_TYPE, port=ID and NETWORK, the last with ,address=ADDRESS and ,group=GROUP behind it";

fn parse_network(text: &str) -> std::result::Result<NetworkRequest, String> {
    let wrong = || NETWORK_FORM.to_owned();
    let mut nic = NetworkRequest::default();
    let mut parts = text.split(',');
    let first = parts.next().filter(|first| !first.is_empty()).ok_or_else(wrong)?;
    match (first.split_once(':'), first.strip_prefix("port=")) {
        (Some((kind, vnic_type)), _) if !kind.is_empty() && !vnic_type.is_empty() => {
            nic.kind = Some(kind.to_owned());
            nic.vnic_type = Some(vnic_type.to_owned());
        }
        (Some(_), _) | (None, Some("")) => return Err(wrong()),
        (None, Some(port)) => nic.port = Some(port.to_owned()),
        (None, None) if first == "user" => nic.kind = Some(first.to_owned()),
        (None, None) => nic.network = Some(first.to_owned()),
    }
    for part in parts {
        match part.split_once('=') {
            Some(("address", address)) => nic.fixed_address = Some(address.parse().map_err(|_| wrong())?),
            Some(("group", group)) if !group.is_empty() => nic.security_groups.push(group.to_owned()),
            _ => return Err(wrong()),
        }
    }
    Ok(nic)
}

pub(super) async fn run(app: &App, args: CreateArgs) -> Result<()> {
    if args.password_file.as_deref() == Some("-") && args.user_data.as_deref() == Some("-") {
        return Err(CliError::usage(
            "--password-file and --user-data cannot both be read from stdin",
        ));
    }
    let password = args.password_file.as_deref();
    let password = password.map(|path| read_secret(path, "password")).transpose()?;
    let user_data = args.user_data.as_deref();
    let user_data = user_data
        .map(|path| read_text(path, "user data", MAX_USER_DATA))
        .transpose()?;
    let client = app.client()?;
    let image = match (
        &args.image,
        args.volumes.iter().any(server_volumes::Wanted::boots),
    ) {
        (Some(image), false) => Some(resolve::one::<Image>(&client, image).await?.meta.id),
        (None, true) => None,
        _ => {
            return Err(CliError::usage(
                "give --image, or a --volume with ,boot behind it: the server starts from one of them",
            ));
        }
    };
    let mut volumes = Vec::with_capacity(args.volumes.len());
    for volume in &args.volumes {
        volumes.push(volume.request(&client).await?);
    }
    let flavor: Flavor = resolve::one(&client, &args.flavor).await?;
    let keys: Vec<Keypair> = resolve::many(&client, &args.keys).await?;
    let request = CreateServer {
        name: args.name,
        hostname: args.hostname,
        image: image.map(|image| image.to_string()),
        flavor: flavor.meta.id.to_string(),
        keypairs: keys.iter().map(|key| key.meta.id.to_string()).collect(),
        config_drive: !args.no_config_drive,
        password,
        user_data,
        metadata: args.metadata.into_iter().collect(),
        networks: args.networks,
        volumes,
        labels: args.labels.into_iter().collect(),
        host_labels: args.host_labels.into_iter().collect(),
        anti_affinity_group: args.anti_affinity,
        start: !args.no_start,
        on_crash: args.on_crash.into(),
        wait_for_room_seconds: args.wait_for_room.map(|time| time.as_secs().max(1)),
    };
    if let Some(count) = args.count {
        let body = serde_json::json!({ "count": count, "server": request });
        return super::server_more::several(app, "create", &body).await;
    }
    let accepted: ServerAccepted = client.post(kind(Server::KIND), &request).await?;
    if accepted.password.is_some()
        && matches!(app.globals.output, Format::Table | Format::Wide | Format::Name)
    {
        // Before the wait: whatever becomes of that, the password is not lost.
        out::shown_once("the password", accepted.password.as_deref());
    }
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_are_read_as_people_write_them() {
        let nic = NetworkRequest::default;
        let text = |text: &str| Some(text.to_owned());
        for (given, wanted) in [
            (
                "user",
                NetworkRequest {
                    kind: text("user"),
                    ..nic()
                },
            ),
            (
                "user:normal",
                NetworkRequest {
                    kind: text("user"),
                    vnic_type: text("normal"),
                    ..nic()
                },
            ),
            (
                "port=0198",
                NetworkRequest {
                    port: text("0198"),
                    ..nic()
                },
            ),
            (
                "backend",
                NetworkRequest {
                    network: text("backend"),
                    ..nic()
                },
            ),
            (
                "backend,address=10.0.0.5,group=web,group=db",
                NetworkRequest {
                    network: text("backend"),
                    fixed_address: Some("10.0.0.5".parse().unwrap()),
                    security_groups: vec!["web".to_owned(), "db".to_owned()],
                    ..nic()
                },
            ),
        ] {
            assert_eq!(parse_network(given).unwrap(), wanted, "{given}");
        }
        for bad in [
            "",
            ":",
            "user:",
            ":normal",
            "port=",
            "backend,",
            "backend,address=x",
            "backend,group=",
        ] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
    }
}
