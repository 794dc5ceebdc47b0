//! What an HTTP request asks for, and which node should be asked. Pure.
//!
//! ```text
//! target ─► path::normalise ─► route ─► signalling · whip · locate
//!              └─ 400            └────► streams · rest · page ─► Errand ─► choose ─► a node by name, or a question to
//!                                └─ 404: forbidden, no app                            placement
//! ```

pub mod choose;
pub mod errand;
pub mod location;
pub mod media_name;
pub mod path;
pub mod route;
