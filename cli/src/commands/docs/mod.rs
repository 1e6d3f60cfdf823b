//! `tidegate docs`: the embedded document store.

mod export;
mod import;
mod lines;
mod single;
mod store;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::args::Common;
use crate::commands::docs::store::Store;
use crate::failure::Result;
use crate::human;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum DocsCommand {
    /// Write a document
    #[command(after_help = "Examples:
  tidegate docs put items a1 '{\"total\": 12.50, \"paid\": true}'
  tidegate docs put items a1 - < a1.json
  tidegate docs put items a1 '{}' --if-revision 0      # only if there is none")]
    Put(PutArgs),
    /// Print a document
    #[command(after_help = "Example:\n  tidegate docs get items a1")]
    Get(KeyArgs),
    /// Remove a document
    #[command(after_help = "Example:\n  tidegate docs delete items a1")]
    Delete(KeyArgs),
    /// Write many documents: JSON objects, one a line
    #[command(after_help = "Examples:
  tidegate docs import items orders.jsonl --key id
  zcat orders.jsonl.gz | tidegate docs import items --key id

Lines with the same key are written in the order of the file. Importing the same
file again gives the same documents.")]
    Import(ImportArgs),
    /// Print documents: {"collection","key","revision","document"}, one a line
    #[command(after_help = "Examples:
  tidegate docs export > all.jsonl
  tidegate docs export items | head")]
    Export {
        /// Only this collection
        collection: Option<String>,
    },
    /// Count documents
    #[command(after_help = "Examples:\n  tidegate docs count\n  tidegate docs count items")]
    Count {
        /// Only this collection
        collection: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Name of the collection
    collection: String,
    /// Key of the document
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    at: KeyArgs,
    /// The document, a JSON object; - for standard input
    json: String,
    /// Only if the document is at this revision; 0: only if there is none
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Collection to write to
    collection: String,
    /// File of JSON lines; - for standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Field of each object that is its key: text or a whole number
    #[arg(long, value_name = "FIELD")]
    key: String,
    /// Batches on their way at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
}

#[derive(Debug, Serialize)]
struct CountView {
    documents: u64,
    revision: u64,
}

/// Does what was asked about documents.
pub(crate) async fn run(command: DocsCommand, common: &Common) -> Result<()> {
    let mut store = Store::new(&common.stores())?;
    match command {
        DocsCommand::Put(args) => single::put(&args, store, common.output).await,
        DocsCommand::Get(args) => single::get(&args, store).await,
        DocsCommand::Delete(args) => single::delete(args, store, common.output).await,
        DocsCommand::Import(args) => import::run(args, store, common.output).await,
        DocsCommand::Export { collection } => {
            export::run(collection.unwrap_or_default(), store).await
        }
        DocsCommand::Count { collection } => {
            let answer = store.count(collection.as_deref().unwrap_or_default()).await?;
            let view = CountView { documents: answer.documents, revision: answer.revision };
            output::show(common.output, &view, |it| human::count(it.documents))
        }
    }
}
