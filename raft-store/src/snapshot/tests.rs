use std::collections::BTreeMap;

use openraft::{CommittedLeaderId, Membership};
use tempfile::TempDir;
use tidegate_proto::v1::{ClusterCreate, Command, NodeJoin, command};

use super::*;
use crate::error::StoreErrorKind;

/// A state with two rows, applied up to 7.
fn applied() -> Applied {
    let mut applied = Applied {
        last: Some(LogId::new(CommittedLeaderId::new(2, 1), 7)),
        membership: StoredMembership::new(
            Some(LogId::new(CommittedLeaderId::new(1, 1), 0)),
            Membership::new(vec![[1].into()], BTreeMap::from([(1, Peer::default())])),
        ),
        ..Applied::default()
    };
    let join = NodeJoin { name: "a".to_owned(), address: "a:1".to_owned(), ..Default::default() };
    let create = ClusterCreate { cluster_id: "c".to_owned() };
    for kind in [command::Kind::NodeJoin(join), command::Kind::ClusterCreate(create)] {
        applied.state.apply(5, Command { kind: Some(kind), ..Command::default() });
    }
    applied.state.take_changes();
    applied
}

fn open(dir: &TempDir) -> (Snapshots, Option<Applied>) {
    Snapshots::open(dir.path()).unwrap()
}

fn build(snapshots: &Snapshots, applied: &Applied) {
    let rows: Vec<_> = applied.state.rows().collect();
    snapshots.build(applied.last, applied.membership.clone(), &rows).unwrap();
}

fn built() -> TempDir {
    let dir = TempDir::new().unwrap();
    build(&open(&dir).0, &applied());
    dir
}

#[test]
fn a_snapshot_is_there_again_after_a_restart() {
    let dir = built();
    let (snapshots, found) = open(&dir);
    assert_eq!(found, Some(applied()));
    let meta = snapshots.current().unwrap().unwrap().meta;
    assert_eq!(meta.last_log_id, applied().last);
    assert_eq!(meta.last_membership, applied().membership);
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let read = |dir: TempDir| fs::read(dir.path().join(CURRENT)).unwrap();
    assert_eq!(read(built()), read(built()));
}

#[test]
fn a_snapshot_cut_short_anywhere_is_refused_by_name() {
    let dir = built();
    let path = dir.path().join(CURRENT);
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        let error = file::read(&bytes[..length], &path).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("current is damaged: it is cut short"), "{error}");
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(Snapshots::open(dir.path()).is_err());
}

#[test]
fn every_flipped_bit_of_a_snapshot_is_found() {
    let dir = built();
    let path = dir.path().join(CURRENT);
    let bytes = fs::read(&path).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(file::read(flipped.as_slice(), &path).is_err(), "bit {bit}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert!(file::read(longer.as_slice(), &path).is_err());
}

#[test]
fn what_was_cut_off_in_the_making_is_removed() {
    let dir = built();
    for name in [BUILDING, RECEIVED, ACCEPTED] {
        fs::write(dir.path().join(name), b"half").unwrap();
    }
    let (_, found) = open(&dir);
    assert_eq!(found, Some(applied()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_older_snapshot_does_not_replace_a_newer() {
    let dir = built();
    let (snapshots, _) = open(&dir);
    let older = Applied { last: None, ..applied() };
    build(&snapshots, &older);
    assert_eq!(snapshots.current().unwrap().unwrap().meta.last_log_id, applied().last);
}

#[test]
fn a_received_snapshot_is_checked_before_it_is_kept() {
    let from = built();
    let bytes = fs::read(from.path().join(CURRENT)).unwrap();
    let meta = open(&from).0.current().unwrap().unwrap().meta;

    let to = TempDir::new().unwrap();
    let (snapshots, _) = open(&to);
    let receive = |bytes: &[u8]| {
        let mut file = snapshots.receive().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let error = snapshots.accept(&meta, receive(&bytes[..40])).unwrap_err();
    assert!(error.to_string().contains(ACCEPTED), "{error}");
    let other = SnapshotMeta { last_log_id: None, ..meta.clone() };
    assert!(snapshots.accept(&other, receive(&bytes)).is_err(), "not what was announced");
    assert!(snapshots.current().unwrap().is_none());

    assert_eq!(snapshots.accept(&meta, receive(&bytes)).unwrap(), applied());
    assert_eq!(snapshots.current().unwrap().unwrap().meta, meta);
}
