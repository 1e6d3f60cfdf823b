//! A text of an export file that is never printed.

use std::fmt;

use serde::Deserialize;

/// May hold `${env:NAME}` and `${file:PATH}`, which whoever uses it puts in.
#[derive(Clone, Deserialize)]
pub(in crate::sinks) struct Secret(pub(in crate::sinks) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
