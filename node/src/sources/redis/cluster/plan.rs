//! Which primaries are followed, and which of them goes on for which.

use super::nodes::{Node, Role};
use super::position::Place;

/// A primary that is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) id: String,
    pub(super) address: String,
    /// The place it goes on from, by its number: its own, or that of the primary
    /// it took over from.
    pub(super) place: Option<usize>,
}

/// Each primary that lives is followed. `Err` names one whose place nobody has
/// taken yet.
pub(super) fn plan(places: &[Place], nodes: &[Node]) -> Result<Vec<Planned>, String> {
    let live: Vec<&Node> = nodes.iter().filter(|node| node.role == Role::Primary).collect();
    let lives = |id: &str| live.iter().any(|node| node.id == id);
    let down = |node: &&Node| node.role == Role::FailedPrimary && !node.slots.is_empty();
    if let Some(node) = nodes.iter().find(down) {
        return Err(node.address.clone());
    }
    let mut taken = vec![false; places.len()];
    let mut planned = Vec::new();
    for node in &live {
        let own = places.iter().position(|place| place.id == node.id);
        // What a failed primary had, one replica of it has now.
        let inherited = || {
            let left = |(number, place): &(usize, &Place)| {
                !taken[*number]
                    && !lives(&place.id)
                    && place.slots.iter().any(|slot| node.slots.contains(slot))
            };
            Some(places.iter().enumerate().find(left)?.0)
        };
        let place = own.or_else(inherited);
        if let Some(taken) = place.and_then(|number| taken.get_mut(number)) {
            *taken = true;
        }
        planned.push(Planned { id: node.id.clone(), address: node.address.clone(), place });
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::super::slots::SlotSet;
    use super::*;
    use crate::sources::redis::position::Position;

    fn node(id: &str, role: Role, slots: &str) -> Node {
        let slots = SlotSet::parse(slots).unwrap();
        let moving = SlotSet::default();
        let (id, address) = (id.to_owned(), format!("{id}:1"));
        Node { id, address, asked: false, role, slots, moving }
    }

    fn place(id: &str, slots: &str) -> Place {
        let slots = SlotSet::parse(slots).unwrap();
        Place { id: id.to_owned(), at: Position::Anew, slots }
    }

    fn numbers(places: &[Place], nodes: &[Node]) -> Vec<(String, Option<usize>)> {
        let planned = plan(places, nodes).unwrap();
        planned.into_iter().map(|it| (it.id, it.place)).collect()
    }

    #[test]
    fn each_primary_goes_on_where_it_was_and_new_ones_begin() {
        let places = [place("a", "0-9"), place("b", "10-19")];
        let nodes = [
            node("b", Role::Primary, "10-19"),
            node("a", Role::Primary, "0-9"),
            node("r", Role::Replica, ""),
            node("new", Role::Primary, ""),
        ];
        let wanted = [("b", Some(1)), ("a", Some(0)), ("new", None)];
        assert_eq!(numbers(&places, &nodes), wanted.map(|(id, at)| (id.to_owned(), at)));
    }

    #[test]
    fn a_replica_goes_on_for_its_primary() {
        let places = [place("a", "0-9"), place("b", "10-19")];
        let mut nodes = vec![
            node("a", Role::FailedPrimary, ""),
            node("r", Role::Primary, "0-9"),
            node("b", Role::Primary, "10-19"),
        ];
        let wanted = [("r", Some(0)), ("b", Some(1))];
        assert_eq!(numbers(&places, &nodes), wanted.map(|(id, at)| (id.to_owned(), at)));
        // The old primary came back as a replica.
        nodes[0] = node("a", Role::Replica, "");
        assert_eq!(numbers(&places, &nodes), wanted.map(|(id, at)| (id.to_owned(), at)));
    }

    #[test]
    fn a_primary_that_gave_slots_away_and_lives_is_inherited_by_nobody() {
        let places = [place("a", "0-9"), place("b", "10-19")];
        let nodes = [
            node("a", Role::Primary, "0-4"),
            node("b", Role::Primary, "10-19"),
            node("c", Role::Primary, "5-9"),
        ];
        assert_eq!(numbers(&places, &nodes)[2], ("c".to_owned(), None));
    }

    #[test]
    fn a_primary_without_a_successor_is_waited_for() {
        let nodes = [node("a", Role::FailedPrimary, "0-9"), node("b", Role::Primary, "10-19")];
        assert_eq!(plan(&[], &nodes), Err("a:1".to_owned()));
    }
}
