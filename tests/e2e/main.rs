//! Everything that needs real parts: a real MongoDB, real WebRTC, real processes. One binary, a module per room.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod demo_nodes;
mod door;
mod outages;
mod registry;
