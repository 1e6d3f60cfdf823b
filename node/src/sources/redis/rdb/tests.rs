//! Dumps from anywhere.

use proptest::prelude::*;

use super::*;

/// Reads a dump that comes in pieces of `piece` bytes: what it holds, each with the bytes
/// it took, and how it ends.
pub(in crate::sources::redis) fn read_pieces(
    bytes: &[u8],
    piece: usize,
) -> (Vec<(Found, usize)>, Result<(), RdbError>) {
    let (mut dump, mut found) = (Dump::default(), Vec::new());
    let (mut at, mut there) = (0, 0);
    loop {
        match dump.next(&bytes[at..there]) {
            Ok((Found::End, _)) => return (found, Ok(())),
            Ok((next, taken)) => {
                assert!(taken > 0 && taken <= there - at, "it takes what is there");
                at += taken;
                found.push((next, taken));
            }
            Err(RdbError::Short(wanted)) => {
                assert!(wanted > there - at, "it asks for more than it has");
                if there == bytes.len() {
                    return (found, Err(RdbError::Short(wanted)));
                }
                there = (there + piece).min(bytes.len());
            }
            Err(error) => return (found, Err(error)),
        }
    }
}

fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Found>, RdbError> {
    let (found, end) = read_pieces(bytes, piece);
    end.map(|()| found.into_iter().map(|(found, _)| found).collect())
}

/// A dump of `body`, ended and summed up.
fn dump(body: &[u8]) -> Vec<u8> {
    let mut bytes = [b"REDIS0009".as_slice(), body, &[END]].concat();
    let sum = crc64::update(0, &bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[test]
fn a_small_dump_is_read_however_it_is_cut() {
    let body = [
        &[AUX, 1, b'a', 0xc0, 7, SELECT_DB, 3, RESIZE_DB, 1, 0, EXPIRE_MS][..],
        &1234_i64.to_le_bytes(),
        &[IDLE, 9, 0, 1, b'k', 0xc1, 0xff, 0xff, 1, 2, b'l', b'l', 2, 1, b'x', 1, b'y'],
    ]
    .concat();
    let bytes = dump(&body);
    let number = Entry { object: Object::string(b"-1".to_vec()), expire_ms: Some(1234) };
    let list = Entry::of(Object::List([b"x".to_vec(), b"y".to_vec()].into()));
    for piece in 1..bytes.len() {
        let found = read_all(&bytes, piece).unwrap();
        let keys: Vec<_> = found.into_iter().filter(|found| *found != Found::Other).collect();
        let key =
            |key: &[u8], entry: &Entry| Found::Key { db: 3, key: key.into(), entry: entry.clone() };
        assert_eq!(keys, [key(b"k", &number), key(b"ll", &list)]);
    }
    for at in 9..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(read_all(&bytes, 64).is_err(), "byte {at} was changed");
    }
}

#[test]
fn a_dump_says_which_database_the_stream_is_in() {
    let aux = |value: &[u8]| {
        let head = [AUX, u8::try_from(STREAM_DB.len()).unwrap()];
        dump(&[&head, STREAM_DB, value].concat())
    };
    assert_eq!(read_all(&aux(&[0xc0, 7]), 64).unwrap()[1..], [Found::Selected(7)]);
    assert_eq!(read_all(&aux(&[2, b'1', b'2']), 64).unwrap()[1..], [Found::Selected(12)]);
    for none in [&[0xc0, 0xff][..], &[1, b'x']] {
        assert_eq!(read_all(&aux(none), 64).unwrap()[1..], [Found::Other]);
    }
}

#[test]
fn what_is_not_read_is_named() {
    let refused = |body: &[u8]| read_all(&dump(body), 64).unwrap_err();
    assert!(
        matches!(refused(&[25, 1, b'k']), RdbError::Unsupported(why) if why.contains("HPERSIST"))
    );
    assert!(matches!(refused(&[99, 1, b'k']), RdbError::Unsupported(why) if why.contains("99")));
    assert!(read_all(b"REDIS9999", 64).is_err());
    let huge = [0, 1, b'k', 0x81, 0, 0, 0, 1, 0, 0, 0, 0];
    assert!(matches!(refused(&huge), RdbError::Unsupported(why) if why.contains("limit")));
}

/// Servers take it: nothing but a kind, whose value is the version and the checksum.
#[test]
fn a_value_may_reach_into_what_follows_it() {
    assert_eq!(restored(&[0; 11]).unwrap(), Object::string(Vec::new()));
    assert!(restored(&[0; 9]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), kind in 0..26_u8) {
        drop(read_all(&dump(&body), 7));
        drop(read_all(&dump(&[&[kind, 1, b'k'], &body[..]].concat()), 64));
        drop(restored(&body));
        let payload = [&[kind], &body[..], &[10, 0], &[0; 8]].concat();
        drop(restored(&payload));
    }

    #[test]
    fn any_listpack_of_a_stream_is_read_or_refused(elements in prop::collection::vec(0..9_u8, 0..40)) {
        let packed: Vec<u8> = elements.iter().flat_map(|number| [*number, 1]).collect();
        let packed = [&[0; 6], &packed[..], &[0xff]].concat();
        let length = u8::try_from(packed.len()).unwrap();
        let node = [&[15, 1, b's', 1, 16], &[0; 16][..], &[0x40, length], &packed, &[1, 5, 6, 0]].concat();
        drop(read_all(&dump(&node), 64));
    }
}
