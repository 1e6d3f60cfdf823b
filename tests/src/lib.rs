//! What tests of more than one process share: the real servers they start.

pub mod dynamodb_local;
