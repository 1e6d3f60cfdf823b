//! One file per row, or per pair of rows that share their set-up.

pub(crate) mod checkpoints;
pub(crate) mod cost;
pub(crate) mod fanout;
pub(crate) mod feed;
pub(crate) mod lag;
pub(crate) mod lake;
pub(crate) mod memory;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod shards;
pub(crate) mod size;
pub(crate) mod spool;
