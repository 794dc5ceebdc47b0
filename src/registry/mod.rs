//! What the cluster says of itself: the streams' records and the nodes.

pub mod cluster_db;
pub mod memory;
pub mod mongo;
