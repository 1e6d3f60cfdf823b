//! What became of long work, step by step.

use std::time::Duration;

use serde::Serialize;
use tidegate_proto::v1::ShardStep;
use tonic::Streaming;

use crate::failure::{Failure, Result};
use crate::output::{self, Format};
use crate::time;

/// The steps of one piece of work on a shard.
#[derive(Debug, Serialize)]
pub(super) struct Receipt {
    shard: String,
    steps: Vec<Step>,
}

/// Something that has happened.
#[derive(Debug, Serialize)]
struct Step {
    step: String,
    /// Microseconds since the start.
    after_us: u64,
    /// The shard's epoch then.
    epoch: u64,
}

impl Receipt {
    /// Takes all steps; for people, prints each as it happens.
    pub(super) async fn take(
        shard: String,
        mut answers: Streaming<ShardStep>,
        format: Format,
    ) -> Result<Self> {
        let mut steps = Vec::new();
        loop {
            let answer = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Ok(Self { shard, steps }),
                // Nothing has happened yet.
                Err(status) if steps.is_empty() => {
                    return Err(Failure::of_status("the node", &status));
                }
                Err(status) => return Err(Failure::failed(status.message())),
            };
            let ShardStep { step, after_us, epoch } = answer;
            let step = Step { step, after_us, epoch };
            if format == Format::Table {
                let after = time::duration(Duration::from_micros(step.after_us));
                output::line(&format!("{after:>9}  epoch {}  {}", step.epoch, step.step))?;
            }
            steps.push(step);
        }
    }

    /// Shows it to who has not seen its steps yet.
    pub(super) fn show(&self, format: Format) -> Result<()> {
        match format {
            Format::Table => Ok(()),
            Format::Json => output::show(format, self, |_| String::new()),
        }
    }
}
