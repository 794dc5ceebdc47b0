//! What end-to-end tests share.

pub(crate) mod mongod;
