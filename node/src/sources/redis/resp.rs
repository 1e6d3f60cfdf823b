//! The stream of commands, as a primary sends them: a pure core.

use bytes::BytesMut;

/// Bytes a command may have, all arguments together.
pub(super) const COMMAND_BYTES_MAX: usize = 256 << 20;
/// Arguments a command may have.
const ARGUMENTS_MAX: usize = 4 << 20;
/// Bytes of a line that announces a count or a length.
const LINE_BYTES_MAX: usize = 64;

/// A command: its name, then its arguments, lent from a [`Taken`]. Empty: a line that
/// keeps the connection alive.
pub(super) type Command<'a> = [&'a [u8]];

/// A command has one of these names, however it is spelt.
pub(super) fn is_any(command: &Command<'_>, names: &[&[u8]]) -> bool {
    command.first().is_some_and(|name| names.iter().any(|it| name.eq_ignore_ascii_case(it)))
}

/// The bytes of one command, off the stream.
pub(super) struct Taken {
    bytes: BytesMut,
    /// Where each argument lies.
    places: Vec<(usize, usize)>,
}

impl Taken {
    /// Name and arguments.
    pub(super) fn parts(&self) -> Vec<&[u8]> {
        self.places.iter().map(|(from, to)| &self.bytes[*from..*to]).collect()
    }

    /// What the primary counts.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Why no command could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RespError {
    /// More bytes are needed: so many in all, at least.
    Short(usize),
    /// Not a command; says where it goes wrong.
    Corrupt(&'static str),
}

/// Takes the first command off `buffer`.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Taken, RespError> {
    let mut places = Vec::with_capacity(4);
    let end = scan(buffer, &mut places)?;
    Ok(Taken { bytes: buffer.split_to(end), places })
}

/// Finds where each argument lies; gives where the command ends.
fn scan(bytes: &[u8], places: &mut Vec<(usize, usize)>) -> Result<usize, RespError> {
    let Some(first) = bytes.first() else { return Err(RespError::Short(1)) };
    match first {
        b'*' => {}
        b'\n' => return Ok(1),
        b'\r' if bytes.len() == 1 => return Err(RespError::Short(2)),
        b'\r' if bytes[1] == b'\n' => return Ok(2),
        _ => return Err(RespError::Corrupt("what comes is not a command")),
    }
    let (count, mut at) = number(bytes, 1)?;
    if count > ARGUMENTS_MAX {
        return Err(RespError::Corrupt("a command has too many arguments"));
    }
    for _ in 0..count {
        match bytes.get(at) {
            None => return Err(RespError::Short(at + 1)),
            Some(b'$') => {}
            Some(_) => return Err(RespError::Corrupt("an argument is not a string")),
        }
        let (size, from) = number(bytes, at + 1)?;
        let to = from + size;
        if to > COMMAND_BYTES_MAX {
            return Err(RespError::Corrupt("a command is over the limit of 256 MiB"));
        }
        at = to + 2;
        let end = bytes.get(to..at).ok_or(RespError::Short(at))?;
        if end != b"\r\n" {
            return Err(RespError::Corrupt("an argument does not end where it should"));
        }
        places.push((from, to));
    }
    Ok(at)
}

/// The number in the line from `at` on, and where the line ends.
fn number(bytes: &[u8], at: usize) -> Result<(usize, usize), RespError> {
    let mut number = 0_usize;
    let mut digits = 0;
    for (place, byte) in bytes[at..].iter().enumerate().take(LINE_BYTES_MAX) {
        match byte {
            b'0'..=b'9' => {
                number = number.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                digits += 1;
            }
            b'\r' if digits > 0 => {
                let end = at + place + 2;
                return match bytes.get(end - 1) {
                    None => Err(RespError::Short(end)),
                    Some(b'\n') if number <= COMMAND_BYTES_MAX => Ok((number, end)),
                    Some(_) => Err(RespError::Corrupt("the line of a length")),
                };
            }
            _ => return Err(RespError::Corrupt("a length")),
        }
    }
    if bytes.len() - at >= LINE_BYTES_MAX {
        return Err(RespError::Corrupt("a length"));
    }
    Err(RespError::Short(bytes.len() + 1))
}

/// A command as it is written.
pub(super) fn write(arguments: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A command's name and arguments.
    type Words = Vec<Vec<u8>>;

    /// The commands of a stream that comes in pieces of `piece` bytes, each with where it
    /// ends, and what is wrong behind them.
    pub(in crate::sources::redis) fn take_pieces(
        bytes: &[u8],
        piece: usize,
    ) -> (Vec<(Words, usize)>, Option<RespError>) {
        let (mut buffer, mut offset, mut found) = (BytesMut::new(), 0, Vec::new());
        let mut parts = bytes.chunks(piece);
        loop {
            let before = buffer.len();
            let wanted = match take(&mut buffer) {
                Ok(taken) => {
                    assert_eq!(taken.bytes.len() + buffer.len(), before);
                    offset += taken.bytes.len();
                    found.push((taken.parts().into_iter().map(<[u8]>::to_vec).collect(), offset));
                    continue;
                }
                Err(RespError::Short(wanted)) => wanted,
                Err(error @ RespError::Corrupt(_)) => return (found, Some(error)),
            };
            assert!(wanted > before, "it asks for more than it has");
            match parts.next() {
                Some(part) => buffer.extend_from_slice(part),
                None => return (found, None),
            }
        }
    }

    proptest! {
        #[test]
        fn commands_come_back_with_their_bytes_however_they_are_cut(
            commands in prop::collection::vec(prop::collection::vec(any::<Vec<u8>>(), 1..5), 1..5),
            piece in 1..40_usize,
        ) {
            let mut bytes = b"\n\r\n".to_vec();
            let mut ends = vec![1, 3];
            for command in &commands {
                write(&command.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut bytes);
                ends.push(bytes.len());
            }
            let (found, wrong) = take_pieces(&bytes, piece);
            prop_assert_eq!(wrong, None);
            prop_assert_eq!(found.iter().map(|(_, end)| *end).collect::<Vec<_>>(), ends);
            let found: Vec<_> = found.into_iter().skip(2).map(|(command, _)| command).collect();
            prop_assert_eq!(found, commands);
        }

        #[test]
        fn any_bytes_are_a_command_or_refused(bytes in "[*$0-9a\r\n]{0,30}") {
            let mut buffer = BytesMut::from(bytes.as_bytes());
            let before = buffer.len();
            if let Ok(taken) = take(&mut buffer) {
                prop_assert_eq!(taken.bytes.len() + buffer.len(), before);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_comes() {
        let refused = |bytes: &[u8]| take(&mut BytesMut::from(bytes)).err().unwrap();
        assert!(matches!(refused(b"*1\r\n$999999999999\r\n"), RespError::Corrupt(_)));
        assert!(matches!(refused(b"*99999999\r\n"), RespError::Corrupt(_)));
        assert_eq!(refused(b"*1\r\n$5\r\nab"), RespError::Short(15));
        assert!(matches!(refused(&[b'*'; 1]), RespError::Short(_)));
        assert!(matches!(refused(b"PING\r\n"), RespError::Corrupt(_)));
    }
}
