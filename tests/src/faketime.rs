//! Processes whose clock is wrong, by Debian's `faketime`.

use std::path::Path;

/// What is preloaded: the variant for programs with threads.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The library.
///
/// # Errors
///
/// If it is not installed.
pub fn library() -> Result<&'static str, String> {
    let there = Path::new(LIBRARY).exists();
    there.then_some(LIBRARY).ok_or(format!("{LIBRARY} is missing; run deploy/install-deps.sh"))
}

/// Removes what a process that was killed leaves in memory: the clock it shares with those
/// it starts.
pub fn clean(process: Option<u32>) {
    let Some(id) = process else { return };
    for name in [format!("faketime_shm_{id}"), format!("sem.faketime_sem_{id}")] {
        // There is none if it ended by itself.
        drop(std::fs::remove_file(Path::new("/dev/shm").join(name)));
    }
}
