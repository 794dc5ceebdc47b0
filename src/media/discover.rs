//! How a door behind a NAT learns the address that clients reach it at: from its cloud's metadata service, else from a STUN
//! server. Asked once, at start, where nothing is configured and this machine has no public address of its own.
//!
//! All clouds are asked at once, since nothing else says which one this is; nobody is waited for longer than [`LIMIT`].

mod metadata;
mod stun;

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use crate::config::{self, is_global};

/// What the metadata services together may take, and the STUN server after them.
const LIMIT: Duration = Duration::from_millis(900);

/// The public address, or what was tried in vain, for the operator.
pub(super) fn public_address(config: &config::Media, socket: &UdpSocket) -> Result<IpAddr, String> {
    let mut tried = Vec::new();
    if config.cloud_metadata {
        match metadata::ask(config.metadata_server, LIMIT) {
            Ok((cloud, ip)) => {
                tracing::info!(cloud, %ip, "the cloud's metadata service names this door's public address");
                return Ok(ip);
            }
            Err(why) => tried.push(why),
        }
    } else {
        tried.push("media.cloud_metadata is false".to_owned());
    }
    match &config.stun_server {
        Some(server) => match stun::ask(server, socket, LIMIT).and_then(|mapped| global(mapped, server)) {
            Ok(ip) => {
                tracing::info!(%server, %ip, "the STUN server names this door's public address");
                return Ok(ip);
            }
            Err(why) => tried.push(why),
        },
        None => tried.push("media.stun_server is not set".to_owned()),
    }
    Err(tried.join("; "))
}

fn global(ip: IpAddr, server: &str) -> Result<IpAddr, String> {
    if is_global(ip) {
        Ok(ip)
    } else {
        Err(format!("the STUN server {server} sees this door at {ip}, which is private"))
    }
}
