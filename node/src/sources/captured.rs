//! What was captured of a shard, for sources that compute changes from it.

use bytes::Bytes;

use crate::error::Result;

/// The last document of each key of one shard, as its log has them: a fold of
/// all that was captured. Kept on every copy, so that a new owner has it too.
pub trait Captured: Send + Sync {
    /// How far it can be relied on.
    fn known(&self) -> Result<Known>;

    /// What was captured last of a key; `None` if it is not there.
    fn last(&self, collection: &str, key: &[u8]) -> Result<Option<Last>>;

    /// The next keys behind this one, up to `most` of them: collections one
    /// after the other, those with shorter names first, keys by their bytes.
    fn keys_after(
        &self,
        collection: &str,
        key: &[u8],
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>>;

    /// Notes that these keys are there still.
    fn mark(&self, keys: &[(String, Vec<u8>)]) -> Result<()>;

    /// This key was marked since marks were cleared.
    fn is_marked(&self, collection: &str, key: &[u8]) -> Result<bool>;

    /// Clears all marks.
    fn clear_marks(&self) -> Result<()>;

    /// What is captured by now is all there is, exactly.
    fn settle(&self) -> Result<()>;
}

/// How far what was captured can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Every key is known, though perhaps not what it holds. Not so on a node
    /// whose copy began behind what the log retained.
    pub whole: bool,
    /// What is known of keys is what they hold. Not so where a part of the log
    /// was taken back that had been counted in.
    pub exact: bool,
}

/// What was captured last of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// Variant metadata and value.
    Document {
        /// Variant metadata.
        dictionary: Bytes,
        /// Variant value.
        value: Bytes,
    },
    /// The key may be there, and what it holds is not known.
    Unknown,
}
