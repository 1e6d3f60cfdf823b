//! Tells a filter that matches nothing from a feed with nothing in it.

use clap::ValueEnum;
use tidegate_proto::v1::SubscribeResponse;

use crate::commands::feed::TailArgs;
use crate::human;

/// Whether anything has passed the filter so far.
#[derive(Debug)]
pub(super) struct Matches {
    /// As it was given; empty for none.
    filter: String,
    export: String,
    /// The feed ends by itself: then is the time to tell.
    ends: bool,
    /// Something has passed, or it was told that nothing has.
    settled: bool,
    kept_back: u64,
}

impl Matches {
    pub(super) fn new(args: &TailArgs) -> Self {
        let mut filter = Vec::new();
        if !args.collection.is_empty() {
            filter.push(format!("--collection {}", args.collection.join(",")));
        }
        if !args.op.is_empty() {
            let values = args.op.iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
            filter.push(format!("--op {}", names.join(",")));
        }
        Self {
            filter: filter.join(" "),
            export: args.export.clone(),
            ends: args.until_now,
            settled: false,
            kept_back: 0,
        }
    }

    /// Notes a response. Says something, once, when a feed that goes on has
    /// reached its newest change and nothing has passed.
    pub(super) fn seen(&mut self, response: &SubscribeResponse) -> Option<String> {
        self.settled |= !response.json.is_empty();
        self.kept_back += response.filtered;
        let at_end = response.sequence >= response.stable;
        if self.ends || !at_end { None } else { self.tell("so far") }
    }

    /// Says at the end of the feed what it was that nothing has passed.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.tell("at all")
    }

    fn tell(&mut self, when: &str) -> Option<String> {
        if self.settled || self.filter.is_empty() || self.kept_back == 0 {
            return None;
        }
        self.settled = true;
        Some(format!(
            "nothing matches {} {when}: {} kept back; see what there is with \
             `tidegate feed tail {} --until-now --format compact`",
            self.filter,
            human::plural(usize::try_from(self.kept_back).unwrap_or(usize::MAX), "change"),
            self.export
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn matches(line: &[&str]) -> Matches {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: TailArgs,
        }
        Matches::new(&Line::parse_from([&["tail", "orders"], line].concat()).args)
    }

    fn response(printed: usize, filtered: u64, left: u64) -> SubscribeResponse {
        SubscribeResponse {
            json: vec!["{}".into(); printed],
            filtered,
            sequence: 10,
            stable: 10 + left,
            ..SubscribeResponse::default()
        }
    }

    #[test]
    fn a_filter_that_nothing_passes_is_named_once_with_what_it_kept_back() {
        let mut matches = matches(&["--collection", "itmes", "--op", "delete"]);
        assert_eq!(matches.seen(&response(0, 3, 5)), None, "there is more to come");
        let note = matches.seen(&response(0, 4, 0)).unwrap();
        assert!(note.contains("--collection itmes --op delete so far: 7 changes"), "{note}");
        assert_eq!((matches.seen(&response(0, 1, 0)), matches.ended()), (None, None));
    }

    #[test]
    fn a_feed_that_ends_tells_at_its_end() {
        let mut matches = matches(&["--op", "delete", "--until-now"]);
        assert_eq!(matches.seen(&response(0, 3, 0)), None);
        assert!(matches.ended().unwrap().contains("at all: 3 changes kept back"));
    }

    #[test]
    fn nothing_is_said_when_something_passed_or_nothing_was_there() {
        let mut some = matches(&["--op", "delete", "--until-now"]);
        some.seen(&response(1, 3, 0));
        let mut empty = matches(&["--op", "delete", "--until-now"]);
        let mut open = matches(&["--until-now"]);
        open.seen(&response(0, 3, 0));
        assert_eq!((some.ended(), empty.ended(), open.ended()), (None, None, None));
    }
}
