//! How what a batch adds to a shard's progress is added up.

use tidegate_proto::v1::{Progress, SnapshotState};

/// Gaps that are known to be marked.
const MARKED_MAX: usize = 32;

/// Adds `delta`, in which only what moved is set, to `total`.
///
/// The stream position and the state of the snapshot are replaced if the delta
/// has them, chunks are replaced one by one, an ended stream stays ended, and of two
/// positions that an operator set the later counts.
/// A snapshot that is over has no chunks, and one of a higher round none of those before.
/// Of gaps whose marks are there, the last 32 count.
/// A whole delta takes the place of all that was there: its reader may have begun
/// behind it. Absorbing the same delta again changes nothing; so a delta that holds
/// everything may be absorbed as well.
///
/// Deltas may be gathered: absorbing them one by one gives what absorbing their
/// sum gives. For that a snapshot that starts again has a higher round.
///
/// ```
/// use tidegate_proto::v1::Progress;
/// use tidegate_raft_store::absorb;
///
/// let mut total = Progress { stream: "5".into(), ..Default::default() };
/// absorb(&mut total, &Progress { ended: true, ..Default::default() });
/// assert_eq!((total.stream.as_ref(), total.ended), (b"5".as_slice(), true));
/// ```
pub fn absorb(total: &mut Progress, delta: &Progress) {
    if delta.whole {
        *total = Progress { whole: true, ..Progress::default() };
    }
    if delta.round > total.round {
        total.round = delta.round;
        total.chunks.clear();
    }
    if !delta.stream.is_empty() {
        total.stream = delta.stream.clone();
    }
    if delta.snapshot != SnapshotState::Unspecified as i32 {
        total.snapshot = delta.snapshot;
    }
    total.ended |= delta.ended;
    total.position_set = total.position_set.max(delta.position_set);
    if !delta.marked.is_empty() {
        total.marked.extend(&delta.marked);
        total.marked.sort_unstable();
        total.marked.dedup();
        total.marked.drain(..total.marked.len().saturating_sub(MARKED_MAX));
    }
    if matches!(total.snapshot(), SnapshotState::Complete | SnapshotState::Canceled) {
        total.chunks.clear();
        return;
    }
    for (chunk, progress) in &delta.chunks {
        total.chunks.insert(*chunk, progress.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tidegate_proto::v1::ChunkProgress;

    use super::*;

    fn chunk(rows: u64) -> ChunkProgress {
        ChunkProgress { cursor: rows.to_string().into(), done: rows > 4, rows, bytes: rows * 9 }
    }

    fn with(stream: &str, chunks: &[(u32, u64)], snapshot: SnapshotState) -> Progress {
        Progress {
            stream: stream.to_owned().into(),
            chunks: chunks.iter().map(|&(number, rows)| (number, chunk(rows))).collect(),
            snapshot: snapshot as i32,
            ..Progress::default()
        }
    }

    #[test]
    fn only_what_is_set_moves() {
        let mut total = with("a", &[(0, 1), (1, 2)], SnapshotState::Running);
        absorb(&mut total, &with("", &[(1, 3)], SnapshotState::Unspecified));
        assert_eq!(total, with("a", &[(0, 1), (1, 3)], SnapshotState::Running));
        absorb(&mut total, &with("b", &[], SnapshotState::Unspecified));
        assert_eq!(total, with("b", &[(0, 1), (1, 3)], SnapshotState::Running));
    }

    #[test]
    fn a_complete_snapshot_forgets_its_chunks() {
        let mut total = with("a", &[(0, 1)], SnapshotState::Running);
        absorb(&mut total, &with("", &[(0, 5)], SnapshotState::Complete));
        assert_eq!(total, with("a", &[], SnapshotState::Complete));
    }

    #[test]
    fn a_whole_delta_takes_the_place_of_what_was_there() {
        let mut total = with("a", &[(0, 9), (1, 2)], SnapshotState::Running);
        total.ended = true;
        let whole = Progress { whole: true, ..with("b", &[(1, 1)], SnapshotState::Running) };
        absorb(&mut total, &whole);
        assert_eq!(total, whole, "chunk 0 is no longer done, nor is the stream at its end");
        let mut sum = with("c", &[(2, 9)], SnapshotState::Unspecified);
        absorb(&mut sum, &whole);
        assert_eq!(sum, whole, "it stays whole when it is gathered");
    }

    #[test]
    fn a_snapshot_of_a_higher_round_begins_without_the_chunks_of_the_one_before() {
        let mut total = with("a", &[(0, 9), (1, 2)], SnapshotState::Running);
        let second = Progress { round: 1, ..with("", &[(1, 1)], SnapshotState::Running) };
        absorb(&mut total, &second);
        assert_eq!(total, Progress { stream: "a".into(), ..second.clone() });
        absorb(&mut total, &Progress { round: 1, ..with("", &[(0, 2)], SnapshotState::Running) });
        assert_eq!(total.chunks.len(), 2, "the same round goes on");
    }

    #[test]
    fn a_position_that_was_set_stays_so() {
        let mut total = Progress { position_set: 2, ..Progress::default() };
        absorb(&mut total, &Progress { position_set: 1, ..Progress::default() });
        absorb(&mut total, &Progress::default());
        assert_eq!(total.position_set, 2);
    }

    #[test]
    fn an_ended_stream_stays_ended() {
        let mut total = Progress { ended: true, ..Progress::default() };
        absorb(&mut total, &Progress::default());
        assert!(total.ended);
    }

    fn any_progress(states: &'static [i32]) -> impl Strategy<Value = Progress> {
        let chunks = prop::collection::btree_map(0..4_u32, (0..9_u64).prop_map(chunk), 0..3);
        let seldom = || prop::bool::weighted(0.1);
        let set = prop_oneof![9 => Just(0), 1 => 1..4_u64];
        // More than count, now and then.
        let marked = prop::collection::btree_set(1..50_u64, 0..30);
        let gaps = (set, prop_oneof![3 => Just(BTreeSet::new()), 1 => marked]);
        ("[a-c]?", chunks, prop::sample::select(states), seldom(), seldom(), gaps).prop_map(
            |(stream, chunks, snapshot, ended, whole, (position_set, marked))| Progress {
                stream: stream.into(),
                chunks,
                snapshot,
                ended,
                whole,
                round: 0,
                position_set,
                marked: marked.into_iter().collect(),
            },
        )
    }

    /// Progress of a life: before a snapshot, during it, after it; and again.
    fn any_life() -> impl Strategy<Value = Vec<Progress>> {
        let part = |states| prop::collection::vec(any_progress(states), 0..5);
        let snapshot = || (part(&[0, 1]), part(&[0, 2, 4]), part(&[0])).prop_map(concat);
        let begun = |mut round: Vec<Progress>, number| {
            let begin = Progress { round: number, ..with("", &[], SnapshotState::Running) };
            round.insert(0, begin);
            round
        };
        (part(&[0]), snapshot(), snapshot(), snapshot()).prop_map(
            move |(before, first, second, third)| {
                [before, first, begun(second, 1), begun(third, 2)].concat()
            },
        )
    }

    fn concat((one, two, three): (Vec<Progress>, Vec<Progress>, Vec<Progress>)) -> Vec<Progress> {
        [one, two, three].concat()
    }

    proptest! {
        #[test]
        fn one_by_one_equals_their_sum(life in any_life(), at in 0..20_usize) {
            let (start, deltas) = life.split_at(at.min(life.len()));
            let mut base = Progress::default();
            start.iter().for_each(|delta| absorb(&mut base, delta));

            let (mut stepped, mut sum) = (base.clone(), Progress::default());
            for delta in deltas {
                absorb(&mut stepped, delta);
                absorb(&mut sum, delta);
            }
            let mut jumped = base;
            absorb(&mut jumped, &sum);
            prop_assert_eq!(&stepped, &jumped);

            absorb(&mut jumped, &sum);
            prop_assert_eq!(stepped, jumped, "a repeat changes nothing");
        }
    }
}
