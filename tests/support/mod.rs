//! What the end-to-end tests share: clients that speak AMS signalling, over two different WebRTC implementations.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test crate uses its own part of this

pub mod ams_client;
pub mod str0m_peer;
pub mod webrtc_peer;
