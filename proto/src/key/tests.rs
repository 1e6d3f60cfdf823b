use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

fn key(parts: &[KeyPart]) -> Key {
    Key::encode(parts).unwrap()
}

fn number(text: &str) -> KeyPart {
    KeyPart::number(text).unwrap()
}

fn text(text: &str) -> KeyPart {
    KeyPart::String(text.to_owned())
}

fn any_part() -> impl Strategy<Value = KeyPart> {
    prop_oneof![
        Just(KeyPart::Null),
        any::<bool>().prop_map(KeyPart::Bool),
        any_number(),
        // Few distinct bytes, many zeros: that is where order goes wrong.
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..6)
            .prop_map(KeyPart::Bytes),
        "[\u{0}a-c\u{ff}\u{10ffff}]{0,5}".prop_map(KeyPart::String),
    ]
}

fn any_number() -> impl Strategy<Value = KeyPart> {
    let unscaled = prop_oneof![-1200_i128..1200, -10_i128.pow(38) + 1..10_i128.pow(38)];
    (unscaled, -126_i16..168).prop_map(|(unscaled, scale)| {
        let (unscaled, scale) = Decimal::from_parts(unscaled, scale).to_parts().unwrap();
        KeyPart::Number { unscaled, scale }
    })
}

/// The order that encoded keys must have, told without encoding them.
fn order(one: &KeyPart, two: &KeyPart) -> Ordering {
    let rank = |part: &KeyPart| match part {
        KeyPart::Null => 0,
        KeyPart::Bool(_) => 1,
        KeyPart::Number { .. } => 2,
        KeyPart::Bytes(_) => 3,
        KeyPart::String(_) => 4,
    };
    match (one, two) {
        (KeyPart::Bool(one), KeyPart::Bool(two)) => one.cmp(two),
        (
            KeyPart::Number { unscaled, scale },
            KeyPart::Number { unscaled: other, scale: other_scale },
        ) => Decimal::from_parts(*unscaled, *scale).cmp(&Decimal::from_parts(*other, *other_scale)),
        (KeyPart::Bytes(one), KeyPart::Bytes(two)) => one.cmp(two),
        (KeyPart::String(one), KeyPart::String(two)) => one.cmp(two),
        _ => rank(one).cmp(&rank(two)),
    }
}

#[test]
fn numbers_are_in_numeric_order() {
    let sorted = [
        "-9.9e125", "-1e38", "-100", "-10.5", "-10", "-3", "-1.5", "-1", "-1e-130", "0", "1e-130",
        "0.1", "0.12", "1", "1.05", "1.5", "2", "10", "10.01", "100", "1e38", "9.9e125",
    ];
    for pair in sorted.windows(2) {
        assert!(key(&[number(pair[0])]) < key(&[number(pair[1])]), "{pair:?}");
    }
}

#[test]
fn equal_numbers_have_equal_bytes() {
    for same in ["1", "1.0", "10e-1", "0.1e1"] {
        assert_eq!(key(&[number(same)]), key(&[number("1")]), "{same}");
    }
    assert_eq!(key(&[number("-0.00")]), key(&[number("0")]));
}

#[test]
fn the_layout_and_the_hash_are_fixed() {
    let parts = [
        KeyPart::Null,
        KeyPart::Bool(true),
        number("-12.5"),
        number("0"),
        KeyPart::Bytes(vec![0, 1]),
        text("a\0"),
    ];
    let expected = [
        &[0x10, 0x21][..],
        &[0x30, 1, 0x7f, 0xfd, !13, !51, 0xff],
        &[0x30, 2],
        &[0x40, 0, 0xff, 1, 0],
        &[0x50, b'a', 0, 0xff, 0],
    ];
    assert_eq!(key(&parts).as_bytes(), expected.concat());
    assert_eq!(key(&[text("order-1")]).hash(), xxh3_64(b"\x50order-1\x00"));
    assert_eq!(key(&[]).hash(), 0x2d06_8005_38d3_94c2, "xxh3-64 of nothing, from its test vectors");
}

#[test]
fn a_key_prints_as_json() {
    let print = |parts: &[KeyPart]| key(parts).to_string();
    assert_eq!(print(&[text("a\"b")]), r#""a\"b""#);
    assert_eq!(print(&[number("1.50"), KeyPart::Null]), "[1.5,null]");
    assert_eq!(print(&[KeyPart::Bytes(vec![0xfb, 0xff])]), r#"{"$binary":"+/8="}"#);
    assert_eq!(print(&[]), "[]");
    assert_eq!(Key::from_bytes(vec![0x99].into()).to_string(), "(not a key)");
}

#[test]
fn a_key_of_8192_bytes_is_taken_and_a_longer_one_is_refused() {
    let fits = text(&"x".repeat(KEY_BYTES_MAX - 2));
    assert_eq!(key(&[fits]).as_bytes().len(), KEY_BYTES_MAX);
    let error = Key::encode(&[text(&"x".repeat(KEY_BYTES_MAX - 1))]).unwrap_err();
    assert_eq!(error, KeyError::TooLong { bytes: 8193 });
    assert!(error.to_string().contains("8193") && error.to_string().contains("8192"));
}

#[test]
fn a_number_that_would_not_come_back_is_refused() {
    assert_eq!(KeyPart::number(&"9".repeat(39)), Err(KeyError::Number));
    assert_eq!(KeyPart::number("twelve"), Err(KeyError::Number));
    let huge = KeyPart::Number { unscaled: i128::MAX, scale: 0 };
    assert_eq!(Key::encode(&[huge]), Err(KeyError::Number));
    let edge = KeyPart::Number { unscaled: 10, scale: i16::MIN };
    assert_eq!(Key::encode(&[edge]), Err(KeyError::Number));
}

#[test]
fn a_second_spelling_of_a_number_is_refused() {
    for second in [
        &[0x30, 3, 0x80, 1, 11, 1, 0][..],
        &[0x30, 3, 0x80, 2, 2, 0],
        &[0x30, 3, 0x80, 1, 0],
        &[0x30, 4],
        &[0x30, 3, 0x80, 1, 101, 0],
    ] {
        let read = Key::from_bytes(second.to_vec().into()).parts();
        assert!(matches!(read, Err(KeyError::Corrupt(_))), "{second:?}");
    }
}

proptest! {
    #[test]
    fn parts_come_back(parts in prop::collection::vec(any_part(), 0..5)) {
        prop_assert_eq!(key(&parts).parts().unwrap(), parts);
    }

    #[test]
    fn byte_order_is_key_order(
        one in prop::collection::vec(any_part(), 0..4),
        two in prop::collection::vec(any_part(), 0..4),
    ) {
        let parts = one.iter().zip(&two).map(|(one, two)| order(one, two));
        let expected = parts.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&two.len()));
        prop_assert_eq!(key(&one).cmp(&key(&two)), expected);
    }

    #[test]
    fn byte_order_of_numbers_is_numeric(one in any_number(), two in any_number()) {
        prop_assert_eq!(
            key(std::slice::from_ref(&one)).cmp(&key(std::slice::from_ref(&two))),
            order(&one, &two)
        );
    }

    #[test]
    fn bytes_that_are_a_key_are_the_only_ones_of_it(bytes in prop::collection::vec(
        prop_oneof![Just(0), Just(1), Just(3), Just(0x30), Just(0x50), Just(0x80), any::<u8>()],
        0..24,
    )) {
        let read = Key::from_bytes(bytes.into());
        let printed = read.to_string();
        match read.parts() {
            Ok(parts) => prop_assert_eq!(key(&parts), read),
            Err(_) => prop_assert_eq!(printed, "(not a key)"),
        }
    }
}
