//! How much memory processes hold.

/// The largest resident set seen, and the most that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    bound_bytes: u64,
    /// The largest seen so far.
    pub worst_bytes: u64,
}

impl Memory {
    /// Nothing seen yet.
    #[must_use]
    pub fn with_bound(bound_bytes: u64) -> Self {
        Self { bound_bytes, worst_bytes: 0 }
    }

    /// Looks at a process; one that has ended holds nothing.
    ///
    /// # Errors
    ///
    /// If it holds more than is allowed.
    pub fn look(&mut self, process: u32) -> Result<(), String> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        let bytes = resident(&status.unwrap_or_default());
        self.worst_bytes = self.worst_bytes.max(bytes);
        if bytes <= self.bound_bytes {
            return Ok(());
        }
        let bound = self.bound_bytes;
        Err(format!("process {process} holds {bytes} bytes of memory; {bound} are allowed"))
    }
}

/// Bytes that `VmRSS` of a status file says; 0 if it says none.
fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_and_bounded() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), 2 << 20);
        assert_eq!(resident(""), 0);
        let mut memory = Memory::with_bound(1);
        assert!(memory.look(std::process::id()).is_err(), "this process holds more than a byte");
        assert!(memory.worst_bytes > 1 << 20);
    }
}
