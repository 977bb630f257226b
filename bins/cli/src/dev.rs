//! `skyloom dev`: a whole cloud in one process.

mod cloud;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::ValueEnum;
use skyloom_bin::exit::main_result;
use skyloom_bin::process;
use skyloom_bin::telemetry::LogConfig;

/// Run a whole cloud here: API, engine, agents and store in one process
///
/// Prints `SKYLOOM_ENDPOINT=…` and `SKYLOOM_TOKEN=…` when it is ready. ^C ends it; guests that run go on and are taken
/// over by the next start on the same data folder.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  skyloom dev
  skyloom dev --data-dir ./cloud --listen 127.0.0.1:0
  skyloom dev --hosts 100 --hypervisor fake --store memory")]
pub(crate) struct DevArgs {
    /// Keep everything in this folder; without it a temporary one is used and removed at the end
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the API; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8780")]
    pub(crate) listen: SocketAddr,
    /// How many hosts the cloud has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) hosts: u32,
    /// What runs the servers
    #[arg(long, value_enum, default_value_t = DevHypervisor::Qmp)]
    pub(crate) hypervisor: DevHypervisor,
    /// Where the records are kept: `sqlite` in the data folder, `memory`, or the address of a store such as etcd://HOST:2379/DEV
    #[arg(long, value_name = "STORE", default_value = "sqlite")]
    pub(crate) store: DevStore,
    /// Store that finished tasks move to, such as mongodb://HOST/DATABASE; without it they stay in the records' store
    #[arg(long, value_name = "URI")]
    pub(crate) archive: Option<String>,
    /// How long ago a task must have ended to move to the archive, such as 90s or 24h; 0: nothing moves
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) archive_after: String,
    /// Address block that images may be fetched from besides the public Internet; may be given several times
    #[arg(long, value_name = "CIDR")]
    pub(crate) fetch_allow: Vec<String>,
    /// What is logged to standard error, such as `info,skyloom_qmp=debug`
    #[arg(long, value_name = "FILTER", env = "SKYLOOM_LOG", default_value = "info")]
    pub(crate) log: String,
    /// The QEMU program; without it `qemu-system-<architecture>` is looked for in PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<PathBuf>,
}

/// What runs the servers of a dev cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DevHypervisor {
    /// Real QEMU processes on this machine
    Qmp,
    /// Simulated servers: no QEMU needed
    Fake,
}

/// Where a dev cloud keeps its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DevStore {
    /// In memory: gone at the end.
    Memory,
    /// In a SQLite file in the data folder.
    Sqlite,
    /// At this address, used by nobody else.
    At(String),
}

impl FromStr for DevStore {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            "sqlite" => Ok(Self::Sqlite),
            uri if uri.contains(':') => Ok(Self::At(uri.to_owned())),
            _ => Err("neither sqlite nor memory nor an address such as etcd://HOST:2379/DEV".to_owned()),
        }
    }
}

/// Runs the cloud until a signal ends it. Makes its own runtime.
pub(crate) fn run(args: DevArgs) -> ExitCode {
    let logs = LogConfig {
        filter: args.log.clone(),
        ..LogConfig::default()
    };
    main_result(process::live(&logs, |metrics, shutdown| {
        cloud::run(args, metrics, shutdown)
    }))
}
