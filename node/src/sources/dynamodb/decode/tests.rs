//! Every attribute type, there and back.

use aws_sdk_dynamodb::primitives::Blob;
use proptest::prelude::*;

use super::*;

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn decoded(attribute: AttributeValue) -> Value {
    let item = Item::from([("v".to_owned(), attribute), ("w".to_owned(), text("x"))]);
    let encoded = encode(item).unwrap();
    let decoded = document::decode(&encoded.dictionary, &encoded.value).unwrap();
    let Value::Object(mut fields) = decoded else { panic!("an item is an object") };
    fields.remove(0).1
}

fn tagged(tag: &str, value: Value) -> Value {
    Value::Object(vec![(tag.to_owned(), value)])
}

fn descriptor(sort_key: Option<&str>) -> Descriptor {
    Descriptor {
        table: "arn".to_owned(),
        stream: "arn/stream".to_owned(),
        partition_key: "p".to_owned(),
        sort_key: sort_key.map(str::to_owned),
        segments: 1,
    }
}

#[test]
fn plain_values_are_what_they_were() {
    assert_eq!(decoded(text("")), Value::String(String::new()));
    assert_eq!(decoded(AttributeValue::Bool(true)), Value::Bool(true));
    assert_eq!(decoded(AttributeValue::Null(true)), Value::Null);
    assert_eq!(decoded(AttributeValue::B(Blob::new([0, 255]))), Value::Binary(vec![0, 255]));
    assert_eq!(decoded(AttributeValue::L(vec![])), Value::Array(vec![]));
    assert_eq!(decoded(AttributeValue::M(HashMap::new())), Value::Object(vec![]));
}

#[test]
fn numbers_keep_every_digit() {
    let number = |text: &str| decoded(AttributeValue::N(text.to_owned()));
    let nines = 99_999_999_999_999_999_999_999_999_999_999_999_999_i128;
    assert_eq!(number("-5"), Value::Int(-5));
    assert_eq!(number("9223372036854775808"), Value::Decimal { unscaled: 1 << 63, scale: 0 });
    assert_eq!(number("1.50"), Value::Decimal { unscaled: 15, scale: 1 });
    assert_eq!(number(&nines.to_string()), Value::Decimal { unscaled: nines, scale: 0 });
    for beyond in ["1E-130", "9.9999999999999999999999999999999999999E+125"] {
        let Value::Object(fields) = number(beyond) else { panic!("{beyond} is tagged") };
        assert_eq!(fields[0].0, tags::NUMBER);
    }
}

#[test]
fn equal_sets_are_equal_whatever_their_order() {
    let numbers =
        |members: [&str; 3]| decoded(AttributeValue::Ns(members.map(str::to_owned).to_vec()));
    let sorted = [Value::Int(-1), Value::Int(2), Value::Int(10)];
    assert_eq!(numbers(["10", "2", "-1"]), tagged(tags::SET_NUMBER, Value::Array(sorted.into())));
    assert_eq!(numbers(["2.0", "10", "-1"]), numbers(["-1", "10", "2"]));
    let strings = AttributeValue::Ss(vec!["b".to_owned(), "a".to_owned()]);
    let sorted = ["a", "b"].map(|member| Value::String(member.to_owned()));
    assert_eq!(decoded(strings), tagged(tags::SET_STRING, Value::Array(sorted.into())));
    let bytes = AttributeValue::Bs(vec![Blob::new([2]), Blob::new([1])]);
    let sorted = [Value::Binary(vec![1]), Value::Binary(vec![2])];
    assert_eq!(decoded(bytes), tagged(tags::SET_BINARY, Value::Array(sorted.into())));
}

#[test]
fn a_map_that_looks_like_a_tag_is_no_set() {
    let map = HashMap::from([(tags::SET_NUMBER.to_owned(), AttributeValue::L(vec![]))]);
    let set = tagged(tags::SET_NUMBER, Value::Array(vec![]));
    assert_ne!(decoded(AttributeValue::M(map)), set);
}

/// What a reader of the document takes it for: the attribute it came from.
fn attribute(value: &Value) -> AttributeValue {
    let texts =
        |members: &[Value]| -> Vec<AttributeValue> { members.iter().map(attribute).collect() };
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(truth) => AttributeValue::Bool(*truth),
        Value::Int(whole) => AttributeValue::N(whole.to_string()),
        Value::String(held) => text(held),
        Value::Binary(bytes) => AttributeValue::B(Blob::new(bytes.clone())),
        Value::Array(members) => AttributeValue::L(texts(members)),
        Value::Object(fields) => match fields.as_slice() {
            [(name, Value::Array(members))] if name.starts_with("$set:") => {
                set_of(name, &texts(members))
            }
            [(name, Value::String(digits))] if name == tags::NUMBER => {
                AttributeValue::N(digits.clone())
            }
            [(name, value)] => {
                let doubled = name.strip_prefix('$').filter(|rest| tags::escape(rest) != **rest);
                let name = doubled.unwrap_or(name).to_owned();
                AttributeValue::M(HashMap::from([(name, attribute(value))]))
            }
            fields => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), attribute(value)));
                AttributeValue::M(fields.collect())
            }
        },
        Value::Decimal { .. } | Value::Double(_) | Value::TimestampMicros(_) => {
            panic!("none was put in")
        }
    }
}

fn set_of(tag: &str, members: &[AttributeValue]) -> AttributeValue {
    let text = |member: &AttributeValue| match member {
        AttributeValue::S(held) | AttributeValue::N(held) => held.clone(),
        other => panic!("{other:?} in a set"),
    };
    let bytes = |member: &AttributeValue| member.as_b().unwrap().clone();
    match tag {
        tags::SET_STRING => AttributeValue::Ss(members.iter().map(text).collect()),
        tags::SET_NUMBER => AttributeValue::Ns(members.iter().map(text).collect()),
        tags::SET_BINARY => AttributeValue::Bs(members.iter().map(bytes).collect()),
        other => panic!("{other} is no tag"),
    }
}

fn any_attribute() -> impl Strategy<Value = AttributeValue> {
    use prop::collection::{btree_set, hash_map, vec};
    let leaf = prop_oneof![
        ".{0,5}".prop_map(AttributeValue::S),
        any::<i64>().prop_map(|whole| AttributeValue::N(whole.to_string())),
        Just(AttributeValue::N("1E-130".to_owned())),
        any::<bool>().prop_map(AttributeValue::Bool),
        Just(AttributeValue::Null(true)),
        any::<[u8; 2]>().prop_map(|bytes| AttributeValue::B(Blob::new(bytes))),
        btree_set("[a-z]{1,3}", 1..4).prop_map(|set| AttributeValue::Ss(set.into_iter().collect())),
        btree_set(-9..9_i64, 1..4)
            .prop_map(|set| AttributeValue::Ns(set.iter().map(i64::to_string).collect())),
        btree_set(any::<u8>(), 1..4).prop_map(|set| {
            AttributeValue::Bs(set.into_iter().map(|byte| Blob::new([byte])).collect())
        }),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        let name = "[$]{0,3}(number|set:string|set:number|set:binary|binary|timestamp|double|a)";
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
            hash_map(name, inner, 0..3).prop_map(AttributeValue::M),
        ]
    })
}

proptest! {
    #[test]
    fn attributes_come_back_whatever_their_fields_are_called(
        name in "[$]{0,3}(number|set:string|binary|p)",
        held in any_attribute(),
    ) {
        let item = Item::from([(name, held)]);
        let encoded = encode(item.clone()).unwrap();
        let document = document::decode(&encoded.dictionary, &encoded.value).unwrap();
        prop_assert_eq!(sorted(&attribute(&document)), sorted(&AttributeValue::M(item)));
        let mut json = Vec::new();
        document::write_json(&encoded.dictionary, &encoded.value, &mut json).unwrap();
        prop_assert_eq!(document::parse_json(&json).unwrap(), document);
    }
}

/// Maps have no order of their own; numbers have several spellings.
fn sorted(attribute: &AttributeValue) -> String {
    match attribute {
        AttributeValue::M(fields) => {
            let mut fields: Vec<_> =
                fields.iter().map(|(name, value)| (name, sorted(value))).collect();
            fields.sort();
            format!("M{fields:?}")
        }
        AttributeValue::L(members) => {
            format!("L{:?}", members.iter().map(sorted).collect::<Vec<_>>())
        }
        AttributeValue::N(text) => format!("N{:?}", text.to_lowercase()),
        AttributeValue::Ns(members) => {
            let mut numbers: Vec<i64> = members.iter().map(|one| one.parse().unwrap()).collect();
            numbers.sort_unstable();
            format!("Ns{numbers:?}")
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn thirty_two_levels_are_fine_and_a_hundred_are_refused() {
    let nest =
        |levels: usize| (0..levels).fold(text("x"), |inner, _| AttributeValue::L(vec![inner]));
    assert!(value(nest(32), 0).is_ok());
    assert_eq!(value(nest(100), 0).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn what_the_streams_client_has_is_the_same() {
    let stream = StreamValue::M(HashMap::from([
        ("n".to_owned(), StreamValue::N("1".to_owned())),
        ("l".to_owned(), StreamValue::L(vec![StreamValue::Bool(true), StreamValue::Null(true)])),
        ("s".to_owned(), StreamValue::Ss(vec!["a".to_owned()])),
    ]));
    let table = AttributeValue::M(HashMap::from([
        ("n".to_owned(), AttributeValue::N("1".to_owned())),
        (
            "l".to_owned(),
            AttributeValue::L(vec![AttributeValue::Bool(true), AttributeValue::Null(true)]),
        ),
        ("s".to_owned(), AttributeValue::Ss(vec!["a".to_owned()])),
    ]));
    assert_eq!(stream_value(stream, 0).unwrap(), table);
}

#[test]
fn keys_have_their_parts_in_order_and_equal_numbers_are_one_key() {
    let item = |number: &str| {
        Item::from([
            ("p".to_owned(), text("a")),
            ("s".to_owned(), AttributeValue::N(number.to_owned())),
        ])
    };
    let keyed = |number: &str| key(&item(number), &descriptor(Some("s"))).unwrap();
    assert_eq!(keyed("1"), keyed("1.0"));
    assert_ne!(keyed("1"), keyed("2"));
    assert_eq!(keyed("1").parts().unwrap().len(), 2);
    assert_eq!(key(&item("1"), &descriptor(None)).unwrap().parts().unwrap().len(), 1);
}

#[test]
fn a_record_without_its_key_is_refused_and_says_what_to_do() {
    let error = key(&Item::new(), &descriptor(None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("create it again"), "{error}");
}
