//! Whether this door takes clients, told to load balancers; and whether nodes answer, found out by asking them.
//!
//! ```text
//! SLB ─► /healthz, /livez on every public listener (front calls `handlers::answer`)
//!     └► the same on `[health] bind`: `listener`, on a thread of its own
//! nodes ◄─ probe ─► whoever takes outcomes (`ReportsNodes`)
//! ```
//!
//! The answers read one atomic and touch nothing else: no lock, no queue, no store. An outage of MongoDB or of nodes
//! never turns them; only a start, a drain or a full door does.

pub mod handlers;
pub mod listener;
pub mod probe;
pub mod readiness;

pub use handlers::{Answer, answer};
pub use probe::{Probed, Prober, Probes, ReportsNodes};
pub use readiness::{Readiness, Ready};
