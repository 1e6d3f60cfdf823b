//! Columns of documents as we make them, against those of another implementation.

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::variant::shred_variant;
use proptest::prelude::*;
use tidegate_proto::document::Encoded;

use super::super::columns::Documents;
use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The type of a field's column.
fn any_type() -> impl Strategy<Value = DataType> {
    prop_oneof![
        Just(DataType::Boolean),
        Just(DataType::Int64),
        Just(DataType::Decimal128(18, 2)),
        Just(DataType::Decimal128(38, 3)),
        Just(DataType::Float64),
        Just(DataType::Utf8),
        Just(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
    ]
}

/// Columns for some fields, `depth` objects deep.
fn any_shape(depth: u32) -> BoxedStrategy<DataType> {
    let field = match depth {
        0 => any_type().boxed(),
        _ => prop_oneof![3 => any_type(), 1 => any_shape(depth - 1)].boxed(),
    };
    let fields = prop::sample::subsequence(NAMES.to_vec(), 1..=NAMES.len());
    (fields, prop::collection::vec(field, NAMES.len()))
        .prop_map(|(names, types)| {
            let typed = names.into_iter().zip(types);
            let fields = typed.map(|(name, data_type)| Field::new(name, data_type, true));
            DataType::Struct(fields.collect())
        })
        .boxed()
}

fn any_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        // No wider: the library leaves integers of ten digits out of decimal columns.
        (-999_999_999_i64..=999_999_999).prop_map(Value::Int),
        (-200_i64..200).prop_map(Value::Int),
        "-?[0-9]{1,6}\\.[0-9]{1,4}".prop_map(|text| Value::number(&text).unwrap()),
        any::<f64>().prop_map(Value::Double),
        ".{0,80}".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(Value::Binary),
        document::TIMESTAMP_MICROS.prop_map(Value::TimestampMicros),
    ];
    leaf.prop_recursive(3, 60, 8, |inner| {
        let name = prop_oneof![6 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
            1 => ".{0,9}"];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            4 => prop::collection::btree_map(name, inner, 0..9)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn ours(documents: &[Option<Encoded>], shape: &DataType) -> StructArray {
    let mut column = Documents::new(Some(shape), 0).unwrap();
    for encoded in documents {
        match encoded {
            Some(Encoded { dictionary, value }) => {
                let names = column.names(dictionary).unwrap();
                column.push(&names, value).unwrap();
            }
            None => column.push_none(),
        }
    }
    column.finish().unwrap()
}

fn theirs(documents: &[Option<Encoded>], shape: &DataType) -> StructArray {
    let (mut metadata, mut values) = (BinaryBuilder::new(), BinaryBuilder::new());
    for encoded in documents {
        let none = (&[1, 0, 0][..], &[][..]);
        let (dictionary, value) =
            encoded.as_ref().map_or(none, |encoded| (&encoded.dictionary, &encoded.value));
        metadata.append_value(dictionary);
        values.append_value(value);
    }
    let nulls: NullBuffer = documents.iter().map(Option::is_some).collect();
    let binary = |name: &str| Field::new(name, DataType::Binary, false);
    let fields = Fields::from(vec![binary("metadata"), binary("value")]);
    let columns: Vec<ArrayRef> = vec![Arc::new(metadata.finish()), Arc::new(values.finish())];
    let plain = StructArray::try_new(fields, columns, Some(nulls)).unwrap();
    shred_variant(&VariantArray::try_new(&plain).unwrap(), shape).unwrap().into_inner()
}

fn file(column: StructArray) -> Vec<u8> {
    let field = Field::new("document", column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
    let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn encoded(value: &Value) -> Encoded {
    document::encode(value).unwrap()
}

proptest! {
    #[test]
    fn files_are_those_of_the_librarys_shredder(
        shape in any_shape(2),
        values in prop::collection::vec(prop::option::weighted(0.9, any_document()), 1..40),
    ) {
        let documents: Vec<_> = values.iter().map(|value| value.as_ref().map(encoded)).collect();
        let bytes = file(ours(&documents, &shape));
        prop_assert!(bytes == file(theirs(&documents, &shape)), "the files differ");
        let wanted: Vec<_> = values.iter().map(|value| value.as_ref().map(json)).collect();
        prop_assert_eq!(super::documents(&bytes), wanted);
    }

    #[test]
    fn bytes_that_are_no_document_are_refused_and_never_panic(
        shape in any_shape(1),
        value in any_document(),
        cut in any::<prop::sample::Index>(),
        other in any::<u8>(),
    ) {
        let Encoded { dictionary, value } = encoded(&value);
        let mut changed = value.clone();
        changed[cut.index(value.len())] = other;
        for bytes in [&value[..cut.index(value.len())], &changed[..]] {
            let mut column = Documents::new(Some(&shape), 0).unwrap();
            let names = column.names(&dictionary).unwrap();
            let sound = document::decode(&dictionary, bytes);
            prop_assert_eq!(column.push(&names, bytes).is_ok(), sound.is_ok());
        }
    }
}

#[test]
fn digits_that_a_decimal_column_cannot_hold_stay_in_the_document() {
    let shape = DataType::Struct(vec![Field::new("a", DataType::Decimal128(18, 2), true)].into());
    let value = |whole| Value::Object(vec![("a".to_owned(), Value::Int(whole))]);
    let values = [value(10_i64.pow(16) - 1), value(10_i64.pow(16)), value(i64::MIN)];
    let documents: Vec<_> = values.iter().map(|value| Some(encoded(value))).collect();
    let column = ours(&documents, &shape);
    let field = column.column_by_name("typed_value").unwrap().as_struct().column(0).as_struct();
    let typed = field.column_by_name("typed_value").unwrap();
    assert_eq!([0, 1, 2].map(|row| typed.is_valid(row)), [true, false, false]);
    let wanted: Vec<_> = values.iter().map(|value| Some(json(value))).collect();
    assert_eq!(super::documents(&file(column)), wanted);
}
