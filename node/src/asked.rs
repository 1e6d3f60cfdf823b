//! What whoever runs the tests asks for, and is told.

/// A number that the environment says, if it does.
#[expect(clippy::disallowed_methods, reason = "tests have no other settings")]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// For runs with `--nocapture`.
#[expect(clippy::print_stderr, reason = "for who runs the tests")]
pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}
