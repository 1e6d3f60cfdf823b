//! Documents made by writing into a copy of one that was encoded before.

use tidegate_proto::document::{self, Encoded, Value};

use super::generate::{Draws, Item, Order};
use crate::error::{Error, ErrorKind, Result};

/// Words the notes are made of.
const WORDS: usize = 512;
/// Digits of a row in a key.
const ROW_DIGITS: usize = 10;
/// Marks where the note begins; the rest of it is filled up.
const NOTE_MARK: &str = "~the note begins";

/// An order whose numbers stand nowhere else in its encoding.
const MARKED: Order = Order {
    customer: 0x71A2_B3C4,
    total: 0x0AF1_E2D3,
    status: "~st~",
    items: [
        Item { sku: 987_650, quantity: 0x5AE1, price: 0x0AE1_C1A1 },
        Item { sku: 987_651, quantity: 0x5BE2, price: 0x0AE2_C2A3 },
        Item { sku: 987_652, quantity: 0x5CE3, price: 0x0AE3_C3A5 },
    ],
    note: 0,
};
const MARKED_ROW: u64 = 9_876_543_210;

/// A shard's document, encoded once, and where its fields lie.
#[derive(Debug)]
pub(super) struct Template {
    shard: u32,
    marked: Encoded,
    spots: Spots,
    note_bytes: usize,
    words: Vec<String>,
}

#[derive(Debug)]
struct Spots {
    row: usize,
    customer: usize,
    total: usize,
    status: usize,
    items: [(usize, usize, usize); super::generate::ITEMS],
    note: usize,
}

impl Template {
    /// For documents of about `bytes` bytes.
    pub(super) fn new(shard: u32, bytes: usize) -> Result<Self> {
        let words = words();
        let small = encode(&to_value(shard, MARKED_ROW, &MARKED, &marked_note(bytes)))?;
        // The note makes up for the other fields.
        let note_bytes = (2 * bytes).saturating_sub(small.value.len()).max(64);
        let marked = encode(&to_value(shard, MARKED_ROW, &MARKED, &marked_note(note_bytes)))?;
        let spots = Spots::find(&marked.value)?;
        Ok(Self { shard, marked, spots, note_bytes, words })
    }

    /// The dictionary of all documents.
    pub(super) fn dictionary(&self) -> &[u8] {
        &self.marked.dictionary
    }

    /// Puts the encoded document of `row` into `out`: the same bytes as
    /// encoding [`Template::value`] gives.
    pub(super) fn render(&self, row: u64, order: &Order, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.marked.value);
        let spots = &self.spots;
        put_digits(row, &mut out[spots.row..spots.row + ROW_DIGITS]);
        put(out, spots.customer, &order.customer.to_le_bytes());
        put(out, spots.total, &order.total.to_le_bytes());
        put(out, spots.status, order.status.as_bytes());
        for ((sku, quantity, price), item) in spots.items.iter().zip(&order.items) {
            put_digits(u64::from(item.sku), &mut out[*sku..sku + 6]);
            put(out, *quantity, &item.quantity.to_le_bytes());
            put(out, *price, &item.price.to_le_bytes());
        }
        write_note(&self.words, order.note, &mut out[spots.note..spots.note + self.note_bytes]);
    }

    /// The document of `row`, the plain way.
    pub(super) fn value(&self, row: u64, order: &Order) -> Value {
        let mut note = vec![b' '; self.note_bytes];
        write_note(&self.words, order.note, &mut note);
        to_value(self.shard, row, order, &String::from_utf8_lossy(&note))
    }

    /// The text of a row's key.
    pub(super) fn key(&self, row: u64) -> String {
        key(self.shard, row)
    }
}

impl Spots {
    fn find(value: &[u8]) -> Result<Self> {
        let mut items = [(0, 0, 0); super::generate::ITEMS];
        for (spot, item) in items.iter_mut().zip(&MARKED.items) {
            *spot = (
                find(value, format!("{:06}", item.sku).as_bytes())?,
                find(value, &item.quantity.to_le_bytes())?,
                find(value, &item.price.to_le_bytes())?,
            );
        }
        Ok(Self {
            row: find(value, MARKED_ROW.to_string().as_bytes())?,
            customer: find(value, &MARKED.customer.to_le_bytes())?,
            total: find(value, &MARKED.total.to_le_bytes())?,
            status: find(value, MARKED.status.as_bytes())?,
            items,
            note: find(value, NOTE_MARK.as_bytes())?,
        })
    }
}

/// The one place where `mark` stands in `value`.
fn find(value: &[u8], mark: &[u8]) -> Result<usize> {
    let mut places = value.windows(mark.len()).enumerate().filter(|(_, found)| *found == mark);
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(at),
        _ => Err(Error::new(ErrorKind::Corrupt, "the encoding of generated documents has changed")),
    }
}

fn key(shard: u32, row: u64) -> String {
    format!("order-{shard}-{row:010}")
}

fn to_value(shard: u32, row: u64, order: &Order, note: &str) -> Value {
    let field = |name: &str, value| (name.to_owned(), value);
    let items = order.items.iter().map(|item| {
        Value::Object(vec![
            field("sku", Value::String(format!("sku-{:06}", item.sku))),
            field("quantity", Value::Int(i64::from(item.quantity))),
            field("price", cents(item.price)),
        ])
    });
    Value::Object(vec![
        field("id", Value::String(key(shard, row))),
        field("customer", Value::Int(i64::from(order.customer))),
        field("total", cents(order.total)),
        field("status", Value::String(order.status.to_owned())),
        field("items", Value::Array(items.collect())),
        field("note", Value::String(note.to_owned())),
    ])
}

fn cents(unscaled: i32) -> Value {
    Value::Decimal { unscaled: i128::from(unscaled), scale: 2 }
}

fn encode(value: &Value) -> Result<Encoded> {
    document::encode(value).map_err(|error| {
        Error::new(ErrorKind::Config, "encode a generated document").because(error)
    })
}

fn marked_note(bytes: usize) -> String {
    let rest = bytes.saturating_sub(NOTE_MARK.len());
    NOTE_MARK.to_owned() + &"~".repeat(rest)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_digits(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// Fills `out` with words, the last one cut.
fn write_note(words: &[String], start: u64, out: &mut [u8]) {
    let mut draws = Draws::from(start);
    let mut at = 0;
    while at < out.len() {
        let drawn = usize::try_from(draws.below(WORDS as u64)).unwrap_or(0);
        let word = words[drawn].as_bytes();
        let taken = word.len().min(out.len() - at);
        out[at..at + taken].copy_from_slice(&word[..taken]);
        at += taken;
    }
}

/// Words with a blank behind each, always the same ones.
fn words() -> Vec<String> {
    const SYLLABLES: [&str; 24] = [
        "ba", "cor", "de", "fin", "ga", "hul", "in", "ka", "lo", "mer", "na", "op", "pel", "qua",
        "ri", "sto", "ta", "un", "ve", "wim", "xo", "yer", "za", "end",
    ];
    let mut draws = Draws::from(7);
    let mut word = |_| {
        let count = 2 + draws.below(3);
        let mut word = String::new();
        for _ in 0..count {
            let drawn = usize::try_from(draws.below(SYLLABLES.len() as u64)).unwrap_or(0);
            word.push_str(SYLLABLES[drawn]);
        }
        word.push(' ');
        word
    };
    (0..WORDS).map(&mut word).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sources::datagen::DatagenConfig;
    use crate::sources::datagen::generate::change;

    #[test]
    fn documents_have_the_size_asked_for() {
        for bytes in [320, 400, 1024, 5000, 100_000] {
            let template = Template::new(0, bytes).unwrap();
            let length = template.marked.value.len();
            assert!(length.abs_diff(bytes) <= 8, "{length} bytes instead of {bytes}");
        }
    }

    #[test]
    fn documents_compress_as_real_ones_do() {
        let config = DatagenConfig::default();
        let template = Template::new(0, 1024).unwrap();
        let (mut all, mut one) = (Vec::new(), Vec::new());
        for n in 0..256 {
            let generated = change(&config, 0, n);
            template.render(generated.row, &generated.order, &mut one);
            all.extend_from_slice(&one);
        }
        let packed = zstd::bulk::compress(&all, 1).unwrap().len();
        let tenths = all.len() * 10 / packed;
        assert!((30..=40).contains(&tenths), "compresses by {tenths} tenths");
    }

    proptest! {
        #[test]
        fn rendering_gives_what_encoding_gives(
            n in any::<u64>(), shard in 0_u32..1024, bytes in 320_usize..3000
        ) {
            let generated = change(&DatagenConfig::default(), shard, n);
            let template = Template::new(shard, bytes).unwrap();
            let mut rendered = Vec::new();
            template.render(generated.row, &generated.order, &mut rendered);
            let encoded = encode(&template.value(generated.row, &generated.order)).unwrap();
            prop_assert_eq!(template.dictionary(), &encoded.dictionary[..]);
            prop_assert_eq!(rendered, encoded.value);
        }
    }
}
