use parquet_variant::Variant;
use proptest::prelude::*;

use super::*;

fn object(fields: &[(&str, Value)]) -> Value {
    Value::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn json(value: &Value) -> String {
    let Encoded { dictionary, value } = encode(value).unwrap();
    let mut out = Vec::new();
    write_json(&dictionary, &value, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn parse(json: &str) -> Value {
    parse_json(json.as_bytes()).unwrap()
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

/// Values in canonical form: fields sorted and distinct, numbers trimmed.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-200_i64..200).prop_map(Value::Int),
        (-10_i128.pow(38) + 1..10_i128.pow(38), 0_u8..=38)
            .prop_map(|(unscaled, scale)| Value::fixed(unscaled, scale)),
        (-1000_i128..1000, 0_u8..=10).prop_map(|(unscaled, scale)| Value::fixed(unscaled, scale)),
        any::<f64>()
            .prop_filter("NaN is not equal to itself", |number| !number.is_nan())
            .prop_map(Value::Double),
        ".{0,80}".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(Value::Binary),
        TIMESTAMP_MICROS.prop_map(Value::TimestampMicros),
    ];
    leaf.prop_recursive(6, 120, 12, |inner| {
        let name =
            prop_oneof!["[a-z]{0,3}", "\\${1,3}(binary|number|double|set:string|x)", ".{0,9}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..12)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The same document with every object's fields turned round.
fn reversed(value: &Value) -> Value {
    if let Value::Array(members) = value {
        return Value::Array(members.iter().map(reversed).collect());
    }
    let Value::Object(fields) = value else { return value.clone() };
    let turned = fields.iter().rev().map(|(name, field)| (name.clone(), reversed(field)));
    Value::Object(turned.collect())
}

/// Our value against the same bytes read by another implementation.
fn same(ours: &Value, theirs: &Variant<'_, '_>) -> bool {
    match (ours, theirs) {
        (Value::Null, Variant::Null) => true,
        (Value::Bool(one), two) => two.as_boolean() == Some(*one),
        (Value::Int(one), two) => two.as_int64() == Some(*one),
        (Value::Decimal { unscaled, scale }, two) => two
            .as_decimal16()
            .is_some_and(|two| two.integer() == *unscaled && two.scale() == *scale),
        (Value::Double(one), Variant::Double(two)) => one.to_bits() == two.to_bits(),
        (Value::String(one), two) => two.as_string() == Some(one),
        (Value::Binary(one), Variant::Binary(two)) => one == two,
        (Value::TimestampMicros(one), Variant::TimestampMicros(two)) => {
            *one == two.timestamp_micros()
        }
        (Value::Array(one), Variant::List(two)) => {
            one.len() == two.len() && one.iter().zip(two.iter()).all(|(one, two)| same(one, &two))
        }
        (Value::Object(one), Variant::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .zip(two.iter())
                    .all(|(one, (name, two))| one.0 == name && same(&one.1, &two))
        }
        _ => false,
    }
}

#[test]
fn the_encoding_is_fixed() {
    let document =
        object(&[("b", Value::Int(300)), ("a", Value::Array(vec![text("x"), Value::Null]))]);
    let encoded = encode(&document).unwrap();
    assert_eq!(encoded.dictionary, [0x11, 2, 0, 1, 2, b'a', b'b']);
    let array = [0x03, 2, 0, 2, 3, 0x05, b'x', 0x00];
    let head = [0x02, 2, 0, 1, 0, 8, 11];
    assert_eq!(encoded.value, [&head[..], &array, &[0x10, 0x2c, 0x01]].concat());
    let hash = content_hash(&encoded.dictionary, &encoded.value);
    let whole = [&encoded.dictionary[..], &encoded.value].concat();
    assert_eq!(hash, xxhash_rust::xxh3::xxh3_128(&whole).to_be_bytes());
}

#[test]
fn numbers_take_the_smallest_type() {
    let size = |value: &Value| encode(value).unwrap().value.len();
    for (whole, bytes) in [(-128, 2), (128, 3), (-32_769, 5), (1 << 31, 9), (i64::MIN, 9)] {
        assert_eq!(size(&Value::Int(whole)), bytes, "{whole}");
    }
    let decimal = |unscaled, scale| Value::Decimal { unscaled, scale };
    assert_eq!(size(&decimal(999_999_999, 9)), 6);
    assert_eq!(size(&decimal(1_000_000_001, 9)), 10);
    assert_eq!(size(&decimal(1, 10)), 10);
    assert_eq!(size(&decimal(1, 19)), 18);
    assert_eq!(encode(&decimal(1100, 3)), encode(&decimal(11, 1)));
    assert_eq!(encode(&decimal(200, 2)), encode(&Value::Int(2)));
    assert_eq!(encode(&decimal(0, 38)), encode(&Value::Int(0)));
    assert_eq!(encode(&decimal(10_i128.pow(38), 0)), Err(DocumentError::Decimal));
    assert_eq!(encode(&decimal(1, 39)), Err(DocumentError::Decimal));
}

#[test]
fn the_last_of_two_fields_with_one_name_counts() {
    let twice = object(&[("a", Value::Int(1)), ("b", Value::Null), ("a", Value::Int(2))]);
    let once = object(&[("a", Value::Int(2)), ("b", Value::Null)]);
    assert_eq!(encode(&twice), encode(&once));
    assert_eq!(parse(r#"{"a":1,"b":null,"a":2}"#), once);
}

#[test]
fn times_end_where_other_readers_end() {
    for micros in [*TIMESTAMP_MICROS.start(), *TIMESTAMP_MICROS.end()] {
        let document = Value::TimestampMicros(micros);
        let Encoded { dictionary, value } = encode(&document).unwrap();
        assert!(same(&document, &Variant::try_new(&dictionary, &value).unwrap()));
    }
    for micros in [TIMESTAMP_MICROS.start() - 1, TIMESTAMP_MICROS.end() + 1] {
        assert_eq!(encode(&Value::TimestampMicros(micros)), Err(DocumentError::Timestamp));
        let value = [&[12 << 2][..], &micros.to_le_bytes()].concat();
        assert_eq!(decode(&[0x11, 0, 0], &value), Err(DocumentError::Timestamp));
        assert!(Variant::try_new(&[0x11, 0, 0], &value).is_err());
    }
}

#[test]
fn wide_objects_and_long_texts_come_back() {
    let fields = (0..70_000).map(|n| (format!("field-{n:06}"), Value::Int(n))).collect();
    let wide = Value::Object(fields);
    let long = Value::Array(vec![text(&"é".repeat(40_000)), Value::Binary(vec![7; 2_000_000])]);
    for document in [wide, long, Value::Object(Vec::new()), Value::Array(Vec::new())] {
        let Encoded { dictionary, value } = encode(&document).unwrap();
        assert!(decode(&dictionary, &value).unwrap() == document);
        assert!(same(&document, &Variant::try_new(&dictionary, &value).unwrap()));
    }
}

#[test]
fn a_document_over_16_mib_is_refused_with_limit_and_size() {
    let error = encode(&text(&"x".repeat(20 << 20))).unwrap_err();
    assert_eq!(error, DocumentError::TooLarge { bytes: (20 << 20) + 5 + 3 });
    let words = error.to_string();
    assert!(words.contains("20971528") && words.contains("16777216"), "{words}");
    assert!(encode(&text(&"x".repeat(BYTES_MAX - 8))).is_ok());
    let stored = vec![0; BYTES_MAX];
    assert!(matches!(decode(&[0x11, 0, 0], &stored), Err(DocumentError::TooLarge { .. })));
}

#[test]
fn nesting_ends_at_the_same_depth_everywhere() {
    let deepest = nested(DEPTH_MAX - 1);
    let Encoded { dictionary, value } = encode(&deepest).unwrap();
    assert_eq!(decode(&dictionary, &value).unwrap(), deepest);
    assert_eq!(parse(&json(&deepest)), deepest);
    assert_eq!(encode(&nested(DEPTH_MAX)), Err(DocumentError::TooDeep));
    let deeper = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
    assert_eq!(parse_json(deeper.as_bytes()), Err(DocumentError::TooDeep));
    let mut wrapped = vec![0x00];
    for _ in 0..DEPTH_MAX {
        // One member; where it starts and ends in four bytes each.
        let end = u32::try_from(wrapped.len()).unwrap().to_le_bytes();
        wrapped = [&[0x0f, 1, 0, 0, 0, 0][..], &end, &wrapped].concat();
    }
    assert_eq!(decode(&dictionary, &wrapped), Err(DocumentError::TooDeep));
}

#[test]
fn field_names_are_bounded_as_often_as_they_occur() {
    let name = "n".repeat(1 << 20);
    let members = (0..65).map(|_| object(&[(name.as_str(), Value::Null)])).collect();
    assert_eq!(encode(&Value::Array(members)), Err(DocumentError::TooManyNames));
}

#[test]
fn values_that_share_bytes_are_refused_at_once() {
    // Each array names the next one twice: 2^100 values in 600 bytes.
    let mut value = vec![0x00];
    for _ in 0..100 {
        let [low, high, ..] = value.len().to_le_bytes();
        value = [&[0x07, 2, 0, 0, 0, 0, low, high][..], &value].concat();
    }
    let sharing = DocumentError::Corrupt("two values share bytes");
    assert_eq!(decode(&[0x11, 0, 0], &value), Err(sharing.clone()));
    assert_eq!(write_json(&[0x11, 0, 0], &value, &mut Vec::new()), Err(sharing));
}

#[test]
fn json_numbers_are_exact() {
    assert_eq!(parse("9223372036854775807"), Value::Int(i64::MAX));
    assert_eq!(parse("-9223372036854775808"), Value::Int(i64::MIN));
    assert_eq!(parse("9223372036854775808"), Value::Decimal { unscaled: 1 << 63, scale: 0 });
    assert_eq!(parse("1.10"), Value::Decimal { unscaled: 11, scale: 1 });
    assert_eq!(parse("2.0"), Value::Int(2));
    assert_eq!(parse("-0.0"), Value::Int(0));
    assert_eq!(parse("1e3"), Value::Int(1000));
    assert_eq!(parse("1e300"), Value::Double(1e300));
    assert_eq!(parse("5e-324"), Value::Double(5e-324));
    let digits = "0.1234567890123456789012345678901234567";
    assert_eq!(json(&parse(digits)), digits);
    let beyond = "1234567890123456789012345678901234567890123";
    let tagged = object(&[(tags::NUMBER, text("1.234567890123456789012345678901234567890123e42"))]);
    assert_eq!(parse(beyond), tagged);
    assert_eq!(parse("1e999"), object(&[(tags::NUMBER, text("1e999"))]));
    assert_eq!(parse(&json(&tagged)), tagged);
    assert!(parse_json(b"1e99999999999").is_err());
}

#[test]
fn tagged_objects_say_what_json_has_no_type_for() {
    let pairs = [
        (Value::Binary(vec![1, 2]), r#"{"$binary":"AQI="}"#),
        (Value::TimestampMicros(1), r#"{"$timestamp":"1970-01-01T00:00:00.000001Z"}"#),
        (
            Value::TimestampMicros(8_210_266_876_799_999_999),
            r#"{"$timestamp":8210266876799999999}"#,
        ),
        (Value::Double(f64::NEG_INFINITY), r#"{"$double":"-Infinity"}"#),
        (object(&[("$binary", text("own"))]), r#"{"$$binary":"own"}"#),
        (object(&[("$$binary", Value::Int(1))]), r#"{"$$$binary":1}"#),
        (object(&[("$binary", text("x")), ("b", Value::Null)]), r#"{"$binary":"x","b":null}"#),
        (object(&[("$other", text("x"))]), r#"{"$other":"x"}"#),
        (object(&[("$$number", text("5"))]), r#"{"$$number":"5"}"#),
    ];
    for (value, written) in pairs {
        assert_eq!(json(&value), written);
        assert_eq!(parse(written), value, "{written}");
    }
    assert_eq!(json(&Value::Double(f64::NAN)), r#"{"$double":"NaN"}"#);
    assert!(matches!(parse(r#"{"$double":"NaN"}"#), Value::Double(number) if number.is_nan()));
    assert_eq!(parse(r#"{"$number":"1.50"}"#), Value::Decimal { unscaled: 15, scale: 1 });
    assert_eq!(tags::escape("$number"), "$$number");
    assert_eq!(tags::escape("$$set:string"), "$$$set:string");
    assert_eq!(tags::escape("$binary"), "$binary");
}

#[test]
fn a_tag_with_the_wrong_content_is_refused_with_a_remedy() {
    for wrong in [
        r#"{"$binary":"?"}"#,
        r#"{"$binary":{"base64":""}}"#,
        r#"{"$timestamp":"today"}"#,
        r#"{"$double":"1.5"}"#,
        r#"{"$number":"secret"}"#,
        r#"{"$set:string":[1]}"#,
        r#"{"$set:number":"12"}"#,
    ] {
        let error = parse_json(wrong.as_bytes()).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        assert!(error.contains("$$") || error.contains("another type"), "{error}");
    }
}

#[test]
fn sets_are_sorted_and_have_each_member_once() {
    let set = parse(r#"{"$set:number":[10, 9, 1e999, 9.0, -1.5]}"#);
    assert_eq!(json(&set), r#"{"$set:number":[-1.5,9,10,{"$number":"1e999"}]}"#);
    let set = tags::set(tags::SET_STRING, vec![text("b"), text("a"), text("b")]).unwrap();
    assert_eq!(json(&set), r#"{"$set:string":["a","b"]}"#);
    assert!(tags::set(tags::SET_BINARY, vec![text("b")]).is_err());
}

#[test]
fn what_is_no_json_is_refused_without_repeating_it() {
    for wrong in ["", "{", "{\"secret\"}", "[secret]", "1 2", "\"\\ud800\"", "nul", "{secret:1}"] {
        let error = parse_json(wrong.as_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::Json(_)), "{wrong}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(parse_json(b"\"\xff\"").is_err());
}

#[test]
fn variants_of_other_writers_are_read() {
    use parquet_variant::VariantBuilder;
    let mut builder = VariantBuilder::new();
    let mut fields = builder.new_object();
    fields.insert("z", 1_i64);
    fields.insert("a", 1.5_f32);
    fields.finish();
    let (dictionary, value) = builder.finish();
    let expected = object(&[("a", Value::Double(1.5)), ("z", Value::Int(1))]);
    assert_eq!(decode(&dictionary, &value).unwrap(), expected);
    let mut builder = VariantBuilder::new();
    builder.append_value(Variant::TimestampNanos(Default::default()));
    let (dictionary, value) = builder.finish();
    let refused = DocumentError::Type("timestamp in nanoseconds");
    assert_eq!(decode(&dictionary, &value), Err(refused));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn documents_come_back(document in any_value()) {
        let Encoded { dictionary, value } = encode(&document).unwrap();
        prop_assert_eq!(decode(&dictionary, &value).unwrap(), document);
    }

    #[test]
    fn another_implementation_reads_the_same(document in any_value()) {
        let Encoded { dictionary, value } = encode(&document).unwrap();
        let theirs = Variant::try_new(&dictionary, &value).unwrap();
        prop_assert!(same(&document, &theirs), "{document:?}\n{theirs:?}");
    }

    #[test]
    fn the_order_of_fields_does_not_matter(document in any_value()) {
        prop_assert_eq!(encode(&document), encode(&reversed(&document)));
    }

    #[test]
    fn json_comes_back(document in any_value()) {
        // A tag of somebody's own has to be escaped by whoever makes the value;
        // doubles come back as exact numbers. JSON, once written, is stable.
        let Ok(once) = parse_json(json(&document).as_bytes()) else { return Ok(()) };
        let again = parse(&json(&once));
        prop_assert_eq!(json(&again), json(&once));
        prop_assert_eq!(encode(&again), encode(&once));
    }

    #[test]
    fn json_without_doubles_and_tags_is_the_same_document(
        fields in prop::collection::btree_map("[a-z]{1,4}", (any::<i64>(), ".{0,20}", any::<Vec<u8>>()), 0..8),
    ) {
        let document = Value::Object(fields.into_iter().map(|(name, (whole, words, bytes))| {
            let parts = vec![Value::Int(whole), Value::String(words), Value::Binary(bytes),
                Value::TimestampMicros(whole / 2), Value::fixed(i128::from(whole), 7)];
            (name, Value::Array(parts))
        }).collect());
        prop_assert_eq!(parse(&json(&document)), document);
    }

    #[test]
    fn any_bytes_are_read_or_refused(dictionary: Vec<u8>, value: Vec<u8>) {
        let read = decode(&dictionary, &value);
        let mut out = Vec::new();
        prop_assert_eq!(write_json(&dictionary, &value, &mut out).is_ok(), read.is_ok());
        let read = decode(&[0x11, 1, 0, 1, b'a'], &value);
        if let Ok(document) = read {
            prop_assert!(encode(&document).is_ok());
        }
    }

    #[test]
    fn flipped_bytes_are_read_or_refused(
        document in any_value(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
    ) {
        let Encoded { mut dictionary, mut value } = encode(&document).unwrap();
        let length = dictionary.len() + value.len();
        for (place, mask) in flips {
            let place = place.index(length);
            match place.checked_sub(dictionary.len()) {
                Some(place) => value[place] ^= mask,
                None => dictionary[place] ^= mask,
            }
        }
        let mut out = b"kept".to_vec();
        match decode(&dictionary, &value) {
            Ok(read) => {
                prop_assert!(write_json(&dictionary, &value, &mut out).is_ok());
                prop_assert!(encode(&read).is_ok());
            }
            Err(_) => {
                prop_assert!(write_json(&dictionary, &value, &mut out).is_err());
                prop_assert_eq!(&out[..], b"kept");
            }
        }
    }
}

#[test]
fn fields_are_written_in_the_order_of_their_bytes() {
    let fields = [("é", Value::Int(1)), ("z", Value::Int(2)), ("", Value::Int(3))];
    assert_eq!(json(&object(&fields)), r#"{"":3,"z":2,"é":1}"#);
}
