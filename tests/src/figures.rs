//! Many times in a few lines.

/// Upper ends of the histogram's bars, in milliseconds; the last bar is open.
const BARS: [f64; 11] =
    [10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 1500.0, 3000.0, 10_000.0];
/// Signs of the longest bar.
const WIDTH: usize = 40;

/// Milliseconds of one kind, sorted.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// Of any number of times.
    #[must_use]
    pub fn of(times: impl IntoIterator<Item = f64>) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The least time that `percent` of all do not exceed; `None` of none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let at = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(at).copied()
    }

    /// The shortest; `None` of none.
    #[must_use]
    pub fn least(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The longest; `None` of none.
    #[must_use]
    pub fn worst(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// `35 of 36`: how many do not exceed `most`.
    #[must_use]
    pub fn within(&self, most: f64) -> String {
        format!("{} of {}", self.0.iter().filter(|time| **time <= most).count(), self.0.len())
    }

    /// `p50 210 ms, p99 480 ms, worst 500 ms of 36`.
    #[must_use]
    pub fn line(&self) -> String {
        let (Some(half), Some(most), Some(worst)) =
            (self.percentile(50), self.percentile(99), self.worst())
        else {
            return "none".to_owned();
        };
        let count = self.count();
        format!("p50 {half:.0} ms, p99 {most:.0} ms, worst {worst:.0} ms of {count}")
    }

    /// A bar a line.
    #[must_use]
    pub fn histogram(&self) -> String {
        let mut counts = vec![0_usize; BARS.len() + 1];
        for time in &self.0 {
            counts[BARS.partition_point(|end| end < time)] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        let used = |count: &usize| *count > 0;
        let (Some(first), Some(last)) =
            (counts.iter().position(used), counts.iter().rposition(used))
        else {
            return String::new();
        };
        let mut text = String::new();
        for (at, count) in counts.iter().enumerate().take(last + 1).skip(first) {
            let end = BARS.get(at).map_or("more".to_owned(), |end| format!("≤ {end} ms"));
            let bar = "#".repeat((count * WIDTH).div_ceil(most));
            text.push_str(&format!("{end:>12}  {count:>5}  {bar}\n"));
        }
        text
    }
}
