//! Tables of listings: what is read next, and what is lost.

use super::*;

const NOW: i64 = 1_000;
const FRESH: Place = Place::Horizon { since_ms: NOW };

fn anchored(listing: &[Listed]) -> Lineage {
    Lineage::anchored(listing, NOW)
}

fn open(id: &str, parent: &str) -> Listed {
    let parent = (!parent.is_empty()).then(|| parent.to_owned());
    Listed { id: id.to_owned(), parent, closed: false }
}

fn closed(id: &str, parent: &str) -> Listed {
    Listed { closed: true, ..open(id, parent) }
}

fn readable(lineage: &Lineage) -> Vec<&str> {
    lineage.readable().map(|(id, _)| id).collect()
}

fn after(text: &str) -> Place {
    Place::After(SequenceNumber::parse(text).unwrap())
}

fn no_loss(lineage: &mut Lineage, listing: &[Listed]) {
    assert_eq!(lineage.learn(listing, NOW).unwrap(), []);
}

#[test]
fn at_the_anchor_closed_shards_are_finished_and_open_ones_start_at_their_oldest_record() {
    let lineage = anchored(&[closed("a", "trimmed"), open("b", "a"), open("c", "")]);
    assert_eq!(lineage.place("a"), Some(&Place::Finished));
    assert_eq!(readable(&lineage), ["b", "c"]);
    assert!(lineage.readable().all(|(_, place)| *place == FRESH));
}

#[test]
fn a_child_waits_for_its_parent_to_end_when_a_shard_rolls() {
    let mut lineage = anchored(&[open("a", "")]);
    no_loss(&mut lineage, &[closed("a", ""), open("b", "a")]);
    lineage.advance("a", after("7"));
    assert_eq!(readable(&lineage), ["a"]);
    lineage.advance("a", Place::Finished);
    assert_eq!(readable(&lineage), ["b"]);
}

#[test]
fn one_restored_reads_no_child_beside_its_parent_before_it_knows_which_is_which() {
    let places = || [("a".to_owned(), after("7")), ("b".to_owned(), FRESH)].into();
    let mut lineage = Lineage::restored(places(), String::new());
    assert_eq!(readable(&lineage), [] as [&str; 0]);
    no_loss(&mut lineage, &[closed("a", ""), open("b", "a")]);
    assert_eq!(readable(&lineage), ["a"]);
    let mut places: BTreeMap<_, _> = places();
    places.insert("a".to_owned(), Place::Finished);
    let lineage = Lineage::restored(places, String::new());
    assert_eq!(readable(&lineage), ["b"], "it has nobody to wait for");
}

#[test]
fn both_children_of_a_split_are_read_once_the_parent_has_ended() {
    let mut lineage = anchored(&[open("a", ""), open("z", "")]);
    no_loss(&mut lineage, &[closed("a", ""), open("b", "a"), open("c", "a"), open("z", "")]);
    assert_eq!(readable(&lineage), ["a", "z"]);
    lineage.advance("a", Place::Finished);
    assert_eq!(readable(&lineage), ["b", "c", "z"]);
    assert!(lineage.has_child("a") && !lineage.has_child("z"));
}

#[test]
fn a_grandchild_waits_for_the_child_even_if_both_came_in_one_listing() {
    let mut lineage = anchored(&[open("a", "")]);
    no_loss(&mut lineage, &[open("c", "b"), closed("b", "a"), closed("a", "")]);
    lineage.advance("a", Place::Finished);
    assert_eq!(readable(&lineage), ["b"]);
    lineage.advance("b", Place::Finished);
    assert_eq!(readable(&lineage), ["c"]);
}

#[test]
fn an_unfinished_shard_that_vanished_is_a_loss_and_its_child_is_read() {
    let mut lineage = anchored(&[open("a", "")]);
    lineage.advance("a", after("7"));
    let listing = [open("b", "a")];
    let losses = lineage.learn(&listing, NOW).unwrap();
    assert_eq!(losses.len(), 1);
    assert_eq!(losses[0].kind, GapKind::Vanished);
    assert!(losses[0].detail.contains("shard a, read up to record 7"), "{losses:?}");
    assert_eq!(readable(&lineage), ["b"]);
    no_loss(&mut lineage, &listing);
}

#[test]
fn a_shard_born_and_trimmed_between_two_listings_is_a_loss() {
    let mut lineage = anchored(&[open("a", "")]);
    lineage.advance("a", Place::Finished);
    let losses = lineage.learn(&[closed("a", ""), open("c", "b")], NOW).unwrap();
    assert_eq!(losses.len(), 1);
    assert!(losses[0].detail.contains("shard b came and went"), "{losses:?}");
    assert_eq!(readable(&lineage), ["c"]);
}

#[test]
fn two_children_of_one_lost_parent_are_one_loss() {
    let mut lineage = anchored(&[closed("a", "")]);
    let losses = lineage.learn(&[closed("a", ""), open("c", "b"), open("d", "b")], NOW).unwrap();
    assert_eq!(losses.len(), 1, "{losses:?}");
}

#[test]
fn parents_trimmed_before_the_anchor_are_no_loss() {
    let mut lineage = anchored(&[open("b", "a")]);
    no_loss(&mut lineage, &[open("b", "a")]);
    assert_eq!(readable(&lineage), ["b"]);
}

#[test]
fn a_finished_shard_is_forgotten_when_it_is_no_longer_listed() {
    let mut lineage = anchored(&[closed("a", ""), open("b", "a")]);
    no_loss(&mut lineage, &[open("b", "a")]);
    assert_eq!(lineage.place("a"), None);
    assert_eq!((readable(&lineage), lineage.forgotten()), (vec!["b"], "a"));
}

#[test]
fn a_finished_shard_that_reappears_is_not_read_again() {
    let mut lineage = anchored(&[closed("a", ""), open("b", "a")]);
    no_loss(&mut lineage, &[open("b", "a")]);
    no_loss(&mut lineage, &[closed("a", ""), open("b", "a")]);
    assert_eq!(lineage.place("a"), Some(&Place::Finished));
    assert_eq!(readable(&lineage), ["b"]);
}

#[test]
fn a_listing_without_a_known_shard_costs_something_until_it_is_believed() {
    let lineage = anchored(&[open("a", ""), open("b", "")]);
    assert_eq!(lineage.losses(&[open("a", "")]).len(), 1);
    assert_eq!(lineage.losses(&[open("a", ""), open("b", "")]), []);
}

#[test]
fn parents_in_a_circle_are_refused() {
    let mut lineage = Lineage::default();
    let error = lineage.learn(&[open("a", "b"), open("b", "a")], NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(lineage.learn(&[open("c", "c")], NOW).is_err());
}

#[test]
fn after_a_day_of_rolling_only_what_is_listed_is_known() {
    let mut lineage = anchored(&[open("s000", "")]);
    for born in 1..200 {
        let name = |n: i32| format!("s{n:03}");
        let oldest = (born - 6).max(0);
        let mut listing: Vec<Listed> = (oldest..born)
            .map(|n| closed(&name(n), &if n > 0 { name(n - 1) } else { String::new() }))
            .collect();
        listing.push(open(&name(born), &name(born - 1)));
        no_loss(&mut lineage, &listing);
        assert_eq!(readable(&lineage), [name(born - 1)]);
        lineage.advance(&name(born - 1), Place::Finished);
        assert!(lineage.places().len() <= 7);
    }
}

#[test]
fn a_parent_that_turns_up_behind_its_child_is_not_read_over_it() {
    let mut lineage = anchored(&[open("a", ""), open("x", "")]);
    lineage.advance("a", after("7"));
    // A listing without the shard that is being read, twice: it is given up.
    let without = [open("b", "a"), open("x", "")];
    let given_up = lineage.learn(&without, NOW).unwrap();
    assert!(given_up.len() == 1 && given_up[0].detail.contains("stream shard a"), "{given_up:?}");
    assert_eq!(readable(&lineage), ["b", "x"]);
    no_loss(&mut lineage, &[closed("9", ""), closed("a", "9"), open("b", "a"), open("x", "")]);
    assert_eq!(readable(&lineage), ["b", "x"]);
    assert_eq!(lineage.place("9"), Some(&Place::Finished), "nor those above it");
    // A child of a known one is read, of course.
    no_loss(&mut lineage, &[closed("b", "a"), open("c", "b"), open("x", "")]);
    lineage.advance("b", Place::Finished);
    assert_eq!(readable(&lineage), ["c", "x"]);
}
