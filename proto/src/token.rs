//! Where a feed subscriber is, as it carries it from call to call.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message as _;

use crate::ids::Sequence;
use crate::v1::FeedToken;

const VERSION: u8 = 1;
/// A token of 100,000 shards stays below this.
const TOKEN_BYTES_MAX: usize = 2 << 20;

/// A place in an export's feed: the last sequence seen of each shard.
///
/// ```text
///   version (1)   crc32c (4, of the rest)   FeedToken (protobuf)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The cluster that made it.
    pub cluster_id: String,
    /// The export it belongs to.
    pub export_id: u64,
    /// By shard index; a shard not named here was not seen yet.
    pub sequences: BTreeMap<u32, Sequence>,
}

impl Token {
    /// The bytes a subscriber keeps.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = FeedToken {
            cluster_id: self.cluster_id.clone(),
            export_id: self.export_id,
            sequences: self.sequences.iter().map(|(shard, at)| (*shard, at.0)).collect(),
        };
        let body = message.encode_to_vec();
        let mut out = vec![VERSION];
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads what [`Token::encode`] made, whatever happened to it since.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let (Some((&VERSION, rest)), true) = (bytes.split_first(), bytes.len() <= TOKEN_BYTES_MAX)
        else {
            return Err(TokenError);
        };
        let (crc, body) = rest.split_first_chunk::<4>().ok_or(TokenError)?;
        if u32::from_be_bytes(*crc) != crc32c::crc32c(body) {
            return Err(TokenError);
        }
        let message = FeedToken::decode(body).map_err(|_| TokenError)?;
        Ok(Self {
            cluster_id: message.cluster_id,
            export_id: message.export_id,
            sequences: message.sequences.into_iter().map(|(s, at)| (s, Sequence(at))).collect(),
        })
    }
}

/// The bytes are not a token, or were changed since one was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenError;

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a feed token: hand back the bytes of a response's token unchanged")
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        let sequences = [(0, Sequence(7)), (3, Sequence(900))].into();
        Token { cluster_id: "c".to_owned(), export_id: 5, sequences }
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        assert_eq!(Token::decode(&token().encode()), Ok(token()));
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let good = token().encode();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(Token::decode(&bad), Err(TokenError), "bit {at}");
        }
    }

    proptest! {
        #[test]
        fn any_token_comes_back(
            cluster_id in ".{0,20}",
            export_id: u64,
            places in proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..30),
        ) {
            let sequences = places.into_iter().map(|(shard, at)| (shard, Sequence(at))).collect();
            let token = Token { cluster_id, export_id, sequences };
            prop_assert_eq!(Token::decode(&token.encode()), Ok(token));
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..99)) {
            prop_assert_eq!(Token::decode(&body), Err(TokenError));
            // With a checksum that fits, so that what is behind it is reached.
            let sealed = [&[VERSION][..], &crc32c::crc32c(&body).to_be_bytes(), &body].concat();
            if let Ok(token) = Token::decode(&sealed) {
                prop_assert_eq!(Token::decode(&token.encode()), Ok(token));
            }
        }
    }
}
