//! What the end-to-end tests share: a real mongod, and clients that speak AMS signalling over two different WebRTC
//! implementations.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test uses its own part of this

pub mod acme_server;
pub mod ams_client;
pub mod cluster;
pub mod front;
pub mod mongod;
pub mod namespaces;
pub mod process;
pub mod str0m_peer;
pub mod systemd;
pub mod udp_path;
pub mod webrtc_peer;
pub mod whip_client;
