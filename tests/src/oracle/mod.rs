//! Who judges what comes out: subscribers, sinks and checkpoints against what the
//! sources are known to have made. Nothing here reads a log of ours.

mod bank;
mod generated;
mod items;
mod memory;
mod sinks;
mod watch;

pub use bank::{ACCOUNTS, Account, Ledger, Teller, Totals};
pub use generated::Generated;
pub use items::{Items, Scribe, Versions};
pub use memory::Memory;
pub use sinks::{
    JsonChange, bank_in_lake, generated_in_lake, items_in_lake, jsonl, table, table_checkpoints,
};
pub use watch::{Checkpoints, Cluster as Observed, Watch};
