//! A subscriber of a feed that checks what comes.

mod open;
mod seen;
mod subscriber;

pub use open::{Open, open};
pub use seen::{Judge, Seen};
pub use subscriber::Subscriber;
