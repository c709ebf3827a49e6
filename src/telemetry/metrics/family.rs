//! What a family of the table says of itself.

use crate::domain::limits::{ISOLATE_SERIES_MAX, METRIC_MCPS_MAX};

/// One family.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Its whole name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One sentence, for people.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
    /// Where it is.
    pub shown: Shown,
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, until the gateway restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds, in seconds.
    Histogram(&'static [f64]),
}

/// Where a family is, and who writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// On `/metrics`, by the exporter.
    Exporter,
    /// On `/metrics`, by [`super::page`].
    Page,
    /// On `/metrics/isolates`, by [`super::page`].
    Isolates,
}

/// One label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
}

/// The set of a label's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// These.
    Of(&'static [&'static str]),
    /// Names of published mcps, up to [`METRIC_MCPS_MAX`]; `other` beyond it; `none` where calls
    /// are counted that no mcp was found for.
    Mcp,
    /// At most so many, and what they are.
    Few(usize, &'static str),
}

impl Values {
    /// The most there are.
    #[must_use]
    pub const fn most(&self) -> usize {
        match self {
            Self::Of(values) => values.len(),
            Self::Mcp => METRIC_MCPS_MAX + 2,
            Self::Few(most, _) => *most,
        }
    }
}

impl Kind {
    /// The word in the `# TYPE` line.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl Family {
    /// The most series it can have.
    #[must_use]
    pub fn series_max(&self) -> usize {
        if self.shown == Shown::Isolates {
            return if self.labels.is_empty() {
                1
            } else {
                ISOLATE_SERIES_MAX
            };
        }
        let sets: usize = self
            .labels
            .iter()
            .map(|label| label.values.most())
            .product();
        sets * match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            // The buckets, +Inf, sum and count.
            Kind::Histogram(bounds) => bounds.len() + 3,
        }
    }
}
