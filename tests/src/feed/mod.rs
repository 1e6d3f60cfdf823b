//! A subscriber of a feed that checks what comes.

mod seen;
mod subscriber;

pub use seen::{Judge, Seen};
pub use subscriber::Subscriber;
