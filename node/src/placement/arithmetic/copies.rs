//! Who keeps a spool.

use std::collections::BTreeSet;

use crate::placement::arithmetic::{Loads, Now, Site, site};

/// The nodes that keep the spool of a shard read and written at these nodes.
///
/// Bound are the reader, where it is moved, where it will go home, and one node
/// of every other region that has a writer, so that a change crosses once. The
/// rest is chosen near the reader, or over more regions if that is wanted; what
/// is a copy stays one before another is made. A copy in sync is given up only
/// when enough others are.
pub(super) fn copies(
    nodes: &[Site],
    now: &Now,
    (reader, writers): (usize, &[usize]),
    loads: &mut Loads,
) -> BTreeSet<usize> {
    let may = |node: &usize| site(nodes, *node).may();
    let stays = |node: &usize| {
        let site = site(nodes, *node);
        site.may() || (site.awaited() && !site.cordoned)
    };
    let kept = |node: &usize| stays(node) && (may(node) || now.copies.contains(node));
    let room = (0..nodes.len()).filter(stays).count();
    // A reader may be on a node that is to be left.
    let mut chosen: BTreeSet<usize> = [reader].into_iter().filter(kept).collect();
    chosen.extend(now.moving_to.filter(may).or_else(|| home(nodes, now, reader)));
    for writer in writers.iter().copied().filter(|node| kept(node)) {
        if !regions(nodes, &chosen).contains(&site(nodes, writer).region) {
            chosen.insert(writer);
        }
    }
    let near = site(nodes, reader).region;
    let wanted = now.wanted.max(1).min(room.max(1)).max(chosen.len());
    while chosen.len() < wanted {
        let there = regions(nodes, &chosen);
        let spread = there.len() < now.spread;
        let misplaced = |node: &usize| {
            let region = site(nodes, *node).region;
            if spread { there.contains(&region) } else { region != near }
        };
        let is = |node: &usize| now.copies.contains(node);
        let rank = |node: &usize| {
            (misplaced(node), !is(node), !now.in_sync.contains(node), loads.copies[*node])
        };
        let free = (0..nodes.len()).filter(|node| kept(node) && !chosen.contains(node));
        let Some(node) = free.min_by_key(rank) else { break };
        if !is(&node) {
            loads.copies[node] += 1;
        }
        chosen.insert(node);
    }
    chosen.insert(reader);
    if chosen.intersection(&now.in_sync).count() < wanted {
        // Not yet without those that are.
        let leaving = now.copies.iter().filter(|node| site(nodes, **node).up());
        chosen.extend(leaving.filter(|node| now.in_sync.contains(node)));
    }
    chosen
}

/// Where a reader away from its source will go once a copy there is in sync.
fn home(nodes: &[Site], now: &Now, reader: usize) -> Option<usize> {
    now.region.filter(|region| site(nodes, reader).region != *region)?;
    let may = |node: &usize| {
        let site = site(nodes, *node);
        site.may() && !site.fresh && site.in_region(now.region)
    };
    let rank = |node: &usize| (!now.in_sync.contains(node), !now.copies.contains(node));
    (0..nodes.len()).filter(may).min_by_key(rank)
}

fn regions(nodes: &[Site], chosen: &BTreeSet<usize>) -> BTreeSet<u32> {
    chosen.iter().map(|node| site(nodes, *node).region).collect()
}
