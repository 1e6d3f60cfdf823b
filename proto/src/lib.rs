//! What goes over the wire and onto disk: messages, batches, documents and keys.
//!
//! A change meets them in this order: a source writes it as a [`document`] and a
//! [`Key`] into a [`BatchBuilder`]; that becomes a [`Frame`], which is spooled,
//! exchanged and fed as it is; a subscriber keeps its place as a [`Token`].

mod batch; // changes gathered into one buffer
mod decimal; // exact numbers
pub mod document; // typed values as Variant
mod frame; // one encoded batch
mod ids; // ids, epochs, sequences
mod key; // keys that sort
mod shard; // what a shard waits for
mod token; // a place in a feed

pub use batch::{BatchBuilder, Draft, Pending, Stamp, Told};
pub use decimal::Decimal;
pub use document::{DocumentError, Value, content_hash};
pub use frame::{Codec, Frame, FrameError, HEADER_BYTES, PAYLOAD_BYTES_MAX};
pub use ids::{Epoch, NodeId, Sequence};
pub use key::{KEY_BYTES_MAX, Key, KeyError, KeyPart};
pub use token::{Token, TokenError};

/// Messages and services of package `tidegate.v1`, generated from `proto/`.
#[allow(missing_docs, unreachable_pub, unused_qualifications)]
#[allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::str_to_string)]
#[allow(clippy::wildcard_enum_match_arm, clippy::clone_on_ref_ptr)]
pub mod v1 {
    tonic::include_proto!("tidegate.v1");

    /// The descriptors of every message, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.bin"));
}
