//! P12: the PostgreSQL sink, against the same done by hand.
//!
//! METHOD 500,000 changes of 230 bytes, every key twice. Ours starts from encoded
//! batches and ends when the last commit is answered. The other side is a script
//! for `psql`, made before: for each commit of ours a COPY of the same rows from a
//! ready file into a staging table, the same merge, one row of progress, COMMIT.
//! Both go to one server with default settings, but for room for its log, each
//! round into a schema of its own; in the end both tables must be equal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_node::config::SinkSpec;
use tidegate_node::sinks::{self, SinkShard};
use tidegate_proto::v1::{Change, ChangeBatch};
use tidegate_proto::{Epoch, Key, document};
use tidegate_tests::postgres::Postgres;

use crate::bench::{Bench, Better, Goal, Outcome, float, require, timed};
use crate::stock::Stock;

const SINK: Goal = Goal {
    id: "P12.sink",
    what: "postgres sink, 230 B documents, half updates, to COPY, staging and merge in psql",
    goal: 0.85,
    better: Better::Higher,
    unit: "rows/s",
};
const CHANGES: u64 = 500_000;
const DOCUMENT_BYTES: usize = 230;
/// Changes in a commit, of both sides.
const COMMIT_CHANGES: usize = 50_000;
const SETTINGS: [&str; 2] = ["fsync=on", "max_wal_size=8GB"];
/// The columns of the sink's own table.
const COLUMNS: &str = "key, document, tidegate_key, tidegate_shard, tidegate_sequence, \
                       tidegate_committed_at, tidegate_problems";

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let server = Postgres::start(&SETTINGS).await;
    let stock = Stock::repeating(DOCUMENT_BYTES, CHANGES, CHANGES / 2)?;
    let by_hand = ByHand::make(&stock, bench.folder()?)?;
    let mut round = 0;
    let ours = async || {
        round += 1;
        let schema = format!("ours{round}");
        server.try_query("CHECKPOINT")?;
        let (seconds, ()) = timed(write(&server, &schema, &stock)).await?;
        same(&server, &schema, &stock)?;
        Ok(float(CHANGES) / seconds)
    };
    let mut other = 0;
    let theirs = async || {
        other += 1;
        let (schema, like) = (format!("theirs{other}"), format!("ours{other}"));
        let seconds = by_hand.run(&server, &schema, &like).await?;
        same(&server, &schema, &stock)?;
        require(digest(&server, &schema)? == digest(&server, &like)?, "both tables are equal")?;
        for schema in [schema, like] {
            server.try_query(&format!("DROP SCHEMA {schema} CASCADE"))?;
        }
        Ok(float(CHANGES) / seconds)
    };
    bench.pair(&SINK, ours, theirs).await
}

/// All batches, through the sink.
async fn write(server: &Postgres, schema: &str, stock: &Stock) -> Outcome<()> {
    let table = toml::from_str(&format!(
        "url = \"{}\"\ntls = false\nschema = \"{schema}\"\n\
         batch-changes = {COMMIT_CHANGES}\nbatch-bytes = {}\n",
        server.url(),
        64 << 20,
    ))?;
    let spec = SinkSpec { name: "postgres".to_owned(), kind: "postgres".to_owned(), table };
    let [export, shard, sink] = ["bench", "0", "postgres"].map(str::to_owned);
    let shard = SinkShard { export, uid: String::new(), shard, sink, epoch: Epoch(1) };
    let mut sink = sinks::open(&sinks::parse(&spec)?, &shard).await?.sink;
    stock.deliver(&mut *sink).await
}

/// Every key once, with its last change.
fn same(server: &Postgres, schema: &str, stock: &Stock) -> Outcome<()> {
    let sql = format!(
        "SELECT count(*), min(tidegate_sequence), max(tidegate_sequence) FROM {schema}.small"
    );
    let (keys, last) = (stock.state.len(), stock.changes);
    let wanted = format!("{keys}|{}|{last}", last - u64::try_from(keys)? + 1);
    require(server.try_query(&sql)? == wanted, "the table has each key's last change")
}

fn digest(server: &Postgres, schema: &str) -> Outcome<String> {
    server.try_query(&format!(
        "SELECT sum(hashtextextended(key || document::text, tidegate_sequence)) FROM {schema}.small"
    ))
}

/// Files ready to be copied, one for each commit.
struct ByHand {
    folder: PathBuf,
    commits: usize,
}

impl ByHand {
    fn make(stock: &Stock, folder: PathBuf) -> Outcome<Self> {
        let mut commits = 0;
        let (mut text, mut rows) = (String::new(), 0);
        for frame in &stock.frames {
            let batch = frame.decode()?;
            for (change, sequence) in batch.changes.iter().zip(frame.first().0..) {
                text.push_str(&line(&batch, change, sequence)?);
                rows += 1;
            }
            // As the sink does: a batch is never cut.
            if rows >= COMMIT_CHANGES {
                std::fs::write(file(&folder, commits), std::mem::take(&mut text))?;
                (commits, rows) = (commits + 1, 0);
            }
        }
        std::fs::write(file(&folder, commits), text)?;
        Ok(Self { folder, commits: commits + 1 })
    }

    /// Seconds of all commits in one session of `psql`, into a table as `like` has.
    async fn run(&self, server: &Postgres, schema: &str, like: &str) -> Outcome<f64> {
        server.try_query(&format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.small (LIKE {like}.small INCLUDING ALL); \
             CREATE TABLE {schema}.progress (sequence bigint); \
             INSERT INTO {schema}.progress VALUES (0)"
        ))?;
        server.try_query("CHECKPOINT")?;
        let path = self.folder.join("script.sql");
        std::fs::write(&path, self.script(schema)?)?;
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &server.url(), "-f"]).arg(path);
        let work = async {
            let status = tokio::task::spawn_blocking(move || psql.status()).await??;
            require(status.success(), "psql took the script")
        };
        Ok(timed(work).await?.0)
    }

    fn script(&self, schema: &str) -> Outcome<String> {
        let set: Vec<_> =
            COLUMNS.split(", ").map(|name| format!("{name} = EXCLUDED.{name}")).collect();
        let mut script = format!(
            "SET temp_buffers = '32MB'; SET jit = off;\n\
             CREATE TEMP TABLE stage (LIKE {schema}.small) ON COMMIT DELETE ROWS;\n"
        );
        for commit in 0..self.commits {
            let path = file(&self.folder, commit);
            writeln!(
                script,
                "BEGIN;\n\\copy stage ({COLUMNS}) FROM '{}'\n\
                 INSERT INTO {schema}.small AS old ({COLUMNS}) SELECT {COLUMNS} FROM stage \
                 ON CONFLICT (tidegate_key) DO UPDATE SET {} \
                 WHERE old.tidegate_sequence < EXCLUDED.tidegate_sequence;\n\
                 UPDATE {schema}.progress SET sequence = {commit} + 1 WHERE sequence = {commit};\n\
                 COMMIT;",
                path.display(),
                set.join(", "),
            )?;
        }
        Ok(script)
    }
}

/// A row as COPY takes it as text.
fn line(batch: &ChangeBatch, change: &Change, sequence: u64) -> Outcome<String> {
    let dictionary = batch.dictionaries.get(usize::try_from(change.dictionary)?);
    let dictionary = dictionary.ok_or("a change without its dictionary")?;
    let mut json = Vec::new();
    document::write_json(dictionary, &change.document, &mut json)?;
    let json = String::from_utf8(json)?.replace('\\', "\\\\");
    let key = Key::from_bytes(change.key.clone()).to_string();
    let key = key.trim_matches('"');
    let hex: String = change.key.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{key}\t{json}\t\\\\x{hex}\t1\t{sequence}\t\\N\t\\N\n"))
}

fn file(folder: &Path, commit: usize) -> PathBuf {
    folder.join(format!("{commit:05}.copy"))
}
