//! The checksum of dumps: CRC-64 by Jones, reflected, without inversion.

const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
const TABLES: [[u64; 256]; 8] = tables();

/// The checksum of what `crc` is of, followed by `bytes`; begins with 0.
pub(super) fn update(mut crc: u64, bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let mixed = (crc ^ u64::from_le_bytes(*eight)).to_le_bytes();
        let parts = mixed.iter().zip(TABLES.iter().rev());
        crc = parts.fold(0, |sum, (byte, table)| sum ^ table[usize::from(*byte)]);
    }
    for byte in rest {
        let [low, ..] = crc.to_le_bytes();
        crc = TABLES[0][usize::from(low ^ byte)] ^ (crc >> 8);
    }
    crc
}

/// Table 0 moves a byte through; each further table moves it through one more.
const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let (mut byte, mut start) = (0, 0_u64);
    while byte < 256 {
        let (mut crc, mut bit) = (start, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
        start += 1;
    }
    let mut level = 1;
    while level < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[level - 1][byte];
            let [low, ..] = before.to_le_bytes();
            tables[level][byte] = tables[0][low as usize] ^ (before >> 8);
            byte += 1;
        }
        level += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_sum_comes_out() {
        assert_eq!(update(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    proptest! {
        #[test]
        fn parts_sum_up_to_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..99), cut: prop::sample::Index) {
            let (one, two) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(update(update(0, one), two), update(0, &bytes));
        }
    }
}
