//! How positions are written down.

use crate::hex;

/// What stands before hexadecimal digits.
const HEX: &str = "hex:";

/// As it is if it is plain text, else in hexadecimal.
pub(crate) fn text(position: &[u8]) -> String {
    match std::str::from_utf8(position) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
        Ok(_) | Err(_) => format!("{HEX}{}", hex::encode(position)),
    }
}

/// Of a position that [`text`] wrote.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("a position must not be empty".to_owned());
    }
    let Some(digits) = text.strip_prefix(HEX) else { return Ok(text.as_bytes().to_vec()) };
    let why = "behind hex: stands an even number of hexadecimal digits";
    hex::decode(digits).ok_or_else(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_text_if_it_can_be_read() {
        assert_eq!(text(b"8f2a:1730:0"), "8f2a:1730:0");
        assert_eq!(text(&[0, 255]), "hex:00ff");
        assert_eq!(text(b"two words"), "hex:74776f20776f726473");
    }

    #[test]
    fn what_was_written_is_read() {
        for position in [&b"8f2a:1730:0"[..], &[0, 255], &[7; 100], b"two words", &[0xab]] {
            assert_eq!(parse(&text(position)).unwrap(), position);
        }
        assert_eq!(parse("hex:AB").unwrap(), [0xab]);
        for wrong in ["", "hex:", "hex:0", "hex:0g", "hex:+1", "hex:\u{664}1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
