//! `application/trickle-ice-sdpfrag` (RFC 8840): the bodies of WHIP's and WHEP's PATCH and of its answer.
//!
//! A fragment holds candidates, and on an ICE restart new credentials; it has the same lines as a description, but
//! need not have all of them.

use std::{net::SocketAddr, ops::RangeInclusive};

use super::{
    Description, PublicCandidate, SdpError,
    outline::Form,
    rewrite::{private_lines, public_lines, rewrite},
};

/// A node's fragment for its client, as [`super::to_client`]. Without credentials `transports` is empty: then it adds
/// candidates to the present generation, otherwise it begins the one that it names.
pub fn frag_to_client(
    frag: &str,
    ours: &[PublicCandidate],
    node_ports: &RangeInclusive<u16>,
) -> Result<(String, Description), SdpError> {
    rewrite(frag, Form::Fragment, Some(node_ports), &public_lines(ours))
}

/// A client's fragment for its node, as [`super::to_node`]. Where nothing but candidates was in it, nothing is left
/// worth sending: `transports` is empty, and the door may answer it itself.
pub fn frag_to_node(frag: &str, private: Option<SocketAddr>) -> Result<(String, Description), SdpError> {
    rewrite(frag, Form::Fragment, None, &private_lines(private))
}
