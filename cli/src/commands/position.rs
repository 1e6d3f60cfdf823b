//! `tidegate position`.

use clap::Subcommand;
use serde::Serialize;
use tidegate_proto::v1::Shard;

use crate::cluster::Cluster;
use crate::failure::Result;
use crate::output::{self, Format};
use crate::table::Rows;

/// Characters of a position in a table; `--output json` has all of it.
const SHOWN_MAX: usize = 80;

#[derive(Debug, Subcommand)]
pub(crate) enum PositionCommand {
    /// Show where each shard is in its source
    #[command(after_help = "Examples:
  tidegate position show orders
  tidegate --output json position show orders

A position is the source's own. One that is not plain text is shown as hexadecimal digits
behind hex:, in a table only its beginning.")]
    Show {
        /// Name of the export
        export: String,
    },
}

#[derive(Debug, Serialize)]
struct PositionsView {
    positions: Vec<PositionView>,
}

#[derive(Debug, Serialize)]
struct PositionView {
    shard: String,
    /// The last change captured by then.
    sequence: u64,
    /// Empty before the shard is anchored.
    position: String,
}

impl From<&Shard> for PositionView {
    fn from(shard: &Shard) -> Self {
        let captured = shard.captured.as_ref();
        let reached = captured.and_then(|at| at.progress.as_ref()).or(shard.anchor.as_ref());
        Self {
            shard: shard.spec.as_ref().map_or_else(String::new, |spec| spec.name.clone()),
            sequence: captured.map_or(0, |at| at.sequence),
            position: reached.map_or_else(String::new, |at| text(&at.stream)),
        }
    }
}

/// Does what was asked about positions.
pub(crate) async fn run(
    command: PositionCommand,
    mut cluster: Cluster,
    format: Format,
) -> Result<()> {
    let PositionCommand::Show { export } = command;
    let shards = cluster.shards(&export).await?.shards;
    let positions = shards.iter().map(PositionView::from).collect();
    output::show(format, &PositionsView { positions }, |it| table(&it.positions))
}

fn table(positions: &[PositionView]) -> String {
    let mut rows = Rows::new(&["SHARD", ">SEQUENCE", "POSITION"]);
    for view in positions {
        let mut shown: String = view.position.chars().take(SHOWN_MAX).collect();
        if shown.len() < view.position.len() {
            shown.push_str("...");
        }
        rows.row([view.shard.clone(), view.sequence.to_string(), shown]);
    }
    rows.or("no shards yet")
}

/// As it is if it is plain text, else in hexadecimal.
fn text(position: &[u8]) -> String {
    match std::str::from_utf8(position) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
        Ok(_) | Err(_) => {
            let digits: String = position.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("hex:{digits}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_text_if_it_can_be_read_and_its_beginning_is_shown() {
        assert_eq!(text(b"8f2a:1730:0"), "8f2a:1730:0");
        assert_eq!(text(&[0, 255]), "hex:00ff");
        let position = text(&[7; 100]);
        let (shard, sequence) = ("a".to_owned(), 3);
        let shown = table(&[PositionView { shard, sequence, position }]);
        assert!(shown.contains("hex:0707") && shown.contains("..."), "{shown}");
        assert!(!shown.contains(&"07".repeat(50)), "{shown}");
    }
}
