//! What can be typed. Each noun's verbs are in its module of [`crate::nouns`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::dev::DevArgs;
#[cfg(feature = "sim")]
use crate::nouns::sim;
use crate::nouns::{
    audit, context, credential, domain, event, flavor, grant, group, hold, host, image, keypair, kind, login,
    network, placement, plan, policy, port, project, quota, role, security_group, server, snapshot, store,
    task, token, user, volume,
};
use crate::out::Format;
use crate::text::{parse_duration, parse_pair};

/// The command line of a Skyloom cloud
#[derive(Debug, Parser)]
#[command(
    name = "skyloom",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  skyloom dev
  skyloom server create web-1 --image debian --flavor small --wait
  skyloom server list -o wide
  skyloom help exit-codes"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Globals {
    /// The cloud's API, such as http://127.0.0.1:8780 [env: SKYLOOM_ENDPOINT]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) endpoint: Option<String>,
    /// Who you are; better set in a context or by [env: SKYLOOM_TOKEN], where other users cannot see it
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Global options")]
    pub(crate) token: Option<String>,
    /// File with the roots (PEM) that the cloud's certificate must be signed by, instead of the system's [env: SKYLOOM_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Work in this project (name or id) instead of the token's own; admins only [env: SKYLOOM_PROJECT]
    #[arg(long, global = true, value_name = "PROJECT", help_heading = "Global options")]
    pub(crate) project: Option<String>,
    /// Use this context of the configuration file [env: SKYLOOM_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) context: Option<String>,
    /// How results are printed
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
    /// Show what would be done, and do nothing
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) dry_run: bool,
    /// Show each request as a curl command, without the token
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) debug: bool,
}

impl Globals {
    /// Takes from the environment what no flag said. Not left to clap, which would name these flags in every usage line.
    pub(crate) fn with_environment(mut self) -> Self {
        use skyloom_bin::environment::text;
        self.endpoint = self.endpoint.or_else(|| text("SKYLOOM_ENDPOINT"));
        self.token = self.token.or_else(|| text("SKYLOOM_TOKEN"));
        self.ca_file = self.ca_file.or_else(|| {
            text("SKYLOOM_CA_FILE")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        self.project = self.project.or_else(|| text("SKYLOOM_PROJECT"));
        self.context = self.context.or_else(|| text("SKYLOOM_CONTEXT"));
        self
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Virtual machines
    #[command(subcommand, visible_alias = "vm")]
    Server(server::Verb),
    /// Disk images to make servers from
    #[command(subcommand)]
    Image(image::Verb),
    /// Sizes of servers
    #[command(subcommand)]
    Flavor(flavor::Verb),
    /// Whether, where and how many more servers fit, and why
    #[command(subcommand)]
    Placement(placement::Verb),
    /// Public SSH keys
    #[command(subcommand)]
    Keypair(keypair::Verb),
    /// Disks that outlive servers
    #[command(subcommand)]
    Volume(volume::Verb),
    /// What disks were at one moment
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Machines that run servers
    #[command(subcommand)]
    Host(host::Verb),
    /// Networks to plug servers into
    #[command(subcommand)]
    Network(network::Verb),
    /// Ranges of addresses of networks
    #[command(subcommand)]
    Subnet(network::SubnetVerb),
    /// Network ports of servers, with their addresses
    #[command(subcommand)]
    Port(port::Verb),
    /// What may reach ports, and what they may reach
    #[command(subcommand)]
    SecurityGroup(security_group::Verb),
    /// Work that was asked for
    #[command(subcommand)]
    Task(task::Verb),
    /// Plans that --dry-run has shown
    #[command(subcommand)]
    Plan(plan::Verb),
    /// Log in with a password; the token is kept in a context
    #[command(after_help = login::EXAMPLES)]
    Login(login::Login),
    /// End the session, and forget its token
    #[command(after_help = login::LOGOUT)]
    Logout,
    /// Show as whom commands work, and where the roles count
    #[command(after_help = login::WHOAMI)]
    Whoami,
    /// API tokens
    #[command(subcommand)]
    Token(token::Verb),
    /// Organisations
    #[command(subcommand)]
    Domain(domain::Verb),
    /// Projects
    #[command(subcommand)]
    Project(project::Verb),
    /// People and service accounts
    #[command(subcommand)]
    User(user::Verb),
    /// What programs act with in a user's name
    #[command(subcommand)]
    Credential(credential::Verb),
    /// Users who are given roles together
    #[command(subcommand)]
    Group(group::Verb),
    /// Lists of permissions
    #[command(subcommand)]
    Role(role::Verb),
    /// Who has which role where
    #[command(subcommand)]
    Grant(grant::Verb),
    /// How much a project may have
    #[command(subcommand)]
    Quota(quota::Verb),
    /// Who did what, when, from where
    #[command(subcommand)]
    Audit(audit::Verb),
    /// What can be allowed, and why something is
    #[command(subcommand)]
    Policy(policy::Verb),
    /// What happened, and what changes as it changes
    #[command(subcommand)]
    Event(event::Verb),
    /// States and actions of a kind of resource
    #[command(subcommand)]
    Kind(kind::Verb),
    /// Whether the fleet is held
    #[command(subcommand)]
    Hold(hold::Verb),
    /// A cloud's store as a whole: backup, restore, move, check
    #[command(subcommand)]
    Store(store::Verb),
    /// The clouds that you use
    #[command(subcommand)]
    Context(context::Verb),
    Dev(DevArgs),
    /// A day of your own making on simulated hosts
    #[cfg(feature = "sim")]
    #[command(subcommand)]
    Sim(sim::Verb),
    /// Print the completion script of a shell
    #[command(after_help = "Examples:
  skyloom completion bash > ~/.local/share/bash-completion/completions/skyloom
  skyloom completion zsh > ~/.zfunc/_skyloom
  skyloom completion fish > ~/.config/fish/completions/skyloom.fish")]
    Completion {
        /// Which shell
        shell: Shell,
    },
    /// Print the versions of this program and of the cloud
    #[command(after_help = "Examples:
  skyloom version
  skyloom version -o json")]
    Version,
    /// Explain a command, or `exit-codes`
    #[command(after_help = "Examples:
  skyloom help server create
  skyloom help exit-codes")]
    Help {
        /// A command such as `server create`, or `exit-codes`
        topic: Vec<String>,
    },
}

/// Flags of commands that start work.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until the work is done; the default on a terminal
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,
    /// Do not wait; with -o name the task's id is printed
    #[arg(long, overrides_with = "wait")]
    pub(crate) no_wait: bool,
    /// Wait at most this long (90s, 5m); the work goes on after that
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Flags of lists.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of exactly this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) label: Option<(String, String)>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

impl ListArgs {
    /// As query parameters.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let name = self.name.iter().map(|name| ("name", name.clone()));
        let label = self
            .label
            .iter()
            .map(|(key, value)| ("label", format!("{key}={value}")));
        name.chain(label).collect()
    }
    /// As a number of items.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }
}

/// Flag of commands that take something away.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct YesArg {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// All commands that do something, with the way to them.
    fn leaves(command: &clap::Command, path: &str, out: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name());
        if !command.has_subcommands() {
            out.push((path, command.clone()));
            return;
        }
        for sub in command.get_subcommands() {
            leaves(sub, &path, out);
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_ends_with_two_to_four_examples_that_parse() {
        let mut commands = Vec::new();
        leaves(&Cli::command(), "", &mut commands);
        assert!(commands.len() > 40, "{}", commands.len());
        for (path, command) in commands {
            assert!(command.get_about().is_some(), "{path}: no summary");
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let (_, examples) = help
                .split_once("Examples:\n")
                .unwrap_or_else(|| panic!("{path}: no examples"));
            let lines: Vec<&str> = examples.lines().collect();
            assert!((2..=4).contains(&lines.len()), "{path}: {} examples", lines.len());
            // What a shell would take apart is left to people.
            for line in lines
                .iter()
                .filter(|line| !line.contains(['|', '$', '<', '>', '"', '…']))
            {
                if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                    panic!("{path}: {line}: {error}");
                }
            }
        }
    }

    #[test]
    fn each_action_of_a_server_is_a_verb() {
        let command = Cli::command();
        let server = command.find_subcommand("server").unwrap();
        for def in skyloom_model::action::ACTIONS {
            assert!(
                server.find_subcommand(def.verb).is_some(),
                "no `skyloom server {}`",
                def.verb
            );
        }
    }
}
