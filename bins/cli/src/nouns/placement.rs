//! `skyloom placement …`: questions about servers that are not made.

use clap::Subcommand;
use serde_json::Value;
use skyloom_model::Name;

use crate::app::App;
use crate::client::types::{Page, PlacementExplained, PlacementTested};
use crate::client::{Target, kind};
use crate::error::Result;
use crate::out::loose::Columns;
use crate::out::{self, Format};
use crate::text::{clean, clean_lines, parse_pair};

const FORECAST: Columns = Columns {
    head: &[
        ("FLAVOR", "/flavor"),
        ("SERVERS", "/servers"),
        ("HOSTS", "/hosts"),
        ("WHERE", "/where"),
    ],
    wide: &[],
};

const MOVES: Columns = Columns {
    head: &[
        ("SERVER", "/name"),
        ("FROM", "/from"),
        ("TO", "/to"),
        ("LIVE", "/live"),
        ("MEMORY", "/memory_mib"),
    ],
    wide: &[("ID", "/server")],
};

const SHARES: Columns = Columns {
    head: &[("HOST", "/name"), ("SERVERS", "/servers")],
    wide: &[("ID", "/host")],
};

/// What the server would be, beside its flavor.
#[derive(Debug, clap::Args)]
pub(crate) struct Wishes {
    /// Architecture of its image
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Label that its host must carry; may be given several times
    #[arg(long = "host-label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    host_labels: Vec<(String, String)>,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say whether a server would fit now, why, and what to change
    #[command(after_help = "Examples:
  skyloom placement explain m1.large
  skyloom placement explain m1.large --host-label zone=a --group web
  skyloom placement explain m1.large --architecture aarch64 -o json")]
    Explain {
        /// Flavor: name or id
        flavor: String,
        /// Group whose servers are on different hosts
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        #[command(flatten)]
        wishes: Wishes,
    },
    /// Count how many more servers fit, of a flavor or of each; for who runs the cloud
    #[command(after_help = "Examples:
  skyloom placement forecast
  skyloom placement forecast m1.large --by zone")]
    Forecast {
        /// Flavor: name or id; without it all
        flavor: Option<String>,
        /// Label of hosts by whose values it is counted too
        #[arg(long, value_name = "KEY")]
        by: Option<String>,
        #[command(flatten)]
        wishes: Wishes,
    },
    /// Say which servers to move for a goal, and move none; for who runs the cloud
    #[command(after_help = "Examples:
  skyloom placement advise spread
  skyloom placement advise consolidate --most 20
  skyloom placement advise drain --host rack1-n3")]
    Advise {
        /// `spread`: hosts alike full; `consolidate`: fewer in use; `drain`: one empty
        #[arg(value_parser = ["spread", "consolidate", "drain"])]
        goal: String,
        /// The host to drain
        #[arg(long)]
        host: Option<String>,
        /// Most moves
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
        most: Option<u32>,
    },
    /// Show where several servers would go, and make none; for who runs the cloud
    #[command(after_help = "Examples:
  skyloom placement test m1.large --count 20
  skyloom placement test m1.large --count 3 --group web")]
    Test {
        /// Flavor: name or id
        flavor: String,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        /// Group whose servers are on different hosts
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        #[command(flatten)]
        wishes: Wishes,
    },
}

fn question(verb: &str, wishes: &Wishes, more: [(&'static str, Option<String>); 4]) -> Target {
    let labels: Vec<String> = wishes
        .host_labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let wished = [
        ("architecture", wishes.architecture.clone()),
        ("host_labels", (!labels.is_empty()).then(|| labels.join(","))),
    ];
    let asked = wished.into_iter().chain(more);
    asked
        .filter_map(|(name, value)| Some((name, value?)))
        .fold(kind("placement").then(verb), |target, (name, value)| {
            target.query(name, value)
        })
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let client = app.client()?;
    let table = matches!(app.globals.output, Format::Table | Format::Wide);
    match verb {
        Verb::Explain {
            flavor,
            group,
            wishes,
        } => {
            let asked = [
                ("flavor", Some(flavor)),
                ("anti_affinity_group", group),
                ("by", None),
                ("servers", None),
            ];
            let answer: PlacementExplained = client.get(question("explain", &wishes, asked)).await?;
            if table {
                out::raw(&explained(&answer))
            } else {
                app.print().document(&out::json(&answer)?, answer.flavor.as_str())
            }
        }
        Verb::Forecast { flavor, by, wishes } => {
            let asked = [
                ("flavor", flavor),
                ("anti_affinity_group", None),
                ("by", by),
                ("servers", None),
            ];
            let page: Page<Value> = client.get(question("forecast", &wishes, asked)).await?;
            let mut rows = page.items;
            if table {
                rows.iter_mut().for_each(|row| row["where"] = places(row).into());
            }
            app.print().records(FORECAST, &rows)
        }
        Verb::Advise { goal, host, most } => {
            let asked = [
                ("goal", Some(goal)),
                ("host", host),
                ("most", most.map(|most| most.to_string())),
            ];
            let target = asked
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .fold(kind("placement").then("advice"), |target, (name, value)| {
                    target.query(name, value)
                });
            let answer: Value = client.get(target).await?;
            if !table {
                return app.print().document(&answer, "advice");
            }
            advised(app, &answer)
        }
        Verb::Test {
            flavor,
            count,
            group,
            wishes,
        } => {
            let asked = [
                ("flavor", Some(flavor)),
                ("anti_affinity_group", group),
                ("by", None),
                ("servers", Some(count.to_string())),
            ];
            let answer: PlacementTested = client.get(question("test", &wishes, asked)).await?;
            if !table {
                return app.print().document(&out::json(&answer)?, answer.flavor.as_str());
            }
            let (placed, servers, flavor) = (answer.placed, answer.servers, &answer.flavor);
            out::line(&format!("{placed} of {servers} servers of {flavor} fit"))?;
            app.print().records(SHARES, &answer.hosts)?;
            match &answer.report {
                Some(report) => out::line(&format!("\nnot one more: {}", clean_lines(&report.text()))),
                None => Ok(()),
            }
        }
    }
}

/// The moves, then who cannot go, then what it is about.
fn advised(app: &App, advice: &Value) -> Result<()> {
    let list = |name: &str| advice[name].as_array().cloned().unwrap_or_default();
    app.print().records(MOVES, &list("moves"))?;
    for stay in list("stays") {
        let text = |name: &str| clean(stay[name].as_str().unwrap_or_default());
        out::line(&format!("{} stays: {}", text("name"), text("why")))?;
    }
    let emptied = list("emptied");
    let emptied: Vec<&str> = emptied.iter().filter_map(Value::as_str).collect();
    if !emptied.is_empty() {
        out::line(&format!("empty then: {}", clean(&emptied.join(", "))))?;
    }
    Ok(())
}

fn explained(answer: &PlacementExplained) -> String {
    let fits = if answer.fits { "fits" } else { "does not fit" };
    let mut text = format!("a server of {} {fits}\n", answer.flavor);
    text.push_str(&clean_lines(&answer.report.text()));
    text.push('\n');
    if !answer.fitting_flavors.is_empty() {
        let names: Vec<&str> = answer.fitting_flavors.iter().map(Name::as_str).collect();
        text.push_str(&format!("flavors that fit: {}\n", names.join(", ")));
    }
    text
}

/// `a 30, b 12`.
fn places(row: &Value) -> String {
    let by = row["by_label"].as_object().cloned().unwrap_or_default();
    let each = by.iter().map(|(value, servers)| format!("{value} {servers}"));
    each.collect::<Vec<_>>().join(", ")
}
