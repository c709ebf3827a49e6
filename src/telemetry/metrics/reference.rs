//! `docs/metrics.md`, rendered from the table.

use std::fmt::Write as _;

use super::families::ALL;
use super::family::{Family, Kind, Shown, Values};
use crate::domain::bless;
use crate::domain::limits::METRIC_MCPS_MAX;

const HEAD: &str = include_str!("reference.md");

fn values(values: Values) -> String {
    match values {
        Values::Of(values) => values
            .iter()
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>()
            .join(" "),
        Values::Mcp => format!("a published mcp (at most {METRIC_MCPS_MAX}), `other`, `none`"),
        Values::Few(_, what) => what.to_owned(),
    }
}

fn row(out: &mut String, family: &Family) {
    let labels: Vec<String> = family
        .labels
        .iter()
        .map(|label| format!("`{}`: {}", label.name, values(label.values)))
        .collect();
    let kind = family.kind.word();
    let most = family.series_max();
    let _ = writeln!(
        out,
        "| `{}` | {kind} | {} | {} | {most} |",
        family.name,
        labels.join("<br>"),
        family.help,
    );
}

fn table(out: &mut String, shown: impl Fn(&Family) -> bool) {
    out.push_str(
        "| family | type | labels | what it says | series at most |\n|---|---|---|---|---|\n",
    );
    for family in ALL.iter().filter(|family| shown(family)) {
        row(out, family);
    }
}

fn render() -> String {
    let mut out = HEAD.replace("{mcps}", &METRIC_MCPS_MAX.to_string());
    out.push_str("\n## `/metrics`\n\n");
    table(&mut out, |family| family.shown != Shown::Isolates);
    out.push_str("\n## `/metrics/isolates`\n\n");
    table(&mut out, |family| family.shown == Shown::Isolates);
    out.push_str("\n## Buckets\n\nUpper bounds in seconds, `+Inf` besides.\n\n| family | bounds |\n|---|---|\n");
    for family in ALL {
        if let Kind::Histogram(bounds) = family.kind {
            let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
            let _ = writeln!(out, "| `{}` | {} |", family.name, bounds.join(" "));
        }
    }
    out
}

#[test]
fn the_reference_is_current() {
    bless::assert_current("docs/metrics.md", &render());
}
