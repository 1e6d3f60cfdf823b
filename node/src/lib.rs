//! A node of the change-export cluster.

/// Where changes come from.
pub mod sources {
    pub mod embedded;
}
