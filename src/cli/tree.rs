//! `legation tree`: the supervision tree as it stands, or one actor with its past; `--watch`
//! follows it.

mod picture;
mod watch;

use clap::Args;

use super::Desk;
use super::client::path;
use super::error::{CliError, Done, Exit};
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::units::{age, percent, size};
use crate::actors::views::TreeNode;

#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    /// Show this actor with its last transitions: an id, a name, or the beginning of an id
    actor: Option<String>,
    /// Follow the changes until interrupted: a living picture on a terminal, else a line for each
    #[arg(short, long, conflicts_with = "actor")]
    watch: bool,
    /// Show so many levels below the root
    #[arg(short, long, value_name = "N")]
    depth: Option<usize>,
}

pub(super) async fn run(args: TreeArgs, mut desk: Desk) -> Done {
    let depth = args.depth.unwrap_or(usize::MAX);
    if args.watch {
        return watch::run(depth, desk).await;
    }
    if let Some(actor) = args.actor {
        let mut node: TreeNode = desk.client.get(&path(&["actors", &actor])).await?;
        prune(&mut node, depth);
        let id = node.id.clone();
        desk.out.one(&node, &id, |out| show(&node, out))?;
        return Ok(Exit::Ok);
    }
    let mut root: TreeNode = desk.client.get("/v1/tree").await?;
    prune(&mut root, depth);
    let names = names(&root);
    desk.out.one(&root, &names, |out| {
        let wide = out.wide();
        out.table(&draw(&root, wide))
    })?;
    Ok(Exit::Ok)
}

/// One actor, what is below it, and what it went through.
fn show(node: &TreeNode, out: &mut Out) -> Result<(), CliError> {
    let wide = out.wide();
    out.table(&draw(node, wide))?;
    out.raw("\n")?;
    if node.transitions.is_empty() {
        return out.styled("no transitions yet", Style::Dim);
    }
    let mut table = Table::new(&["WHEN", "TO", "CAUSE"]);
    for step in &node.transitions {
        table.row(vec![
            format!("{} ago", age(step.ms_ago)).into(),
            Cell::state(&step.to),
            step.cause.as_str().into(),
        ]);
    }
    out.table(&table)
}

fn prune(node: &mut TreeNode, depth: usize) {
    match depth.checked_sub(1) {
        None => node.children.clear(),
        Some(rest) => node
            .children
            .iter_mut()
            .for_each(|child| prune(child, rest)),
    }
}

fn names(node: &TreeNode) -> String {
    let below = node.children.iter().map(names);
    std::iter::once(node.id.clone())
        .chain(below)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The tree as a table whose first column is drawn with box characters.
fn draw(root: &TreeNode, wide: bool) -> Table {
    let titles: &[&str] = if wide {
        &[
            "NAME", "KIND", "STATE", "SINCE", "RESTARTS", "PID", "NOTE", "WHY",
        ]
    } else {
        &["NAME", "STATE", "SINCE", "RESTARTS", "PID", "NOTE"]
    };
    let mut table = Table::new(titles);
    branch(root, "", "", wide, &mut table);
    table
}

fn branch(node: &TreeNode, own: &str, below: &str, wide: bool, table: &mut Table) {
    let mut cells = vec![Cell::from(format!("{own}{}", node.name))];
    if wide {
        cells.push(Cell::styled(node.kind.as_str(), Style::Dim));
    }
    cells.push(Cell::state(&node.state));
    cells.push(age(node.since_ms_ago).into());
    cells.push(match node.restarts {
        0 => Cell::from(""),
        some => Cell::styled(some.to_string(), Style::Warn),
    });
    cells.push(
        node.pid
            .map(|pid| pid.to_string())
            .unwrap_or_default()
            .into(),
    );
    cells.push(note(node).into());
    if wide {
        let last = node.transitions.first();
        cells.push(
            last.map(|change| change.cause.clone())
                .unwrap_or_default()
                .into(),
        );
    }
    table.row(cells);
    let last = node.children.len().saturating_sub(1);
    for (index, child) in node.children.iter().enumerate() {
        let (corner, line) = if index == last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        branch(
            child,
            &format!("{below}{corner}"),
            &format!("{below}{line}"),
            wide,
            table,
        );
    }
}

fn note(node: &TreeNode) -> String {
    let backoff = node.backoff_ms.map(|ms| format!("retry in {}", age(ms)));
    let verdict = node
        .last_verdict
        .as_ref()
        .map(|verdict| format!("last: {verdict}"));
    let own = Some(node.note.clone()).filter(|note| !note.is_empty());
    let figures = node.isolate.as_ref().and_then(|one| {
        let memory = one.memory_bytes?;
        let limit = size(one.memory_limit_bytes);
        let cpu = one
            .cpu_millis
            .map(|millis| format!("cpu {}, ", percent(millis)));
        Some(format!(
            "{}mem {}/{limit}",
            cpu.unwrap_or_default(),
            size(memory)
        ))
    });
    let lacks = node.isolate.as_ref().filter(|one| !one.degraded.is_empty());
    let lacks = lacks.map(|one| format!("without {}", one.degraded.join(", ")));
    let parts: Vec<_> = [backoff, figures, verdict, lacks, own]
        .into_iter()
        .flatten()
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::views::Transition;

    fn node(name: &str, state: &str, children: Vec<TreeNode>) -> TreeNode {
        TreeNode {
            name: name.into(),
            kind: "service".into(),
            state: state.into(),
            since_ms_ago: 61_000,
            children,
            ..TreeNode::default()
        }
    }

    fn sample() -> TreeNode {
        let mut sick = node("isolate 91c0 github", "backoff", vec![]);
        sick.backoff_ms = Some(3_900);
        sick.restarts = 4;
        sick.last_verdict = Some("out of memory: the isolate's limit of 512 MiB".into());
        sick.transitions = vec![Transition {
            ms_ago: 10,
            to: "backoff".into(),
            cause: "oom".into(),
        }];
        let mut run = node("run 3", "ready", vec![]);
        run.pid = Some(4711);
        let well = node("isolate 7f3a github", "ready", vec![run]);
        let ada = node("ada", "running", vec![well, sick]);
        let mut audit = node("audit", "ready", vec![]);
        audit.note = "0 queued".into();
        node(
            "root",
            "running",
            vec![audit, node("users", "running", vec![ada])],
        )
    }

    #[test]
    fn branches_meet() {
        insta::assert_snapshot!(draw(&sample(), false).render(None, false), @r"
        NAME                          STATE    SINCE  RESTARTS  PID   NOTE
        root                          running  1m1s
        ├─ audit                      ready    1m1s                   0 queued
        └─ users                      running  1m1s
           └─ ada                     running  1m1s
              ├─ isolate 7f3a github  ready    1m1s
              │  └─ run 3             ready    1m1s             4711
              └─ isolate 91c0 github  backoff  1m1s   4               retry in 3.9s, last: out of memory: the isolate's limit of 512 MiB
        ");
        assert!(draw(&sample(), true).render(None, false).contains("oom"));
    }

    #[test]
    fn depth_cuts() {
        for (depth, lines) in [(0, 1), (1, 3), (2, 4), (9, 7)] {
            let mut root = sample();
            prune(&mut root, depth);
            assert_eq!(
                draw(&root, false).render(None, false).lines().count(),
                lines + 1
            );
        }
    }
}
