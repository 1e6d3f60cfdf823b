//! Ports for the servers of a test.
//!
//! METHOD They lie below the ports the kernel gives to outgoing connections
//! (from 32768 on, `ip(7)`): one of those, taken between our look and the
//! server's own, or while it is restarted, would keep the server from its port.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports are from here on,
const FIRST: u32 = 10_000;
/// up to but not including this one.
const END: u32 = 32_000;
/// Further than this a process does not begin from another whose id is one more.
const STRIDE: u32 = 97;

/// How many this process asked for.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A loopback port nobody listens on right now, and which this process was not
/// given before, as far as there are others.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` such ports in a row.
///
/// # Panics
///
/// If there are no such ports.
#[must_use]
pub fn free_ports(count: u16) -> u16 {
    let span = END - FIRST;
    let width = u32::from(count);
    let begin = std::process::id().wrapping_mul(STRIDE);
    (0..span)
        .map(|_| FIRST + begin.wrapping_add(TAKEN.fetch_add(width, Ordering::Relaxed)) % span)
        .filter(|first| first + width <= END)
        .filter_map(|first| u16::try_from(first).ok())
        .find(|first| (*first..first + count).all(is_free))
        .expect("loopback ports are free")
}

/// A loopback address nobody listens on right now, as `host:port`.
#[must_use]
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
