//! Network namespaces: made, entered, and taken away again.

use std::path::Path;
use std::process::{Command, ExitStatus};

use super::switch::Host;
use super::tun::{MTU, device_of};
use crate::Outcome;

/// Begins the names of our namespaces; the harness's process id follows.
const PREFIX: &str = "tgworld";
/// Lists the interfaces of the network that who reads it is in.
const INTERFACES: &str = "/proc/self/net/dev";
/// Without it no device can be made.
const TUN: &str = "/dev/net/tun";

/// A network of one host. Dropping it takes it away.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty one for `host`.
    pub(super) fn create(host: Host) -> Outcome<Self> {
        let name = format!("{PREFIX}-{}-{}", std::process::id(), host.0);
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    /// Moves the device of `host` into it and gives it the host's address.
    pub(super) fn adopt(&self, host: Host) -> Outcome<()> {
        ip(&["link", "set", &device_of(host), "netns", &self.name])?;
        bring_up(&["-n", &self.name], &[host])
    }

    /// What stands before a program that shall run in it. The program ends with
    /// the thread that began it, however that ends.
    pub(super) fn prefix(&self) -> Vec<String> {
        let network = format!("--net=/run/netns/{}", self.name);
        ["nsenter", &network, "--", "setpriv", "--pdeathsig", "KILL", "--"]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left over, the next run sweeps.
        drop(ip(&["netns", "del", &self.name]));
    }
}

/// Gives the device of these hosts their addresses, in the harness's own network.
pub(super) fn bring_up_here(hosts: &[Host]) -> Outcome<()> {
    bring_up(&[], hosts)
}

/// Takes away the namespaces of harnesses that no longer run.
pub(super) fn sweep() -> Outcome<()> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            ip(&["netns", "del", &name])?;
        }
    }
    Ok(())
}

/// Whether this process is in a network that has no interface but loopback: one
/// where devices can be made without being in anybody's way.
///
/// # Errors
///
/// If the kernel does not say.
pub fn is_alone() -> Outcome<bool> {
    let listed = std::fs::read_to_string(INTERFACES)?;
    let names = listed.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.into_iter().all(|name| name == "lo"))
}

/// Runs this program again with these arguments, in a network of its own and with
/// mounts of its own; both end with it.
///
/// # Errors
///
/// Says what is missing: rights, `/dev/net/tun`, or the tools of util-linux.
pub fn run_alone<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Outcome<ExitStatus> {
    if !Path::new(TUN).exists() {
        return Err(format!("{TUN} is missing; load the module tun, or pass the device in").into());
    }
    let probe = Command::new("unshare").args(["--net", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        let what = "no network namespace can be made; run as root, with unshare of util-linux";
        return Err(what.into());
    }
    let program = std::env::current_exe()?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--fork", "--kill-child", "--"]).arg(program).args(arguments);
    Ok(command.status()?)
}

fn bring_up(network: &[&str], hosts: &[Host]) -> Outcome<()> {
    let device = device_of(hosts[0]);
    for host in hosts {
        let address = format!("{}/24", host.address());
        ip(&[network, &["addr", "add", &address, "dev", &device]].concat())?;
    }
    ip(&[network, &["link", "set", &device, "mtu", &MTU.to_string(), "up"]].concat())?;
    ip(&[network, &["link", "set", "lo", "up"]].concat())
}

fn ip(arguments: &[&str]) -> Outcome<()> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("run ip of iproute2: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("ip {}: {why}", arguments.join(" ")).into())
}
