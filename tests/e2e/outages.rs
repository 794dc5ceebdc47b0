//! What a running door does while its nodes, its MongoDB, its clients or itself come to harm. Nodes that are killed or
//! frozen are processes of their own; the promises are those of design.md §5, "Outages" and "Failover and migration".

mod nodes;
mod shutdown;
mod slow_peers;
mod store;
