//! tour
pub mod config;
pub mod facts;
pub mod lookup;
pub mod metrics;
pub mod policy;
pub mod reply;
pub mod server;
pub mod session;
pub mod wire;
