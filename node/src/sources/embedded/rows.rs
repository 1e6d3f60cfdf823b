//! The values of the store's database. Each begins with its format's version.

use super::error::StoreError;
use super::keys::Revision;

const VERSION: u8 = 1;

/// Where the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The newest revision; 0 if nothing was ever written.
    pub(super) last: Revision,
    /// The oldest revision whose change is still there.
    pub(super) oldest: Revision,
    /// Bytes of all changes that are still there.
    pub(super) log_bytes: u64,
    /// Those of them behind `blocked`.
    pub(super) open_bytes: u64,
    /// The last revision that is in a block; what comes behind is in none yet.
    pub(super) blocked: Revision,
    /// Documents in all collections.
    pub(super) documents: u64,
}

/// A document as it is now. Lends from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DocumentRow<'a> {
    pub(super) revision: Revision,
    pub(super) written_ms: i64,
    pub(super) dictionary: &'a [u8],
    pub(super) value: &'a [u8],
}

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Insert,
    Update,
    Delete,
}

/// A change. Lends from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeRow<'a> {
    pub(super) kind: ChangeKind,
    pub(super) written_ms: i64,
    /// The document's key, encoded.
    pub(super) key: &'a [u8],
    /// Empty on delete, as is the value.
    pub(super) dictionary: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Default for Head {
    fn default() -> Self {
        let (last, oldest, blocked) = (Revision(0), Revision(1), Revision(0));
        Self { last, oldest, log_bytes: 0, open_bytes: 0, blocked, documents: 0 }
    }
}

impl Head {
    /// Whether the changes behind `after` can be given: all of them are there.
    pub(super) fn check(&self, after: Revision) -> Result<(), StoreError> {
        if after > self.last {
            return Err(StoreError::Ahead { last: self.last });
        }
        if after.next() < self.oldest {
            return Err(StoreError::Trimmed { oldest: self.oldest });
        }
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let places = [self.last.0, self.oldest.0, self.blocked.0];
        let counts = [self.log_bytes, self.open_bytes, self.documents];
        let numbers = [places, counts].concat();
        std::iter::once(VERSION).chain(numbers.into_iter().flat_map(u64::to_be_bytes)).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut fields = Fields::open(bytes)?;
        let head = Self {
            last: Revision(fields.number()?),
            oldest: Revision(fields.number()?),
            blocked: Revision(fields.number()?),
            log_bytes: fields.number()?,
            open_bytes: fields.number()?,
            documents: fields.number()?,
        };
        if !fields.0.is_empty()
            || head.oldest.0 > head.last.0.saturating_add(1)
            || head.blocked > head.last
        {
            return Err(StoreError::Corrupt("the head does not add up"));
        }
        Ok(head)
    }
}

impl<'a> DocumentRow<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.revision.0.to_be_bytes());
        out.extend(self.written_ms.to_be_bytes());
        push_sized(&mut out, self.dictionary);
        out.extend(self.value);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut fields = Fields::open(bytes)?;
        Ok(Self {
            revision: Revision(fields.number()?),
            written_ms: i64::from_be_bytes(fields.take()?),
            dictionary: fields.sized()?,
            value: fields.0,
        })
    }
}

impl<'a> ChangeRow<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            ChangeKind::Insert => 1,
            ChangeKind::Update => 2,
            ChangeKind::Delete => 3,
        };
        let mut out = vec![VERSION, kind];
        out.extend(self.written_ms.to_be_bytes());
        push_sized(&mut out, self.key);
        push_sized(&mut out, self.dictionary);
        out.extend(self.value);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut fields = Fields::open(bytes)?;
        let kind = match fields.take()? {
            [1] => ChangeKind::Insert,
            [2] => ChangeKind::Update,
            [3] => ChangeKind::Delete,
            _ => return Err(StoreError::Corrupt("a change is of no known kind")),
        };
        Ok(Self {
            kind,
            written_ms: i64::from_be_bytes(fields.take()?),
            key: fields.sized()?,
            dictionary: fields.sized()?,
            value: fields.0,
        })
    }
}

/// A count of documents or bytes.
pub(super) fn encode_count(count: u64) -> Vec<u8> {
    [&[VERSION][..], &count.to_be_bytes()].concat()
}

/// What [`encode_count`] wrote.
pub(super) fn decode_count(bytes: &[u8]) -> Result<u64, StoreError> {
    Fields::open(bytes)?.number()
}

/// Appends `bytes` behind their number (u32): keys and documents are far smaller.
fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u32::try_from(bytes.len()).expect("documents are bounded by 16 MiB");
    out.extend(size.to_be_bytes());
    out.extend(bytes);
}

/// What is still to be read of a value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, StoreError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            _ => Err(StoreError::Corrupt("a row is of an unknown version")),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn sized(&mut self) -> Result<&'a [u8], StoreError> {
        let size = usize::try_from(u32::from_be_bytes(self.take()?)).map_err(|_| CUT)?;
        let (taken, rest) = self.0.split_at_checked(size).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }
}

const CUT: StoreError = StoreError::Corrupt("a row ends early");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_row_comes_back(
            revision: u64,
            written_ms: i64,
            bytes: [Vec<u8>; 3],
            kind in 0..3_usize,
        ) {
            let [key, dictionary, value] = &bytes;
            let revision = Revision(revision);
            let document = DocumentRow { revision, written_ms, dictionary, value };
            let row = document.encode();
            prop_assert_eq!(DocumentRow::decode(&row), Ok(document));
            let kind = [ChangeKind::Insert, ChangeKind::Update, ChangeKind::Delete][kind];
            let change = ChangeRow { kind, written_ms, key, dictionary, value };
            let row = change.encode();
            prop_assert_eq!(ChangeRow::decode(&row), Ok(change));
        }

        #[test]
        fn bytes_are_read_or_refused(
            // Few distinct bytes: numbers at the ends of their range are likely.
            bytes in prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..60),
        ) {
            let row = [&[VERSION][..], &bytes].concat();
            if let Ok(head) = Head::decode(&row) {
                prop_assert_eq!(head.encode(), row.clone());
            }
            if let Ok(document) = DocumentRow::decode(&row) {
                prop_assert_eq!(document.encode(), row.clone());
            }
            if let Ok(change) = ChangeRow::decode(&row) {
                prop_assert_eq!(change.encode(), row.clone());
            }
            drop(decode_count(&row));
        }
    }

    #[test]
    fn a_head_at_the_last_revision_is_read() {
        let last = Head { last: Revision(u64::MAX), ..Head::default() };
        assert_eq!(Head::decode(&last.encode()), Ok(last));
    }

    #[test]
    fn rows_come_back_and_cut_ones_are_refused() {
        let head = Head {
            last: Revision(9),
            oldest: Revision(3),
            log_bytes: 1,
            open_bytes: 2,
            blocked: Revision(5),
            documents: 3,
        };
        let document =
            DocumentRow { revision: Revision(7), written_ms: -1, dictionary: b"dd", value: b"v" };
        let change = ChangeRow {
            kind: ChangeKind::Update,
            written_ms: 5,
            key: b"key",
            dictionary: b"dd",
            value: b"",
        };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        assert_eq!(DocumentRow::decode(&document.encode()), Ok(document));
        assert_eq!(ChangeRow::decode(&change.encode()), Ok(change));
        for length in 0..change.encode().len() {
            assert!(ChangeRow::decode(&change.encode()[..length]).is_err(), "{length}");
        }
        assert!(Head::decode(&[&head.encode()[..], &[0]].concat()).is_err());
        assert!(DocumentRow::decode(&[2; 40]).is_err(), "another version");
    }
}
