//! A page in the text format of Prometheus (version 0.0.4).

use std::fmt::Write as _;
use std::time::Duration;

use super::family::{Family, Kind};
use super::histogram::{Reading, Timings};

/// The content type; Prometheus 3 refuses any other.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: Option<&'static Family>,
}

impl Page {
    /// A page that begins with this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { text, family: None }
    }

    /// The samples of this family follow.
    pub fn family(&mut self, family: &'static Family) {
        self.family = Some(family);
        let (name, help, word) = (family.name, family.help, family.kind.word());
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {word}\n");
    }

    /// One sample of a counter or gauge.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, &number(value));
    }

    /// The samples of one histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], timings: &Timings) {
        self.reading(labels, &timings.read());
    }

    /// The same of counts that somebody else keeps: one for each bound of the family and one for
    /// what is above them all, not cumulative.
    pub fn counts(&mut self, labels: &[(&str, &str)], counts: &[u64], sum: Duration) {
        let Some(Kind::Histogram(bounds)) = self.family.map(|family| family.kind) else {
            return;
        };
        debug_assert_eq!(counts.len(), bounds.len() + 1);
        self.reading(labels, &Reading::new(bounds, counts.iter().copied(), sum));
    }

    fn reading(&mut self, labels: &[(&str, &str)], read: &Reading) {
        for (bound, count) in &read.cumulative {
            let bound = number(*bound);
            self.line("_bucket", labels, Some(&bound), &count.to_string());
        }
        let count = read.count.to_string();
        self.line("_bucket", labels, Some("+Inf"), &count);
        self.line("_sum", labels, None, &number(read.sum));
        self.line("_count", labels, None, &count);
    }

    /// The whole page, closed by the number of its own series.
    #[must_use]
    pub fn finish(mut self, series: &'static Family) -> String {
        let lines = self.text.lines();
        let samples = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let count = samples.count() + 1;
        self.family(series);
        self.line("", &[], None, &count.to_string());
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: &str) {
        let Some(family) = self.family else { return };
        debug_assert!(suffix.is_empty() || matches!(family.kind, Kind::Histogram(_)));
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        for (at, (name, value)) in all.enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"");
            for letter in value.chars() {
                match letter {
                    '"' => self.text.push_str("\\\""),
                    '\\' => self.text.push_str("\\\\"),
                    '\n' => self.text.push_str("\\n"),
                    letter => self.text.push(letter),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() || le.is_some() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A number as Prometheus reads it, the shortest way.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value.is_nan() {
        return "NaN".to_owned();
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::super::families as f;
    use super::*;

    #[test]
    fn the_format_is_the_one_prometheus_reads() {
        let mut page = Page::default();
        page.family(&f::CALL_QUEUE);
        let timings = Timings::new(&[0.5]);
        timings.observe(Duration::from_secs(1));
        page.histogram(&[("mcp", "a\"b\\c\nd")], &timings);
        let text = page.finish(&f::SERIES);
        let lines: Vec<&str> = text.lines().collect();
        let name = f::CALL_QUEUE.name;
        let labels = "mcp=\"a\\\"b\\\\c\\nd\"";
        assert!(lines[0].starts_with(&format!("# HELP {name} ")));
        assert_eq!(lines[1], format!("# TYPE {name} histogram"));
        assert_eq!(lines[2], format!("{name}_bucket{{{labels},le=\"0.5\"}} 0"));
        assert_eq!(lines[3], format!("{name}_bucket{{{labels},le=\"+Inf\"}} 1"));
        assert_eq!(lines[4], format!("{name}_sum{{{labels}}} 1"));
        assert_eq!(lines[5], format!("{name}_count{{{labels}}} 1"));
        assert_eq!(lines[8], format!("{} 5", f::SERIES.name));
        assert_eq!(number(f64::INFINITY), "+Inf");
    }

    #[test]
    fn counts_of_others_are_added_up_below_each_bound() {
        let mut page = Page::default();
        page.family(&f::AUDIT_SYNC);
        page.counts(&[], &[1; 14], Duration::from_millis(1500));
        let text = page.finish(&f::SERIES);
        let name = f::AUDIT_SYNC.name;
        for line in [
            format!("{name}_bucket{{le=\"0.00005\"}} 1"),
            format!("{name}_bucket{{le=\"2.5\"}} 13"),
            format!("{name}_bucket{{le=\"+Inf\"}} 14"),
            format!("{name}_sum 1.5"),
            format!("{name}_count 14"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
