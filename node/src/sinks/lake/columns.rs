//! Documents into columns, in one pass over their bytes.
//!
//! A shredded Variant has for every chosen field a `typed_value`, which holds
//! what is of the field's type, and a `value`, which holds what is not; fields
//! that were not chosen stay in the `value` of their object. Each document's
//! bytes are walked once: they are checked on the way, since what a reader
//! finds in a file is taken for granted, and each value is appended where it
//! belongs. Which column a field has is looked up by the number of its name,
//! by a table made once for each dictionary ([`Names`]). An object's fields
//! come in the order of their names, and so do the columns: those between two
//! that were found are missing in it. Nothing is allocated for a document.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder,
    NullBufferBuilder, StringBuilder, StructArray, StructArrayAssembler,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Fields, TimeUnit};
use arrow::error::ArrowError;
use tidegate_proto::document::{
    Dictionary, DocumentError, Member, Members, Node, Reader, push_object_head,
};

/// Metadata of a document without fields, for rows that have none.
const EMPTY_METADATA: &[u8] = &[1, 0, 0];
/// Stands for a name that a dictionary does not have.
const NOWHERE: usize = usize::MAX;

/// A column of documents under way.
pub(super) struct Documents {
    metadata: BinaryBuilder,
    valid: NullBufferBuilder,
    body: Body,
    /// The fields with columns, of each object that has such.
    objects: Vec<Vec<String>>,
}

enum Body {
    Plain(BinaryBuilder),
    Shredded(Box<Cell>),
}

/// A dictionary, and where it has the fields with columns.
pub(super) struct Names<'a> {
    bytes: &'a [u8],
    dictionary: Dictionary<'a>,
    /// As in [`Documents::objects`].
    ids: Vec<Vec<usize>>,
}

impl Documents {
    /// A column without rows; `shape` is a struct of the fields to shred.
    pub(super) fn new(shape: Option<&DataType>, rows: usize) -> Result<Self, ArrowError> {
        let mut objects = Vec::new();
        let body = match shape {
            Some(shape) => Body::Shredded(Box::new(Cell::new(shape, &mut objects)?)),
            None => Body::Plain(BinaryBuilder::with_capacity(rows, 0)),
        };
        let metadata = BinaryBuilder::with_capacity(rows, 0);
        Ok(Self { metadata, valid: NullBufferBuilder::new(rows), body, objects })
    }

    /// Prepares for documents with this dictionary.
    pub(super) fn names<'a>(&self, bytes: &'a [u8]) -> Result<Names<'a>, DocumentError> {
        let dictionary = Dictionary::parse(bytes)?;
        if !dictionary.sorted && dictionary.count > 1 {
            return Err(DocumentError::Corrupt("the dictionary is not in order"));
        }
        let id_of = |name: &String| dictionary.find(name).unwrap_or(NOWHERE);
        let ids = self.objects.iter().map(|fields| fields.iter().map(id_of).collect());
        Ok(Names { bytes, dictionary, ids: ids.collect() })
    }

    /// Adds a document. After an error the column is good for nothing.
    pub(super) fn push(&mut self, names: &Names<'_>, value: &[u8]) -> Result<(), DocumentError> {
        let (mut reader, node) = Reader::open(names.dictionary, value)?;
        match &mut self.body {
            Body::Plain(values) => {
                reader.check(&node)?;
                values.append_value(value);
            }
            Body::Shredded(cell) => {
                cell.push(&mut reader, &Member { node, bytes: value }, names)?;
            }
        }
        reader.finish()?;
        self.metadata.append_value(names.bytes);
        self.valid.append_non_null();
        Ok(())
    }

    /// Adds a row without a document.
    pub(super) fn push_none(&mut self) {
        match &mut self.body {
            Body::Plain(values) => values.append_value([]),
            Body::Shredded(cell) => cell.push_none(),
        }
        self.metadata.append_value(EMPTY_METADATA);
        self.valid.append_null();
    }

    pub(super) fn finish(mut self) -> Result<StructArray, ArrowError> {
        let metadata: ArrayRef = Arc::new(self.metadata.finish());
        let column = StructArrayAssembler::new().with_field("metadata", metadata, false);
        let column = match self.body {
            Body::Plain(mut values) => column.with_field("value", Arc::new(values.finish()), false),
            Body::Shredded(cell) => cell.finish(column)?,
        };
        assemble(column, self.valid)
    }
}

/// A value: in a column of its type, or else as it is.
struct Cell {
    typed: Typed,
    rest: BinaryBuilder,
}

impl Cell {
    fn new(data_type: &DataType, objects: &mut Vec<Vec<String>>) -> Result<Self, ArrowError> {
        Ok(Self { typed: Typed::new(data_type, objects)?, rest: BinaryBuilder::new() })
    }

    fn push<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        member: &Member<'a>,
        names: &Names<'a>,
    ) -> Result<(), DocumentError> {
        if let (Typed::Object(object), Node::Object(members)) = (&mut self.typed, &member.node) {
            return object.push(reader, members, names, &mut self.rest);
        }
        if self.typed.take(&member.node) {
            self.rest.append_null();
            return Ok(());
        }
        reader.check(&member.node)?;
        self.rest.append_value(member.bytes);
        self.typed.push_none();
        Ok(())
    }

    fn push_none(&mut self) {
        self.rest.append_null();
        self.typed.push_none();
    }

    /// Adds both columns to those of `column`.
    fn finish(mut self, column: StructArrayAssembler) -> Result<StructArrayAssembler, ArrowError> {
        let rest: ArrayRef = Arc::new(self.rest.finish());
        let column = column.with_field("value", rest, true);
        Ok(column.with_field("typed_value", self.typed.finish()?, true))
    }
}

/// A column of one type.
enum Typed {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Decimal(Decimals),
    Double(Float64Builder),
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
    Object(Object),
}

impl Typed {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow has many types; shapes have these")]
    fn new(data_type: &DataType, objects: &mut Vec<Vec<String>>) -> Result<Self, ArrowError> {
        Ok(match data_type {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Float64 => Self::Double(Float64Builder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Decimal128(precision, scale) => {
                Self::Decimal(Decimals::new(*precision, *scale)?)
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Self::Time(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()))
            }
            DataType::Struct(fields) => Self::Object(Object::new(fields, objects)?),
            _ => {
                let what = format!("no field of a document gets a column of type {data_type}");
                return Err(ArrowError::InvalidArgumentError(what));
            }
        })
    }

    /// Takes a value, if it is of this type; never an object.
    fn take(&mut self, node: &Node<'_>) -> bool {
        match (self, node) {
            (Self::Bool(values), Node::Bool(truth)) => values.append_value(*truth),
            (Self::Int(values), Node::Int(whole)) => values.append_value(*whole),
            (Self::Decimal(values), Node::Int(whole)) => return values.take((*whole).into(), 0),
            (Self::Decimal(values), Node::Decimal { unscaled, scale }) => {
                return values.take(*unscaled, *scale);
            }
            (Self::Double(values), Node::Double(number)) => values.append_value(*number),
            (Self::Text(values), Node::String(text)) => values.append_value(text),
            (Self::Time(values), Node::TimestampMicros(micros)) => values.append_value(*micros),
            _ => return false,
        }
        true
    }

    fn push_none(&mut self) {
        match self {
            Self::Bool(values) => values.append_null(),
            Self::Int(values) => values.append_null(),
            Self::Decimal(values) => values.builder.append_null(),
            Self::Double(values) => values.append_null(),
            Self::Text(values) => values.append_null(),
            Self::Time(values) => values.append_null(),
            Self::Object(object) => object.push_none(),
        }
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(mut values) => Arc::new(values.finish()),
            Self::Int(mut values) => Arc::new(values.finish()),
            Self::Decimal(mut values) => Arc::new(values.builder.finish()),
            Self::Double(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Time(mut values) => Arc::new(values.finish()),
            Self::Object(object) => Arc::new(object.finish()?),
        })
    }
}

/// Decimals of one precision and scale.
struct Decimals {
    builder: Decimal128Builder,
    scale: u8,
    /// What their digits stay below.
    bound: u128,
}

impl Decimals {
    fn new(precision: u8, scale: i8) -> Result<Self, ArrowError> {
        let builder = Decimal128Builder::new().with_precision_and_scale(precision, scale)?;
        let bound = 10_u128.pow(u32::from(precision));
        Ok(Self { builder, scale: scale.unsigned_abs(), bound })
    }

    /// Takes a number that fits without loss.
    fn take(&mut self, unscaled: i128, scale: u8) -> bool {
        let more = self.scale.checked_sub(scale).map(u32::from);
        let factor = more.and_then(|digits| 10_i128.checked_pow(digits));
        let number = factor.and_then(|factor| unscaled.checked_mul(factor));
        let fits = number.filter(|number| number.unsigned_abs() < self.bound);
        fits.map(|number| self.builder.append_value(number)).is_some()
    }
}

/// An object with columns for some of its fields.
struct Object {
    /// Its place in [`Names::ids`].
    number: usize,
    fields: Fields,
    /// One for each of `fields`, in the order of their names.
    cells: Vec<Cell>,
    valid: NullBufferBuilder,
    others: Others,
}

impl Object {
    fn new(fields: &Fields, objects: &mut Vec<Vec<String>>) -> Result<Self, ArrowError> {
        debug_assert!(fields.is_sorted_by_key(|field| field.name()), "columns go by name");
        let number = objects.len();
        objects.push(fields.iter().map(|field| field.name().clone()).collect());
        let cells = fields.iter().map(|field| Cell::new(field.data_type(), objects));
        let cells = cells.collect::<Result<_, _>>()?;
        let (valid, others) = (NullBufferBuilder::new(0), Others::default());
        Ok(Self { number, fields: fields.clone(), cells, valid, others })
    }

    /// Fields without columns, if there are any, go to `rest` as an object.
    fn push<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        members: &Members<'a>,
        names: &Names<'a>,
        rest: &mut BinaryBuilder,
    ) -> Result<(), DocumentError> {
        let ids = &names.ids[self.number];
        let mut next = 0;
        self.others.clear();
        for index in 0..members.count {
            let id = reader.id(members, index)?;
            let Some(missing) = ids[next..].iter().position(|known| *known == id) else {
                self.others.push(id, reader.skip(members, index)?);
                continue;
            };
            let found = next + missing;
            self.cells[next..found].iter_mut().for_each(Cell::push_none);
            let member = reader.member(members, index)?;
            self.cells[found].push(reader, &member, names)?;
            next = found + 1;
        }
        self.cells[next..].iter_mut().for_each(Cell::push_none);
        self.valid.append_non_null();
        self.others.write(rest);
        Ok(())
    }

    fn push_none(&mut self) {
        self.cells.iter_mut().for_each(Cell::push_none);
        self.valid.append_null();
    }

    fn finish(self) -> Result<StructArray, ArrowError> {
        let mut object = StructArrayAssembler::new();
        for (field, cell) in self.fields.iter().zip(self.cells) {
            let both = cell.finish(StructArrayAssembler::new())?.build()?;
            object = object.with_field(field.name(), Arc::new(both), false);
        }
        assemble(object, self.valid)
    }
}

/// The fields of an object that have no columns. Its memory is used again.
#[derive(Default)]
struct Others {
    ids: Vec<usize>,
    ends: Vec<usize>,
    values: Vec<u8>,
    encoded: Vec<u8>,
}

impl Others {
    fn clear(&mut self) {
        self.ids.clear();
        self.ends.clear();
        self.values.clear();
    }

    fn push(&mut self, id: usize, value: &[u8]) {
        self.ids.push(id);
        self.values.extend_from_slice(value);
        self.ends.push(self.values.len());
    }

    fn write(&mut self, rest: &mut BinaryBuilder) {
        if self.ids.is_empty() {
            return rest.append_null();
        }
        self.encoded.clear();
        push_object_head(&self.ids, &self.ends, &mut self.encoded);
        self.encoded.extend_from_slice(&self.values);
        rest.append_value(&self.encoded);
    }
}

fn assemble(
    columns: StructArrayAssembler,
    mut valid: NullBufferBuilder,
) -> Result<StructArray, ArrowError> {
    match valid.finish() {
        Some(nulls) => columns.with_nulls(nulls).build(),
        None => columns.build(),
    }
}
