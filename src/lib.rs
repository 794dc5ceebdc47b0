//! Forebay: the front door of an Ant Media Server cluster.
pub mod clock;
pub mod config;
pub mod demo;
pub mod domain;
pub mod registry;
pub mod shutdown;
