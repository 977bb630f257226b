//! `skyloom server create-image`, `volume create-image` and `snapshot create-image`

use serde_json::{Value, json};
use skyloom_model::{Image, Resource};

use super::image;
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::kind;
use crate::client::types::ImageAccepted;
use crate::error::Result;
use crate::resolve;

/// A disk, and the image that it becomes.
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// Name, id or beginning of an id
    source: String,
    /// Name of the image
    image: String,
    /// Format of the image: qcow2, or raw
    #[arg(long, value_parser = ["qcow2", "raw"], default_value = "qcow2", value_name = "FORMAT")]
    format: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `field` says what the source is.
pub(super) async fn run<R: Resource>(
    app: &App,
    field: &'static str,
    args: SaveArgs,
    disk: Option<&str>,
) -> Result<()> {
    let client = app.client()?;
    let source: R = resolve::one(&client, &args.source).await?;
    let mut body = json!({ "name": args.image, "format": args.format, field: source.meta().id });
    if let (Some(body), Some(disk)) = (body.as_object_mut(), disk) {
        body.insert("disk".to_owned(), Value::from(disk));
    }
    let accepted: ImageAccepted = client.post(kind(Image::KIND), &body).await?;
    image::finish(app, &client, accepted, &args.wait).await
}
