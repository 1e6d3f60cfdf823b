//! Ready-made batches, and what must come out of them.

use std::sync::Arc;
use std::time::Duration;

use tidegate_node::sinks::{Sink, SinkBatch};
use tidegate_node::sources::Source as _;
use tidegate_node::sources::datagen::{Datagen, DatagenConfig, state_after};
use tidegate_proto::v1::{Operation, Progress, ShardSpec};
use tidegate_proto::{
    BatchBuilder, Codec, Draft, Epoch, Frame, Key, KeyPart, Sequence, Stamp, content_hash, document,
};
use tidegate_tests::latest::State;

use crate::bench::{Outcome, require};

/// A batch is closed at so many bytes, as in a node by default.
const BATCH_BYTES: usize = 256 << 10;
/// The smallest document the generator makes; smaller ones are made here.
const GENERATED_BYTES_MIN: usize = 320;

/// Encoded batches of one shard, from sequence 1 on.
pub(crate) struct Stock {
    pub(crate) frames: Vec<Frame>,
    pub(crate) changes: u64,
    /// What a reader of all of it must end with; made without the batches.
    pub(crate) state: State,
}

impl Stock {
    /// All of it through `sink`, until that has proved it durable.
    pub(crate) async fn deliver(&self, sink: &mut dyn Sink) -> Outcome<()> {
        for frame in &self.frames {
            let batch = SinkBatch {
                frame: frame.clone(),
                batch: Arc::new(frame.decode()?),
                first: frame.first(),
                progress: Arc::new(Progress::default()),
            };
            sink.write(&batch).await?;
        }
        sink.flush().await?;
        Ok(())
    }

    /// `changes` changes with documents of about `document_bytes`.
    pub(crate) async fn make(document_bytes: usize, changes: u64) -> Outcome<Self> {
        if document_bytes < GENERATED_BYTES_MIN {
            return small(document_bytes, changes, changes);
        }
        let config = generated(document_bytes, changes);
        let source = Datagen::new(&config, || 0)?;
        let spec = ShardSpec { name: "datagen-0".to_owned(), ..ShardSpec::default() };
        let mut stream = source.stream(&spec, &0_u64.to_be_bytes()).await?;
        let (mut out, mut frames) = (BatchBuilder::default(), Vec::new());
        loop {
            out.clear();
            let read = stream.read(&mut out, BATCH_BYTES, Duration::ZERO).await?;
            if !out.is_empty() {
                encode(&out, &mut frames);
            }
            if read.ended {
                break;
            }
        }
        Ok(Self { frames, changes, state: state_after(&config, 0, changes)? })
    }
}

impl Stock {
    /// `changes` changes of so many keys, each as often, with small documents.
    pub(crate) fn repeating(document_bytes: usize, changes: u64, keys: u64) -> Outcome<Self> {
        small(document_bytes, changes, keys)
    }
}

/// The generator's settings for one shard of `changes` changes.
pub(crate) fn generated(document_bytes: usize, changes: u64) -> DatagenConfig {
    DatagenConfig { document_bytes, changes, ..DatagenConfig::default() }
}

/// Documents that are smaller than an order.
fn small(document_bytes: usize, changes: u64, keys: u64) -> Outcome<Stock> {
    let (mut out, mut frames, mut state) = (BatchBuilder::default(), Vec::new(), State::new());
    for n in 0..changes {
        let key = Key::encode(&[KeyPart::String(format!("row-{:09}", n * 7919 % keys))])?;
        let note = "a small document "
            .chars()
            .cycle()
            .skip(usize::try_from(n % 17)?)
            .take(document_bytes.saturating_sub(48))
            .collect::<String>();
        let json = format!(
            r#"{{"number":{n},"total":{}.25,"open":{},"note":"{note}"}}"#,
            n % 977,
            n % 2 == 0
        );
        let encoded = document::encode(&document::parse_json(json.as_bytes())?)?;
        let hash = content_hash(&encoded.dictionary, &encoded.value);
        state.insert(key.as_bytes().to_vec(), hash);
        out.push(&Draft {
            operation: Operation::Upsert,
            collection: "small",
            key: key.as_bytes(),
            document: Some((&encoded.dictionary, &encoded.value)),
            before: None,
            committed_ms: 0,
        });
        if out.bytes() >= BATCH_BYTES {
            encode(&out, &mut frames);
            out.clear();
        }
    }
    if !out.is_empty() {
        encode(&out, &mut frames);
    }
    Ok(Stock { frames, changes, state })
}

fn encode(out: &BatchBuilder, frames: &mut Vec<Frame>) {
    let first = frames.last().map_or(Sequence(1), |frame| frame.last().next());
    let progress =
        Progress { stream: first.0.to_be_bytes().to_vec().into(), ..Progress::default() };
    let stamp = Stamp { epoch: Epoch(1), first, progress, clock: first.0, ..Stamp::default() };
    frames.push(out.encode(stamp, Codec::Zstd));
}

/// Looks that batches follow each other without a hole, and sums up which they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tiling {
    pub(crate) last: u64,
    /// Of all frames' bytes, by their checked checksums, in order.
    pub(crate) digest: u64,
}

impl Tiling {
    /// Takes the next frame.
    pub(crate) fn take(&mut self, frame: &Frame) -> Outcome<()> {
        require(frame.first().0 == self.last + 1, "batches follow each other without a hole")?;
        self.last = frame.last().0;
        self.digest = self.digest.rotate_left(5) ^ xxhash_rust::xxh3::xxh3_64(&frame.bytes()[..32]);
        Ok(())
    }
}
