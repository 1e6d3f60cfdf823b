//! Hash slots: which one a key is in, and sets of them.

use std::fmt;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

const WORDS: usize = SLOTS as usize / 64;

/// The slot of a key: of what stands in its first braces, if something does.
pub(in crate::sources::redis) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let close = behind.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &behind[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16 as XMODEM has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ TABLE[usize::from(high ^ byte)]
    })
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0_u16; 256];
    let mut number = 0;
    let mut byte = 0_u16;
    while number < table.len() {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[number] = crc;
        number += 1;
        byte += 1;
    }
    table
}

/// A set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotSet(Box<[u64; WORDS]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl SlotSet {
    /// Slots from 0 up are all that may be put in.
    pub(super) fn insert(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot / 64)) {
            *word |= 1 << (slot % 64);
        }
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot / 64)).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SLOTS).filter(|slot| self.contains(*slot))
    }

    /// Puts in `17` or `0-5460`; false if `text` is neither.
    pub(super) fn insert_range(&mut self, text: &str) -> bool {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {
                (first..=last).for_each(|slot| self.insert(slot));
                true
            }
            _ => false,
        }
    }

    /// Of ranges with commas between them.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut slots = Self::default();
        text.split(',')
            .filter(|range| !range.is_empty())
            .all(|range| slots.insert_range(range))
            .then_some(slots)
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

/// Ranges with commas between them.
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slots = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = slots.next() {
            let mut last = first;
            while let Some(next) = slots.next_if(|slot| *slot == last + 1) {
                last = next;
            }
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|slot| plain && *slot < SLOTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_those_that_redis_says() {
        // Of `CLUSTER KEYSLOT`.
        for (key, slot) in [("foo", 12_182), ("{b}x", 3_300), ("123456789", 0x31c3), ("", 0)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_ne!(slot_of(b"foo{}{bar}"), slot_of(b"bar"), "empty braces say nothing");
    }

    proptest! {
        #[test]
        fn any_set_reads_back(slots in prop::collection::btree_set(0..SLOTS, 0..200)) {
            let set: SlotSet = slots.iter().copied().collect();
            prop_assert_eq!(SlotSet::parse(&set.to_string()), Some(set.clone()));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), slots.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in ["16384", "5-3", "a", "1-", "-1", "1-2-3", "+1"] {
            assert_eq!(SlotSet::parse(wrong), None, "{wrong}");
        }
        assert_eq!(SlotSet::parse("3,0-1").unwrap().to_string(), "0-1,3");
    }
}
