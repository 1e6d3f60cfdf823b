//! Values on disk: a format version and a checksum around each.
//!
//! ```text
//!   version u8 | crc32c u32 of key, version and body | body
//! ```

use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, StoredMembership, Vote};

use crate::error::{REJOIN, StoreError};
use crate::keys::Key;
use crate::types::{Peer, Proposal, TypeConfig};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERS: u8 = 2;

/// Wraps `body` to be stored under `key`.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + body.len());
    value.push(VERSION);
    value.extend_from_slice(&checksum(key, VERSION, body).to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// The body of a value that was found under `key`.
pub(crate) fn unseal(key: Key, value: &[u8]) -> Result<&[u8], StoreError> {
    let Some((head, body)) = value.split_at_checked(HEAD_BYTES) else {
        return Err(damaged(key, "it is cut short"));
    };
    if head[1..] != checksum(&key.encode(), head[0], body).to_be_bytes() {
        return Err(damaged(key, "its checksum is wrong"));
    }
    if head[0] != VERSION {
        return Err(StoreError::unknown_format(format!(
            "{key} is stored in format {}, this build knows {VERSION}; \
             start the version of tidegated that wrote it",
            head[0]
        )));
    }
    Ok(body)
}

/// Says which key is damaged and what to do.
pub(crate) fn damaged(key: Key, why: &str) -> StoreError {
    StoreError::corrupt(format!("{key} is damaged on disk: {why}; {REJOIN}"))
}

fn checksum(key: &[u8], version: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), &[version]), body)
}

/// Body: term u64, node u64, committed u8.
pub(crate) fn encode_vote(vote: &Vote<u64>) -> Vec<u8> {
    let mut body = numbers(&[vote.leader_id.term, vote.leader_id.node_id]);
    body.push(u8::from(vote.committed));
    body
}

pub(crate) fn decode_vote(body: &[u8]) -> Result<Vote<u64>, StoreError> {
    let mut reader = Reader { key: Key::Vote, rest: body };
    let (term, node) = (reader.number()?, reader.number()?);
    let committed = match reader.byte()? {
        0 => Vote::new(term, node),
        1 => Vote::new_committed(term, node),
        _ => return Err(damaged(Key::Vote, "it is neither committed nor not")),
    };
    reader.end()?;
    Ok(committed)
}

/// Body: term u64, node u64, index u64.
pub(crate) fn encode_log_id(id: &LogId<u64>) -> Vec<u8> {
    numbers(&[id.leader_id.term, id.leader_id.node_id, id.index])
}

pub(crate) fn decode_log_id(key: Key, body: &[u8]) -> Result<LogId<u64>, StoreError> {
    let mut reader = Reader { key, rest: body };
    let id = reader.log_id()?;
    reader.end()?;
    Ok(id)
}

/// Body: JSON, as members change rarely and their type is not ours.
pub(crate) fn encode_membership(
    membership: &StoredMembership<u64, Peer>,
) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(membership)
        .map_err(|error| StoreError::corrupt(format!("the membership does not encode: {error}")))
}

pub(crate) fn decode_membership(body: &[u8]) -> Result<StoredMembership<u64, Peer>, StoreError> {
    serde_json::from_slice(body).map_err(|error| damaged(Key::Membership, &error.to_string()))
}

/// Body: log id, kind u8, then the command or the membership as JSON.
pub(crate) fn encode_entry(entry: &Entry<TypeConfig>) -> Result<Vec<u8>, StoreError> {
    let mut body = encode_log_id(&entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => body.push(BLANK),
        EntryPayload::Normal(proposal) => {
            body.push(COMMAND);
            body.extend_from_slice(proposal.as_bytes());
        }
        EntryPayload::Membership(membership) => {
            body.push(MEMBERS);
            serde_json::to_writer(&mut body, membership).map_err(|error| {
                StoreError::corrupt(format!("the membership does not encode: {error}"))
            })?;
        }
    }
    Ok(body)
}

/// The entry at `index`; one that says it belongs elsewhere is damaged.
pub(crate) fn decode_entry(index: u64, body: &[u8]) -> Result<Entry<TypeConfig>, StoreError> {
    let key = Key::Log(index);
    let mut reader = Reader { key, rest: body };
    let log_id = reader.log_id()?;
    if log_id.index != index {
        return Err(damaged(key, &format!("it holds entry {}", log_id.index)));
    }
    let payload = match reader.byte()? {
        BLANK => {
            reader.end()?;
            EntryPayload::Blank
        }
        COMMAND => EntryPayload::Normal(Proposal::from_bytes(reader.rest.to_vec())),
        MEMBERS => EntryPayload::Membership(
            serde_json::from_slice(reader.rest)
                .map_err(|error| damaged(key, &error.to_string()))?,
        ),
        kind => return Err(damaged(key, &format!("it is of unknown kind {kind}"))),
    };
    Ok(Entry { log_id, payload })
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Takes a body apart from the front.
struct Reader<'a> {
    key: Key,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(damaged(self.key, "it is cut short"));
        };
        self.rest = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        self.take().map(|[byte]| byte)
    }

    fn log_id(&mut self) -> Result<LogId<u64>, StoreError> {
        let leader = CommittedLeaderId::new(self.number()?, self.number()?);
        Ok(LogId::new(leader, self.number()?))
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(damaged(self.key, "it is too long")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::Membership;
    use proptest::prelude::*;

    use super::*;
    use crate::error::StoreErrorKind;

    fn log_id(index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(3, 2), index)
    }

    #[test]
    fn every_flipped_bit_is_found_and_names_its_key() {
        let key = Key::Log(17);
        let sealed = seal(&key.encode(), b"body");
        assert_eq!(unseal(key, &sealed).unwrap(), b"body");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = unseal(key, &flipped).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(error.to_string().contains("log entry 17"), "{error}");
        }
    }

    #[test]
    fn a_value_under_another_key_is_found() {
        let sealed = seal(&Key::Log(17).encode(), b"body");
        assert!(unseal(Key::Log(18), &sealed).is_err());
    }

    #[test]
    fn a_value_of_a_later_format_is_not_taken_for_damage() {
        let key = Key::Vote;
        let mut later = vec![VERSION + 1];
        later.extend_from_slice(&checksum(&key.encode(), VERSION + 1, b"x").to_be_bytes());
        later.push(b'x');
        assert_eq!(unseal(key, &later).unwrap_err().kind(), StoreErrorKind::UnknownFormat);
    }

    #[test]
    fn entries_survive_the_round_trip() {
        let peer = Peer { address: "a:1".to_owned() };
        let members = Membership::new(vec![[1].into()], BTreeMap::from([(1, peer)]));
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal::from_bytes(vec![1, 2, 3])),
            EntryPayload::Membership(members),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id(9), payload };
            let body = encode_entry(&entry).unwrap();
            assert_eq!(decode_entry(9, &body).unwrap(), entry);
            assert!(decode_entry(8, &body).is_err(), "the index is checked");
        }
    }

    #[test]
    fn votes_and_memberships_survive_the_round_trip() {
        for vote in [Vote::new(7, 3), Vote::new_committed(7, 3)] {
            assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }
        let members = Membership::new(vec![[1, 2].into(), [2, 3].into()], ());
        let stored = StoredMembership::new(Some(log_id(4)), members);
        let body = encode_membership(&stored).unwrap();
        assert_eq!(decode_membership(&body).unwrap(), stored);
    }

    fn any_entry() -> impl Strategy<Value = Entry<TypeConfig>> {
        let peers = prop::collection::btree_map(1..9_u64, ".{0,9}", 1..5);
        let members = peers.prop_map(|peers| {
            let ids = peers.keys().copied().collect();
            let peers = peers.into_iter().map(|(id, address)| (id, Peer { address }));
            EntryPayload::Membership(Membership::new(vec![ids], peers.collect::<BTreeMap<_, _>>()))
        });
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            any::<Vec<u8>>().prop_map(|bytes| EntryPayload::Normal(Proposal::from_bytes(bytes))),
            members,
        ];
        (any::<[u64; 3]>(), payload).prop_map(|([term, node, index], payload)| {
            let log_id = LogId::new(CommittedLeaderId::new(term, node), index);
            Entry { log_id, payload }
        })
    }

    proptest! {
        #[test]
        fn any_value_survives_the_round_trip(entry in any_entry(), committed: bool) {
            let key = Key::Log(entry.log_id.index);
            let sealed = seal(&key.encode(), &encode_entry(&entry).unwrap());
            let body = unseal(key, &sealed).unwrap();
            prop_assert_eq!(&decode_entry(entry.log_id.index, body).unwrap(), &entry);
            let id = entry.log_id;
            prop_assert_eq!(decode_log_id(Key::Applied, &encode_log_id(&id)).unwrap(), id);
            let (term, node) = (id.leader_id.term, id.leader_id.node_id);
            let vote = Vote { committed, ..Vote::new(term, node) };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
            if let EntryPayload::Membership(members) = entry.payload {
                let stored = StoredMembership::new(Some(id), members);
                let body = encode_membership(&stored).unwrap();
                prop_assert_eq!(decode_membership(&body).unwrap(), stored);
            }
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), index: u64) {
            drop(unseal(Key::Log(index), &bytes));
            drop(decode_vote(&bytes));
            drop(decode_log_id(Key::Applied, &bytes));
            drop(decode_membership(&bytes));
            drop(decode_entry(index, &bytes));
            // Behind the right log id, so that what follows it is reached.
            let headed = [&encode_log_id(&log_id(index))[..], &bytes].concat();
            if let Ok(Entry { payload: EntryPayload::Normal(proposal), .. }) =
                decode_entry(index, &headed)
            {
                drop(proposal.command());
            }
        }
    }
}
