//! What is known of each slot: a pure core.
//!
//! ```text
//!   Open      its keys are on the move, or may be: an event is a reason to read the
//!             key back from whoever has it
//!   Settling  computed from one primary's stream again; of some keys a later state
//!             was read than the stream has come to, and their events are passed over
//!             until it has
//!   Stable    computed from one primary's stream
//!
//!   Stable, Settling ──► Open       another primary's stream names a key of it, or its
//!                                   primary says that it is on the move
//!   Open ──► Settling               one primary has it, none says that it moves, and all
//!                                   streams have come to where they were at that moment
//!   Settling ──► Stable             no key of it was read further than the stream is
//! ```
//!
//! Only what is stable stands in the position: whoever goes on after a failure takes
//! the rest for open.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::position::Place;
use super::slots::{SLOTS, SlotSet, slot_of};

/// What a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// By the number of the primary.
    Settling(usize),
    Stable(usize),
}

/// What to do with something that a stream or a dump says of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is right as it is.
    Take,
    /// What matters of it is noted.
    Pass,
}

/// Slots that one primary has, as all say.
#[derive(Debug)]
struct Closing {
    /// By the number of the primary.
    slots: BTreeMap<u16, usize>,
    /// Where all streams have to come to.
    until: Vec<u64>,
}

/// Shared by the primaries' streams.
#[derive(Debug)]
pub(super) struct Board {
    slots: Vec<Standing>,
    closing: Option<Closing>,
    /// Keys to be read back.
    dirty: BTreeSet<Vec<u8>>,
    /// By primary: where its stream was when a key was read there, or was not there,
    /// if it has not come to that yet.
    read_at: Vec<HashMap<Vec<u8>, u64>>,
    /// By primary: the slots it says are its own, and those that come or go.
    claims: Vec<(SlotSet, SlotSet)>,
    /// What a slot is has changed since it was asked.
    changed: bool,
}

impl Board {
    /// With what was stable, by primary.
    pub(super) fn new(stable: &[Option<&Place>]) -> Self {
        let mut slots = vec![Standing::Open; usize::from(SLOTS)];
        for (member, place) in stable.iter().enumerate() {
            for slot in place.iter().flat_map(|place| place.slots.iter()) {
                slots[usize::from(slot)] = Standing::Stable(member);
            }
        }
        Self {
            slots,
            closing: None,
            dirty: BTreeSet::new(),
            read_at: vec![HashMap::new(); stable.len()],
            claims: vec![<(SlotSet, SlotSet)>::default(); stable.len()],
            changed: true,
        }
    }

    /// A primary says which slots it has, and which come or go.
    pub(super) fn claim(&mut self, member: usize, slots: SlotSet, moving: SlotSet) {
        for slot in 0..SLOTS {
            let firm = slots.contains(slot) && !moving.contains(slot);
            if self.reads(slot) == Some(member) && !firm {
                self.open(slot);
            }
        }
        self.claims[member] = (slots, moving);
    }

    /// The primary that alone claims a slot, if none says that it moves.
    fn sole(&self, slot: u16) -> Option<usize> {
        let mut owner = None;
        for (member, (slots, moving)) in self.claims.iter().enumerate() {
            if moving.contains(slot) || (slots.contains(slot) && owner.is_some()) {
                return None;
            }
            owner = owner.or(slots.contains(slot).then_some(member));
        }
        owner
    }

    /// Nothing was captured yet: what each primary's dump says of its slots holds.
    pub(super) fn begin(&mut self) {
        for slot in 0..SLOTS {
            if let Some(member) = self.sole(slot) {
                self.set(slot, Standing::Stable(member));
            }
        }
    }

    fn set(&mut self, slot: u16, standing: Standing) {
        self.slots[usize::from(slot)] = standing;
        self.changed = true;
    }

    /// Whether it is the same slots that are stable as when this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The primary whose stream says what a slot's keys hold.
    fn reads(&self, slot: u16) -> Option<usize> {
        match self.slots[usize::from(slot)] {
            Standing::Open => None,
            Standing::Settling(member) | Standing::Stable(member) => Some(member),
        }
    }

    fn open(&mut self, slot: u16) {
        self.set(slot, Standing::Open);
        if let Some(closing) = &mut self.closing {
            closing.slots.remove(&slot);
        }
    }

    /// What the stream of `member` says of `keys` in the command that ends at `upto`.
    pub(super) fn judge(&mut self, member: usize, keys: &[&[u8]], upto: u64) -> Verdict {
        let included = |board: &Self, key: &[u8]| {
            board.read_at[member].get(key).is_some_and(|read| *read >= upto)
        };
        let plain = |key: &&[u8]| {
            self.reads(slot_of(key)) == Some(member)
                && !included(self, key)
                && !self.dirty.contains(*key)
        };
        if keys.iter().all(plain) {
            return Verdict::Take;
        }
        for key in keys {
            let slot = slot_of(key);
            self.disturb(member, slot, upto);
            if !included(self, key) {
                self.note(member, key);
            }
        }
        Verdict::Pass
    }

    /// What the dump of `member`, or that it was flushed, says of a key.
    pub(super) fn judge_row(&mut self, member: usize, key: &[u8]) -> Verdict {
        let slot = slot_of(key);
        let ahead = self.read_at[member].contains_key(key) || self.dirty.contains(key);
        if self.reads(slot) == Some(member) && !ahead {
            return Verdict::Take;
        }
        self.disturb(member, slot, u64::MAX);
        self.note(member, key);
        Verdict::Pass
    }

    /// `member` says something of a slot, at `upto` of its stream.
    fn disturb(&mut self, member: usize, slot: u16, upto: u64) {
        if self.reads(slot).is_some_and(|reads| reads != member) {
            self.open(slot);
        }
        let Some(closing) = &mut self.closing else { return };
        let target = closing.slots.get(&slot);
        if target.is_some_and(|target| *target != member) && upto > closing.until[member] {
            // It moved again since.
            closing.slots.remove(&slot);
        }
    }

    fn note(&mut self, member: usize, key: &[u8]) {
        let slot = slot_of(key);
        if self.slots[usize::from(slot)] == Standing::Stable(member) {
            self.set(slot, Standing::Settling(member));
        }
        self.dirty.insert(key.to_vec());
    }

    /// The slot of a key is on the move, or may be.
    pub(super) fn is_open(&self, key: &[u8]) -> bool {
        self.reads(slot_of(key)).is_none()
    }

    /// Has a captured key of a slot that is not stable read back.
    pub(super) fn note_captured(&mut self, key: &[u8]) {
        self.dirty.insert(key.to_vec());
    }

    /// How many keys are to be read back.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// The keys that are to be read back, no longer noted, each with the primary that
    /// says it has its slot.
    pub(super) fn take_dirty(&mut self) -> Vec<(Vec<u8>, Option<usize>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let claimant = |key: &[u8]| {
            let slot = slot_of(key);
            self.claims.iter().position(|(slots, _)| slots.contains(slot))
        };
        dirty.into_iter().map(|key| (claimant(&key), key)).map(|(it, key)| (key, it)).collect()
    }

    /// `key` was read, or was not there, when the stream of `member` was at `at`.
    pub(super) fn was_read(&mut self, member: usize, key: &[u8], at: u64) {
        self.read_at[member].insert(key.to_vec(), at);
    }

    /// The primary whose dump or stream may say something of a captured key.
    pub(super) fn concerns(&self, member: usize, key: &[u8]) -> bool {
        self.reads(slot_of(key)).is_none_or(|reads| reads == member)
    }

    /// There are slots that one primary has and that are not read there yet.
    pub(super) fn may_close(&self) -> bool {
        self.closing.is_none() && (0..SLOTS).any(|slot| self.closes(slot).is_some())
    }

    fn closes(&self, slot: u16) -> Option<usize> {
        self.reads(slot).is_none().then(|| self.sole(slot)).flatten()
    }

    /// Such slots settle once all streams have come to `until`, where they were behind
    /// the claims.
    pub(super) fn close(&mut self, until: Vec<u64>) {
        let slots = (0..SLOTS).filter_map(|slot| Some((slot, self.closes(slot)?))).collect();
        self.closing = Some(Closing { slots, until });
    }

    /// The streams have come to `at`; `None`: one reads a dump. Says whether a primary's
    /// slots are read from its stream that were not before: what it knows of them from
    /// earlier may be old.
    pub(super) fn advance(&mut self, at: &[Option<u64>]) -> bool {
        for (read_at, at) in self.read_at.iter_mut().zip(at) {
            if let Some(at) = at
                && !read_at.is_empty()
            {
                read_at.retain(|_, read| *read > *at);
            }
        }
        self.stabilise();
        let reached = |closing: &mut Closing| {
            at.iter().zip(&closing.until).all(|(at, until)| at.is_some_and(|at| at >= *until))
        };
        let Some(closing) = self.closing.take_if(reached) else { return false };
        for (slot, member) in &closing.slots {
            self.set(*slot, Standing::Settling(*member));
        }
        self.stabilise();
        !closing.slots.is_empty()
    }

    fn stabilise(&mut self) {
        if !self.slots.iter().any(|it| matches!(it, Standing::Settling(_))) {
            return;
        }
        let ahead: Vec<SlotSet> = self
            .read_at
            .iter()
            .map(|read_at| read_at.keys().map(|key| slot_of(key)).collect())
            .collect();
        for (slot, standing) in (0..SLOTS).zip(&mut self.slots) {
            if let Standing::Settling(member) = *standing
                && !ahead[member].contains(slot)
                && !self.dirty.iter().any(|key| slot_of(key) == slot)
            {
                *standing = Standing::Stable(member);
                self.changed = true;
            }
        }
    }

    /// The slots that are stable at a primary.
    pub(super) fn stable(&self, member: usize) -> SlotSet {
        let of = |slot: &u16| self.slots[usize::from(*slot)] == Standing::Stable(member);
        (0..SLOTS).filter(of).collect()
    }

    /// How many slots are open.
    pub(super) fn open_slots(&self) -> usize {
        self.slots.iter().filter(|it| **it == Standing::Open).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"{b}x";
    const OTHER: &[u8] = b"{b}y";

    fn set(text: &str) -> SlotSet {
        SlotSet::parse(text).unwrap()
    }

    /// Two primaries; the slot of the keys, 3300, is the first one's.
    fn board() -> Board {
        let mut board = Board::new(&[None, None]);
        board.claim(0, set("0-8000"), set(""));
        board.claim(1, set("8001-16383"), set(""));
        board.begin();
        board
    }

    fn dirty(board: &mut Board) -> Vec<Vec<u8>> {
        board.take_dirty().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_stable_slot_is_computed_from_its_primary_alone() {
        let mut board = board();
        assert_eq!(board.judge(0, &[KEY, OTHER], 10), Verdict::Take);
        assert_eq!(board.stable(0).to_string(), "0-8000");
        // The other's stream names a key of it: it came there.
        assert_eq!(board.judge(1, &[KEY], 5), Verdict::Pass);
        assert_eq!(dirty(&mut board), [KEY.to_vec()]);
        assert_eq!(board.judge(0, &[OTHER], 11), Verdict::Pass, "it is open for both");
        assert_eq!(board.open_slots(), 1);
        assert_eq!(board.stable(0).to_string(), "0-3299,3301-8000");
    }

    #[test]
    fn a_slot_that_its_primary_says_is_moving_or_gone_is_open() {
        for (claimed, moving) in [("0-8000", "3300"), ("0-3299,3301-8000", "")] {
            let mut board = board();
            board.claim(0, set(claimed), set(moving));
            assert_eq!(board.judge(0, &[KEY], 10), Verdict::Pass);
            assert!(!board.may_close());
        }
    }

    /// The slot came to the second primary; a key of it was read there at 70.
    fn moved() -> Board {
        let mut board = board();
        board.claim(0, set("0-3299,3301-8000"), set(""));
        board.judge(1, &[KEY], 5);
        assert_eq!(dirty(&mut board), [KEY.to_vec()]);
        board.was_read(1, KEY, 70);
        assert!(!board.may_close(), "nobody has it");
        board.claim(1, set("3300,8001-16383"), set(""));
        assert!(board.may_close());
        board.close(vec![100, 50]);
        board
    }

    #[test]
    fn a_slot_that_moved_is_stable_once_all_streams_have_passed_what_was_read() {
        let mut board = moved();
        assert!(!board.advance(&[Some(99), Some(60)]), "the old primary's rest is not read");
        assert!(!board.advance(&[None, Some(60)]), "it reads a dump");
        assert!(board.advance(&[Some(100), Some(60)]));
        assert_eq!(board.stable(1).to_string(), "8001-16383", "the key was read further on");
        assert_eq!(board.judge(1, &[KEY], 65), Verdict::Pass, "that is in what was read");
        assert_eq!(board.judge(1, &[OTHER], 66), Verdict::Take);
        assert_eq!(board.judge(1, &[KEY], 71), Verdict::Take);
        assert_eq!(board.judge_row(1, OTHER), Verdict::Take);
        assert_eq!(dirty(&mut board), Vec::<Vec<u8>>::new());
        assert!(!board.advance(&[Some(100), Some(70)]));
        assert_eq!(board.stable(1).to_string(), "3300,8001-16383");
    }

    #[test]
    fn a_command_of_a_key_that_was_read_further_on_reads_its_other_keys_back() {
        let mut board = moved();
        board.advance(&[Some(100), Some(60)]);
        assert_eq!(board.judge(1, &[OTHER, KEY], 65), Verdict::Pass);
        assert_eq!(dirty(&mut board), [OTHER.to_vec()]);
        assert_eq!(board.judge_row(1, KEY), Verdict::Pass, "flushed before it was read");
        assert_eq!(dirty(&mut board), [KEY.to_vec()]);
    }

    #[test]
    fn a_slot_that_moves_on_while_it_closes_stays_open() {
        let mut board = moved();
        assert_eq!(board.judge(0, &[KEY], 100), Verdict::Pass);
        assert_eq!(board.judge(0, &[KEY], 101), Verdict::Pass);
        assert!(!board.advance(&[Some(101), Some(80)]));
        assert_eq!(board.open_slots(), 1);
    }

    #[test]
    fn rows_and_captured_keys_belong_to_who_reads_them_or_to_all_while_open() {
        let mut board = board();
        assert!(board.concerns(0, KEY) && !board.concerns(1, KEY));
        assert_eq!(board.judge_row(0, KEY), Verdict::Take);
        assert_eq!(board.judge_row(1, KEY), Verdict::Pass);
        assert!(board.concerns(0, KEY) && board.concerns(1, KEY));
        assert_eq!(board.take_dirty(), [(KEY.to_vec(), Some(0))]);
    }

    #[test]
    fn what_was_stable_goes_on_so_and_the_rest_is_open() {
        let at = crate::sources::redis::position::Position::Anew;
        let place = Place { id: "a".to_owned(), at, slots: set("3300") };
        let mut board = Board::new(&[None, Some(&place)]);
        assert_eq!(board.judge(1, &[KEY], 1), Verdict::Take);
        assert_eq!(board.open_slots(), 16_383);
        board.claim(1, set(""), set(""));
        assert_eq!(board.open_slots(), 16_384);
    }
}
