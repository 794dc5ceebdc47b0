//! The only place that names `mongodb`: the cluster's database over the wire.
//!
//! [`MongoClusterDb`] is the members' side (the demo's nodes write with it, exactly as AMS stores); [`MongoStore`] is the
//! door's, which reads what routing needs and writes only doors' own data, into the database `forebay`.

mod feed;
mod members;
mod own;
mod reader;
mod wire;

pub use feed::{MongoFeed, ResumeToken};
pub use members::MongoClusterDb;
pub use reader::MongoStore;
