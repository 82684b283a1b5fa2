//! Postward, a policy milter: Postfix and Sendmail ask it what to answer, rules in a TOML file say what.
//!
//! ```text
//! bytes ─ wire ─▶ Command ─ session ─▶ facts ─ policy ─▶ Decision ─ session ─▶ Response ─ wire ─▶ bytes
//!                                        ▲        │          │
//!                                 Answer │        │ Query    └──▶ metrics, log
//!                                        └─ lookup ◀┘
//! ```
//!
//! In reading order:
//!
//! - [`facts`]: the stages of an SMTP session; what is known of client, envelope and message, and from when on; questions
//!   to the world outside and their answers. Plain data.
//! - [`codes`]: the catalogue: what each reply code means, who may say it when, what to do about it. Plain data.
//! - [`reply`]: an SMTP reply that cannot be wrong: one class, a code, an enhanced code, printable text.
//! - [`wire`]: bytes to frames, commands and responses, and back. No IO.
//! - [`config`]: TOML text to checked values that know their place in the file. All errors are reported at once.
//! - [`policy`]: those values compiled into one plan for each stage; facts in, judgement out. Past compiling nothing about
//!   a rule can fail.
//! - [`session`]: one MTA connection as a state machine: commands in, actions out. Start here to see a message judged.
//! - [`explain`]: finds the replies in a text or log, and says what they mean and which rule said them.
//! - [`lookup`]: answers questions: counters of limits, free disk space. Holds what a message has reserved.
//! - [`metrics`]: counts decisions, for Prometheus.
//! - [`server`]: listeners, tasks, time-outs, shutdown, HTTP, the control socket: everything that waits.
//!
//! The program (`main.rs`, `command`) adds arguments, signals, the log and exit codes.
//!
//! From [`facts`] to [`session`] there is no IO, no async, no clock and no lock; a module imports only from those that
//! ARCHITECTURE.md puts below it.
//!
//! A policy is a value, and so can be asked without a daemon:
//!
//! ```
//! use postward::config;
//! use postward::policy::Policy;
//!
//! let source = config::Source { path: "default".into(), text: config::DEFAULT.to_owned() };
//! let (config, mut diagnostics) = config::Config::read(vec![source]);
//! let policy = Policy::compile(&config, &mut diagnostics).expect("the built-in policy is fine");
//! assert_eq!(policy.rules()[0].name, "submission-needs-login");
//! ```

pub mod codes;
pub mod config;
pub mod explain;
pub mod facts;
pub mod lookup;
pub mod metrics;
pub mod policy;
pub mod reply;
pub mod server;
pub mod session;
pub mod wire;
