//! Logs and metrics: every metric of the node, by name, in one place.
//!
//! Labels are bounded by configuration: exports and sinks, never keys.

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidegate_proto::Told;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, ErrorKind, Result};

/// Changes captured into a spool. Labels: export.
const CAPTURED_CHANGES: &str = "tidegate_captured_changes_total";
/// Of them, those of which is known what they are to their key. Labels: export, novelty.
const TOLD_CHANGES: &str = "tidegate_changes_by_novelty_total";
/// Bytes of the batches they were captured in. Labels: export.
const CAPTURED_BYTES: &str = "tidegate_captured_bytes_total";
/// Rows read by snapshots. Labels: export.
const SNAPSHOT_ROWS: &str = "tidegate_snapshot_rows_total";
/// Changes proved durable at a sink. Labels: export, sink.
const DELIVERED_CHANGES: &str = "tidegate_delivered_changes_total";
/// Bytes of the batches they came in. Labels: export, sink.
const DELIVERED_BYTES: &str = "tidegate_delivered_bytes_total";
/// Seconds from capture to proof of durability. Labels: export, sink.
const DELIVERY_LAG: &str = "tidegate_delivery_lag_seconds";
/// Changes sent to feed subscribers. Labels: export.
const FED_BYTES: &str = "tidegate_feed_bytes_total";
/// Bytes of batches that came from another region, as sent. Labels: from.
const REGION_SENT: &str = "tidegate_region_bytes_total";
/// What they would have been without compression. Labels: from.
const REGION_RAW: &str = "tidegate_region_raw_bytes_total";
/// Feeds being served right now.
const FEEDS: &str = "tidegate_feeds";
/// 1 while this node leads.
const LEADER: &str = "tidegate_leader";
/// The last entry of the checkpoint log applied here.
const APPLIED: &str = "tidegate_applied_index";
/// Changes captured and not yet delivered. Labels: export, sink.
const BACKLOG: &str = "tidegate_backlog_changes";
/// Shards that cannot go on without an operator. Labels: export.
const FAILED: &str = "tidegate_failed_shards";
/// Recorded losses that nothing has mended. Labels: export.
const GAPS: &str = "tidegate_open_gaps";

/// Seconds until a source forgets what is to be read next, if it is read no more: of the
/// shard that has least. Labels: export.
const HEADROOM: &str = "tidegate_headroom_seconds";
/// Bytes left on the spool's disk.
const DISK_FREE: &str = "tidegate_disk_free_bytes";

/// Starts logging to standard error, by `RUST_LOG` or at level info.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        // openraft calls every lost heartbeat an error; what matters of it we say
        // ourselves. Spans of ractor repeat ours.
        EnvFilter::new("info,openraft=off,ractor=warn,h2=warn,hyper=warn,tower=warn")
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second start, as in tests, keeps the first.
    drop(subscriber.try_init());
}

/// Starts collecting metrics for this process.
pub fn start_metrics() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new().install_recorder().map_err(|error| {
        Error::new(ErrorKind::Config, "start collecting metrics").because(error)
    })?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(CAPTURED_CHANGES, "changes captured into a spool");
    describe_counter!(TOLD_CHANGES, "changes captured, by what they are to their key");
    describe_counter!(CAPTURED_BYTES, Unit::Bytes, "bytes of the batches captured");
    describe_counter!(SNAPSHOT_ROWS, "rows read by snapshots");
    describe_counter!(DELIVERED_CHANGES, "changes proved durable at a sink");
    describe_counter!(DELIVERED_BYTES, Unit::Bytes, "bytes of the batches delivered");
    describe_histogram!(DELIVERY_LAG, Unit::Seconds, "from capture to proof of durability");
    describe_counter!(FED_BYTES, Unit::Bytes, "bytes sent to feed subscribers");
    describe_counter!(REGION_SENT, Unit::Bytes, "batches from another region, as sent");
    describe_counter!(REGION_RAW, Unit::Bytes, "batches from another region, uncompressed");
    describe_gauge!(FEEDS, "feeds being served");
    describe_gauge!(LEADER, "1 while this node leads");
    describe_gauge!(APPLIED, "the last entry of the checkpoint log applied here");
    describe_gauge!(BACKLOG, "changes captured and not yet delivered");
    describe_gauge!(FAILED, "shards that need an operator");
    describe_gauge!(GAPS, "recorded losses that nothing has mended");
    describe_gauge!(DISK_FREE, Unit::Bytes, "left on the disk of the spool");
    describe_gauge!(HEADROOM, Unit::Seconds, "until a source forgets what is to be read next");
}

/// This is known of the changes of a batch.
pub fn told(export: &str, told: &[Told]) {
    for word in told.iter().filter_map(Told::word) {
        counter!(TOLD_CHANGES, "export" => export.to_owned(), "novelty" => word).increment(1);
    }
}

/// A batch of `records` changes, `bytes` long, was spooled.
pub fn captured(export: &str, records: u64, bytes: u64) {
    counter!(CAPTURED_CHANGES, "export" => export.to_owned()).increment(records);
    counter!(CAPTURED_BYTES, "export" => export.to_owned()).increment(bytes);
}

/// A snapshot has read `rows` rows.
pub fn snapshot_rows(export: &str, rows: u64) {
    counter!(SNAPSHOT_ROWS, "export" => export.to_owned()).increment(rows);
}

/// A sink has proved `records` changes durable, the newest of which was
/// captured `lag_ms` ago.
pub fn delivered(export: &str, sink: &str, records: u64, bytes: u64, lag_ms: i64) {
    let labels = [("export", export.to_owned()), ("sink", sink.to_owned())];
    counter!(DELIVERED_CHANGES, &labels).increment(records);
    counter!(DELIVERED_BYTES, &labels).increment(bytes);
    let lag_ms = u32::try_from(lag_ms.max(0)).unwrap_or(u32::MAX);
    histogram!(DELIVERY_LAG, &labels).record(f64::from(lag_ms) / 1000.0);
}

/// The source of `export` forgets what is to be read next in `left`.
pub fn headroom(export: &str, left: Duration) {
    gauge!(HEADROOM, "export" => export.to_owned()).set(left.as_secs_f64());
}

/// The disk of the spool has `bytes` left.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn disk_free(bytes: u64) {
    gauge!(DISK_FREE).set(bytes as f64);
}

/// `bytes` were sent to a subscriber of `export`.
pub fn fed(export: &str, bytes: u64) {
    counter!(FED_BYTES, "export" => export.to_owned()).increment(bytes);
}

/// Batches came from another region: `sent` bytes that stand for `raw`.
pub fn crossed(from: &str, sent: u64, raw: u64) {
    counter!(REGION_SENT, "from" => from.to_owned()).increment(sent);
    counter!(REGION_RAW, "from" => from.to_owned()).increment(raw);
}

/// A feed began; it ends when the value is dropped.
#[must_use]
pub fn feed_open() -> FeedGauge {
    gauge!(FEEDS).increment(1.0);
    FeedGauge(())
}

/// Counts one feed while it lives.
#[derive(Debug)]
pub struct FeedGauge(());

impl Drop for FeedGauge {
    fn drop(&mut self) {
        gauge!(FEEDS).decrement(1.0);
    }
}

/// Where this node stands in the group.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 entries are far off")]
pub fn group(leads: bool, applied: u64) {
    gauge!(LEADER).set(f64::from(u8::from(leads)));
    gauge!(APPLIED).set(applied as f64);
}

/// How far one sink of an export is behind, over all its shards.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn backlog(export: &str, sink: &str, changes: u64) {
    gauge!(BACKLOG, "export" => export.to_owned(), "sink" => sink.to_owned()).set(changes as f64);
}

/// What is wrong with an export.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn troubles(export: &str, failed: u64, gaps: u64) {
    gauge!(FAILED, "export" => export.to_owned()).set(failed as f64);
    gauge!(GAPS, "export" => export.to_owned()).set(gaps as f64);
}
