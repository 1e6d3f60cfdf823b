//! What tests of more than one process share: the real servers they start.

pub mod cluster;
pub mod documents;
pub mod dynamodb_local;
pub mod lake;
