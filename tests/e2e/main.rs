//! Everything that needs real parts: a real MongoDB, real WebRTC, real processes. One binary, a module per room.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and these print their figures")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod cluster;
mod demo_nodes;
mod door;
mod drains;
mod http;
mod ice_tcp;
mod listeners;
mod outages;
mod registry;
mod relay;
mod reload;
mod slb_probes;
mod systemd;
mod takeover;
mod whip;
