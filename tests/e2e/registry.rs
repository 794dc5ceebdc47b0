//! The registry against the stores it is made for: one contract for all of them, and what only a real MongoDB can do.

mod changes;
mod contract;
mod drains;
mod nodes;
mod outages;
mod pins;
mod rig;
mod wire;
