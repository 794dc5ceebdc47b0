//! Connections to nodes, and the WebSocket as sessions see it.

mod connect;

pub use connect::{Dial, DialError, Frame, Socket, SocketEnd, SocketLimits, accept_key, dial};
