//! Whether the machine stopped under this node: then what was not synced is gone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tidegate_raft_store::Stop;

use crate::control::identity::write_whole;
use crate::error::{Error, ErrorKind, Result};

const FILE: &str = "boot.json";

/// The runs of a node's process, as far as the machine under them matters.
///
/// What a process wrote survives its death in the system's memory, but not the
/// machine's. A run under another boot than the one before it is torn, unless that
/// one was ended in order.
#[derive(Debug)]
pub struct Boot {
    path: PathBuf,
    /// Absent where no system says.
    now: Option<String>,
    torn: bool,
    /// The cluster was not told yet.
    untold: AtomicBool,
}

/// What is kept in the data folder.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    boot: Option<String>,
    /// Torn, and the cluster was not told yet.
    torn: bool,
    /// Everything was synced when this run ended.
    ended: bool,
}

impl Boot {
    /// Begins a run over the folder `data`; `source` names the boot. A folder that
    /// does not say what came before counts as torn.
    pub fn begin(data: &Path, source: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let now = std::fs::read_to_string(source).ok().map(|text| text.trim().to_owned());
        let torn = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Kept>(&text).map_or(true, |kept| {
                let same = now.is_some() && kept.boot == now;
                kept.torn || !(kept.ended || same)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => {
                let why = format!("read {}", path.display());
                return Err(Error::new(ErrorKind::Config, why).because(error));
            }
        };
        let boot = Self { path, now, torn, untold: AtomicBool::new(torn) };
        boot.keep(false)?;
        Ok(boot)
    }

    /// What this node had not synced may be gone.
    #[must_use]
    pub(super) fn torn(&self) -> bool {
        self.torn
    }

    /// What the databases in the folder have to reckon with.
    #[must_use]
    pub fn stop(&self) -> Stop {
        if self.torn { Stop::Machine } else { Stop::Process }
    }

    /// The cluster knows of this run; from here on only another stop counts.
    pub(super) fn told(&self) -> Result<()> {
        if !self.untold.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.keep(false).inspect_err(|_| self.untold.store(true, Ordering::Relaxed))
    }

    /// This run ends, and everything it wrote is synced.
    pub(super) fn ended(&self) -> Result<()> {
        self.keep(true)
    }

    fn keep(&self, ended: bool) -> Result<()> {
        let torn = self.untold.load(Ordering::Relaxed);
        let kept = Kept { boot: self.now.clone(), torn, ended };
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "encode the boot of this run").because(error)
        })?;
        write_whole(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_torn_if_the_machine_stopped_and_the_run_before_did_not_end_in_order() {
        let data = tempfile::tempdir().unwrap();
        let source = data.path().join("boot_id");
        let reboot = |id: &str| std::fs::write(&source, id).unwrap();
        let begin = || Boot::begin(data.path(), &source).unwrap();
        reboot("one\n");
        assert!(begin().torn(), "nothing says what was before");
        assert!(begin().torn(), "and the cluster was not told");
        begin().told().unwrap();
        assert!(!begin().torn(), "only the process died");
        reboot("two");
        let torn = begin();
        assert!(torn.torn());
        torn.told().unwrap();
        begin().ended().unwrap();
        reboot("three");
        assert!(!begin().torn(), "all was synced");
        reboot("four");
        assert!(begin().torn(), "that holds for one run");
        std::fs::write(data.path().join(FILE), "{").unwrap();
        assert!(begin().torn(), "damage is no reason to believe");
    }

    #[test]
    fn without_a_boot_id_only_an_orderly_end_counts() {
        let data = tempfile::tempdir().unwrap();
        let begin = || Boot::begin(data.path(), Path::new("/nowhere/boot_id")).unwrap();
        begin().told().unwrap();
        assert!(begin().torn());
        let boot = begin();
        boot.told().unwrap();
        boot.ended().unwrap();
        assert!(!begin().torn());
    }
}
