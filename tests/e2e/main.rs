//! End-to-end tests: real sockets, real WebRTC.

#[path = "../support/mod.rs"]
mod support;

mod demo_nodes;
