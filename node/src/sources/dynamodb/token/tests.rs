//! What was stored comes back; what was not is refused.

use proptest::prelude::*;

use super::*;

const ID: &str = "shardId-00000001732176000123-0a1b2c3d";

fn position(places: Vec<(String, Place)>) -> Position {
    let lineage = Lineage::restored(places.into_iter().collect(), String::new());
    Position { stream: "arn:aws:dynamodb:eu:1:table/t/stream/x".to_owned(), lineage }
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        any::<i64>().prop_map(|since_ms| Place::Horizon { since_ms }),
        Just(Place::Finished),
        "[0-9]{1,40}".prop_map(|text| Place::After(SequenceNumber::parse(&text).unwrap())),
    ]
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", (any::<u64>(), any::<u32>()).prop_map(|(time, hash)| join(time, hash))]
}

#[test]
fn usual_ids_are_packed_and_others_kept() {
    assert_eq!(pack(ID).len(), 13);
    for id in [ID, "", "shardId-1-2", "shardId-00000001732176000123-0A1B2C3D", "x"] {
        assert_eq!(unpack(&pack(id)).unwrap(), id);
    }
}

#[test]
fn a_position_is_as_small_as_its_documentation_says() {
    let last = SequenceNumber::parse(&"7".repeat(25)).unwrap();
    let open = (0..1000).map(|n| (join(n, 1), Place::After(last.clone())));
    let finished = (1000..7000).map(|n| (join(n, 1), Place::Finished));
    let bytes = position(open.chain(finished).collect()).encode().len();
    assert!(bytes < 160 << 10, "{bytes} bytes");
}

#[test]
fn a_flipped_bit_is_refused() {
    let good = position(vec![(ID.to_owned(), Place::Horizon { since_ms: 5 })]).encode();
    for at in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[at / 8] ^= 1 << (at % 8);
        assert_eq!(Position::decode(&bad).unwrap_err().kind(), ErrorKind::Corrupt, "bit {at}");
    }
}

#[test]
fn a_cursor_comes_back_as_it_was() {
    let last = HashMap::from([
        ("p".to_owned(), AttributeValue::B(Blob::new([0, 255]))),
        ("s".to_owned(), AttributeValue::N("1.5".to_owned())),
    ]);
    let cursor = Cursor { segments: 16, last };
    assert_eq!(Cursor::decode(&cursor.encode().unwrap()).unwrap(), cursor);
    let odd = HashMap::from([("p".to_owned(), AttributeValue::Bool(true))]);
    assert!(Cursor { segments: 1, last: odd }.encode().is_err());
}

proptest! {
    #[test]
    fn a_position_comes_back_as_it_was(
        places in proptest::collection::vec((id(), place()), 0..20)
    ) {
        let position = position(places);
        prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..99)) {
        prop_assert!(Position::decode(&body).is_err());
        // With a checksum that fits, so that what is behind it is reached.
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        sealed.extend_from_slice(&body);
        drop((Position::decode(&sealed), Cursor::decode(&sealed), Descriptor::decode(&sealed)));
    }
}
