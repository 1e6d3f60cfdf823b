//! A command's arguments, taken one by one.

use std::str::FromStr;

use super::Stop;

/// What is left of a command's arguments.
#[derive(Clone, Debug)]
pub(in crate::sources::redis) struct Arguments<'a>(&'a [&'a [u8]]);

impl<'a> Arguments<'a> {
    pub(super) fn new(arguments: &'a [&'a [u8]]) -> Self {
        Self(arguments)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next(&mut self) -> Result<&'a [u8], Stop> {
        let (next, rest) = self.0.split_first().ok_or(Stop::Reread("it lacks an argument"))?;
        self.0 = rest;
        Ok(next)
    }

    /// The next one, if it is this word.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let there = self.0.first().is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    /// So many of them.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [&'a [u8]], Stop> {
        let taken = self.0.split_at_checked(count);
        let (taken, rest) = taken.ok_or(Stop::Reread("it lacks an argument"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn rest(&mut self) -> &'a [&'a [u8]] {
        std::mem::take(&mut self.0)
    }

    /// The next one as a number.
    pub(super) fn parse<T: FromStr>(&mut self, what: &'static str) -> Result<T, Stop> {
        parse(self.next()?, what)
    }

    /// The rest in pairs.
    pub(super) fn pairs(&mut self) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])>, Stop> {
        let (pairs, left) = self.rest().as_chunks::<2>();
        if !left.is_empty() {
            return Err(Stop::Reread("half a pair"));
        }
        Ok(pairs.iter().map(|[one, two]| (*one, *two)))
    }
}

/// A number out of text; no sign before it but `-`, nothing behind it.
pub(super) fn parse<T: FromStr>(text: &[u8], what: &'static str) -> Result<T, Stop> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or(Stop::Reread(what))
}

/// A score; `inf` and `+inf` are some.
pub(super) fn score(text: &[u8]) -> Result<f64, Stop> {
    let score: f64 = parse(text, "a score")?;
    if score.is_nan() { Err(Stop::Reread("a score")) } else { Ok(score) }
}
