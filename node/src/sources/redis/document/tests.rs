//! Entries as documents and back.

use proptest::prelude::*;

use super::*;

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z$:é]{0,6}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..6),
        prop_oneof![Just("$number"), Just("$$set:string"), Just("$set:binary"), Just("value")]
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn object() -> impl Strategy<Value = Object> {
    let many = || prop::collection::vec(some_bytes(), 1..6);
    let pairs = prop::collection::btree_map(some_bytes(), some_bytes(), 1..5);
    let score = any::<f64>().prop_filter("scores are numbers", |score| !score.is_nan());
    let scores = prop::collection::btree_map(some_bytes(), score, 1..5);
    let id = (any::<u64>(), any::<u64>()).prop_map(|(ms, count)| StreamId(ms, count));
    let entries = prop::collection::btree_map(id.clone(), many(), 0..4);
    let opaque = prop_oneof![Just(Opaque::Module), Just(Opaque::TooLarge), Just(Opaque::Pending)];
    prop_oneof![
        some_bytes().prop_map(Object::string),
        many().prop_map(|list| Object::List(list.into())),
        many().prop_map(|set| Object::Set(set.into_iter().collect())),
        scores.prop_map(|scores| Object::Zset(Zset(scores))),
        pairs.prop_map(Object::Hash),
        (entries, id).prop_map(|(entries, last)| Object::Stream(Stream { entries, last })),
        opaque.prop_map(Object::Opaque),
    ]
}

proptest! {
    #[test]
    fn every_entry_reads_back_from_its_document(object in object(), expire_ms: Option<i64>) {
        let mut entry = Entry { object, expire_ms };
        let encoded = encode(&mut entry).unwrap();
        prop_assert_eq!(&encoded, &document::encode(&to_value(&entry).unwrap()).unwrap());
        prop_assert_eq!(decode(&encoded.dictionary, &encoded.value).unwrap(), entry);
    }

    #[test]
    fn different_keys_have_different_document_keys(one in some_bytes(), two in some_bytes()) {
        prop_assert_eq!(key(&one).unwrap() == key(&two).unwrap(), one == two);
    }
}

#[test]
fn a_long_key_is_cut_and_hashed() {
    let (one, two) = (vec![b'x'; 5000], vec![b'x'; 5001]);
    assert_ne!(key(&one).unwrap(), key(&two).unwrap());
    assert!(key(&vec![0; 1 << 20]).is_ok(), "zeros take two bytes each");
    assert!(key(&vec![0; KEY_BYTES_MAX]).is_ok(), "zeros take two bytes each");
}

#[test]
fn what_is_too_large_is_said_to_be() {
    let mut entry = Entry::of(Object::String(vec![b'x'; BYTES_MAX]));
    let encoded = encode(&mut entry).unwrap();
    assert_eq!(entry.object, Object::Opaque(Opaque::TooLarge));
    assert_eq!(decode(&encoded.dictionary, &encoded.value).unwrap(), entry);
}

#[test]
fn a_document_of_another_source_is_refused() {
    let other = document::encode(&Value::Object(vec![("type".to_owned(), Value::Null)])).unwrap();
    assert_eq!(decode(&other.dictionary, &other.value).unwrap_err().kind(), ErrorKind::Corrupt);
}
