//! Strings as bits.

use super::arguments::Arguments;
use super::strings::{edit, grow};
use super::{Done, Place, Stop};
use crate::sources::redis::object::{Entry, Object};

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"SETBIT" => {
            let (key, at) = (rest.next()?, rest.parse::<usize>("an offset")?);
            let on = rest.parse::<u8>("a bit")? != 0;
            edit(place, key, |bytes| {
                cover(bytes, at.checked_add(1).ok_or(Stop::Reread("an offset"))?)?;
                put_bit(bytes, at, on);
                Ok(())
            })
        }
        b"BITOP" => bitop(place, rest),
        b"BITFIELD" => bitfield(place, rest),
        _ => Err(Stop::Unknown),
    }
}

/// Makes room for so many bits.
fn cover(bytes: &mut Vec<u8>, bits: usize) -> Done {
    let wanted = bits.div_ceil(8);
    if bytes.len() < wanted { grow(bytes, wanted) } else { Ok(()) }
}

fn put_bit(bytes: &mut [u8], at: usize, on: bool) {
    let mask = 0x80 >> (at % 8);
    let byte = &mut bytes[at / 8];
    *byte = if on { *byte | mask } else { *byte & !mask };
}

fn bitop(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let operation = rest.next()?.to_ascii_uppercase();
    let target = rest.next()?;
    let mut inputs = Vec::new();
    for key in rest.rest() {
        let bytes: Vec<u8> = place.keys.content(*place.db, key)?;
        if crate::sources::redis::sketch::canonical(&bytes).is_some() {
            return Err(Stop::Reread("bytes of a HyperLogLog are read"));
        }
        inputs.push(bytes);
    }
    let combine: fn(u8, u8) -> u8 = match &operation[..] {
        b"AND" => |one, two| one & two,
        b"OR" => |one, two| one | two,
        b"XOR" => |one, two| one ^ two,
        b"NOT" => |one, _| one,
        // DIFF and its kin, from Redis 8.2 on.
        _ => return Err(Stop::Reread("an operation on bits that is not known")),
    };
    let length = inputs.iter().map(Vec::len).max().unwrap_or(0);
    let bit = |bytes: &Vec<u8>, at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut out = Vec::with_capacity(length);
    for at in 0..length {
        let combined = inputs.iter().map(|bytes| bit(bytes, at)).reduce(combine).unwrap_or(0);
        out.push(if operation == b"NOT" { !combined } else { combined });
    }
    if out.is_empty() {
        return Ok(place.keys.delete(*place.db, target)?);
    }
    Ok(place.keys.put(*place.db, target, Entry::of(Object::string(out)))?)
}

/// An integer in a string of bits.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    bits: u32,
    at: usize,
}

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

fn bitfield(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let key = rest.next()?;
    edit(place, key, |bytes| {
        let mut overflow = Overflow::Wrap;
        while !rest.is_empty() {
            let word = rest.next()?.to_ascii_uppercase();
            match &word[..] {
                b"OVERFLOW" => overflow = Overflow::parse(rest.next()?),
                b"GET" => drop(rest.take(2)?),
                b"SET" => set_field(bytes, rest, (true, overflow))?,
                b"INCRBY" => set_field(bytes, rest, (false, overflow))?,
                _ => return Err(Stop::Unknown),
            }
        }
        Ok(())
    })
}

/// Sets a field to a number, or adds that to it.
fn set_field(
    bytes: &mut Vec<u8>,
    rest: &mut Arguments<'_>,
    (anew, overflow): (bool, Overflow),
) -> Done {
    let field = field(rest)?;
    let by: i64 = rest.parse("a number")?;
    cover(bytes, field.at + usize::try_from(field.bits).unwrap_or(64))?;
    let wanted = match anew {
        // As wide as Redis takes it, without a sign.
        true if !field.signed => i128::from(by).rem_euclid(1 << 64),
        true => i128::from(by),
        false => field.read(bytes) + i128::from(by),
    };
    if let Some(value) = field.fit(wanted, overflow) {
        field.write(bytes, value);
    }
    Ok(())
}

impl Overflow {
    fn parse(word: &[u8]) -> Self {
        match &word.to_ascii_uppercase()[..] {
            b"WRAP" => Self::Wrap,
            b"SAT" => Self::Saturate,
            _ => Self::Fail,
        }
    }
}

/// As `u8 #3`: type, then an offset in bits or, behind `#`, in fields.
fn field(rest: &mut Arguments<'_>) -> Result<Field, Stop> {
    let wrong = || Stop::Reread("a field of bits");
    let (sign, bits) = rest.next()?.split_first().ok_or_else(wrong)?;
    let bits: u32 = super::arguments::parse(bits, "a field of bits")?;
    let signed = sign.eq_ignore_ascii_case(&b'i');
    if bits == 0 || bits > 64 {
        return Err(wrong());
    }
    let offset = rest.next()?;
    let at = match offset.strip_prefix(b"#") {
        Some(number) => {
            let number: usize = super::arguments::parse(number, "a field of bits")?;
            number.checked_mul(usize::try_from(bits).unwrap_or(64))
        }
        None => Some(super::arguments::parse(offset, "a field of bits")?),
    };
    // As many bits as a string has.
    let at = at.filter(|at| *at < 1 << 32).ok_or_else(wrong)?;
    Ok(Field { signed, bits, at })
}

impl Field {
    fn read(self, bytes: &[u8]) -> i128 {
        let mut value = 0_i128;
        for at in self.at..self.at + usize::try_from(self.bits).unwrap_or(64) {
            let bit = bytes.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
            value = value << 1 | i128::from(bit);
        }
        let top = 1 << (self.bits - 1);
        if self.signed && value & top != 0 { value - (top << 1) } else { value }
    }

    fn write(self, bytes: &mut [u8], value: i128) {
        for place in 0..self.bits {
            let on = value >> (self.bits - 1 - place) & 1 == 1;
            put_bit(bytes, self.at + usize::try_from(place).unwrap_or(0), on);
        }
    }

    /// `value` as the field holds it; `None`: it is not written.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i128> {
        let size = 1_i128 << self.bits;
        let (least, most) = if self.signed { (-size / 2, size / 2 - 1) } else { (0, size - 1) };
        if (least..=most).contains(&value) {
            return Some(value);
        }
        match overflow {
            Overflow::Wrap => Some(value.rem_euclid(size)),
            Overflow::Saturate => Some(value.clamp(least, most)),
            Overflow::Fail => None,
        }
    }
}
