//! HyperLogLog: strings that count distinct elements.
//!
//! Redis encodes one content in many ways (sparse, dense, with a cached count or
//! without), and which one depends on its settings and history. Here each has
//! one form, dense without a cached count, so that what is computed from the
//! stream equals what is read from a dump. Redis reads that form as well.
//!
//! ```text
//!   "HYLL"  encoding (1: 0 dense, 1 sparse)  unused (3)  cached count (8, LE; top bit: stale)
//!   dense:  16384 registers of 6 bits, lowest bits first
//!   sparse: 00xxxxxx zeros (x+1)   01xxxxxx yyyyyyyy zeros (14 bits + 1)   1vvvvvxx value v+1, x+1 times
//! ```

const REGISTERS: usize = 1 << 14;
const REGISTER_BITS: usize = 6;
const HEADER: usize = 16;
const DENSE_BYTES: usize = HEADER + REGISTERS * REGISTER_BITS / 8;
const SEED: u64 = 0xadc8_3b19;

/// The greatest count of zeros seen, by register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sketch(Vec<u8>);

/// The one form of the sketch that `bytes` are; `None` if they are none.
pub(super) fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    Sketch::decode(bytes).map(|sketch| sketch.encode())
}

impl Sketch {
    pub(super) fn empty() -> Self {
        Self(vec![0; REGISTERS])
    }

    /// What `bytes` hold, in any encoding.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(b"HYLL") || bytes.len() < HEADER {
            return None;
        }
        match bytes[4] {
            0 if bytes.len() == DENSE_BYTES => Some(Self::from_dense(&bytes[HEADER..])),
            1 => Self::from_sparse(&bytes[HEADER..]),
            _ => None,
        }
    }

    fn from_dense(packed: &[u8]) -> Self {
        let register = |number: usize| {
            let (byte, shift) = (number * REGISTER_BITS / 8, number * REGISTER_BITS % 8);
            let high = packed.get(byte + 1).copied().unwrap_or(0);
            let [low, _] = (u16::from_le_bytes([packed[byte], high]) >> shift).to_le_bytes();
            low & 0x3f
        };
        Self((0..REGISTERS).map(register).collect())
    }

    fn from_sparse(codes: &[u8]) -> Option<Self> {
        let mut registers = Vec::with_capacity(REGISTERS);
        let mut codes = codes.iter();
        while let Some(code) = codes.next() {
            let low = usize::from(code & 0x3f);
            let (value, times) = match code >> 6 {
                0 => (0, low + 1),
                1 => (0, (low << 8 | usize::from(*codes.next()?)) + 1),
                _ => (((code >> 2) & 0x1f) + 1, usize::from(code & 3) + 1),
            };
            if registers.len() + times > REGISTERS {
                return None;
            }
            registers.resize(registers.len() + times, value);
        }
        (registers.len() == REGISTERS).then_some(Self(registers))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = b"HYLL".to_vec();
        out.resize(DENSE_BYTES, 0);
        out[HEADER - 1] = 0x80;
        for (number, value) in self.0.iter().enumerate() {
            let (bit, byte) = (number * REGISTER_BITS % 8, HEADER + number * REGISTER_BITS / 8);
            let [low, high] = (u16::from(*value) << bit).to_le_bytes();
            out[byte] |= low;
            if let Some(next) = out.get_mut(byte + 1) {
                *next |= high;
            }
        }
        out
    }

    pub(super) fn add(&mut self, element: &[u8]) {
        let hash = murmur64a(element);
        let number = usize::try_from(hash % (1 << 14)).unwrap_or(0);
        // A bit behind the last: what is counted ends.
        let zeros = ((hash >> 14) | 1 << 50).trailing_zeros();
        let count = u8::try_from(zeros + 1).unwrap_or(u8::MAX);
        let register = &mut self.0[number];
        *register = count.max(*register);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (one, two) in self.0.iter_mut().zip(&other.0) {
            *one = (*two).max(*one);
        }
    }
}

/// MurmurHash2 of 64 bits, variant A, with the seed Redis gives it.
fn murmur64a(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let mut word = u64::from_le_bytes(*eight).wrapping_mul(M);
        word ^= word >> R;
        hash = (hash ^ word.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> R)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sketch_reads_back(elements in prop::collection::vec(any::<Vec<u8>>(), 0..50)) {
            let mut sketch = Sketch::empty();
            elements.iter().for_each(|element| sketch.add(element));
            prop_assert_eq!(Sketch::decode(&sketch.encode()), Some(sketch.clone()));
            let mut merged = Sketch::empty();
            merged.merge(&sketch);
            prop_assert_eq!(merged, sketch);
        }

        #[test]
        fn any_bytes_are_a_sketch_or_none(codes in prop::collection::vec(any::<u8>(), 0..999)) {
            let bytes = [b"HYLL\x01".as_slice(), &[0; 11], &codes].concat();
            if let Some(form) = canonical(&bytes) {
                let again = canonical(&form);
                prop_assert_eq!(again, Some(form));
            }
        }
    }

    #[test]
    fn an_empty_sparse_sketch_is_the_empty_one() {
        // All 16384 registers in one code.
        let bytes = [b"HYLL\x01".as_slice(), &[0; 11], &[0x7f, 0xff]].concat();
        assert_eq!(Sketch::decode(&bytes), Some(Sketch::empty()));
        assert_eq!(canonical(b"HYLLO"), None);
    }
}
