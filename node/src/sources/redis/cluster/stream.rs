//! The streams of all primaries, read in turn, and the keys on the move between them.

mod back;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::BatchBuilder;
use tokio::time::Instant;
use tonic::async_trait;

use super::Seen;
use super::board::Board;
use super::gate::{Gate, Seat};
use super::plan::{Planned, plan};
use super::position::{Place, Places, text};
use super::slice::Slice;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::redis::config::RedisConfig;
use crate::sources::redis::keyspace::Keyspace;
use crate::sources::redis::position::Position;
use crate::sources::redis::rereads::Rereads;
use crate::sources::redis::stream::{Besides, RedisStream};
use crate::sources::{Captured, ChangeStream, Loss, Read};
use back::Audit;

/// How often all primaries are asked about their slots, and while some are open.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_OPEN: Duration = Duration::from_millis(100);
/// How long a stream that reads a dump or deletes keys waits for others to bring something.
const WORK: Duration = Duration::from_millis(2);

/// An open stream.
pub(in crate::sources::redis) struct ClusterStream {
    members: Vec<Member>,
    board: Arc<Mutex<Board>>,
    /// Of the keys that are read back.
    keys: Keyspace,
    /// Keys were read back: what the streams know of them is old.
    old: bool,
    /// Whose turn it is.
    next: usize,
    look_due: Instant,
    audit: Option<Audit>,
    given: Bytes,
}

/// A primary.
struct Member {
    id: String,
    stream: RedisStream,
    /// The slots that stand in the position.
    slots: String,
}

/// Which cluster, and what its streams share.
pub(in crate::sources::redis) struct Whole<'a> {
    pub(in crate::sources::redis) config: &'a RedisConfig,
    pub(in crate::sources::redis) seen: &'a Seen,
    pub(in crate::sources::redis) rereads: &'a Arc<Rereads>,
}

impl ClusterStream {
    pub(in crate::sources::redis) async fn open(
        whole: Whole<'_>,
        Places(places): Places,
        captured: Arc<dyn Captured>,
    ) -> Result<Self> {
        let nodes = super::nodes(whole.config, whole.seen).await?;
        let planned = plan(&places, &nodes).map_err(|address| {
            let why = format!("redis at {address} is down, and no replica has taken over yet");
            Error::new(ErrorKind::Unavailable, why)
        })?;
        if planned.is_empty() {
            let why = "redis: no primary of the cluster has slots";
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        let place = |planned: &Planned| planned.place.map(|number| &places[number]);
        let stable: Vec<Option<&Place>> = planned.iter().map(place).collect();
        let board = Arc::new(Mutex::new(Board::new(&stable)));
        let ids: Arc<[String]> = planned.iter().map(|it| it.id.clone()).collect();
        let mut gates = Vec::new();
        for (member, it) in planned.iter().enumerate() {
            let seat = Seat { board: Arc::clone(&board), member, ids: Arc::clone(&ids) };
            let mut gate = Gate::connect(&whole.config.at(&it.address), seat).await?;
            gate.look(0).await?;
            gates.push(gate);
        }
        if places.is_empty() {
            locked(&board).begin();
        }
        captured.clear_marks()?;
        let dumps = Arc::new(AtomicUsize::new(0));
        let mut members = Vec::new();
        for (member, (gate, it)) in gates.into_iter().zip(&planned).enumerate() {
            let (whole_captured, board) = (Arc::clone(&captured), Arc::clone(&board));
            let dumps = Arc::clone(&dumps);
            let slice = Slice { whole: whole_captured, board, member, dumps };
            let config = whole.config.at(&it.address);
            let position = place(it).map_or(Position::Anew, |place| place.at.clone());
            let rereads = Arc::clone(whole.rereads);
            let besides = Besides { rereads, now_ms: clock::now_ms, gate: Some(gate) };
            let stream = RedisStream::open(&config, position, Arc::new(slice), besides).await?;
            members.push(Member { id: it.id.clone(), stream, slots: String::new() });
        }
        let resync = members.iter().filter(|member| member.stream.resyncs()).count();
        dumps.store(resync, Ordering::Release);
        let left = left(&places, &planned);
        let (primaries, left_count) = (members.len(), left.len());
        tracing::info!(primaries, dumps = resync, left = left_count, "a cluster is read");
        let audits = !places.is_empty() && locked(&board).open_slots() > 0;
        let audit = audits.then(|| Audit { upto: (String::new(), Vec::new()), left });
        // Whether a key that is read back was there before, another primary's stream may tell.
        let keys = Keyspace::new(captured, false);
        let (look_due, given) = (Instant::now(), Bytes::new());
        Ok(Self { members, board, keys, old: false, next: 0, look_due, audit, given })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        locked(&self.board)
    }

    /// Changes that were computed wait to be given.
    fn is_behind(&self) -> bool {
        self.members.iter().any(|member| member.stream.is_behind())
    }

    /// Asks all primaries about their slots, if it is time for that.
    async fn look_around(&mut self) -> Result<()> {
        if Instant::now() < self.look_due {
            return Ok(());
        }
        for member in &mut self.members {
            if let Some((gate, received)) = member.stream.gate() {
                gate.look(received).await?;
            }
        }
        // Captured keys of open slots are looked at first.
        if self.audit.is_none() && self.board().may_close() {
            self.close().await?;
        }
        let open = self.board().open_slots() > 0;
        self.look_due = Instant::now() + if open { LOOK_OPEN } else { LOOK };
        Ok(())
    }

    /// Slots that one primary has are read there, from where all streams are now.
    async fn close(&mut self) -> Result<()> {
        let mut until = Vec::new();
        for (gate, _) in self.members.iter_mut().filter_map(|member| member.stream.gate()) {
            until.push(gate.offset().await?);
        }
        self.board().close(until);
        Ok(())
    }

    /// Lets slots settle. All that was given is spooled.
    fn advance(&mut self) {
        if self.is_behind() {
            return;
        }
        let bytes = |member: &Member| match member.stream.position() {
            Position::At(at) => Some(at.bytes),
            Position::Anew => None,
        };
        let at: Vec<Option<u64>> = self.members.iter().map(bytes).collect();
        if self.board().advance(&at) || std::mem::take(&mut self.old) {
            self.members.iter_mut().for_each(|member| member.stream.forget());
        }
    }

    /// Reads the next stream that has something. One whose changes do not all fit is
    /// read on before others.
    async fn step(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> Result<Vec<Loss>> {
        for _ in 0..self.members.len() {
            let member = &mut self.members[self.next];
            let read = member.stream.read(out, bytes_max, Duration::ZERO).await?;
            if !member.stream.is_behind() {
                self.next = (self.next + 1) % self.members.len();
            }
            let noted = self.board().dirty() > 0;
            if !out.is_empty() || !read.losses.is_empty() || !read.position.is_empty() || noted {
                return Ok(read.losses);
            }
        }
        Ok(Vec::new())
    }

    fn position(&mut self) -> Bytes {
        if self.board().take_changed() {
            for (number, member) in self.members.iter_mut().enumerate() {
                member.slots = locked(&self.board).stable(number).to_string();
            }
        }
        let members = self
            .members
            .iter()
            .map(|member| (&*member.id, member.stream.position(), &*member.slots));
        let left = self.audit.iter().flat_map(|audit| &audit.left);
        let left = left.map(|place| (&*place.id, &Position::Anew, ""));
        text(members.chain(left)).into()
    }

    /// Waits for any stream to bring more.
    async fn wait(&mut self, wait: Duration) -> Result<()> {
        let arrivals = self.members.iter_mut().map(|it| Box::pin(it.stream.arrives(wait)));
        futures::future::select_all(arrivals).await.0.map(drop)
    }
}

fn locked(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places that nobody goes on from.
fn left(places: &[Place], planned: &[Planned]) -> Vec<Place> {
    let left = |number: usize| planned.iter().all(|it| it.place != Some(number));
    let places = places.iter().enumerate().filter(|(number, _)| left(*number));
    places.map(|(_, place)| place.clone()).collect()
}

#[async_trait]
impl ChangeStream for ClusterStream {
    async fn read(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read> {
        // All that was given is spooled.
        self.keys.forget();
        let until = Instant::now() + wait;
        loop {
            self.look_around().await?;
            self.advance();
            let losses = self.step(out, bytes_max).await?;
            if !self.is_behind() {
                self.go_on_with_audit()?;
            }
            self.read_back(out).await?;
            let position = self.position();
            let moved = position != self.given || !out.is_empty();
            let now = Instant::now();
            if moved || !losses.is_empty() || self.audit.is_some() || now >= until {
                self.given = position.clone();
                let position = if moved { position } else { Bytes::new() };
                return Ok(Read { position, losses, ..Read::default() });
            }
            let works = self.members.iter().any(|member| member.stream.is_at_work());
            let again = if works { now + WORK } else { self.look_due };
            self.wait(until.min(again).saturating_duration_since(now)).await?;
        }
    }

    /// There are no pages: rows come with the stream.
    fn passed(&self, _seen: &[u8]) -> bool {
        true
    }

    fn mends(&self) -> bool {
        let reads = self.members.iter().any(|member| member.stream.mends());
        // Pending values among them.
        reads || self.audit.is_some() || self.board().dirty() > 0
    }

    fn kept_until_ms(&self) -> Option<i64> {
        let each = self.members.iter().map(|member| member.stream.kept_until_ms());
        each.collect::<Option<Vec<_>>>()?.into_iter().min()
    }
}
