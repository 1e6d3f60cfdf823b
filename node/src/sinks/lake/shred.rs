//! Which fields of documents get columns of their own in a data file.
//!
//! Decided once per file, by its first rows alone, so the same rows always
//! give the same file. A value that is not of its field's type stays where it
//! was, in the rest of the document: nothing is ever converted.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use tidegate_proto::document::{Dictionary, DocumentError, Members, Node, Reader};

/// Files with fewer documents stay plain: columns would cost more than they save.
const ROWS_MIN: u32 = 256;
/// Documents looked at.
const ROWS_MAX: u32 = 8192;
/// Columns of one file.
const LEAVES_MAX: usize = 64;
/// Names told apart while looking, and within each; documents used as maps
/// have no end of them.
const NAMES_MAX: usize = 1024;
const INNER_NAMES_MAX: usize = 64;
/// Hundredths of a field's values that must have its type.
const SAME_PERCENT_MIN: u32 = 95;
/// Hundredths of the documents that must have the field.
const PRESENT_PERCENT_MIN: u32 = 25;
/// Digits that fit a Parquet INT64 decimal, and the most there may be.
const DIGITS: [u8; 2] = [18, 38];

/// What the first documents of a file look like.
#[derive(Debug, Default)]
pub(super) struct Profile {
    rows: u32,
    fields: BTreeMap<String, Shape>,
}

/// What values one field has had.
#[derive(Debug, Default)]
struct Shape {
    values: u32,
    booleans: u32,
    integers: u32,
    decimals: u32,
    doubles: u32,
    strings: u32,
    times: u32,
    objects: u32,
    /// The most digits before the point of integers and decimals, and behind it.
    digits: u8,
    scale: u8,
    fields: BTreeMap<String, Shape>,
}

impl Profile {
    /// Looks at one more document; `false` once enough were seen.
    pub(super) fn look(
        &mut self,
        dictionary: Dictionary<'_>,
        value: &[u8],
    ) -> Result<bool, DocumentError> {
        if self.rows == ROWS_MAX {
            return Ok(false);
        }
        self.rows += 1;
        let (mut reader, node) = Reader::open(dictionary, value)?;
        if let Node::Object(members) = node {
            note(&mut self.fields, &mut reader, &members, true)?;
        }
        Ok(true)
    }

    /// The fields to shred; `None` to leave the file plain.
    pub(super) fn schema(&self) -> Option<DataType> {
        let mut leaves = LEAVES_MAX;
        let fields = choose(&self.fields, self.rows, &mut leaves);
        (self.rows >= ROWS_MIN && !fields.is_empty()).then_some(DataType::Struct(fields))
    }
}

fn note<'a>(
    fields: &mut BTreeMap<String, Shape>,
    reader: &mut Reader<'a>,
    members: &Members<'a>,
    outermost: bool,
) -> Result<(), DocumentError> {
    for index in 0..members.count {
        let name = reader.name(members, index)?;
        let node = reader.member(members, index)?.node;
        if !fields.contains_key(name) {
            let most = if outermost { NAMES_MAX } else { INNER_NAMES_MAX };
            if fields.len() == most || name.is_empty() {
                continue;
            }
            fields.insert(name.to_owned(), Shape::default());
        }
        let Some(shape) = fields.get_mut(name) else { continue };
        shape.look(&node);
        if let (Node::Object(members), true) = (&node, outermost) {
            note(&mut shape.fields, reader, members, false)?;
        }
    }
    Ok(())
}

impl Shape {
    fn look(&mut self, node: &Node<'_>) {
        // A null is not of any type, and speaks against none.
        self.values += u32::from(!matches!(node, Node::Null));
        match node {
            Node::Bool(_) => self.booleans += 1,
            Node::Int(whole) => self.integer(*whole),
            Node::Decimal { unscaled, scale } => self.decimal(*unscaled, *scale),
            Node::Double(_) => self.doubles += 1,
            Node::String(_) => self.strings += 1,
            Node::TimestampMicros(_) => self.times += 1,
            Node::Object(_) => self.objects += 1,
            // Rare in what stores hold, or without a column's shape: they stay
            // in the document.
            Node::Null | Node::Float(_) | Node::Binary(_) | Node::Array(_) => {}
        }
    }

    fn integer(&mut self, value: i64) {
        self.integers += 1;
        self.digits = self.digits.max(digits_of(value.into()));
    }

    fn decimal(&mut self, unscaled: i128, scale: u8) {
        self.decimals += 1;
        self.digits = self.digits.max(digits_of(unscaled).saturating_sub(scale));
        self.scale = self.scale.max(scale);
    }

    /// The scalar type that nearly all values have.
    fn scalar(&self) -> Option<DataType> {
        let most = |count: u32| share(count, self.values) >= SAME_PERCENT_MIN;
        Some(match () {
            () if most(self.booleans) => DataType::Boolean,
            () if most(self.integers) => DataType::Int64,
            () if most(self.integers + self.decimals) => return self.decimal_type(),
            () if most(self.doubles) => DataType::Float64,
            () if most(self.strings) => DataType::Utf8,
            () if most(self.times) => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            () => return None,
        })
    }

    /// Wide enough for all that was seen; what does not fit later stays in the
    /// document.
    fn decimal_type(&self) -> Option<DataType> {
        let needed = self.digits.checked_add(self.scale)?;
        let precision = DIGITS.into_iter().find(|digits| *digits >= needed)?;
        Some(DataType::Decimal128(precision, i8::try_from(self.scale).ok()?))
    }
}

/// Chooses fields, those in most documents first, until `leaves` is used up.
fn choose(shapes: &BTreeMap<String, Shape>, rows: u32, leaves: &mut usize) -> Fields {
    let mut by_use: Vec<(&String, &Shape)> = shapes
        .iter()
        .filter(|(name, shape)| {
            share(shape.values, rows) >= PRESENT_PERCENT_MIN && !has_twin(shapes, name)
        })
        .collect();
    by_use.sort_by_key(|(name, shape)| (u32::MAX - shape.values, *name));
    let mut chosen = Vec::new();
    for (name, shape) in by_use {
        let data_type = if share(shape.objects, shape.values) >= SAME_PERCENT_MIN {
            let inner = choose(&shape.fields, shape.values, leaves);
            if inner.is_empty() { None } else { Some(DataType::Struct(inner)) }
        } else if *leaves == 0 {
            None
        } else {
            let scalar = shape.scalar();
            *leaves -= usize::from(scalar.is_some());
            scalar
        };
        chosen.extend(data_type.map(|data_type| Arc::new(Field::new(name, data_type, true))));
    }
    chosen.sort_by(|a, b| a.name().cmp(b.name()));
    chosen.into()
}

/// Readers that do not mind the case of a column's name could not tell them apart.
fn has_twin(shapes: &BTreeMap<String, Shape>, name: &str) -> bool {
    let folded = name.to_lowercase();
    shapes.keys().any(|other| other != name && other.to_lowercase() == folded)
}

/// `part` of `whole` in hundredths, rounded down.
fn share(part: u32, whole: u32) -> u32 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

fn digits_of(value: i128) -> u8 {
    value.unsigned_abs().checked_ilog10().map_or(0, |log| u8::try_from(log + 1).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use parquet::variant::{Variant, VariantBuilder, VariantDecimal4};

    use super::*;

    /// The schema for documents with one field `f`, made by `value`.
    fn schema_of<'v>(rows: u32, value: impl Fn(u32) -> Variant<'v, 'v>) -> Option<DataType> {
        let mut profile = Profile::default();
        for row in 0..rows {
            let mut builder = VariantBuilder::new();
            builder.new_object().with_field("f", value(row)).finish();
            let (metadata, value) = builder.finish();
            profile.look(Dictionary::parse(&metadata).unwrap(), &value).unwrap();
        }
        profile.schema()
    }

    fn type_of<'v>(value: impl Fn(u32) -> Variant<'v, 'v>) -> Option<DataType> {
        let DataType::Struct(fields) = schema_of(ROWS_MIN, value)? else { return None };
        Some(fields[0].data_type().clone())
    }

    #[test]
    fn a_field_gets_the_type_that_nearly_all_its_values_have() {
        let mixed = |row| if row % 25 == 0 { Variant::from("x") } else { Variant::from(5_i64) };
        assert_eq!(type_of(mixed), Some(DataType::Int64));
        let half = |row| if row % 2 == 0 { Variant::from("x") } else { Variant::from(5_i64) };
        assert_eq!(type_of(half), None);
        let nulls = |row| if row % 2 == 0 { Variant::Null } else { Variant::from("x") };
        assert_eq!(type_of(nulls), Some(DataType::Utf8));
    }

    #[test]
    fn integers_and_decimals_share_a_decimal_that_holds_both() {
        let money = |row| match row % 2 {
            0 => Variant::from(1_234_567_i64),
            _ => Variant::from(VariantDecimal4::try_new(125, 2).unwrap()),
        };
        assert_eq!(type_of(money), Some(DataType::Decimal128(18, 2)));
        let far = |row| match row % 2 {
            0 => Variant::from(i64::MAX),
            _ => Variant::from(VariantDecimal4::try_new(125, 2).unwrap()),
        };
        assert_eq!(type_of(far), Some(DataType::Decimal128(38, 2)));
    }

    #[test]
    fn few_rows_and_rare_fields_stay_in_the_document() {
        assert_eq!(schema_of(ROWS_MIN - 1, |_| Variant::from("x")), None);
        let rare = |row| if row % 5 == 0 { Variant::from("x") } else { Variant::Null };
        assert_eq!(type_of(rare), None);
    }

    #[test]
    fn columns_are_bounded_and_twins_left_out() {
        let mut profile = Profile::default();
        for _ in 0..ROWS_MIN {
            let mut builder = VariantBuilder::new();
            let mut object = builder.new_object();
            for field in 0..200 {
                object.insert(&format!("f{field:03}"), field);
            }
            object.insert("Id", 1);
            object.insert("id", 2);
            object.finish();
            let (metadata, value) = builder.finish();
            profile.look(Dictionary::parse(&metadata).unwrap(), &value).unwrap();
        }
        let Some(DataType::Struct(fields)) = profile.schema() else {
            panic!("fields are shredded")
        };
        assert_eq!(fields.len(), LEAVES_MAX);
        assert!(fields.iter().all(|field| !field.name().eq_ignore_ascii_case("id")));
    }
}
