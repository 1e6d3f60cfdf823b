//! Every change of a generated source is the one that the generator makes there.

use std::collections::BTreeMap;

use tidegate_node::sources::datagen::{DatagenConfig, Expected, ExpectedChange};
use tidegate_proto::v1::{Change, ChangeBatch, Operation};
use tidegate_proto::{Frame, content_hash};

use crate::Outcome;
use crate::feed::Judge;

/// Compares a feed with its generator, change by change.
#[derive(Debug)]
pub struct Generated {
    lanes: BTreeMap<String, Lane>,
    /// How many batches said that what follows was lost and comes again.
    pub rewinds: u64,
    /// Furthest that a batch's time of capture was from ours, in milliseconds.
    pub skew_ms: u64,
    now_ms: fn() -> i64,
}

#[derive(Debug)]
struct Lane {
    expected: Expected,
    /// The generator's number of the change that is next.
    next: u64,
    /// Where that number does not follow the one before: sequence and number.
    jumps: Vec<(u64, u64)>,
}

impl Generated {
    /// Of a source with this configuration, whose snapshot is empty.
    ///
    /// # Errors
    ///
    /// If the configuration makes no changes.
    pub fn new(config: &DatagenConfig) -> Outcome<Self> {
        let lane = |number| {
            let expected = Expected::new(config, number)?;
            Ok((format!("datagen-{number}"), Lane { expected, next: 0, jumps: vec![(1, 0)] }))
        };
        let lanes: Outcome<_> = (0..config.shards).map(lane).collect();
        let now_ms = tidegate_node::clock::now_ms;
        Ok(Self { lanes: lanes?, rewinds: 0, skew_ms: 0, now_ms })
    }

    /// What the change of this sequence must be.
    ///
    /// # Errors
    ///
    /// If there is no such change.
    pub fn expected(&self, shard: &str, sequence: u64) -> Outcome<ExpectedChange> {
        self.made(shard, self.number_of(shard, sequence)?)
    }

    /// Which of the generator's changes has this sequence, counted from 0.
    ///
    /// # Errors
    ///
    /// If there is no such change.
    pub fn number_of(&self, shard: &str, sequence: u64) -> Outcome<u64> {
        let jumps = &self.lane(shard)?.jumps;
        let jump = jumps.iter().rev().find(|(from, _)| *from <= sequence);
        let (from, number) = jump.ok_or_else(|| format!("{shard} has no sequence {sequence}"))?;
        Ok(number + sequence - from)
    }

    /// The generator's change of this number.
    ///
    /// # Errors
    ///
    /// If there is no such change.
    pub fn made(&self, shard: &str, number: u64) -> Outcome<ExpectedChange> {
        Ok(self.lane(shard)?.expected.change(number)?)
    }

    fn lane(&self, shard: &str) -> Outcome<&Lane> {
        self.lanes.get(shard).ok_or_else(|| format!("there is no shard {shard}").into())
    }

    /// Whether a shard's changes begin anew with this sequence, behind a loss that
    /// was said.
    #[must_use]
    pub fn begins_anew(&self, shard: &str, sequence: u64) -> bool {
        let jumps = self.lanes.get(shard).map(|lane| &lane.jumps[..]).unwrap_or_default();
        jumps.iter().skip(1).any(|(from, _)| *from == sequence)
    }

    /// How many different changes of the generator have come.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lanes.values().map(|lane| lane.next).sum()
    }
}

impl Judge for Generated {
    fn take(&mut self, shard: &str, frame: &Frame, batch: &ChangeBatch) -> Outcome<()> {
        let lane = self.lanes.get_mut(shard).ok_or_else(|| format!("there is no shard {shard}"))?;
        self.skew_ms = self.skew_ms.max((self.now_ms)().abs_diff(batch.captured_ms));
        if batch.rewound.is_some() {
            self.rewinds += 1;
            lane.rewind(frame.first().0, batch).map_err(|why| format!("{shard}: {why}"))?;
        }
        for (sequence, change) in (frame.first().0..).zip(&batch.changes) {
            lane.check(batch, change)
                .map_err(|why| format!("{shard}: sequence {sequence}: {why}"))?;
        }
        Ok(())
    }
}

impl Lane {
    /// Goes back to where the source is read again; forth would be a loss.
    fn rewind(&mut self, sequence: u64, batch: &ChangeBatch) -> Outcome<()> {
        let stream = batch.progress.as_ref().map(|progress| progress.stream.to_vec());
        let upto = stream.unwrap_or_default().try_into().map(u64::from_be_bytes);
        let upto = upto.map_err(|_| "a rewound batch without a position")?;
        let first = upto.checked_sub(u64::try_from(batch.changes.len())?);
        let first = first.ok_or("a batch with more changes than its position")?;
        if first > self.next {
            return Err(format!("change {first} follows where {} is next", self.next).into());
        }
        self.next = first;
        self.jumps.push((sequence, first));
        Ok(())
    }

    fn check(&mut self, batch: &ChangeBatch, change: &Change) -> Outcome<()> {
        let expected = self.expected.change(self.next)?;
        let same = change.operation() == expected.operation
            && change.key[..] == expected.key[..]
            && hash_of(batch, change)?
                == expected.document.map(|it| content_hash(&it.dictionary, &it.value));
        if !same {
            return Err(format!("is not the generator's change {}", self.next).into());
        }
        self.next += 1;
        Ok(())
    }
}

/// From the document, not from what the change says of it.
fn hash_of(batch: &ChangeBatch, change: &Change) -> Outcome<Option<[u8; 16]>> {
    if change.operation() == Operation::Delete {
        return Ok(None);
    }
    let dictionary = batch.dictionaries.get(usize::try_from(change.dictionary)?);
    let dictionary = dictionary.ok_or("a change without its dictionary")?;
    Ok(Some(content_hash(dictionary, &change.document)))
}
