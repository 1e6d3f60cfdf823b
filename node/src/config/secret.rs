//! A text of an export file that is never printed.

use std::fmt;

use serde::Deserialize;

/// May hold `${env:NAME}` and `${file:PATH}`, which whoever uses it puts in.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(pub(crate) String);

/// It may have been written out instead of referred to.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
