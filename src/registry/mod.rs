//! What the cluster says of itself: the streams' records and the nodes.
//!
//! ```text
//! sessions ─ look_up / wait_live ─► cache ─ one read per key ─► StreamStore ─► mongo | memory
//!                                     ▲ ▲                           │
//!                    hints of the door┘ └──────── watch ◄─ changes ─┘
//! sessions, health ─ place, probe, … ─► Book ◄─ nodes ◄─ NodeStore (clusternode) + configuration
//! sessions, admin ─ drains, doors, pins ─► own ◄─► `forebay.nodes`, `.doors`, `.pins`
//! ```
//!
//! With AMS's databases this room only reads; the exception is [`cluster_db`], which is how the demo's nodes write.

mod cache;
pub mod cluster_db;
mod drains;
mod facade;
pub mod facts;
mod keeper;
mod link;
pub mod memory;
pub mod mongo;
mod nodes;
mod own;
mod own_memory;
mod pins;
mod returns;
mod skew;
mod source;
pub mod store;
mod table;
mod waiters;
mod watch;

pub use drains::{DoorView, DrainError, DrainTask, DrainView, DrainWork, Kept};
pub use facade::{Backing, Hint, RecordView, Registry, RegistryError, StoreState, StoreStatus, Watching};
pub use pins::{CLAIM_LIMIT, Claimed, Turn};
