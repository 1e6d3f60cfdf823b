//! Positions that an operator set: when a reader goes there.

use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::ShardId;

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::mark::mark;
use crate::shard::merge::Merge;
use crate::shard::role::Terms;

/// Has the stream go on where an operator wants it, if it has not since that was asked
/// for: the gap's mark and the position behind it are one batch, so it is done once,
/// whoever dies when.
pub(super) fn go_there(
    control: &Control,
    id: ShardId,
    terms: &Terms,
    merge: &mut Merge,
) -> Result<()> {
    let number = terms.position_set;
    if merge.progress().position_set >= number {
        return Ok(());
    }
    let gap = control.read(|state| state.gaps_of(id).find(|gap| gap.number == number).cloned());
    let gap = gap.ok_or_else(|| Error::new(ErrorKind::Fenced, "the shard was deleted"))?;
    tracing::warn!(gap = number, "the stream goes on at a position that an operator set");
    let mut out = BatchBuilder::default();
    mark(&mut out, std::slice::from_ref(&gap))?;
    merge.go_on_at(&out, gap.position, number)
}
