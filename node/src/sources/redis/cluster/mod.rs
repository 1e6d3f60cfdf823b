//! A whole cluster as one shard (`adr/0013`).
//!
//! ```text
//!   primary A ── stream ── gate ──┐                        ┌── what it computed ──┐
//!   primary B ── stream ── gate ──┼── in turn ── the board ┤                      ├── batch
//!   primary C ── stream ── gate ──┘                        └── keys read back ────┘
//! ```
//!
//! Each primary's stream is read as that of a single server, over the keys of the slots
//! that are read there. What any stream says of a slot that is on the move is only a
//! reason to read the key back from whoever has it, so that no order between two
//! streams is needed.
//!
//! ```text
//!   slots, keys       which slot, which keys                 pure
//!   nodes, plan       who is there, who goes on for whom     pure
//!   board             what each slot is                      pure
//!   position          where all streams are                  pure
//!   gate, slice       what one stream sees of the others
//!   stream            all of them
//! ```

mod board;
mod check;
mod gate;
mod keys;
mod nodes;
mod plan;
mod position;
mod slice;
mod slots;
mod stream;

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::sources::redis::config::RedisConfig;
use crate::sources::redis::wire::Wire;

pub(super) use check::checks;
pub(super) use gate::Gate;
pub(super) use keys::keys;
pub(super) use position::Places;
#[cfg(test)]
pub(super) use slots::slot_of;
pub(super) use stream::{ClusterStream, Whole};

use nodes::{Node, Role};

/// Where nodes of a cluster were last seen: those that the export's file names may all
/// be gone.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Vec<String>>);

/// Who is in the cluster, as the first node says that can be asked and has primaries
/// with slots.
async fn nodes(config: &RedisConfig, seen: &Seen) -> Result<Vec<Node>> {
    let mut addresses = config.addresses()?;
    addresses.extend(seen.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let mut why = None;
    for address in addresses {
        let asked = async {
            let mut wire = Wire::connect(&config.at(&address)).await?;
            gate::ask_nodes(&mut wire).await
        };
        match asked.await {
            Ok(nodes) if nodes.iter().any(|node| !node.slots.is_empty()) => {
                let addresses = nodes.iter().map(|node| node.address.clone()).collect();
                *seen.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
                return Ok(nodes);
            }
            Ok(_) => {
                let wrong = format!("redis at {address}: it is in no cluster that has slots");
                why = Some(Error::new(ErrorKind::Unavailable, wrong));
            }
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| Error::new(ErrorKind::Config, "[source]: endpoint names no server")))
}

/// Keys of all primaries.
pub(super) async fn count_keys(config: &RedisConfig, seen: &Seen) -> Result<u64> {
    let mut keys = 0;
    for node in nodes(config, seen).await?.iter().filter(|node| node.role == Role::Primary) {
        keys += super::check::describe(&config.at(&node.address)).await?.keys;
    }
    Ok(keys)
}
