//! A batch of changes as it lies on disk and goes over the wire.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use crate::ids::{Epoch, Sequence};
use crate::v1::ChangeBatch;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 32;

/// The most bytes a frame's payload may have once decompressed. One document of the
/// largest size allowed (16 MiB), before and after, fits behind as much as a batch may
/// have that is not closed (4 MiB).
pub const PAYLOAD_BYTES_MAX: usize = 40 << 20;

const MAGIC: [u8; 2] = *b"TG";
const VERSION: u8 = 1;

/// How a payload is packed. The numbers are on disk and never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    #[default]
    None,
    /// zstd, level 1.
    Zstd,
}

/// One batch, encoded once: spooled, exchanged and fed as these bytes.
///
/// ```text
///   0   2       3     4     12    20    24      28     32
///   'TG' version codec epoch first count raw-len crc32c payload ...
/// ```
///
/// Numbers are big endian. The checksum covers the header before it and the
/// payload. The payload is a [`ChangeBatch`]; `raw-len` is its size unpacked.
/// Cheap to clone: all clones share one buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// Checks `bytes` and takes them as a frame.
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let frame = Self::unchecked(bytes)?;
        let stored = frame.u32_at(28);
        let computed = frame.checksum();
        if stored != computed {
            return Err(FrameError::Checksum { stored, computed });
        }
        Ok(frame)
    }

    /// Takes `bytes` as a frame whose checksum this process has checked or
    /// made before; only the shape is looked at.
    pub fn unchecked(bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() < HEADER_BYTES {
            return Err(FrameError::Short { bytes: bytes.len() });
        }
        if bytes[..2] != MAGIC {
            return Err(FrameError::NotAFrame);
        }
        if bytes[2] != VERSION {
            return Err(FrameError::Version { found: bytes[2] });
        }
        let frame = Self(bytes);
        frame.codec()?;
        if frame.count() == 0 && frame.first() == Sequence(0) {
            return Err(FrameError::Payload("sequence 0 is before the first change".into()));
        }
        if frame.first().0.checked_add(u64::from(frame.count())).is_none() {
            return Err(FrameError::Payload("its last change is behind the last sequence".into()));
        }
        Ok(frame)
    }

    /// Packs an encoded [`ChangeBatch`] of `count` changes, the first of which
    /// has sequence `first`.
    pub fn pack(epoch: Epoch, first: Sequence, count: u32, payload: &[u8], codec: Codec) -> Self {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "builders keep a payload within its limit");
        let raw_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.push(0);
        out.extend_from_slice(&epoch.0.to_be_bytes());
        out.extend_from_slice(&first.0.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&raw_len.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        // What does not shrink is stored as it is.
        match codec {
            Codec::Zstd => match zstd::bulk::compress(payload, 1) {
                Ok(packed) if packed.len() < payload.len() => {
                    out[3] = 1;
                    out.extend_from_slice(&packed);
                }
                Ok(_) | Err(_) => out.extend_from_slice(payload),
            },
            Codec::None => out.extend_from_slice(payload),
        }
        let crc = checksum_of(&out);
        out[28..32].copy_from_slice(&crc.to_be_bytes());
        Self(out.into())
    }

    /// The frame's bytes, to store or to send.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The epoch of the owner that captured it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.u64_at(4))
    }

    /// The sequence of its first change; of the next change if it has none.
    #[must_use]
    pub fn first(&self) -> Sequence {
        Sequence(self.u64_at(12))
    }

    /// The sequence of its last change; one before `first` if it has none.
    #[must_use]
    pub fn last(&self) -> Sequence {
        Sequence(self.first().0 + u64::from(self.count()) - 1)
    }

    /// How many changes it holds. May be 0: a batch that only moves progress.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.u32_at(20)
    }

    /// Bytes of the payload once unpacked.
    #[must_use]
    pub fn raw_bytes(&self) -> u32 {
        self.u32_at(24)
    }

    /// Unpacks and decodes the payload. Byte fields of the result lend from one
    /// buffer: this frame's own if it is not compressed.
    pub fn decode(&self) -> Result<ChangeBatch, FrameError> {
        let batch = ChangeBatch::decode(self.payload()?)
            .map_err(|error| FrameError::Payload(error.to_string()))?;
        if batch.changes.len() as u64 != u64::from(self.count()) {
            return Err(FrameError::Payload(format!(
                "holds {} changes where its header says {}",
                batch.changes.len(),
                self.count()
            )));
        }
        Ok(batch)
    }

    /// The payload without its codec.
    pub fn payload(&self) -> Result<Bytes, FrameError> {
        let packed = self.0.slice(HEADER_BYTES..);
        let raw_len = self.raw_bytes() as usize;
        if raw_len > PAYLOAD_BYTES_MAX {
            return Err(FrameError::Payload(format!(
                "claims {raw_len} bytes; the limit is {PAYLOAD_BYTES_MAX}"
            )));
        }
        let raw = match self.codec()? {
            Codec::None => packed,
            Codec::Zstd => zstd::bulk::decompress(&packed, raw_len)
                .map_err(|error| FrameError::Payload(error.to_string()))?
                .into(),
        };
        if raw.len() != raw_len {
            return Err(FrameError::Payload(format!(
                "has {} bytes where its header says {raw_len}",
                raw.len()
            )));
        }
        Ok(raw)
    }

    /// This frame's header over `payload`, packed as it says: what had that payload
    /// comes back, byte for byte if the codec's library is the same.
    pub fn with_payload(&self, payload: &[u8]) -> Result<Self, FrameError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(FrameError::Payload(format!("has {} bytes", payload.len())));
        }
        Ok(Self::pack(self.epoch(), self.first(), self.count(), payload, self.codec()?))
    }

    fn codec(&self) -> Result<Codec, FrameError> {
        match self.0[3] {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Zstd),
            found => Err(FrameError::Codec { found }),
        }
    }

    fn checksum(&self) -> u32 {
        checksum_of(&self.0)
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.0[at..at + 8]);
        u64::from_be_bytes(number)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut number = [0; 4];
        number.copy_from_slice(&self.0[at..at + 4]);
        u32::from_be_bytes(number)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, first, last) = (self.epoch(), self.first(), self.last());
        write!(f, "Frame(epoch {epoch}, {first}..={last}, {} bytes)", self.0.len())
    }
}

fn checksum_of(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..28]), &frame[HEADER_BYTES..])
}

/// Why bytes are not a frame. Stored or sent bytes, never a caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Cut off within the header.
    Short {
        /// How many bytes there are.
        bytes: usize,
    },
    /// Does not begin as a frame does.
    NotAFrame,
    /// Written by a newer version.
    Version {
        /// The version it names.
        found: u8,
    },
    /// Packed in a way this version does not know.
    Codec {
        /// The codec it names.
        found: u8,
    },
    /// The bytes changed since they were written.
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The checksum holds and yet the payload does not decode.
    Payload(String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes } => write!(f, "a batch frame is cut off after {bytes} bytes"),
            Self::NotAFrame => write!(f, "not a batch frame"),
            Self::Version { found } => {
                write!(f, "batch frame version {found} is not known here; upgrade this side first")
            }
            Self::Codec { found } => write!(f, "batch frame codec {found} is not known here"),
            Self::Checksum { stored, computed } => {
                write!(f, "batch frame checksum is {computed:08x} where {stored:08x} was written")
            }
            Self::Payload(why) => write!(f, "batch frame payload {why}"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(codec: Codec) -> Frame {
        let batch = ChangeBatch { collections: vec!["orders".repeat(40)], ..Default::default() };
        Frame::pack(Epoch(3), Sequence(7), 0, &batch.encode_to_vec(), codec)
    }

    #[test]
    fn what_was_packed_comes_back() {
        for codec in [Codec::None, Codec::Zstd] {
            let parsed = Frame::parse(frame(codec).bytes().clone()).unwrap();
            assert_eq!((parsed.epoch(), parsed.first()), (Epoch(3), Sequence(7)));
            assert_eq!(parsed.last(), Sequence(6), "an empty batch ends before it begins");
            assert_eq!(parsed.decode().unwrap().collections, ["orders".repeat(40)]);
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = frame(Codec::Zstd);
        for at in 0..good.bytes().len() * 8 {
            let mut bytes = good.bytes().to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(Frame::parse(bytes.into()).is_err(), "bit {at} flipped unnoticed");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let good = frame(Codec::None);
        for upto in 0..good.bytes().len() {
            assert!(Frame::parse(good.bytes().slice(..upto)).is_err(), "cut at {upto} unnoticed");
        }
    }

    fn any_codec() -> impl Strategy<Value = Codec> {
        prop_oneof![Just(Codec::None), Just(Codec::Zstd)]
    }

    proptest! {
        #[test]
        fn any_frame_comes_back(
            epoch: u64,
            first in 1..u64::MAX - u64::from(u32::MAX),
            count: u32,
            payload in proptest::collection::vec(prop_oneof![Just(7), any::<u8>()], 0..300),
            codec in any_codec(),
        ) {
            let packed = Frame::pack(Epoch(epoch), Sequence(first), count, &payload, codec);
            let parsed = Frame::parse(packed.bytes().clone()).unwrap();
            prop_assert_eq!(parsed.payload().unwrap(), payload);
            prop_assert_eq!((parsed.epoch().0, parsed.first().0, parsed.count()), (epoch, first, count));
            prop_assert_eq!(parsed.last().0 + 1, first + u64::from(count));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            codec in 0..3_u8,
            // Few distinct bytes: numbers at the ends of their range are likely.
            bytes in proptest::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..200),
        ) {
            let mut framed = vec![b'T', b'G', VERSION, codec];
            framed.extend_from_slice(&bytes);
            if framed.len() >= HEADER_BYTES {
                let crc = checksum_of(&framed).to_be_bytes();
                framed[28..32].copy_from_slice(&crc);
            }
            if let Ok(frame) = Frame::parse(framed.into()) {
                prop_assert!(frame.last().0 + 1 >= frame.first().0);
                // The outcome does not matter; coming back does.
                drop((frame.decode(), format!("{frame:?}")));
            }
        }
    }
}
