//! Places in a feed, as text and in a file.

use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;

use tidegate_proto::Token;

use crate::failure::{Failure, Result};
use crate::hex;

/// Where a subscriber begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Everything still retained.
    Earliest,
    /// What comes after the call.
    Latest,
    /// Behind what a token names.
    Behind(Vec<u8>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            token => decode(token).map(Self::Behind).ok_or_else(|| {
                "use earliest, latest, or a token as `feed tail` printed it, whole".to_owned()
            }),
        }
    }
}

/// The token that was written as `text`; `None` if it is none, or was changed since.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.trim()).filter(|bytes| Token::decode(bytes).is_ok())
}

/// The token kept in `path`; `None` while there is no such file.
pub(super) fn load(path: &Path) -> Result<Option<Vec<u8>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(trouble("read", path, &error)),
    };
    decode(&text).map(Some).ok_or_else(|| {
        let path = path.display();
        Failure::failed(format!(
            "{path} does not hold a feed token; remove it and say --from to begin anew"
        ))
    })
}

/// Puts `token` into `path`: after a crash it holds this one or the one before.
pub(super) fn save(path: &Path, token: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let write = || {
        let mut file = std::fs::File::create(new)?;
        file.write_all(hex::encode(token).as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        std::fs::rename(new, path)
    };
    write().map_err(|error| trouble("write", path, &error))
}

fn trouble(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{verb} the token file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use tidegate_proto::Sequence;

    use super::*;

    fn token() -> Vec<u8> {
        let sequences = [(0, Sequence(300))].into();
        Token { cluster_id: "c".to_owned(), export_id: 3, sequences }.encode()
    }

    #[test]
    fn a_token_comes_back_from_its_text() {
        assert_eq!(decode(&hex::encode(&token())), Some(token()));
        let text = hex::encode(&token());
        assert_eq!(text.parse(), Ok(Place::Behind(token())));
        assert_eq!("latest".parse(), Ok(Place::Latest));
    }

    #[test]
    fn a_token_that_was_cut_or_changed_is_refused() {
        let text = hex::encode(&token());
        for bad in [&text[..text.len() - 2], &text[1..], "", "zz", "+1", "oldest", "é1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_file_holds_the_last_token_saved() {
        let dir = std::env::temp_dir().join(format!("tidegate-token-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("place");
        assert_eq!(load(&path), Ok(None));
        save(&path, &token()).unwrap();
        assert_eq!(load(&path), Ok(Some(token())));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("does not hold a feed token"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
