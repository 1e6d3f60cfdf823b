//! Frames that travel far, packed together.
//!
//! Each frame was compressed by itself when it was captured, and small ones hardly
//! shrink. Those of one fetch are unpacked and go through one zstd stream (RFC 8878),
//! whose window remembers what went before; on the other side each is made again,
//! byte for byte if both sides have the same zstd.

use std::fmt;
use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use tidegate_proto::v1::Packed;
use tidegate_proto::{Frame, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use zstd::stream::write::{Decoder, Encoder};

use crate::error::{Error, ErrorKind, Result};

/// Twice the size for a hundredth of the bytes less would not pay; a region's link is
/// slower than this.
const LEVEL: i32 = 3;
/// How far back the stream remembers: 2^20 bytes, and about twice that in memory for
/// each fetch.
const WINDOW_LOG: u32 = 20;
/// Frames are packed together up to so many bytes unpacked: a task is held up that long.
const TOGETHER_BYTES: usize = 1 << 20;
/// The most bytes one [`Packed`] may unpack to.
const UNPACKED_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX + TOGETHER_BYTES;

/// The sending side of one fetch.
pub(super) struct Packer(Encoder<'static, Vec<u8>>);

impl Packer {
    pub(super) fn new() -> Result<Self> {
        let mut encoder = Encoder::new(Vec::new(), LEVEL).map_err(|error| failed(&error))?;
        encoder.window_log(WINDOW_LOG).map_err(|error| failed(&error))?;
        Ok(Self(encoder))
    }

    /// Packs `frames` into as many messages as they need; they are only of use in this
    /// order, each once.
    pub(super) fn pack(&mut self, frames: &[Frame]) -> Result<Vec<Packed>> {
        let mut messages = Vec::new();
        let mut rest = frames;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|frame| {
                bytes += HEADER_BYTES + frame.raw_bytes() as usize;
                bytes <= TOGETHER_BYTES
            });
            let (together, behind) = rest.split_at(fits.count().max(1));
            messages.push(self.pack_together(together)?);
            rest = behind;
        }
        Ok(messages)
    }

    fn pack_together(&mut self, frames: &[Frame]) -> Result<Packed> {
        let (mut checksum, mut sizes) = (0, Vec::with_capacity(frames.len()));
        for frame in frames {
            let payload = frame.payload().map_err(|error| {
                Error::new(ErrorKind::Corrupt, "unpack a batch of the spool").because(error)
            })?;
            for part in [&frame.bytes()[..HEADER_BYTES], &payload] {
                checksum = crc32c::crc32c_append(checksum, part);
                self.0.write_all(part).map_err(|error| failed(&error))?;
            }
            sizes.push(u32::try_from(frame.bytes().len()).unwrap_or(u32::MAX));
        }
        self.0.flush().map_err(|error| failed(&error))?;
        let bytes = std::mem::take(self.0.get_mut()).into();
        Ok(Packed { bytes, checksum, sizes })
    }
}

/// The receiving side of one fetch.
pub(super) struct Unpacker(Decoder<'static, Bounded>);

impl Unpacker {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Decoder::new(Bounded::default()).map_err(|error| failed(&error))?))
    }

    /// The frames of a message, each with its size at the sender. Fails on what no
    /// [`Packer`] made; the fetch has to be opened again then.
    pub(super) fn unpack(&mut self, packed: &Packed) -> Result<Vec<(Frame, u32)>> {
        self.0.write_all(&packed.bytes).map_err(|error| damaged(&error))?;
        self.0.flush().map_err(|error| damaged(&error))?;
        let mut bytes = std::mem::take(&mut self.0.get_mut().0).freeze();
        let checksum = crc32c::crc32c(&bytes);
        if checksum != packed.checksum {
            return Err(damaged(&format!("its checksum is {checksum:08x}")));
        }
        let mut frames = Vec::with_capacity(packed.sizes.len());
        for size in &packed.sizes {
            frames.push((take(&mut bytes)?, *size));
        }
        if bytes.is_empty() { Ok(frames) } else { Err(damaged(&"it holds more than it says")) }
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

/// The first frame of `bytes`, each a header and the payload it had unpacked.
fn take(bytes: &mut Bytes) -> Result<Frame> {
    if bytes.len() < HEADER_BYTES {
        return Err(damaged(&"it is cut off within a header"));
    }
    let header = bytes.split_to(HEADER_BYTES);
    let header = Frame::unchecked(header).map_err(|error| damaged(&error))?;
    let size = header.raw_bytes() as usize;
    if bytes.len() < size {
        return Err(damaged(&"it is cut off within a payload"));
    }
    header.with_payload(&bytes.split_to(size)).map_err(|error| damaged(&error))
}

/// What was unpacked; refuses to become larger than any message may.
#[derive(Default)]
struct Bounded(BytesMut);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > UNPACKED_BYTES_MAX {
            return Err(io::Error::other("it unpacks to more than a message may hold"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "pack batches for another region").because(error.to_string())
}

fn damaged(why: &dyn fmt::Display) -> Error {
    let what = "batches from another region arrived damaged";
    Error::new(ErrorKind::Unavailable, what).because(why.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_proto::{Codec, Epoch, Sequence};

    use super::*;

    fn frame(first: u64, payload: &[u8], codec: Codec) -> Frame {
        Frame::pack(Epoch(2), Sequence(first), 1, payload, codec)
    }

    #[test]
    fn small_frames_that_are_alike_shrink_together_and_come_back_byte_for_byte() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new().unwrap());
        let (mut sent, mut alone) = (0, 0);
        for first in 1..100 {
            let payload =
                format!("{{\"customer\":{first},\"street\":\"Long Road\",\"paid\":true}}");
            let frame = frame(first, payload.repeat(2).as_bytes(), Codec::Zstd);
            let packed = packer.pack(std::slice::from_ref(&frame)).unwrap();
            let back = unpacker.unpack(&packed[0]).unwrap();
            assert_eq!((packed.len(), back.len()), (1, 1));
            assert_eq!(back[0].0.bytes(), frame.bytes());
            assert_eq!(back[0].1 as usize, frame.bytes().len());
            (sent, alone) = (sent + packed[0].bytes.len(), alone + frame.bytes().len());
        }
        assert!(3 * sent < alone, "{sent} of {alone} bytes");
    }

    #[test]
    fn what_is_large_goes_by_itself() {
        let frames: Vec<_> =
            (1..6).map(|first| frame(first, &[7; TOGETHER_BYTES / 2], Codec::Zstd)).collect();
        let packed = Packer::new().unwrap().pack(&frames).unwrap();
        assert_eq!(packed.iter().map(|it| it.sizes.len()).collect::<Vec<_>>(), [1; 5]);
        let mut unpacker = Unpacker::new().unwrap();
        for (packed, frame) in packed.iter().zip(&frames) {
            assert_eq!(unpacker.unpack(packed).unwrap()[0].0, *frame);
        }
    }

    #[test]
    fn damage_is_found_and_growth_is_bounded() {
        let whole = frame(1, b"abc", Codec::None);
        let good = Packer::new().unwrap().pack(std::slice::from_ref(&whole)).unwrap();
        let short = Packed { checksum: good[0].checksum ^ 1, ..good[0].clone() };
        assert!(Unpacker::new().unwrap().unpack(&short).is_err());
        for at in 0..good[0].bytes.len() {
            let mut bytes = good[0].bytes.to_vec();
            bytes[at] ^= 1;
            let bad = Packed { bytes: bytes.into(), ..good[0].clone() };
            // A wider window than was used changes nothing.
            if let Ok(frames) = Unpacker::new().unwrap().unpack(&bad) {
                assert_eq!(frames[0].0.bytes(), whole.bytes(), "byte {at}");
            }
        }
        let bomb = zstd::bulk::compress(&vec![0; UNPACKED_BYTES_MAX + 1], 1).unwrap();
        let bomb = Packed { bytes: bomb.into(), ..Packed::default() };
        let error = Unpacker::new().unwrap().unpack(&bomb).unwrap_err();
        assert!(format!("{error:?}").contains("more than a message"), "{error:?}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            sizes in proptest::collection::vec(any::<u32>(), 0..3),
        ) {
            let packed = zstd::bulk::compress(&bytes, 1).unwrap().into();
            let checksum = crc32c::crc32c(&bytes);
            let packed = Packed { bytes: packed, checksum, sizes };
            drop(Unpacker::new().unwrap().unpack(&packed));
            drop(Unpacker::new().unwrap().unpack(&Packed { bytes: bytes.into(), ..packed }));
        }
    }
}
