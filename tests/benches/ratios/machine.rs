//! What Linux tells of processes: processor time, memory, cores, load.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::{Outcome, float};

/// Clock ticks per second in `/proc/PID/stat`; fixed on Linux.
const TICKS: f64 = 100.0;
/// Load of the last minute below which the machine counts as quiet.
const QUIET: f64 = 0.5;

/// Seconds of processor time a process has used, user and system, all threads.
pub(crate) fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| -> Outcome<f64> {
        Ok(fields.get(at).ok_or("/proc/PID/stat is short")?.parse::<f64>()?)
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// A line of `/proc/PID/status` in bytes: `VmHWM` for the peak, `VmRSS` for now.
pub(crate) fn memory(pid: u32, what: &str) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(1024.0 * kib.ok_or("/proc/PID/status lacks a line")?.parse::<f64>()?)
}

/// Bytes that have gone over loopback so far, whoever sent them.
pub(crate) fn loopback_bytes() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next());
    Ok(bytes.ok_or("/proc/net/dev has no loopback")?.parse()?)
}

/// Runs `work` on a thread of its own, bound to `core` with all threads it
/// starts, and with a runtime of its own that has no others.
pub(crate) async fn pinned<T, F>(core: u32, work: impl FnOnce() -> F + Send + 'static) -> Outcome<T>
where
    T: Send + 'static,
    F: Future<Output = Outcome<T>>,
{
    let on_core = move || -> Outcome<T> {
        let thread = std::fs::read_link("/proc/thread-self")?;
        let thread = thread.file_name().ok_or("a thread has an id")?.to_owned();
        let bound = std::process::Command::new("taskset")
            .args(["-cp", &core.to_string()])
            .arg(thread)
            .stdout(std::process::Stdio::null())
            .status()?;
        if !bound.success() {
            return Err("taskset did not bind a thread".into());
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
    };
    let run = || std::thread::spawn(on_core).join().map_err(|_| "a pinned thread panicked")?;
    tokio::task::spawn_blocking(run).await?
}

/// Waits until the machine is quiet, at most `patience`; what to say if it does
/// not become so.
pub(crate) async fn settle(patience: Duration) -> Outcome<Option<String>> {
    let until = Instant::now() + patience;
    loop {
        let load = load()?;
        if load < QUIET {
            return Ok(None);
        }
        if Instant::now() >= until {
            return Ok(Some(format!("the machine was not quiet: load {load:.1}")));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Processor, cores, memory and kernel, in one line.
pub(crate) fn describe() -> Outcome<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib = memory.split_whitespace().nth(1).ok_or("/proc/meminfo is empty")?.parse::<u64>()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let name = name.map_or("unknown processor", |(_, name)| name.trim());
    let gib = float(kib) / 1024.0 / 1024.0;
    Ok(format!("{name}, {cores} cores, {gib:.0} GiB, Linux {}", kernel.trim()))
}

fn load() -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().ok_or("/proc/loadavg is empty")?.parse()?)
}
