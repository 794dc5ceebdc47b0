//! How a door behind a NAT learns the address that clients reach it at: from its cloud's metadata service, else from a STUN
//! server. Asked where nothing is configured and this machine has no public address of its own: at start, and then again and
//! again, since an address can be given to another machine at any time.
//!
//! All clouds are asked at once, since nothing else says which one this is; nobody is waited for longer than [`LIMIT`].

mod metadata;
mod stun;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use crate::config::{self, is_global};

/// What the metadata services together may take, and the STUN server after them.
const LIMIT: Duration = Duration::from_millis(900);

/// The public address of the relay's own socket, or what was tried in vain, for the operator.
pub(super) fn public_address(config: &config::Media, socket: &UdpSocket) -> Result<IpAddr, String> {
    let (by, ip) = ask(config, |server| {
        let own = socket.local_addr().map_or(0, |own| own.port());
        kept(stun::ask(server, socket, LIMIT)?, own, server)
    })?;
    tracing::info!(by, %ip, "this door's public address was found");
    Ok(ip)
}

/// The same while the relay's socket has clients: the STUN server is asked from another port.
pub(super) fn public_address_again(config: &config::Media) -> Result<IpAddr, String> {
    let asked = |server: &str| {
        let socket = UdpSocket::bind((config.bind, 0)).map_err(|error| error.to_string())?;
        stun::ask(server, &socket, LIMIT).map(|mapped| mapped.ip())
    };
    ask(config, asked).map(|(_, ip)| ip)
}

/// Who has named the address, and the address.
fn ask(
    config: &config::Media,
    stun: impl FnOnce(&str) -> Result<IpAddr, String>,
) -> Result<(&'static str, IpAddr), String> {
    let mut tried = Vec::new();
    if config.cloud_metadata {
        match metadata::ask(config.metadata_server, LIMIT) {
            Ok(found) => return Ok(found),
            Err(why) => tried.push(why),
        }
    } else {
        tried.push("media.cloud_metadata is false".to_owned());
    }
    match &config.stun_server {
        Some(server) => match stun(server).and_then(|mapped| global(mapped, server)) {
            Ok(ip) => return Ok(("the STUN server", ip)),
            Err(why) => tried.push(why),
        },
        None => tried.push("media.stun_server is not set".to_owned()),
    }
    Err(tried.join("; "))
}

/// The address of a socket whose port is the same outside.
fn kept(mapped: SocketAddr, own: u16, server: &str) -> Result<IpAddr, String> {
    let seen = mapped.port();
    if seen == own {
        Ok(mapped.ip())
    } else {
        Err(format!("the STUN server {server} sees this door's port {own} as {seen}: the NAT in front must keep it"))
    }
}

fn global(ip: IpAddr, server: &str) -> Result<IpAddr, String> {
    if is_global(ip) {
        Ok(ip)
    } else {
        Err(format!("the STUN server {server} sees this door at {ip}, which is private"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_that_changes_the_port_is_refused() {
        let seen = "198.51.100.7:5001".parse().unwrap();
        assert_eq!(kept(seen, 5001, "stun"), Ok(seen.ip()));
        assert!(kept(seen, 5000, "stun").unwrap_err().contains("must keep it"));
    }

    #[test]
    fn an_address_that_is_private_too_is_none() {
        assert!(global("10.0.0.7".parse().unwrap(), "stun").unwrap_err().contains("private"));
    }
}
