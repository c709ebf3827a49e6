//! The exporter, held to the table: nothing else can be registered.

use std::fmt;
use std::marker::PhantomData;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, SharedString,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::families::ALL;
use super::family::{Family, Kind, Shown};
use super::labels::Labelled;

/// Never the process's global one: tests run many houses in a process.
pub struct Recorder {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub(super) fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for family in ours() {
            if let Kind::Histogram(bounds) = family.kind {
                // Without bounds it would silently be a summary. Empty ones, which is all that is
                // refused, are none in the table (a test looks).
                let name = Matcher::Full(family.name.to_owned());
                builder = builder
                    .set_buckets_for_metric(name, bounds)
                    .unwrap_or_else(|_| PrometheusBuilder::new());
            }
        }
        let recorder = builder.build_recorder();
        for family in ours() {
            let (name, help) = (
                KeyName::from_const_str(family.name),
                SharedString::const_str(family.help),
            );
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    /// The counter of a label set.
    pub fn counter(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert!(family.kind == Kind::Counter && family.shown == Shown::Exporter);
        self.recorder.register_counter(&key(family, labels), &META)
    }

    /// One counter for each value of the last label.
    #[must_use]
    pub fn counters<L: Labelled>(
        &self,
        family: &'static Family,
        labels: &[(&'static str, &str)],
    ) -> CounterBy<L> {
        let counters = L::ALL
            .iter()
            .map(|value| {
                let mut labels = labels.to_vec();
                labels.push((L::NAME, value.as_str()));
                self.counter(family, &labels)
            })
            .collect();
        CounterBy(counters, PhantomData)
    }

    /// The gauge of a label set.
    pub fn gauge(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert!(family.kind == Kind::Gauge && family.shown == Shown::Exporter);
        self.recorder.register_gauge(&key(family, labels), &META)
    }

    /// The histogram of a label set.
    pub fn histogram(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert!(family.shown == Shown::Exporter);
        self.recorder
            .register_histogram(&key(family, labels), &META)
    }

    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub(super) fn render(&self) -> String {
        self.handle.render()
    }
}

/// Counters by one label.
pub struct CounterBy<L>(Box<[Counter]>, PhantomData<L>);

impl<L> fmt::Debug for CounterBy<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CounterBy").field(&self.0.len()).finish()
    }
}

impl<L: Labelled> CounterBy<L> {
    /// Counts.
    pub fn increment(&self, label: L, by: u64) {
        if let Some(counter) = self.0.get(label.index()) {
            counter.increment(by);
        }
    }
}

const META: Metadata<'static> = Metadata::new("legation", Level::INFO, None);

fn ours() -> impl Iterator<Item = &'static Family> {
    ALL.iter()
        .copied()
        .filter(|family| family.shown == Shown::Exporter)
}

fn key(family: &'static Family, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(
        family.labels.len() == labels.len()
            && family
                .labels
                .iter()
                .zip(labels)
                .all(|(label, (name, _))| label.name == *name),
        "{} is registered with other labels than the table's: {labels:?}",
        family.name
    );
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(family.name, labels)
}
