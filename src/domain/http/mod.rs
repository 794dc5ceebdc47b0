//! What an HTTP request asks for: its path in one spelling, and the route that follows from it. Pure.
//!
//! ```text
//! target ─► path::normalise ─► route ─► signalling · whip · streams · rest · page · locate
//!              └─ 400                └─ 404: forbidden, or names no app
//! ```

pub mod path;
pub mod route;
