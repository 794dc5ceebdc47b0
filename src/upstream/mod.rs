//! Connections to nodes, and the WebSocket as sessions see it.

mod connect;
mod frames;
mod http;
mod socket;

pub use connect::{Dial, DialError, accept_key, dial, fresh_key};
pub use http::{BodyError, Failed, HttpLimits, HttpPool, NodeBody, SendError, Upload, UploadError, Uploaded};
pub use socket::{Frame, Socket, SocketEnd, SocketLimits};
