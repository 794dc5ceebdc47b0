//! The command line: what the subcommands and their options are, and what the exit codes mean.
//!
//! Defaults that depend on the configuration stay `None` here; `main` decides what to do with a parsed command.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

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
  curl http://127.0.0.1:9090/v1/nodes       what it knows of its nodes

Exit codes: 0 done, 64 wrong command line, 69 a port or a required service is unavailable, 78 wrong configuration.";

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
            "forebay demo-node --role both --bind 127.0.1.1:5080 --mongo m",
        ] {
            let stop = run(wrong).unwrap_err();
            assert_eq!((stop.exit, stop.exit.code()), (Exit::Usage, 64), "{wrong}: {}", stop.text);
        }
        for fine in ["forebay --help", "forebay demo --help", "forebay --version"] {
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
    fn a_demo_node_is_named_by_its_id_or_its_address() {
        let line = "forebay demo-node --role edge --bind 127.0.1.3:0 --mongo mongodb://127.0.0.1 --id edge-1";
        let Command::DemoNode(node) = run(line).unwrap().command else { panic!("not a demo node") };
        assert_eq!((node.role.into(), node.id.unwrap().as_str()), (Role::Edge, "edge-1"));
    }
}
