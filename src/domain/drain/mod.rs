//! Emptying a node: what an operator asked for, how it stands, and which leg moves next. Pure.
//!
//! ```text
//! DrainWish ─► DrainOrder::of ─► DrainOrder (kept in `forebay.nodes`) ─► Pacer: which legs, when
//! ```

mod order;
mod pacer;

pub use order::{BadWish, Deadline, DrainOrder, DrainWish, MAX_PER_SECOND, Migrate, Work};
pub use pacer::{LegKey, LegThere, Pacer};
