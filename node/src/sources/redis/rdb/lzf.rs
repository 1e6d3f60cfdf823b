//! Unpacks LZF, as dumps compress longer strings.

/// The `wanted` bytes that `packed` stands for; `None` if it does not.
pub(super) fn unpack(packed: &[u8], wanted: usize) -> Option<Vec<u8>> {
    // What is claimed says nothing until it is there: three bytes give 264 at most.
    let mut out = Vec::with_capacity(wanted.min(packed.len().saturating_mul(88)));
    let mut rest = packed.iter();
    while let Some(control) = rest.next() {
        let control = usize::from(*control);
        if control < 32 {
            let (literal, behind) = rest.as_slice().split_at_checked(control + 1)?;
            out.extend_from_slice(literal);
            rest = behind.iter();
        } else {
            let mut length = control >> 5;
            if length == 7 {
                length += usize::from(*rest.next()?);
            }
            let back = ((control & 0x1f) << 8) + usize::from(*rest.next()?) + 1;
            let from = out.len().checked_sub(back)?;
            // It may overlap what it makes.
            for at in from..from + length + 2 {
                out.push(out[at]);
            }
        }
        if out.len() > wanted {
            return None;
        }
    }
    (out.len() == wanted).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_and_repeats_are_unpacked() {
        // "ab", then 3 + 2 bytes from 2 back.
        assert_eq!(unpack(&[1, b'a', b'b', 3 << 5, 1], 7).unwrap(), b"abababa");
        // 7 + 1 + 2 bytes from 1 back.
        assert_eq!(unpack(&[0, b'x', 7 << 5, 1, 0], 11).unwrap(), [b'x'; 11]);
        assert_eq!(unpack(&[0, b'x', 1 << 5, 1], 4), None, "from before the beginning");
        assert_eq!(unpack(&[1, b'a'], 2), None, "cut off");
        assert_eq!(unpack(&[0, b'a'], 2), None, "too short");
    }

    proptest! {
        #[test]
        fn any_bytes_unpack_or_do_not(packed in prop::collection::vec(any::<u8>(), 0..64), wanted in 0..300_usize) {
            prop_assert!(unpack(&packed, wanted).is_none_or(|out| out.len() == wanted));
        }
    }
}
