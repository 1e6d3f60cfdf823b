//! A shard's owner, as `shard/reader.rs` and `shard/restart.rs` run it; what they
//! decide by is theirs.

use std::collections::BTreeSet;

use tidegate_proto::v1::{
    Anchor, Checkpoint, Gap, Progress, RecordGap, Rewound, Shard, ShardId, SnapshotState, command,
};
use tidegate_proto::{NodeId, Sequence};

use super::event::{Answer, MS, Machine, Micros, Timer};
use super::node::Purpose;
use super::source::Place;
use super::spool::Log;
use super::tasks::Work;
use super::world::World;
use crate::checkpoint::{Added, Window};
use crate::control::done_or_there;
use crate::error::ErrorKind;
use crate::shard::in_sync::Keeper;
use crate::shard::losses::is_same;
use crate::shard::merge::Carry;
use crate::shard::restart::{
    begins_behind, goes_on, is_fresh, read_on, record_of, recorded, told_by_all, unsaid,
};
use crate::shard::role::{Role, Terms, under};
use crate::spool::Head;

/// How often something that is waited for is looked at.
pub(super) const POLL: Micros = 10 * MS;

/// A reader's task.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: ShardId,
    pub(super) terms: Terms,
    pub(super) stage: Stage,
    /// As it was when the reader began.
    pub(super) shard: Shard,
    pub(super) carry: Option<Carry>,
    pub(super) window: Window,
    pub(super) keeper: Keeper,
    /// By this machine's clock.
    pub(super) started: Micros,
    pub(super) finish_by: Option<Micros>,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    Anchor,
    /// A proposal is on its way.
    Asked(Option<Begin>),
    /// This node does not know of the loss yet.
    Recorded(Begin),
    /// This node may apply it a moment later than the leader.
    Anchored,
    Restart,
    Capture,
}

/// A log to be begun anew.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    last: Sequence,
    progress: Progress,
    rewound: Option<Rewound>,
    gap: Gap,
}

impl Reading {
    pub(super) fn new(id: ShardId, terms: Terms, started: Micros, keeper: Keeper) -> Self {
        Self {
            id,
            terms,
            stage: Stage::Anchor,
            shard: Shard::default(),
            carry: None,
            window: Window::default(),
            keeper,
            started,
            finish_by: None,
        }
    }

    fn captured(&self) -> Checkpoint {
        self.shard.captured.clone().unwrap_or_default()
    }
}

/// When a reader is looked at again, or why it ends.
pub(super) type Next = Result<Option<Micros>, Option<ErrorKind>>;

impl World {
    pub(super) fn read_on(&mut self, machine: Machine, role: &Role, task: u64) {
        let Some(Work::Reader(mut it)) = self.take_work(machine, role, task) else { return };
        let id = it.id;
        let next = match it.stage.clone() {
            Stage::Anchor => self.anchor(machine, &mut it, task),
            Stage::Asked(_) => Ok(None),
            Stage::Recorded(begin) => self.recorded(machine, &mut it, begin),
            Stage::Anchored => self.anchored(machine, &mut it),
            Stage::Restart => self.restart(machine, &mut it, task),
            Stage::Capture if self.draining(machine, role) => self.finish(machine, &mut it),
            Stage::Capture => self.capture(machine, &mut it),
        };
        self.put_work(machine, role, task, Work::Reader(it));
        self.after_log(machine, id);
        match next {
            Ok(Some(wait)) => self.timer(machine, wait, Timer::Task(role.clone(), task)),
            Ok(None) => {}
            Err(None) => self.task_ended(machine, role, Ok(())),
            Err(Some(kind)) => self.task_ended(machine, role, Err(kind)),
        }
    }

    fn entry(&self, machine: Machine, it: &Reading) -> Result<Shard, Option<ErrorKind>> {
        let state = &self.nodes[machine].disk.state;
        under(state, it.id, it.terms.epoch).map_err(|error| Some(error.kind()))
    }

    fn anchor(&mut self, machine: Machine, it: &mut Reading, task: u64) -> Next {
        it.shard = self.entry(machine, it)?;
        if it.shard.anchor.is_some() {
            it.stage = Stage::Restart;
            return Ok(Some(0));
        }
        let mut progress = Place::default().progress();
        progress.set_snapshot(SnapshotState::Skipped);
        let (shard, epoch) = (Some(it.id), it.terms.epoch.0);
        let anchor = Anchor { shard, epoch, progress: Some(progress), ..Anchor::default() };
        it.stage = Stage::Asked(None);
        self.propose(machine, command::Kind::Anchor(anchor), Purpose::Reader(it.id, task));
        Ok(None)
    }

    fn anchored(&mut self, machine: Machine, it: &mut Reading) -> Next {
        it.shard = self.entry(machine, it)?;
        if it.shard.anchor.is_none() {
            return Ok(Some(POLL));
        }
        it.stage = Stage::Restart;
        Ok(Some(0))
    }

    /// The answer to what a reader proposed.
    pub(super) fn on_reader_answer(
        &mut self,
        machine: Machine,
        id: ShardId,
        task: u64,
        answer: Answer,
    ) {
        let role = Role::Reader(id);
        let Some(Work::Reader(mut it)) = self.take_work(machine, &role, task) else { return };
        let stage = std::mem::replace(&mut it.stage, Stage::Anchored);
        let end = answer.and_then(|it| done_or_there(it).map_err(|error| error.kind())).err();
        if let Stage::Asked(Some(begin)) = stage {
            it.stage = Stage::Recorded(begin);
        }
        self.put_work(machine, &role, task, Work::Reader(it));
        match end {
            Some(kind) => self.task_ended(machine, &role, Err(kind)),
            None => self.timer(machine, 0, Timer::Task(role, task)),
        }
    }

    fn recorded(&mut self, machine: Machine, it: &mut Reading, begin: Begin) -> Next {
        let state = &self.nodes[machine].disk.state;
        if !state.gaps_of(it.id).any(|known| is_same(known, &begin.gap)) {
            return Ok(Some(POLL));
        }
        self.begin_anew(machine, it, begin).map_err(Some)?;
        Ok(Some(0))
    }

    /// Opens the log of an anchored shard.
    fn restart(&mut self, machine: Machine, it: &mut Reading, task: u64) -> Next {
        let (captured, epoch) = (it.captured(), it.terms.epoch);
        let log = self.nodes[machine].disk.logs.get(&it.id);
        let end = log.map(|log| (log.standing.head().next, log.standing.head().made));
        if end.is_some_and(|end| goes_on(&it.shard, end)) {
            self.go_on(machine, it, &captured).map_err(Some)?;
            return Ok(Some(0));
        }
        let from = if is_fresh(&it.shard, &captured) {
            captured.clone()
        } else {
            let now = self.entry(machine, it)?;
            let Some(sinks) = told_by_all(&now, epoch) else { return Ok(Some(POLL)) };
            let gaps: Vec<_> = self.nodes[machine].disk.state.gaps_of(it.id).cloned().collect();
            read_on(sinks, &gaps, &captured, &it.shard)
        };
        let (last, rewound) = begins_behind(&it.shard, &captured, from.sequence);
        let progress = from.progress.unwrap_or_default();
        let mut begin = Begin { last, progress, rewound, gap: Gap::default() };
        let Some(lost) = rewound else {
            self.begin_anew(machine, it, begin).map_err(Some)?;
            return Ok(Some(0));
        };
        let mut gap = record_of(&it.shard, epoch, lost, &begin.progress);
        // For people only; but runs must be alike.
        gap.at_ms = i64::try_from(self.now / MS).unwrap();
        begin.gap = gap.clone();
        it.stage = Stage::Asked(Some(begin));
        let command =
            command::Kind::RecordGap(RecordGap { gap: Some(gap), ..RecordGap::default() });
        self.propose(machine, command, Purpose::Reader(it.id, task));
        Ok(None)
    }

    fn others(&self, machine: Machine, shard: &Shard) -> BTreeSet<NodeId> {
        let me = self.nodes[machine].id;
        shard.in_sync.iter().map(|id| NodeId(*id)).filter(|id| *id != me).collect()
    }

    /// At the end of the log there is.
    fn go_on(
        &mut self,
        machine: Machine,
        it: &mut Reading,
        captured: &Checkpoint,
    ) -> Result<(), ErrorKind> {
        let (id, epoch) = (it.id, it.terms.epoch);
        let others = self.others(machine, &it.shard);
        let node = &mut self.nodes[machine];
        let gaps: Vec<_> = node.disk.state.gaps_of(id).cloned().collect();
        let Some(log) = node.disk.logs.get_mut(&id) else { return Err(ErrorKind::Fenced) };
        let known = recorded(gaps.iter(), captured);
        let progress = known.progress.unwrap_or_default();
        let mut unrecorded = Added { progress, ..Added::default() };
        if Sequence(known.sequence).next() < log.standing.head().first {
            return Err(ErrorKind::Gone);
        }
        for batch in log.read_all(Sequence(known.sequence)) {
            let (progress, records) = (batch.progress.clone(), batch.items.len() as u64);
            unrecorded.absorb(&Added { progress, records, ..Added::default() });
        }
        let next = log.standing.head().next;
        let head = log.standing.taken_over(epoch, (next, unrecorded.progress.clone()));
        let head = head.map_err(|_| ErrorKind::Fenced)?;
        log.write_head(|standing| standing.take_over(head, others));
        log.standing.set_stable(Sequence(captured.sequence));
        let rewound = unsaid(gaps.iter(), log.standing.head().next);
        self.begin_capture(machine, it, (rewound, unrecorded));
        Ok(())
    }

    /// With an empty log, since nothing is left of the one before.
    fn begin_anew(
        &mut self,
        machine: Machine,
        it: &mut Reading,
        begin: Begin,
    ) -> Result<(), ErrorKind> {
        let Begin { last, progress, rewound, gap: _ } = begin;
        let (id, epoch) = (it.id, it.terms.epoch);
        let others = self.others(machine, &it.shard);
        let number = self.next_number();
        let logs = &mut self.nodes[machine].disk.logs;
        let old = logs.remove(&id);
        let head = Head::begun(epoch, last.next(), progress.clone());
        let mut log = Log::begin(number, head, old);
        let head = log.standing.taken_over(epoch, (last.next(), progress.clone()));
        let head = head.map_err(|_| ErrorKind::Fenced)?;
        log.write_head(|standing| standing.take_over(head, others));
        logs.insert(id, log);
        self.trace.note(self.now, "begins anew", &[machine as u64, epoch.0, last.0]);
        let unrecorded = Added { progress, ..Added::default() };
        self.begin_capture(machine, it, (rewound, unrecorded));
        Ok(())
    }
}
