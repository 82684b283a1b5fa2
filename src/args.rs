//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use postward::config::Span;

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
    /// Replies are judged, too: one that is illegal where it is said, or does harm, is an error; one that is unusual gives a
    /// notice with the better code and why. A rule for which that is meant says so with `allow`.
    ///
    /// With `--format json`, standard output is one object, whatever the exit code: `configuration` (the file's name),
    /// `valid`, `diagnostics`, `plan` and `series` (how many its metrics are, or null if it cannot be used). Each diagnostic has `severity` ("error", "notice" or "warning"), `notice` (its name,
    /// or null), `file`, `line` and `column` (from 1, or null for a file that cannot be read), `message` and `hint` (or null). Each entry of the plan is one
    /// judgement of one rule, in order; a rule has several where it is judged more than once. It has `rule`, `action`
    /// ("accept", "add_header", "discard", "quarantine", "refuse", "steps"), `mode`, `facts` (what it asks), `counts` (its limit, or
    /// null), `known_at`, `judged_at` and `answered_at` (stages), `reply` (or null), `steps` (each
    /// with `over`, `action` and `reply`) and `notes`.
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
        /// Take notices and warnings for errors
        #[arg(long)]
        strict: bool,
    },
    /// List the catalogue of reply codes, or search it
    ///
    /// Words of the pattern that all have to fit: a code or how it begins (550, 55, 5.7, 4yz), a stage (rcpt), an RFC (RFC 7505),
    /// a vendor, or a word of the name, the meaning or the causes. Exits with 1 if nothing fits.
    ///
    /// With `--format json`, standard output is one object: `basic` and `enhanced`, lists of entries with the keys of the
    /// catalogue: `code`, `name`, `meaning`, `causes`, `receiver` (what who says it does), `sender` (what who is told it does),
    /// `suppress` (may the address be dropped: "address", "never", "repeated", "-"), `first` and more.
    Codes {
        /// What to look for [default: everything]
        #[arg(value_name = "PATTERN")]
        pattern: Vec<String>,
        /// How to show the result
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
    },
    /// Explain a reply code, every reply in a text, a bounce or a mail log, or a decision
    ///
    /// TEXT is anything with a code in it: 550, 5.7.1, "550 5.7.1 Go away", a line of Postfix's or Sendmail's log, the Status
    /// or Diagnostic-Code of a bounce; or the name of a file with such text; or - for standard input, which is also read when
    /// there is no TEXT. Numbers that are no codes are left alone. Of a log of more than ten lines, or a text with more than
    /// ten different replies, a summary is shown. Exits with 1 if no code was found.
    ///
    /// The id of a decision, as it stands in a reply ({id}) or in the log (5pjg000.1), is explained by the running daemon, which
    /// keeps the last ones (`http.decisions`): who it was about, each rule that held and why, and what was said. Without the
    /// point and what follows, all of the SMTP session is. The daemon is asked over its control socket, as by `limits`.
    ///
    /// With `--format json`, standard output is one object: `lines` (how many were read), `replies` (how many were found),
    /// `explanations` (of each different reply, in order; null with a summary) and `summary` (or null).
    ///
    /// An explanation has `code`, `enhanced_code`, `shown` (both), `name`, `text`, `said_by` ("milter", "mta", "nobody", "postward",
    /// "remote", "unknown"), `line`, `remarks` (what is wrong with it), `first` (what to do first), `known_text` (or null), `digits`
    /// (of an unknown code), `basic` and `enhanced` (entries of the catalogue, as `postward codes` has them), `rules` (whose text it
    /// is) and `claims` (what references say: `says`, `verdict`, `truth`). In texts of entries, `4: ` and `5: ` begin what holds for
    /// one class only, until ` | `.
    ///
    /// A line of the summary has `count`, `share` (0 to 1), `code`, `enhanced_code`, `said_by`, `meaning`, `first` and `rules` (how
    /// often each rule's text was met). Past 1000 different replies a last line has the `count` of all others.
    ///
    /// Of an id there is `decisions` instead, a list of objects with `id`, `time`, `stage`, `outcome` (as in the log), `reply`, `rule`,
    /// `client`, `client_name`, `helo`, `port`, `listener`, `tls`, `authenticated`, `login`, `sender`, `recipients` (at most 8),
    /// `recipients_accepted`, `size`, `queue_id`, `configuration` (its hash) and `matches`: of each rule that held `rule`, `action`, `mode`, `step`
    /// (of its limit, in percent, or null), `matched` (the list and its entry, or the limit), `recipient`, `would_reply`, `asked` (facts) and `counts`.
    Explain {
        /// What to explain [default: standard input]
        #[arg(value_name = "TEXT")]
        text: Vec<String>,
        /// Whose rules to look for in texts [default: /etc/postward/postward.toml, or the built-in one if there is none]
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The daemon's control socket, to explain a decision [default: `control` of the configuration]
        #[arg(long, value_name = "PATH")]
        control: Option<PathBuf>,
        /// Read this file (- for standard input), whatever its name
        #[arg(long, value_name = "FILE", conflicts_with = "text")]
        file: Option<PathBuf>,
        /// How to show the result
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
        /// Count replies, however few there are
        #[arg(long)]
        summary: bool,
    },
    /// See and operate the limits of the running daemon
    ///
    /// Asks the daemon over its control socket: `control` in [server] of the configuration. Who may connect to that may do
    /// all of this; each change is logged with the user's number.
    ///
    /// A KEY is what a limit counts by, as `list` shows it: alice@example.com, 192.0.2.7, 192.0.2.0/24, or several parts with
    /// blanks between them, "192.0.2.7 alice". A part with blanks in it stands in double quotes; - is the key of a limit without
    /// `key`. Exits with 1 if nothing is known of the key, or the daemon cannot be asked.
    ///
    /// With `--format json`, standard output is one object: `limits`, a list of objects with `rule`, `measure`, `key`, `override`
    /// (whose bounds it was last judged by, or null: those of all), `bounds` (each with `bound`, `amount`, `seconds` (null: at
    /// once) and `used`), `held` (the part of `used` that is not charged yet), `limited`, `limited_until`, `limited_seconds`, `blocked`, `blocked_until` and `blocked_seconds` (null with `blocked`: no end).
    /// What reset, block and unblock give is the same, as it is after the change. `export` writes such objects, one a line.
    Limits {
        #[command(subcommand)]
        command: LimitsCommand,
        /// The daemon's control socket [default: `control` of the configuration]
        #[arg(long, global = true, value_name = "PATH")]
        control: Option<PathBuf>,
        /// Where `control` stands [default: /etc/postward/postward.toml]
        #[arg(long, short, global = true, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to show the result
        #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
        format: Format,
        /// Only of this rule
        #[arg(long, global = true, value_name = "NAME")]
        rule: Option<String>,
    },
    /// Make the running daemon take over the configuration as it is now
    ///
    /// Asks the daemon over its control socket: `control` in [server] of the configuration. It reads the files that it was
    /// started with. If they are fit for use, they are in force for every connection that begins; those that are open keep
    /// what they began with. If not, nothing changes, and what is wrong is shown. What limits have counted stays. Exits with 2 if
    /// the configuration is not in force, with 1 if the daemon cannot be asked. SIGHUP does the same, and tells only the log.
    ///
    /// With `--format json`, standard output is one object: `in_force`, `problem` (why not, or null), `diagnostics` (as
    /// `postward check` has them), `text` (the same for people), `notes` (what is lost, or waits for a restart), `hash` and `rules` (of
    /// what is in force now).
    Reload {
        /// The daemon's control socket [default: `control` of the configuration]
        #[arg(long, value_name = "PATH")]
        control: Option<PathBuf>,
        /// Where `control` stands [default: /etc/postward/postward.toml]
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to show the result
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
    },
    /// Run the daemon
    ///
    /// Logs to standard error, or where [log] of the configuration says; reloads its configuration on SIGHUP, stops on SIGTERM.
    Serve {
        /// The configuration [default: /etc/postward/postward.toml, or the built-in one if there is none]
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How much to log: off, error, warn, info, debug, trace; or as the crate env_logger has it: info,postward::server=trace
        /// [default: the environment variable RUST_LOG, else `level` of the configuration]
        #[arg(long, value_name = "LEVEL", value_parser = crate::log::directives)]
        log_level: Option<String>,
        /// Whom root makes way for once all sockets are open [default: `user` of the configuration]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Let nothing of a key pass
    ///
    /// A block that goes on for longer already stays: end it first to make it shorter. The key need not be known yet.
    Block {
        /// Whose count
        key: String,
        /// For how long: 30m, 1h, "2 days" [default: until it is unblocked]
        #[arg(long = "for", value_name = "TIME")]
        span: Option<Span>,
    },
    /// Write every key, one JSON object a line
    Export,
    /// Show every key
    List {
        /// Only keys that have no room or are blocked
        #[arg(long)]
        limited: bool,
    },
    /// Forget what a key was charged; what is blocked stays blocked
    Reset {
        /// Whose count
        key: String,
    },
    /// Show one key
    Show {
        /// Whose count
        key: String,
    },
    /// Show the keys of each limit that use most of it
    Top {
        /// How many of each limit
        #[arg(short = 'n', long = "number", value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=1000))]
        most: u64,
    },
    /// End a block
    Unblock {
        /// Whose count
        key: String,
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
