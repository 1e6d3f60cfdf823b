//! A PostgreSQL database, behind a proxy of ours.

use super::SINK;
use super::doubt::Doubter;
use crate::Outcome;
use crate::postgres::Postgres;

/// Where nodes find it.
const PORT: u16 = 9001;

/// An empty database. Dropping it ends it.
#[derive(Debug)]
pub struct Database {
    /// What all connections of nodes pass.
    pub doubter: Doubter,
    /// The server, past the proxy.
    pub server: Postgres,
}

impl Database {
    pub(super) async fn start() -> Outcome<Self> {
        // One that does not sync is refused.
        let server = Postgres::start(&["fsync=on"]).await;
        let upstream = ([127, 0, 0, 1], server.port()).into();
        let doubter = Doubter::start((SINK.address(), PORT).into(), upstream).await?;
        Ok(Self { doubter, server })
    }

    /// The keys of a `[[sink]]` of kind `postgres` that has a row for each change,
    /// in a table with the export's name.
    #[must_use]
    pub fn table(&self) -> String {
        let address = SINK.address();
        format!(
            "url = \"postgres://postgres@{address}:{PORT}/postgres\"\ntls = false\n\
             mode = \"append\"\ntable = \"{{export}}\"\ndelay-ms = 500\n"
        )
    }
}
