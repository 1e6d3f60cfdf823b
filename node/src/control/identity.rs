//! Who this node is, for as long as its folder lives.

use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate_proto::NodeId;

use crate::error::{Error, ErrorKind, Result};

const FILE: &str = "identity.json";

/// The cluster a data folder belongs to, and the id the cluster gave it.
///
/// Written once, before the node first votes. A folder without it is a new
/// node; copying a folder makes a second node with the same id: do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Made when the cluster was.
    pub cluster_id: String,
    node: u64,
}

impl Identity {
    /// The identity of `node` in `cluster_id`.
    #[must_use]
    pub fn new(cluster_id: String, node: NodeId) -> Self {
        Self { cluster_id, node: node.0 }
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// Reads it from a data folder; `None` if the folder is new.
    pub fn load(data: &Path) -> Result<Option<Self>> {
        let path = data.join(FILE);
        let place = path.display();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::new(ErrorKind::Config, format!("read {place}")).because(error));
            }
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let why = format!("{place} is damaged; empty this folder and let the node join anew, under another name");
            Error::new(ErrorKind::Corrupt, why).because(error)
        })
    }

    /// Writes it so that it survives a power cut.
    pub fn save(&self, data: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "encode the identity").because(error)
        })?;
        write_whole(&data.join(FILE), &text)
    }
}

/// Writes a small file so that after a power cut it is there whole, or as before.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| {
        Error::new(ErrorKind::Config, format!("write {}", path.display())).because(error)
    };
    let temporary = path.with_extension("new");
    let mut file = std::fs::File::create(&temporary).map_err(fail)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&temporary, path).map_err(fail)?;
    let folder = path.parent().unwrap_or(path);
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_and_damage_is_named() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(data.path()).unwrap(), None);
        let identity = Identity::new("c1".to_owned(), NodeId(7));
        identity.save(data.path()).unwrap();
        assert_eq!(Identity::load(data.path()).unwrap(), Some(identity));
        std::fs::write(data.path().join(FILE), "{").unwrap();
        let error = Identity::load(data.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
