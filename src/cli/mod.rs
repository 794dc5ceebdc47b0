//! The command line: what the subcommands and their options are, and what the exit codes mean.
//!
//! Defaults that depend on the configuration stay `None` here; `main` decides what to do with a parsed command.

mod client;
pub mod operate;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

pub use client::{Access, Failure};

use crate::{
    domain::ids::{NodeId, Role},
    telemetry::BUILD,
};

/// How the process ends, after sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Ok,
    /// 64: the command line is wrong.
    Usage,
    /// 69: a port or a required service is unavailable.
    Unavailable,
    /// 70: a fault of the program's own.
    Software,
    /// 75: refused as things stand, and nothing was changed; another time it may go.
    Refused,
    /// 77: the admin API wants another token.
    NoPermission,
    /// 78: the configuration is wrong.
    Config,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::Refused => 75,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }
}

/// A command line that runs nothing: help, the version, or a mistake.
#[derive(Debug)]
pub struct Stop {
    /// What to print.
    pub text: String,
    /// What to exit with: [`Exit::Ok`] prints to stdout, anything else to stderr.
    pub exit: Exit,
}

/// Parses a command line, the program's name first.
///
/// # Errors
/// [`Stop`], also for `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    Cli::try_parse_from(arguments).map_err(|why| {
        let exit = if why.use_stderr() { Exit::Usage } else { Exit::Ok };
        Stop { text: why.to_string(), exit }
    })
}

/// The front door of an Ant Media Server cluster.
///
/// Clients know one address. Forebay terminates their WebSocket signalling, sends each publish to the least-loaded
/// origin, and each play to an edge chosen from where the stream's origin is.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "forebay", version = BUILD, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  forebay demo                              a whole cluster with nothing else installed: open http://127.0.0.1:5080/
  forebay check --config forebay.toml       says everything that is wrong with a configuration
  forebay serve --config forebay.toml       runs the door; logs go to stderr, one `ready` line to stdout
  forebay status                            the door's nodes, their states and loads, and what still fits
  forebay drain edge-1 --wait               empties a node before it is taken away; viewers move, sockets stay
  forebay undrain edge-1                    takes it back

Exit codes: 0 done, 64 wrong command line, 69 a port or a required service is unavailable, 75 refused as things stand,
77 the admin API wants another token, 78 wrong configuration.";

/// The subcommands.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Run the door in front of a cluster.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ConfigFile),
    /// Check a configuration, print every problem by key, and exit (78 if there is one).
    Check(ConfigFile),
    /// Run a small cluster and a door in front of it, all in this process, on loopback.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Show a door, its nodes with their states and loads, and what still fits.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Empty a node: no new legs, and its live ones move to other nodes while clients' sockets stay up.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(Drain),
    /// Withdraw a drain, finished or not: the node takes legs again, slowly at first.
    Undrain(Undrain),
    /// Run one demo node as a process of its own, for tests and for trying `serve` without Ant Media Server.
    #[command(after_help = NODE_EXAMPLES)]
    DemoNode(DemoNode),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  forebay serve --config /etc/forebay/forebay.toml
  FOREBAY_MONGO__URI=mongodb://10.0.0.5:27017 forebay serve --config forebay.toml

Every key can be overridden by FOREBAY_<TABLE>__<KEY>, except those in lists of tables and the apps.
SIGTERM drains as configured; SIGINT, or a second SIGTERM, ends within 2 s.";

const DEMO_EXAMPLES: &str = "\
Examples:
  forebay demo                                         open http://127.0.0.1:5080/ in two browser tabs
  forebay demo --listen 127.0.0.1:0 --admin 127.0.0.1:0    free ports; the `ready` line names them
  forebay demo --origins 4 --edges 10
  forebay demo --mongo mongodb://127.0.0.1:27017       records go to a real MongoDB, as Ant Media Server writes them";

const NODE_EXAMPLES: &str = "\
Examples:
  forebay demo-node --role origin --bind 127.0.1.1:5080 --mongo mongodb://127.0.0.1:27017 --id origin-1
  forebay demo-node --role edge   --bind 127.0.1.3:5080 --mongo mongodb://127.0.0.1:27017";

const STATUS_EXAMPLES: &str = "\
Examples:
  forebay status
  forebay status --admin http://10.0.0.7:9090 --token-file /etc/forebay/admin.token
  forebay status --json | jq '.nodes[] | select(.state != \"serving\") | .id'";

const DRAIN_EXAMPLES: &str = "\
Examples:
  forebay drain edge-1 --wait                   before edge-1 is stopped; ends when it is empty
  forebay drain 10.0.2.15 --wait --deadline 5m  by address, as an Auto Scaling hook knows it
  forebay drain origin-2 --migrate wait         lets its publishers end by themselves
  forebay drain edge-1 --per-second 20          faster; also while it drains already

A node that is drained stays so until `forebay undrain`, also across restarts of doors and of the node. At the deadline
what is left is ended. Asking again changes what is named and leaves the rest as it is. An interrupt ends the waiting,
not the drain.";

/// `forebay status`
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Status {
    /// Where the admin API is.
    #[command(flatten)]
    pub access: Access,
    /// As JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// `forebay drain`
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Drain {
    /// The node's id or address
    pub node: String,
    /// When what is left is ended: a duration such as 10m, or a time such as 2026-05-04T03:02:01Z [default: 10m]
    #[arg(long, value_name = "WHEN")]
    pub deadline: Option<String>,
    /// What becomes of its legs [default: paced]
    #[arg(long, value_enum)]
    pub migrate: Option<DrainMigrate>,
    /// Legs moved per second by all doors together, 1 to 1000 [default: 5]
    #[arg(long, value_name = "N")]
    pub per_second: Option<u32>,
    /// Also if no other node of its role serves
    #[arg(long)]
    pub force: bool,
    /// Wait until it is empty, with its progress on stderr
    #[arg(long)]
    pub wait: bool,
    /// Where the admin API is.
    #[command(flatten)]
    pub access: Access,
}

/// What becomes of the legs of a draining node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DrainMigrate {
    /// They are moved to other nodes, a few per second.
    Paced,
    /// They end by themselves, or at the deadline.
    Wait,
    /// They stay; the node only takes no new ones.
    None,
}

impl DrainMigrate {
    /// The word of the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Wait => "wait",
            Self::None => "none",
        }
    }
}

/// `forebay undrain`
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Undrain {
    /// The node's id or address
    pub node: String,
    /// Where the admin API is.
    #[command(flatten)]
    pub access: Access,
}

/// Where the configuration is.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ConfigFile {
    /// The configuration file (config/forebay.toml explains every key)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `forebay demo`
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Demo {
    /// Where clients come in: HTTP and WebSocket (port 0: a free one)
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5080")]
    pub listen: SocketAddr,
    /// The admin API and metrics; loopback only
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090", value_parser = loopback)]
    pub admin: SocketAddr,
    /// The media relay's address; nothing is bound while media goes directly to the nodes
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5000")]
    pub media: SocketAddr,
    /// How many origins
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=MOST_NODES))]
    pub origins: u8,
    /// How many edges (0: plays go to the origins)
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=MOST_NODES))]
    pub edges: u8,
    /// Keep the cluster's records in this MongoDB instead of in memory
    #[arg(long, value_name = "URI")]
    pub mongo: Option<String>,
}

/// Most origins, and most edges, of a demo: together they stay inside 127.0.1.0/24.
const MOST_NODES: i64 = 120;

/// `forebay demo-node`
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct DemoNode {
    /// What the node does
    #[arg(long, value_enum)]
    pub role: DemoRole,
    /// Where its HTTP and WebSocket port is; its records hold the bare address
    #[arg(long, value_name = "IP:PORT")]
    pub bind: SocketAddr,
    /// The cluster's MongoDB
    #[arg(long, value_name = "URI")]
    pub mongo: String,
    /// Its name [default: the address]
    #[arg(long, value_name = "ID")]
    pub id: Option<NodeId>,
}

/// What a demo node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoRole {
    /// Takes publishes.
    Origin,
    /// Takes plays and pulls from origins.
    Edge,
}

impl From<DemoRole> for Role {
    fn from(role: DemoRole) -> Self {
        match role {
            DemoRole::Origin => Self::Origin,
            DemoRole::Edge => Self::Edge,
        }
    }
}

/// The demo has no token, so its admin API stays on this machine.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write IP:PORT, such as 127.0.0.1:9090".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only a loopback address, such as 127.0.0.1:9090".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::telemetry::{COMMIT, FEATURES, VERSION};

    fn run(line: &str) -> Result<Cli, Stop> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_demo_has_its_contracted_defaults() {
        let Command::Demo(demo) = run("forebay demo").unwrap().command else { panic!("not the demo") };
        assert_eq!(demo.listen, "127.0.0.1:5080".parse::<SocketAddr>().unwrap());
        assert_eq!(demo.admin, "127.0.0.1:9090".parse::<SocketAddr>().unwrap());
        assert_eq!(demo.media, "127.0.0.1:5000".parse::<SocketAddr>().unwrap());
        assert_eq!((demo.origins, demo.edges, demo.mongo), (2, 3, None));
    }

    #[test]
    fn a_wrong_command_line_is_exit_64_and_help_is_not() {
        for wrong in [
            "forebay",
            "forebay dmeo",
            "forebay serve",
            "forebay demo --listen nowhere",
            "forebay demo --admin 0.0.0.0:9090",
            "forebay demo --origins 0",
            "forebay drain",
            "forebay drain edge-1 --migrate fast",
            "forebay status --admin ws://door",
            "forebay undrain",
            "forebay demo-node --role both --bind 127.0.1.1:5080 --mongo m",
        ] {
            let stop = run(wrong).unwrap_err();
            assert_eq!((stop.exit, stop.exit.code()), (Exit::Usage, 64), "{wrong}: {}", stop.text);
        }
        for fine in ["forebay --help", "forebay demo --help", "forebay drain --help", "forebay --version"] {
            assert_eq!(run(fine).unwrap_err().exit, Exit::Ok, "{fine}");
        }
    }

    #[test]
    fn the_version_names_commit_and_features() {
        let text = run("forebay --version").unwrap_err().text;
        assert!(text.contains(VERSION) && text.contains(COMMIT) && text.contains(FEATURES), "{text}");
        assert!(!COMMIT.is_empty());
    }

    #[test]
    fn a_drain_is_asked_for_as_the_contract_says() {
        let Command::Drain(drain) = run("forebay drain edge-1 --deadline 10m --wait").unwrap().command else {
            panic!("not a drain")
        };
        assert_eq!((drain.node.as_str(), drain.deadline.as_deref(), drain.wait), ("edge-1", Some("10m"), true));
        assert!(!drain.force && drain.migrate.is_none());
    }

    #[test]
    fn a_demo_node_is_named_by_its_id_or_its_address() {
        let line = "forebay demo-node --role edge --bind 127.0.1.3:0 --mongo mongodb://127.0.0.1 --id edge-1";
        let Command::DemoNode(node) = run(line).unwrap().command else { panic!("not a demo node") };
        assert_eq!((node.role.into(), node.id.unwrap().as_str()), (Role::Edge, "edge-1"));
    }
}
