//! A subscriber of a feed that checks what comes.

mod open;
mod seen;
mod subscriber;

pub(crate) use open::ANSWER;
pub use open::{Open, open};
pub use seen::{Judge, Seen, document_of};
pub use subscriber::Subscriber;
