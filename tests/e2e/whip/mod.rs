//! WHIP and WHEP, with real peers on both sides of the door.

mod abuse;
mod door;
mod trouble;
mod two_offers;

const RELAYED: [&str; 7] = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"];
