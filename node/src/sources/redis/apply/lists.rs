//! Lists.

use super::arguments::Arguments;
use super::ranges::slice;
use super::{Done, Place, Stop};
use crate::sources::redis::object::List;

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"LPUSH" | b"LPUSHX" => edit(place, rest, |list, rest| {
            rest.rest().iter().for_each(|element| list.push_front(element.to_vec()));
            Ok(())
        }),
        b"RPUSH" | b"RPUSHX" => edit(place, rest, |list, rest| {
            rest.rest().iter().for_each(|element| list.push_back(element.to_vec()));
            Ok(())
        }),
        b"LPOP" | b"RPOP" => edit(place, rest, |list, rest| {
            let count = if rest.is_empty() { 1 } else { rest.parse("a count")? };
            for _ in 0..list.len().min(count) {
                pop(list, name == b"LPOP");
            }
            Ok(())
        }),
        b"LSET" => edit(place, rest, |list, rest| {
            let at = index(list, rest.parse("an index")?).ok_or(Stop::Reread("an index"))?;
            list[at] = rest.next()?.to_vec();
            Ok(())
        }),
        b"LTRIM" => edit(place, rest, |list, rest| {
            let range = slice(rest.parse("an index")?, rest.parse("an index")?, list.len());
            list.truncate(range.end);
            list.drain(..range.start.min(list.len()));
            Ok(())
        }),
        b"LREM" => edit(place, rest, |list, rest| {
            let count: i64 = rest.parse("a count")?;
            remove(list, count, rest.next()?);
            Ok(())
        }),
        b"LINSERT" => edit(place, rest, |list, rest| {
            let behind = usize::from(rest.next()?.eq_ignore_ascii_case(b"AFTER"));
            let pivot = rest.next()?;
            let at = list.iter().position(|element| element == pivot);
            let at = at.ok_or(Stop::Reread("an element to insert at"))?;
            list.insert(at + behind, rest.next()?.to_vec());
            Ok(())
        }),
        b"RPOPLPUSH" | b"BRPOPLPUSH" => move_element(place, rest, Some((false, true))),
        b"LMOVE" | b"BLMOVE" => move_element(place, rest, None),
        _ => Err(Stop::Unknown),
    }
}

fn edit(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    change: impl FnOnce(&mut List, &mut Arguments<'_>) -> Done,
) -> Done {
    let key = rest.next()?;
    place.keys.edit(*place.db, key, |list| change(list, rest))
}

fn pop(list: &mut List, left: bool) -> Option<Vec<u8>> {
    if left { list.pop_front() } else { list.pop_back() }
}

/// Moves an element from one list's end to another's; `ends` says whether each
/// is the left one, unless the command does.
fn move_element(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    ends: Option<(bool, bool)>,
) -> Done {
    let (from, to) = (rest.next()?, rest.next()?);
    let mut is_left = || Ok::<_, Stop>(rest.next()?.eq_ignore_ascii_case(b"LEFT"));
    let (from_left, to_left) = match ends {
        Some(ends) => ends,
        None => (is_left()?, is_left()?),
    };
    let push = |list: &mut List, moved| {
        if to_left { list.push_front(moved) } else { list.push_back(moved) }
    };
    let empty = || Stop::Reread("an element to move");
    if from == to {
        // It is never empty, so it keeps its expiry.
        return place.keys.edit(*place.db, from, |list: &mut List| {
            let moved = pop(list, from_left).ok_or_else(empty)?;
            push(list, moved);
            Ok(())
        });
    }
    // Known before anything is changed.
    place.keys.content::<List>(*place.db, to)?;
    let moved = place
        .keys
        .edit(*place.db, from, |list: &mut List| pop(list, from_left).ok_or_else(empty))?;
    place.keys.edit(*place.db, to, |list: &mut List| {
        push(list, moved);
        Ok(())
    })
}

/// Below 0, an index counts from the end.
fn index(list: &List, at: i64) -> Option<usize> {
    let length = i64::try_from(list.len()).ok()?;
    let at = if at < 0 { at.checked_add(length)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < list.len())
}

/// Removes so many equal elements, from the end if `count` is below 0; all of
/// them if it is 0.
fn remove(list: &mut List, count: i64, element: &[u8]) {
    let mut left = if count == 0 { u64::MAX } else { count.unsigned_abs() };
    let mut keep = |other: &Vec<u8>| {
        let goes = left > 0 && other == element;
        left -= u64::from(goes);
        !goes
    };
    if count < 0 {
        let mut kept: List = List::new();
        while let Some(last) = list.pop_back() {
            if keep(&last) {
                kept.push_front(last);
            }
        }
        *list = kept;
    } else {
        list.retain(keep);
    }
}
