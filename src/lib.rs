//! Forebay: the front door of an Ant Media Server cluster.
pub mod clock;
pub mod config;
pub mod domain;
pub mod net;
pub mod registry;
pub mod shutdown;
pub mod upstream;
