//! Connections to nodes, and the WebSocket as sessions see it.

mod connect;
mod frames;
mod socket;

pub use connect::{Dial, DialError, accept_key, dial};
pub use socket::{Frame, Socket, SocketEnd, SocketLimits};
