//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::Subcommand;

/// A policy milter for Postfix and Sendmail: answers with exactly the right SMTP reply and counts every answer.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read the configuration, show all that is wrong with it, then how each rule is judged
    ///
    /// Exits with 0 if `serve` would start with it, with 2 if not.
    Check {
        /// The configuration [default: /etc/postward/postward.toml, or the built-in one if there is none]
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run the daemon
    ///
    /// Logs to standard error (RUST_LOG chooses what), stops on SIGTERM.
    Serve {
        /// The configuration [default: /etc/postward/postward.toml, or the built-in one if there is none]
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}
