//! The switch's shell: reads packets from every host's device, asks the switch,
//! and writes them to other hosts' devices, now or later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tun_rs::{AsyncDevice, DeviceBuilder};

use super::switch::{Counts, Host, Link, Rule, Switch};
use crate::Outcome;

/// Bytes of the largest packet. Large, so that few of them carry much.
pub(super) const MTU: u16 = 9000;
/// Packets that may be delayed at one time; more are lost, as in any network.
const DELAYED_MAX: usize = 16 * 1024;
/// Before a device that failed is tried again: it does while it is being moved.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// All wires of the world. It runs on a thread of its own, so that nothing a
/// test does delays it; dropping it cuts everything.
#[derive(Debug)]
pub struct Wires {
    switch: Arc<Mutex<Switch>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// A device, and the hosts that are behind it.
struct Station {
    device: AsyncDevice,
    hosts: Vec<Host>,
}

/// A packet that leaves later. Earlier ones are greater, as a heap needs it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    at: Reverse<Instant>,
    number: Reverse<u64>,
    to: Host,
    bytes: Vec<u8>,
}

impl Wires {
    /// Makes a device in this thread's network for each group of hosts, named after
    /// its first; they are to be moved to where the hosts are. What becomes of
    /// packets follows from `seed`.
    pub(super) async fn start(groups: Vec<Vec<Host>>, seed: u64) -> Outcome<Self> {
        let switch = Arc::new(Mutex::new(Switch::new(seed)));
        let (stop, stopped) = watch::channel(false);
        let (made, ready) = oneshot::channel();
        let its = Arc::clone(&switch);
        let thread = std::thread::Builder::new().name("wires".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(run(groups, its, made, stopped)),
                // Whoever waits for the devices learns that nobody makes them.
                Err(error) => drop(made.send(Err(error))),
            }
        })?;
        ready.await.map_err(|_| "the switch ended before it had its devices")??;
        Ok(Self { switch, stop, thread: Some(thread) })
    }

    /// From now on these links do this.
    pub fn set(&self, links: &[Link], rule: Rule) {
        let mut switch = locked(&self.switch);
        for link in links {
            switch.set(*link, rule);
        }
    }

    /// From now on everything passes everywhere.
    pub fn clear(&self) {
        locked(&self.switch).clear();
    }

    /// What a link has done since the beginning.
    #[must_use]
    pub fn counts(&self, link: Link) -> Counts {
        locked(&self.switch).counts(link)
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It panicked or not: there is nothing left to end.
            drop(thread.join());
        }
    }
}

/// What the device of a host is called, wherever it is.
pub(super) fn device_of(host: Host) -> String {
    format!("tg{}", host.0)
}

fn locked(switch: &Mutex<Switch>) -> MutexGuard<'_, Switch> {
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(
    groups: Vec<Vec<Host>>,
    switch: Arc<Mutex<Switch>>,
    made: oneshot::Sender<std::io::Result<()>>,
    mut stopped: watch::Receiver<bool>,
) {
    let device = |hosts: Vec<Host>| {
        let builder = DeviceBuilder::new().name(device_of(hosts[0])).enable(false);
        Ok(Station { device: builder.build_async()?, hosts })
    };
    let devices: std::io::Result<Vec<_>> = groups.into_iter().map(device).collect();
    let devices = match devices {
        Ok(devices) => Arc::new(devices),
        Err(error) => return drop(made.send(Err(error))),
    };
    if made.send(Ok(())).is_err() {
        return;
    }
    let (later, parcels) = mpsc::channel(DELAYED_MAX);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..devices.len() {
        tasks.spawn(forward(at, Arc::clone(&devices), Arc::clone(&switch), later.clone()));
    }
    tasks.spawn(deliver(devices, parcels));
    // An error means that the sender is gone, which is an end as well.
    drop(stopped.wait_for(|stop| *stop).await);
}

/// Takes what one host sends.
async fn forward(
    own: usize,
    devices: Arc<Vec<Station>>,
    switch: Arc<Mutex<Switch>>,
    later: mpsc::Sender<Parcel>,
) {
    let device = &devices[own].device;
    let mut buffer = vec![0; usize::from(MTU) + 1];
    let mut number = 0;
    loop {
        let Ok(length) = device.recv(&mut buffer).await else {
            sleep(AGAIN).await;
            continue;
        };
        let packet = &buffer[..length];
        let Some(link) = Link::of(packet) else { continue };
        let (to, now) = (link.to, Instant::now());
        let departures = locked(&switch).take(link, length, now);
        for at in departures.into_iter().flatten() {
            if at <= now {
                send(&devices, to, packet).await;
                continue;
            }
            number += 1;
            let parcel =
                Parcel { at: Reverse(at), number: Reverse(number), to, bytes: packet.to_vec() };
            // No room: it is lost.
            drop(later.try_send(parcel));
        }
    }
}

/// Sends delayed packets when their time has come.
async fn deliver(devices: Arc<Vec<Station>>, mut parcels: mpsc::Receiver<Parcel>) {
    let mut waiting: BinaryHeap<Parcel> = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|parcel| parcel.at.0);
        let due = async move {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => {
                if let Some(parcel) = waiting.pop() {
                    send(&devices, parcel.to, &parcel.bytes).await;
                }
            }
            parcel = parcels.recv() => match parcel {
                Some(parcel) if waiting.len() < DELAYED_MAX => waiting.push(parcel),
                // No room: it is lost.
                Some(_) => {}
                None => return,
            },
        }
    }
}

async fn send(devices: &[Station], to: Host, packet: &[u8]) {
    if let Some(station) = devices.iter().find(|station| station.hosts.contains(&to)) {
        // A device that is not up yet takes nothing: the packet is lost.
        drop(station.device.send(packet).await);
    }
}
