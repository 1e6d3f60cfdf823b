//! The table of exports: what is asked for.

use std::collections::BTreeSet;

use tidegate_proto::v1::{
    Export, ExportDelete, ExportPut, ExportSetRate, ExportSetState, ExportState, Outcome, SinkRef,
};

use super::outcome::{Verdict, conflict, created, done, exists, invalid, not_found};
use super::{At, State};
use crate::keys::Row;

impl State {
    /// Answered with the new version.
    pub(super) fn put_export(&mut self, at: At, command: ExportPut) -> Verdict {
        check(&command)?;
        let known = self.exports.values().find(|export| export.name == command.name);
        let export = match known {
            None if command.replaces == 0 => created_by(at, command),
            None => return Err(no_export(&command.name)),
            Some(known) => altered(known, at, command)?,
        };
        assert!(export.version == at.index, "a version is the index that made it");
        let id = export.id;
        self.forget_sinks(&export);
        self.exports.insert(id, export);
        self.touch(Row::Export(id));
        self.clear_failures(id);
        Ok(created(at.index))
    }

    /// Making an export active, also one that is, starts its failed shards
    /// again: the operator has mended what their failures named.
    pub(super) fn set_export_state(&mut self, command: &ExportSetState) -> Verdict {
        if command.state() == ExportState::Unspecified {
            return Err(invalid("an export is active or paused"));
        }
        let export = self.exports.values_mut().find(|export| export.name == command.name);
        let export = export.ok_or_else(|| no_export(&command.name))?;
        let id = export.id;
        if export.state != command.state {
            export.state = command.state;
            self.touch(Row::Export(id));
        }
        if command.state() == ExportState::Active {
            self.clear_failures(id);
        }
        Ok(done())
    }

    pub(super) fn set_export_rate(&mut self, command: &ExportSetRate) -> Verdict {
        let export = self.exports.values_mut().find(|export| export.name == command.name);
        let export = export.ok_or_else(|| no_export(&command.name))?;
        if export.rate != command.rate {
            export.rate = command.rate;
            let id = export.id;
            self.touch(Row::Export(id));
        }
        Ok(done())
    }

    /// Takes its shards and their gaps with it.
    pub(super) fn delete_export(&mut self, command: &ExportDelete) -> Verdict {
        let export = self.export_named(&command.name).ok_or_else(|| no_export(&command.name))?;
        let id = export.id;
        self.exports.remove(&id);
        self.touch(Row::Export(id));
        self.delete_shards(id);
        Ok(done())
    }

    /// Takes the writers and delivered checkpoints of sinks that `export`, not
    /// yet in the table, no longer has or has of another kind.
    fn forget_sinks(&mut self, export: &Export) {
        let before = self.exports.get(&export.id);
        let gone: Vec<String> = before
            .iter()
            .flat_map(|known| &known.sinks)
            .filter(|sink| !export.sinks.contains(sink))
            .map(|sink| sink.name.clone())
            .collect();
        if !gone.is_empty() {
            self.remove_sinks(export.id, &gone);
        }
    }
}

fn check(command: &ExportPut) -> Result<(), Outcome> {
    if command.name.is_empty() {
        return Err(invalid("an export needs a name"));
    }
    let names: BTreeSet<&str> = command.sinks.iter().map(|sink| sink.name.as_str()).collect();
    if names.contains("") || names.len() < command.sinks.len() {
        return Err(invalid("each sink of an export needs a name of its own"));
    }
    Ok(())
}

fn created_by(at: At, command: ExportPut) -> Export {
    Export {
        id: at.index,
        name: command.name,
        spec: command.spec,
        version: at.index,
        source_kind: command.source_kind,
        sinks: command.sinks,
        state: ExportState::Active.into(),
        created_ms: at.ms,
        shards: 0,
        rate: None,
        snapshot_paused: false,
    }
}

/// Positions of one kind of source mean nothing to another, so that one stays.
fn altered(known: &Export, at: At, command: ExportPut) -> Result<Export, Outcome> {
    if command.replaces == 0 {
        return Err(exists(format!(
            "there is an export {:?} already, at version {}; alter that one or choose another name",
            known.name, known.version
        )));
    }
    if command.replaces != known.version {
        return Err(conflict(format!(
            "export {:?} is at version {}, not {}; look at what changed and apply again",
            known.name, known.version, command.replaces
        )));
    }
    if command.source_kind != known.source_kind {
        return Err(invalid(format!(
            "export {:?} reads from {}; delete it to read from {} under that name",
            known.name, known.source_kind, command.source_kind
        )));
    }
    let sinks: Vec<SinkRef> = command.sinks;
    Ok(Export { spec: command.spec, version: at.index, sinks, ..known.clone() })
}

fn no_export(name: &str) -> Outcome {
    not_found(format!("there is no export {name:?}"))
}
