//! What goes over the wire and onto disk: messages, batches, documents and keys.

mod batch;
mod frame;
mod ids;
mod token;

pub use batch::{BatchBuilder, Draft, Pending, Stamp, content_hash};
pub use frame::{Codec, Frame, FrameError, HEADER_BYTES, PAYLOAD_BYTES_MAX};
pub use ids::{Epoch, NodeId, Sequence};
pub use token::{Token, TokenError};

/// Messages and services of package `tidegate.v1`, generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::nursery)]
#[allow(clippy::wildcard_enum_match_arm)]
pub mod v1 {
    tonic::include_proto!("tidegate.v1");

    /// The descriptors of every message, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.bin"));
}
