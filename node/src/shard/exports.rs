//! The exports' files as this node has read them, and the sources they name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_proto::v1::ShardSpec;

use crate::config::ExportSpec;
use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks;
use crate::sinks::SinkConfig;
use crate::sources::{self, Rows, Source, SourceConfig};
use crate::spool::{Keeps, Kept};

/// An export, parsed, with its source open.
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its file.
    pub spec: ExportSpec,
    /// Shared by all its shards on this node.
    pub source: Arc<dyn Source>,
    /// By name.
    pub sinks: HashMap<String, SinkConfig>,
}

impl Job {
    /// What is kept of each key beside a shard's log; `None` for nothing.
    #[must_use]
    pub fn keeps(&self, shard: &ShardSpec) -> Option<Keeps> {
        let novelty = self.spec.index.novelty;
        let kept = match self.source.traits().rows {
            Rows::Streamed => Kept::Documents,
            Rows::Chunked if self.spec.snapshot.sweep || novelty => Kept::Rounds,
            Rows::Chunked => return None,
        };
        Some(Keeps { kept, novelty, continues: shard.continues })
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Opens each export's source once per version of its file.
#[derive(Debug)]
pub struct Exports {
    control: Control,
    open: Mutex<HashMap<u64, (u64, Arc<Job>)>>,
}

impl Exports {
    /// None open yet.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self { control, open: Mutex::default() }
    }

    /// The export with this id, as of the state this node has applied.
    pub async fn job(&self, export_id: u64) -> Result<Arc<Job>> {
        let found = self.control.read(|state| {
            let export = state.export(export_id)?;
            Some((export.name.clone(), export.version, export.spec.clone()))
        });
        let Some((name, version, text)) = found else {
            return Err(Error::new(ErrorKind::Fenced, "the export was deleted"));
        };
        if let Some((known, job)) = self.lock().get(&export_id)
            && *known == version
        {
            return Ok(Arc::clone(job));
        }
        let job = Arc::new(read(name, &text).await?);
        self.lock().insert(export_id, (version, Arc::clone(&job)));
        Ok(job)
    }

    /// The export as it was opened last, if it was.
    pub(super) fn opened(&self, export_id: u64) -> Option<Arc<Job>> {
        self.lock().get(&export_id).map(|(_, job)| Arc::clone(job))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (u64, Arc<Job>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(name: String, text: &str) -> Result<Job> {
    let spec = ExportSpec::parse(text)?;
    let source = sources::open(&SourceConfig::parse(&spec)?).await?;
    let mut sinks = HashMap::new();
    for sink in spec.sinks()? {
        sinks.insert(sink.name.clone(), sinks::parse(&sink)?);
    }
    Ok(Job { name, spec, source, sinks })
}
