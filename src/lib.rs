//! Forebay: the front door of an Ant Media Server cluster.
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod registry;
pub mod shutdown;
pub mod telemetry;
