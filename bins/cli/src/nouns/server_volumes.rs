//! Volumes of `skyloom server create`, and `skyloom server attach-volume` and `detach-volume`.

use serde_json::{Map, Value, json};
use skyloom_model::{Image, Resource as _, Server, Snapshot, Volume};

use super::volume;
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::resolve;
use crate::text::clean;

/// A volume of a new server as it is written: one that is there by its name, or what is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    there: Option<String>,
    said: Vec<(&'static str, String)>,
    size_gib: Option<u64>,
    delete: bool,
    boot: bool,
}

const FORM: &str = "is none of VOLUME, size=GIB, image=IMAGE and snapshot=SNAPSHOT, with ,boot and ,delete-with-server behind it; \
a new one may have ,name= ,size= ,disk= ,pool= and ,format=, too";

pub(super) fn parse(text: &str) -> std::result::Result<Wanted, String> {
    let wrong = || FORM.to_owned();
    let mut wanted = Wanted::default();
    for (i, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            None if part.is_empty() => return Err(wrong()),
            None if i == 0 => wanted.there = Some(part.to_owned()),
            None if part == "boot" => wanted.boot = true,
            None if part == "delete-with-server" => wanted.delete = true,
            Some(("size", gib)) => wanted.size_gib = Some(gib.parse().map_err(|_| wrong())?),
            Some((field, value)) if !value.is_empty() => {
                let known = ["name", "image", "snapshot", "disk", "pool", "format"];
                let field = known
                    .into_iter()
                    .find(|known| *known == field)
                    .ok_or_else(wrong)?;
                if wanted.said.iter().any(|(said, _)| *said == field) {
                    return Err(wrong());
                }
                wanted.said.push((field, value.to_owned()));
            }
            _ => return Err(wrong()),
        }
    }
    let new = !wanted.said.is_empty() || wanted.size_gib.is_some();
    if new == wanted.there.is_some() {
        return Err(wrong());
    }
    Ok(wanted)
}

impl Wanted {
    pub(super) fn boots(&self) -> bool {
        self.boot
    }

    /// As the API takes it.
    pub(super) async fn request(&self, client: &Client) -> Result<Value> {
        let mut body = Map::new();
        if let Some(name) = &self.there {
            let volume: Volume = resolve::one(client, name).await?;
            body.insert("volume".to_owned(), json!(volume.meta.id));
        }
        for (field, value) in &self.said {
            let value = match *field {
                "image" => json!(resolve::one::<Image>(client, value).await?.meta.id),
                "snapshot" => json!(resolve::one::<Snapshot>(client, value).await?.meta.id),
                _ => json!(value),
            };
            body.insert((*field).to_owned(), value);
        }
        if let Some(gib) = self.size_gib {
            body.insert("size_gib".to_owned(), json!(gib));
        }
        for (field, said) in [("boot", self.boot), ("delete_with_server", self.delete)] {
            if said {
                body.insert(field.to_owned(), json!(true));
            }
        }
        Ok(Value::Object(body))
    }
}

/// A server and a volume.
#[derive(Debug, clap::Args)]
pub(crate) struct AttachArgs {
    /// Name, id or beginning of the server's id
    server: String,
    /// Name, id or beginning of the volume's id
    volume: String,
    /// Delete the volume with the server
    #[arg(long)]
    delete_with_server: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// A server and one of its volumes.
#[derive(Debug, clap::Args)]
pub(crate) struct DetachArgs {
    /// Name, id or beginning of the server's id
    server: String,
    /// Name, id or beginning of the volume's id
    volume: String,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn attach(app: &App, args: AttachArgs) -> Result<()> {
    volume::attach(
        app,
        &args.volume,
        &args.server,
        args.delete_with_server,
        &args.wait,
    )
    .await
}

pub(super) async fn detach(app: &App, args: DetachArgs) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let found: Volume = resolve::one(&client, &args.volume).await?;
    let has = found
        .status
        .attachment
        .as_ref()
        .map(|attachment| attachment.server);
    if has != Some(server.id()) {
        let (volume, server) = (clean(found.meta.name.as_str()), clean(server.meta.name.as_str()));
        return Err(CliError::usage(format!(
            "server {server} does not have the volume {volume}"
        )));
    }
    volume::detach(app, &found.meta.id.to_string(), &args.wait).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_people_write_them() {
        let none = Wanted::default;
        for (text, wanted) in [
            (
                "data",
                Wanted {
                    there: Some("data".to_owned()),
                    ..none()
                },
            ),
            (
                "root,boot,delete-with-server",
                Wanted {
                    there: Some("root".to_owned()),
                    boot: true,
                    delete: true,
                    ..none()
                },
            ),
            (
                "size=10",
                Wanted {
                    size_gib: Some(10),
                    ..none()
                },
            ),
            (
                "image=debian-13,size=20,boot",
                Wanted {
                    said: vec![("image", "debian-13".to_owned())],
                    size_gib: Some(20),
                    boot: true,
                    ..none()
                },
            ),
        ] {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
        for bad in [
            "",
            ",boot",
            "data,size=3",
            "data,other",
            "size=x",
            "image=",
            "image=a,image=b",
            "color=red",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
