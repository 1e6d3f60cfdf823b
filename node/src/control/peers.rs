//! Connections to the other nodes, one per address, made when first needed.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate_proto::v1::exchange_client::ExchangeClient;
use tidegate_proto::v1::raft_client::RaftClient;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, ErrorKind, Result};

/// Bytes in flight per stream before the receiver must have taken some.
const WINDOW_BYTES: u32 = 8 << 20;
/// All fetches from a node share a connection. What each may have in flight is bounded by
/// its credit; were their sum bounded here, those whose receiver stands still would in the
/// end stop all others.
const CONNECTION_BYTES: u32 = (1 << 31) - 1;
/// Bytes of an HTTP/2 frame: a batch goes in one, not in pieces of 16 KiB.
const FRAME_BYTES: u32 = 1 << 20;
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// The node's connections to its peers. A connection that breaks is made again
/// by itself on its next use.
///
/// Consensus has a connection of its own: a heartbeat must not queue behind
/// megabytes of changes.
#[derive(Debug)]
pub struct Peers {
    message_bytes: usize,
    channels: Mutex<HashMap<(Purpose, String), Channel>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Control,
    Changes,
}

impl Peers {
    /// No connections yet. Messages over `message_bytes` are refused.
    #[must_use]
    pub fn new(message_bytes: usize) -> Self {
        Self { message_bytes, channels: Mutex::default() }
    }

    /// For consensus, joins, proposals and heartbeats.
    pub fn raft(&self, address: &str) -> Result<RaftClient<Channel>> {
        let channel = self.channel(Purpose::Control, address)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(self.message_bytes)
            .max_encoding_message_size(self.message_bytes))
    }

    /// For batches.
    pub fn exchange(&self, address: &str) -> Result<ExchangeClient<Channel>> {
        let channel = self.channel(Purpose::Changes, address)?;
        Ok(ExchangeClient::new(channel).max_decoding_message_size(self.message_bytes))
    }

    fn channel(&self, purpose: Purpose, address: &str) -> Result<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&(purpose, address.to_owned())) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            let why = format!("\"{address}\" is not the host:port of a node");
            Error::new(ErrorKind::Config, why).because(error)
        })?;
        let channel = endpoint
            .connect_timeout(CONNECT_WAIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_BYTES)
            .max_frame_size(FRAME_BYTES)
            .connect_lazy();
        channels.insert((purpose, address.to_owned()), channel.clone());
        Ok(channel)
    }
}

/// What a failed call to another node means for whoever made it.
///
/// Only errors that the peer answered before it did anything are `Unavailable`;
/// a broken connection leaves the outcome unknown.
pub(crate) fn explain(address: &str, what: &str, status: &tonic::Status) -> Error {
    use tonic::Code;
    let kind = match status.code() {
        Code::Unavailable if broke(status) => ErrorKind::Unknown,
        Code::Unavailable | Code::ResourceExhausted => ErrorKind::Unavailable,
        Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied => ErrorKind::Config,
        Code::Aborted => ErrorKind::Fenced,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::OutOfRange => ErrorKind::Gone,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Internal
        | Code::Unauthenticated => ErrorKind::Unknown,
    };
    Error::new(kind, format!("{what} at {address}: {}", status.message()))
}

/// The connection broke with the call on it: what was sent may have arrived. A status that
/// the peer sent has no source.
fn broke(status: &tonic::Status) -> bool {
    let mut source = status.source();
    let told = source.is_none();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return false;
        }
        source = error.source();
    }
    !told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: &tonic::Status) -> ErrorKind {
        explain("a:1", "ask", status).kind()
    }

    #[test]
    fn a_connection_that_breaks_leaves_open_what_was_done() {
        let told = tonic::Status::unavailable("no leader");
        assert_eq!(kind(&told), ErrorKind::Unavailable, "the peer says so");
        let refused = tonic::ConnectError("refused".into());
        let status = tonic::Status::from_error(Box::new(refused));
        assert_eq!(kind(&status), ErrorKind::Unavailable, "it was never reached");
        let mut broken = tonic::Status::unavailable("keep-alive timed out");
        broken.set_source(std::sync::Arc::new(std::io::Error::other("timed out")));
        assert_eq!(kind(&broken), ErrorKind::Unknown);
    }
}
