//! Rows of a key index, on their way to a copy that lacks them.

use prost::Message as _;
use tidegate_proto::v1::{IndexPage, IndexRows};

use crate::error::{Error, ErrorKind, Result};

/// Each page is compressed by itself, once: speed counts.
const LEVEL: i32 = 1;
/// The most bytes of rows in one page: a page is a mebibyte and one row, and no document is
/// that large.
const BYTES_MAX: usize = 64 << 20;

/// For the way.
pub(super) fn pack(rows: &IndexRows) -> Result<IndexPage> {
    let bytes = rows.encode_to_vec();
    let checksum = crc32c::crc32c(&bytes);
    let rows = zstd::bulk::compress(&bytes, LEVEL).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "compress rows of the key index").because(error)
    })?;
    Ok(IndexPage { rows: rows.into(), checksum })
}

/// What [`pack`] was given. Fails on what it did not make; they have to be fetched again then.
pub(super) fn unpack(page: &IndexPage) -> Result<IndexRows> {
    let bytes = zstd::bulk::decompress(&page.rows, BYTES_MAX);
    let bytes = bytes.map_err(|error| damaged().because(error))?;
    if crc32c::crc32c(&bytes) != page.checksum {
        return Err(damaged().because("their checksum is another"));
    }
    IndexRows::decode(&bytes[..]).map_err(|error| damaged().because(error))
}

fn damaged() -> Error {
    Error::new(ErrorKind::Unavailable, "rows of the key index arrived damaged")
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::IndexRow;

    use super::*;

    #[test]
    fn damaged_rows_are_refused_or_are_what_they_were() {
        let row = |n: u8| IndexRow { place: vec![n; 9].into(), row: vec![n; 300].into() };
        let rows = IndexRows { rows: (0..50).map(row).collect(), until: 7, ..IndexRows::default() };
        let page = pack(&rows).unwrap();
        assert!(page.rows.len() < 5000, "they shrink");
        assert_eq!(unpack(&page).unwrap(), rows);
        for at in 0..page.rows.len() {
            let mut bytes = page.rows.to_vec();
            bytes[at] ^= 0x41;
            let bad = IndexPage { rows: bytes.into(), ..page.clone() };
            if let Ok(read) = unpack(&bad) {
                assert_eq!(read, rows, "byte {at}");
            }
        }
    }
}
