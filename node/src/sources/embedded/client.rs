//! The source: shards, anchors and checks.

use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::v1::documents_client::DocumentsClient;
use tidegate_proto::v1::{Check, DescribeRequest, DescribeResponse, ShardSpec, SlotRange};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, async_trait};

use crate::error::{Error, ErrorKind, Result};
use crate::retry;
use crate::sources::embedded::chunk::Chunk;
use crate::sources::embedded::config::EmbeddedConfig;
use crate::sources::embedded::stream::Stream;
use crate::sources::{Anchor, ChangeStream, ChunkReader, MergeRule, Rows, Source, SourceTraits};

/// Largest message the store may send.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const WINDOW_BYTES: u32 = 4 << 20;

/// A document store, as a source.
#[derive(Clone, Debug)]
pub struct Embedded {
    endpoint: String,
    shards: u32,
    channel: Channel,
}

impl Embedded {
    /// Does not connect yet: the first call does.
    pub fn open(config: &EmbeddedConfig) -> Result<Self> {
        if config.shards == 0 {
            return Err(Error::new(ErrorKind::Config, "[source] shards must be at least 1"));
        }
        let endpoint = Endpoint::from_shared(config.endpoint.clone()).map_err(|error| {
            let why = "[source] endpoint must read http://HOST:PORT";
            Error::new(ErrorKind::Config, why).because(error)
        })?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(3))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES * 4)
            .connect_lazy();
        Ok(Self { endpoint: config.endpoint.clone(), shards: config.shards, channel })
    }

    pub(super) fn documents(&self) -> DocumentsClient<Channel> {
        DocumentsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What a failed call means; reading changes nothing, so most may be retried.
    pub(super) fn explain(&self, what: &str, status: &tonic::Status) -> Error {
        let kind = if status.code() == Code::OutOfRange {
            ErrorKind::Gone
        } else if matches!(status.code(), Code::InvalidArgument | Code::Unimplemented) {
            ErrorKind::Config
        } else if status.code() == Code::DataLoss {
            ErrorKind::Corrupt
        } else {
            ErrorKind::Unavailable
        };
        let why =
            format!("{what} of the document store at {}: {}", self.endpoint, status.message());
        Error::new(kind, why)
    }

    async fn describe(&self) -> Result<DescribeResponse> {
        let answer = self.documents().describe(DescribeRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.explain("describe", &status))
    }
}

#[async_trait]
impl Source for Embedded {
    fn traits(&self) -> SourceTraits {
        SourceTraits {
            kind: "embedded",
            merge: MergeRule::Seen,
            dynamic: false,
            rows: Rows::Chunked,
            keeps: None,
            again: retry::MOST,
        }
    }

    async fn discover(&self) -> Result<Vec<ShardSpec>> {
        let slots = self.describe().await?.slots;
        if self.shards > slots {
            let why = format!("[source] shards = {}: the store has {slots} slots", self.shards);
            return Err(Error::new(ErrorKind::Config, why));
        }
        let range = |shard: u32| SlotRange {
            from: shard * slots / self.shards,
            upto: (shard + 1) * slots / self.shards,
        };
        Ok((0..self.shards).map(|shard| spec_of(range(shard))).collect())
    }

    fn split(&self, shard: &ShardSpec) -> Result<[ShardSpec; 2]> {
        let SlotRange { from, upto } = slots_of(shard)?;
        let middle = from + (upto - from) / 2;
        if middle == from {
            let why = format!("shard {} is one slot, which cannot be split", shard.name);
            return Err(Error::new(ErrorKind::Config, why));
        }
        let halves = [SlotRange { from, upto: middle }, SlotRange { from: middle, upto }];
        Ok(halves.map(spec_of))
    }

    async fn anchor(&self, shard: &ShardSpec) -> Result<Anchor> {
        let range = slots_of(shard)?;
        let store = self.describe().await?;
        Ok(Anchor {
            position: Position { store: store.store_id, revision: store.revision }.encode(),
            chunks: range.upto - range.from,
            rows_estimated: store.documents * u64::from(range.upto - range.from)
                / u64::from(store.slots.max(1)),
        })
    }

    async fn stream(&self, shard: &ShardSpec, position: &[u8]) -> Result<Box<dyn ChangeStream>> {
        let position = Position::decode(position)?;
        let store = self.describe().await?;
        if store.store_id != position.store {
            let why = format!(
                "the document store at {} is not the one this export began with: it was made anew",
                self.endpoint
            );
            return Err(Error::new(ErrorKind::Gone, why));
        }
        let stream = Stream::open(self.clone(), slots_of(shard)?, position).await?;
        Ok(Box::new(stream))
    }

    async fn chunk(
        &self,
        shard: &ShardSpec,
        chunk: u32,
        cursor: &[u8],
    ) -> Result<Box<dyn ChunkReader>> {
        let slot = slots_of(shard)?.from + chunk;
        let range = SlotRange { from: slot, upto: slot + 1 };
        Ok(Box::new(Chunk::new(self.clone(), range, cursor)))
    }

    async fn check(&self) -> Vec<Check> {
        let found = self.describe().await;
        let check = |passed: bool, detail: String, remedy: &str| Check {
            name: "source: document store".to_owned(),
            passed,
            detail,
            remedy: remedy.to_owned(),
        };
        vec![match found {
            Ok(store) => {
                let detail =
                    format!("{} documents at revision {}", store.documents, store.revision);
                check(true, detail, "")
            }
            Err(error) => check(
                false,
                error.to_string(),
                "start it with `tidegated documents`, or mend [source] endpoint",
            ),
        }]
    }
}

/// Where a shard is: a revision of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) store: String,
    pub(super) revision: u64,
}

impl Position {
    /// `STORE:REVISION`, so that it can be printed.
    pub(super) fn encode(&self) -> Bytes {
        format!("{}:{}", self.store, self.revision).into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let parsed = std::str::from_utf8(bytes).ok().and_then(|text| {
            let (store, revision) = text.rsplit_once(':')?;
            Some(Self { store: store.to_owned(), revision: revision.parse().ok()? })
        });
        let why = "the position of an embedded source does not read STORE:REVISION";
        parsed.ok_or_else(|| Error::new(ErrorKind::Corrupt, why))
    }
}

fn spec_of(range: SlotRange) -> ShardSpec {
    ShardSpec {
        name: format!("slots-{:02}-{:02}", range.from, range.upto - 1),
        descriptor: encode(range),
        ..ShardSpec::default()
    }
}

fn encode(range: SlotRange) -> Bytes {
    format!("{}-{}", range.from, range.upto).into()
}

fn slots_of(shard: &ShardSpec) -> Result<SlotRange> {
    let parsed = std::str::from_utf8(&shard.descriptor).ok().and_then(|text| {
        let (from, upto) = text.split_once('-')?;
        Some(SlotRange { from: from.parse().ok()?, upto: upto.parse().ok()? })
    });
    let range = parsed.filter(|range| range.from < range.upto);
    range.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the descriptor of an embedded shard"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_reads_back() {
        let position = Position { store: "ab:cd".to_owned(), revision: 7 };
        assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        assert!(Position::decode(b"7").is_err());
        assert!(Position::decode(&[0xff, b':', b'1']).is_err());
    }

    proptest! {
        #[test]
        fn any_position_and_descriptor_read_back(
            store in ".{0,9}",
            revision: u64,
            from in 0..u32::MAX,
        ) {
            let position = Position { store, revision };
            prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
            let range = SlotRange { from, upto: from + 1 };
            let shard = ShardSpec { descriptor: encode(range), ..ShardSpec::default() };
            prop_assert_eq!(slots_of(&shard).unwrap(), range);
        }

        #[test]
        fn other_bytes_are_refused(bytes in prop::collection::vec("[0-9:a-]{0,1}", 0..9)) {
            let bytes = bytes.concat().into_bytes();
            if let Ok(position) = Position::decode(&bytes) {
                let again = Position::decode(&position.encode()).unwrap();
                prop_assert_eq!(again, position);
            }
            let shard = ShardSpec { descriptor: bytes.into(), ..ShardSpec::default() };
            prop_assert!(slots_of(&shard).is_ok_and(|range| range.from < range.upto)
                || slots_of(&shard).unwrap_err().kind() == ErrorKind::Corrupt);
        }
    }
}
