//! The tables as rows on disk and in snapshots.

use prost::{DecodeError, Message};

use super::State;
use crate::codec::damaged;
use crate::error::StoreError;
use crate::keys::{Key, Row};

/// What [`State::take_changes`] found.
pub(crate) struct Changes {
    /// Rows to write, or to delete where there is nothing.
    pub rows: Vec<(Row, Option<Vec<u8>>)>,
    /// More than checkpoints moved.
    pub moved: bool,
}

impl State {
    /// What differs from the last time this was asked.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let dirty = std::mem::take(&mut self.dirty);
        let rows = dirty.into_iter().map(|row| (row, self.encode(row))).collect();
        Changes { rows, moved: std::mem::take(&mut self.moved) }
    }

    /// Every row there is, in the order of keys.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Row, Vec<u8>)> + '_ {
        let cluster = self.cluster.iter().map(|_| Row::Cluster);
        let nodes = self.nodes.keys().map(|id| Row::Node(*id));
        let exports = self.exports.keys().map(|id| Row::Export(*id));
        let shards = self.shards.keys().map(|id| Row::Shard(*id));
        let gaps = self.gaps.keys().map(|(shard, number)| Row::Gap(*shard, *number));
        let all = cluster.chain(nodes).chain(exports).chain(shards).chain(gaps);
        all.filter_map(|row| self.encode(row).map(|body| (row, body)))
    }

    /// Takes a row from disk. Byte fields get memory of their own.
    pub(crate) fn load(&mut self, row: Row, body: &[u8]) -> Result<(), StoreError> {
        let read = self.decode(row, body);
        read.map_err(|error| damaged(Key::Row(row), &error.to_string()))
    }

    fn encode(&self, row: Row) -> Option<Vec<u8>> {
        match row {
            Row::Cluster => self.cluster.as_ref().map(Message::encode_to_vec),
            Row::Node(id) => self.nodes.get(&id).map(Message::encode_to_vec),
            Row::Export(id) => self.exports.get(&id).map(Message::encode_to_vec),
            Row::Shard(id) => self.shards.get(&id).map(Message::encode_to_vec),
            Row::Gap(id, number) => self.gaps.get(&(id, number)).map(Message::encode_to_vec),
        }
    }

    fn decode(&mut self, row: Row, body: &[u8]) -> Result<(), DecodeError> {
        match row {
            Row::Cluster => self.cluster = Some(Message::decode(body)?),
            Row::Node(id) => drop(self.nodes.insert(id, Message::decode(body)?)),
            Row::Export(id) => drop(self.exports.insert(id, Message::decode(body)?)),
            Row::Shard(id) => drop(self.shards.insert(id, Message::decode(body)?)),
            Row::Gap(id, number) => drop(self.gaps.insert((id, number), Message::decode(body)?)),
        }
        Ok(())
    }
}
