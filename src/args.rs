//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

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
    /// Exits with 0 if it has no error, with 2 if it has one. Addresses, groups and paths are only tried by `serve`; of
    /// groups and paths that do not exist here a warning tells.
    ///
    /// With `--format json`, standard output is one object, whatever the exit code: `configuration` (the file's name),
    /// `valid`, `diagnostics` and `plan`. Each diagnostic has `severity` ("error" or "warning"), `file`, `line` and `column`
    /// (from 1, or null for a file that cannot be read), `message` and `hint` (or null). Each entry of the plan is one
    /// judgement of one rule, in order; a rule has several where it is judged more than once. It has `rule`, `action`
    /// ("accept", "add_header", "discard", "quarantine", "refuse"), `mode`, `facts` (what it asks), `counts` (its limit, or
    /// null), `known_at`, `judged_at` and `answered_at` (stages), `reply` (or null) and `notes`.
    Check {
        /// The configuration [default: /etc/postward/postward.toml, or the built-in one if there is none]
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The same as --config FILE
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// How to show the result
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
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

/// Who reads the output.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Programs: one JSON object
    Json,
    /// People
    Text,
}
