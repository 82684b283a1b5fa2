//! Postward's command line: arguments, and which command they name; nothing else.
//!
//! Exit codes: 0 fine, 1 the answer is no, or the daemon could not start or go on, 2 bad usage or configuration.

mod args;
mod command;
mod log;

use std::process::ExitCode;

use clap::Parser as _;

use args::Arguments;
use args::Command;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { config, file, format, strict } => command::check(config.or(file), format, strict),
        Command::Codes { pattern, format } => command::codes(&pattern.join(" "), format),
        Command::Explain { text, config, control, file, format, summary } => {
            command::explain(command::Inquiry { text, config, control, file, format, summary })
        }
        Command::Limits { command, control, config, format, rule } => {
            command::limits(&command::Operation { command, rule, format }, control, config)
        }
        Command::Reload { control, config, format } => command::reload(control, config, format),
        Command::Serve { config, log_level, user } => command::serve(config, log_level.as_deref(), user.as_deref()),
    }
}
