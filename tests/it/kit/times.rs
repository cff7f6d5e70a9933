//! Verdicts about time that a busy machine does not spoil: many samples, beside samples of the same thing without the fault, taken at the same moments.

use std::fmt;
use std::time::Duration;

/// How late things were.
#[derive(Clone, Default)]
pub struct Times(Vec<Duration>);

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Times {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort();
        Times(times)
    }
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// So many hundredths of them were at most this.
    pub fn percentile(&self, hundredths: usize) -> Duration {
        let at = (self.0.len() * hundredths).div_ceil(100).max(1) - 1;
        self.0.get(at).copied().unwrap_or_default()
    }

    /// The one in the middle.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The longest.
    pub fn worst(&self) -> Duration {
        self.percentile(100)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, most, worst) = (self.median(), self.percentile(95), self.worst());
        write!(
            f,
            "{} samples: median {median:.1?}, 95 % within {most:.1?}, worst {worst:.1?}",
            self.count()
        )
    }
}
