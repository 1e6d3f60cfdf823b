//! The types the consensus library is set up with.

use std::fmt;

use openraft::impls::OneshotResponder;
use openraft::{Entry, RaftTypeConfig, TokioRuntime};
use prost::Message as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_proto::v1::{Command, Outcome};

/// The command format this build proposes, and the only one it applies.
pub const COMMAND_VERSION: u32 = 1;

/// What Raft is made of here; use it as `openraft::Raft<TypeConfig>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Answer;
    type NodeId = u64;
    type Node = Peer;
    type Entry = Entry<Self>;
    type SnapshotData = tokio::fs::File;
    type AsyncRuntime = TokioRuntime;
    type Responder = OneshotResponder<Self>;
}

/// Where a member of the group is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// host:port of its gRPC endpoint.
    pub address: String,
}

/// An encoded [`Command`]: the log never needs to look inside.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(Vec<u8>);

impl Proposal {
    /// Encodes `command`, which must say [`COMMAND_VERSION`] and have a kind;
    /// otherwise every node that comes to apply it stops.
    #[must_use]
    pub fn new(command: &Command) -> Self {
        Self(command.encode_to_vec())
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The command, with every byte field in memory of its own, so that state
    /// never keeps a whole log entry alive.
    ///
    /// # Errors
    ///
    /// Why this build cannot apply it: it is damaged or from another version.
    pub fn command(&self) -> Result<Command, String> {
        let command = Command::decode(self.0.as_slice())
            .map_err(|error| format!("the command does not decode: {error}"))?;
        if command.version != COMMAND_VERSION {
            return Err(format!(
                "the command has format {}, this build knows {COMMAND_VERSION}; \
                 run the version of tidegated that proposed it",
                command.version
            ));
        }
        if command.kind.is_none() {
            return Err("the command is of a kind this build does not know; \
                        run the version of tidegated that proposed it"
                .to_owned());
        }
        Ok(command)
    }
}

/// Its size only: commands may hold what an operator wrote.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer).map(Self)
    }
}

/// What the state said to a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer(pub Outcome);

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(&self.0.encode_to_vec(), serializer)
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = read_bytes(deserializer)?;
        Outcome::decode(bytes.as_slice()).map(Self).map_err(D::Error::custom)
    }
}

/// Bytes as they are, or as hex where the format is text: half the size of the
/// list of numbers that JSON would make of them.
fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return serializer.serialize_bytes(bytes);
    }
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from(HEX[usize::from(half)]));
        }
    }
    serializer.serialize_str(&text)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Bytes)
    } else {
        deserializer.deserialize_byte_buf(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, or text of two hex digits each")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        if !text.len().is_multiple_of(2) {
            return Err(E::custom("hex text of odd length"));
        }
        text.as_bytes().chunks_exact(2).map(|pair| from_hex(pair[0], pair[1])).collect()
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

fn from_hex<E: serde::de::Error>(high: u8, low: u8) -> Result<u8, E> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match (digit(high), digit(low)) {
        (Some(high), Some(low)) => Ok(high << 4 | low),
        (Some(_) | None, _) => Err(E::custom("a character that is no hex digit")),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Created, command, outcome};

    use super::*;

    #[test]
    fn proposals_and_answers_survive_json() {
        let proposal = Proposal((0..=255).collect());
        let text = serde_json::to_string(&proposal).unwrap();
        assert_eq!(serde_json::from_str::<Proposal>(&text).unwrap(), proposal);

        let kind = Some(outcome::Kind::Created(Created { id: u64::MAX }));
        let answer = Answer(Outcome { kind });
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }

    #[test]
    fn text_that_is_not_hex_is_refused() {
        for text in ["\"0\"", "\"0g\"", "\"é0\"", "7"] {
            assert!(serde_json::from_str::<Proposal>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_of_another_version_is_refused() {
        let kind = Some(command::Kind::ClusterCreate(Default::default()));
        let known = Command { version: COMMAND_VERSION, kind: kind.clone(), ..Default::default() };
        assert_eq!(Proposal::new(&known).command().unwrap(), known);

        let newer = Command { version: COMMAND_VERSION + 1, kind, ..Default::default() };
        assert!(Proposal::new(&newer).command().unwrap_err().contains("format 2"));
        let empty = Command { version: COMMAND_VERSION, ..Default::default() };
        assert!(Proposal::new(&empty).command().unwrap_err().contains("kind"));
        assert!(Proposal(vec![0xff; 3]).command().is_err());
    }
}
