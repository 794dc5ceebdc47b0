//! WHIP and WHEP, with real peers on both sides of the door.

mod two_offers;
