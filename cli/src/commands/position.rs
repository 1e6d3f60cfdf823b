//! `tidegate position`.

use clap::Subcommand;
use serde::Serialize;
use tidegate_proto::v1::{SetPositionRequest, Shard};

use crate::args::Common;
use crate::cluster::Cluster;
use crate::commands::receipt::Receipt;
use crate::commands::shard::{export_and_shard, find};
use crate::failure::Result;
use crate::output::{self, Format};
use crate::positions;
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
    /// Have a shard's stream go on elsewhere in its source
    ///
    /// Ahead of where it is, changes are missing from then on; behind it, changes come
    /// again under new sequences. It is recorded as a gap, with the reason and where the
    /// stream was; readers of feeds and of the lake see its mark before what follows. The
    /// source is asked first whether it can go on from there.
    #[command(after_help = "Examples:
  tidegate position set orders/5/0 now --reason \"the bad import is not wanted\" --resnapshot
  tidegate position set orders/5/0 3f2c:1730 --reason \"sinks were restored from a backup\"
  tidegate position set orders/5/0 hex:0a5f01 --reason \"back to where it was\"

POSITION is what `position show` prints, or `now`. `tidegate gap show` tells where a stream
was before. While a snapshot is read no position can be set: let it be complete, or cancel
it. Sources that are read as a whole (redis) take `now` only: all of it is read anew and
compared with what was captured.")]
    Set {
        /// The shard: EXPORT/SHARD
        #[arg(value_parser = export_and_shard)]
        shard: (String, String),
        /// Where to go on
        #[arg(value_parser = place)]
        position: Place,
        /// Why; kept with the gap
        #[arg(long)]
        reason: String,
        /// Read all rows of the shard again
        #[arg(long)]
        resnapshot: bool,
    },
}

/// Somewhere in a source.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Where it is when it is asked.
    Now,
    At(Vec<u8>),
}

fn place(text: &str) -> std::result::Result<Place, String> {
    match text {
        "now" => Ok(Place::Now),
        text => positions::parse(text).map(Place::At),
    }
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
            position: reached.map_or_else(String::new, |at| positions::text(&at.stream)),
        }
    }
}

/// Does what was asked about positions.
pub(crate) async fn run(command: PositionCommand, cluster: Cluster, common: &Common) -> Result<()> {
    match command {
        PositionCommand::Show { export } => show(cluster, &export, common.output).await,
        PositionCommand::Set { shard: (export, shard), position, reason, resnapshot } => {
            let mut request =
                SetPositionRequest { export, shard, reason, resnapshot, ..Default::default() };
            if let Place::At(position) = position {
                request.position = position.into();
            }
            set(cluster, request, common).await
        }
    }
}

async fn show(mut cluster: Cluster, export: &str, format: Format) -> Result<()> {
    let shards = cluster.shards(export).await?.shards;
    let positions = shards.iter().map(PositionView::from).collect();
    output::show(format, &PositionsView { positions }, |it| table(&it.positions))
}

async fn set(mut cluster: Cluster, request: SetPositionRequest, common: &Common) -> Result<()> {
    let (found, _) = find(&mut cluster, &request.export, &request.shard).await?;
    let to = match request.position.is_empty() {
        true => "where its source is now".to_owned(),
        false => shown(&positions::text(&request.position)),
    };
    let (export, name) = (&request.export, &request.shard);
    let from = shown(&found.captured.position);
    let question = format!("Have shard {name} of {export} go on at {to}? It is at {from}.");
    if !output::confirm(&question, common.yes, common.output)? {
        output::note("nothing was changed");
        return Ok(());
    }
    let shard = format!("{export}/{name}");
    let answers = cluster.set_position(request).await?;
    Receipt::take(shard, answers, common.output).await?.show(common.output)
}

fn table(positions: &[PositionView]) -> String {
    let mut rows = Rows::new(&["SHARD", ">SEQUENCE", "POSITION"]);
    for view in positions {
        rows.row([view.shard.clone(), view.sequence.to_string(), shown(&view.position)]);
    }
    rows.or("no shards yet")
}

/// As much of it as a table has room for.
fn shown(position: &str) -> String {
    let mut shown: String = position.chars().take(SHOWN_MAX).collect();
    if shown.len() < position.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_position_its_beginning_is_shown() {
        let position = positions::text(&[7; 100]);
        let (shard, sequence) = ("a".to_owned(), 3);
        let shown = table(&[PositionView { shard, sequence, position }]);
        assert!(shown.contains("hex:0707") && shown.contains("..."), "{shown}");
        assert!(!shown.contains(&"07".repeat(50)), "{shown}");
    }
}
