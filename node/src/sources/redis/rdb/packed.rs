//! Small collections, which are written as one string: listpacks, ziplists,
//! sets of integers.

use super::cursor::{Cursor, RdbError};

/// The elements of a listpack.
pub(super) fn listpack(bytes: &[u8]) -> Result<Vec<Vec<u8>>, RdbError> {
    whole(bytes, |rest| {
        rest.take(6)?;
        let mut elements = Vec::new();
        while let Some(element) = listpack_element(rest)? {
            elements.push(element);
        }
        Ok(elements)
    })
}

fn listpack_element(rest: &mut Cursor<'_>) -> Result<Option<Vec<u8>>, RdbError> {
    let before = rest.taken();
    let first = rest.byte()?;
    let low = |mask: u8| usize::from(first & mask);
    let element = match first {
        0xff => return Ok(None),
        0x00..=0x7f => text(i64::from(first)),
        0x80..=0xbf => rest.take(low(0x3f))?.to_vec(),
        0xc0..=0xdf => {
            let raw = i64::from(first & 0x1f) << 8 | i64::from(rest.byte()?);
            text(if raw < 1 << 12 { raw } else { raw - (1 << 13) })
        }
        0xe0..=0xef => {
            let size = low(0x0f) << 8 | usize::from(rest.byte()?);
            rest.take(size)?.to_vec()
        }
        0xf0 => {
            let size = usize::try_from(u32::from_le_bytes(rest.array()?)).unwrap_or(usize::MAX);
            rest.take(size)?.to_vec()
        }
        0xf1 => text(i64::from(i16::from_le_bytes(rest.array()?))),
        0xf2 => text(int24(rest.array()?)),
        0xf3 => text(i64::from(i32::from_le_bytes(rest.array()?))),
        0xf4 => text(i64::from_le_bytes(rest.array()?)),
        0xf5..=0xfe => return Err(RdbError::Corrupt("an element of a listpack")),
    };
    // Its length follows, for who reads backwards.
    rest.take(match rest.taken() - before {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    })?;
    Ok(Some(element))
}

/// The elements of a ziplist, which came before listpacks.
pub(super) fn ziplist(bytes: &[u8]) -> Result<Vec<Vec<u8>>, RdbError> {
    whole(bytes, |rest| {
        rest.take(10)?;
        let mut elements = Vec::new();
        while let Some(element) = ziplist_element(rest)? {
            elements.push(element);
        }
        Ok(elements)
    })
}

fn ziplist_element(rest: &mut Cursor<'_>) -> Result<Option<Vec<u8>>, RdbError> {
    match rest.byte()? {
        0xff => return Ok(None),
        // The length of the one before it.
        0xfe => drop(rest.take(4)?),
        _ => {}
    }
    let first = rest.byte()?;
    let low = usize::from(first & 0x3f);
    Ok(Some(match first {
        0x00..=0x3f => rest.take(low)?.to_vec(),
        0x40..=0x7f => {
            let size = low << 8 | usize::from(rest.byte()?);
            rest.take(size)?.to_vec()
        }
        0x80..=0xbf => {
            let size = usize::try_from(u32::from_be_bytes(rest.array()?)).unwrap_or(usize::MAX);
            rest.take(size)?.to_vec()
        }
        0xc0 => text(i64::from(i16::from_le_bytes(rest.array()?))),
        0xd0 => text(i64::from(i32::from_le_bytes(rest.array()?))),
        0xe0 => text(i64::from_le_bytes(rest.array()?)),
        0xf0 => text(int24(rest.array()?)),
        0xfe => text(i64::from(i8::from_le_bytes(rest.array()?))),
        0xf1..=0xfd => text(i64::from(first & 0x0f) - 1),
        _ => return Err(RdbError::Corrupt("an element of a ziplist")),
    }))
}

/// The members of a set of integers.
pub(super) fn intset(bytes: &[u8]) -> Result<Vec<Vec<u8>>, RdbError> {
    whole(bytes, |rest| {
        let width = u32::from_le_bytes(rest.array()?);
        let count = u32::from_le_bytes(rest.array()?);
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(text(match width {
                2 => i64::from(i16::from_le_bytes(rest.array()?)),
                4 => i64::from(i32::from_le_bytes(rest.array()?)),
                8 => i64::from_le_bytes(rest.array()?),
                _ => return Err(RdbError::Corrupt("the width of a set of integers")),
            }));
        }
        Ok(members)
    })
}

/// Reads all of `bytes`; what is missing inside will not come later.
fn whole<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Cursor<'_>) -> Result<T, RdbError>,
) -> Result<T, RdbError> {
    let mut rest = Cursor::new(bytes);
    let corrupt = RdbError::Corrupt("a packed collection ends early or late");
    match read(&mut rest) {
        Ok(read) if rest.is_empty() => Ok(read),
        Ok(_) | Err(RdbError::Short(_)) => Err(corrupt),
        Err(error) => Err(error),
    }
}

fn int24([low, middle, high]: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
}

fn text(whole: i64) -> Vec<u8> {
    whole.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_element_is_read() {
        let mut bytes = vec![0; 6];
        let elements: [&[u8]; 8] = [
            &[5, 1],
            &[0x82, b'h', b'i', 3],
            &[0xdf, 0xff, 2],
            &[0xe0, 1, b'x', 3],
            &[0xf1, 0, 0x80, 3],
            &[0xf2, 0xff, 0xff, 0xff, 4],
            &[0xf3, 1, 0, 0, 0, 5],
            &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80, 9],
        ];
        bytes.extend(elements.concat());
        bytes.push(0xff);
        let texts = listpack(&bytes).unwrap();
        let wanted = ["5", "hi", "-1", "x", "-32768", "-1", "1", "-9223372036854775808"];
        assert_eq!(texts, wanted.map(|text| text.as_bytes().to_vec()));

        let mut bytes = vec![0; 10];
        bytes
            .extend([0, 2, b'h', b'i', 4, 0xf1, 2, 0xfd, 2, 0xfe, 0xff, 3, 0xf0, 0, 0, 0x80, 0xff]);
        let wanted = ["hi", "0", "12", "-1", "-8388608"];
        assert_eq!(ziplist(&bytes).unwrap(), wanted.map(|text| text.as_bytes().to_vec()));

        let bytes = [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 7, 0];
        assert_eq!(intset(&bytes).unwrap(), [b"-1".to_vec(), b"7".to_vec()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_elements_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            for read in [listpack, ziplist, intset] {
                let elements = read(&bytes).unwrap_or_default();
                prop_assert!(elements.len() <= bytes.len());
            }
        }
    }
}
