//! Forebay: the front door of an Ant Media Server cluster.
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod health;
pub mod net;
pub mod registry;
pub mod shutdown;
pub mod telemetry;
pub mod upstream;
