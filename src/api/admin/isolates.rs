//! `/v1/isolates`: what runs, its past, its log, and the two buttons.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::{Asked, Body};
use super::{Admin, ApiError, Shared};
use crate::actors::control::{Control, Subject};
use crate::actors::views::{IsolateDetail, IsolateView, KillReport, RunView};
use crate::domain::limits::DESCRIPTION_CHARS_MAX;

/// Why something is taken away.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reason {
    /// In the admin's words; people see it in the answer to their call.
    pub reason: String,
}

impl Reason {
    /// The reason, or a word where none was given.
    ///
    /// # Errors
    /// `invalid_request` if it is too long.
    pub fn text(&self) -> Result<String, ApiError> {
        let text = self.reason.trim();
        if text.chars().count() > DESCRIPTION_CHARS_MAX {
            let text = format!("the reason is longer than {DESCRIPTION_CHARS_MAX} characters");
            return Err(ApiError::invalid(text));
        }
        let none = "no reason given";
        Ok(if text.is_empty() { none } else { text }.to_owned())
    }
}

/// Where a reader of the log is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogPlace {
    /// The run that was read last.
    pub epoch: Option<u64>,
    /// The number of the last line that was read of it.
    pub after: u64,
}

/// Lines of an isolate's stderr.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogLines {
    /// The isolate's whole id.
    pub isolate: String,
    /// Its state.
    pub state: String,
    /// Which run wrote them; `None` if it never ran.
    pub epoch: Option<u64>,
    /// Lines after the asked place that are no longer kept.
    pub missed: u64,
    /// The lines, oldest first.
    pub lines: Vec<String>,
    /// The number of the last line: ask for what comes after it next.
    pub last: u64,
    /// How the run ended.
    pub verdict: Option<String>,
    /// The newest run: while it is not the one above, there is more to read at once.
    #[serde(default)]
    pub newest: Option<u64>,
    /// Lines that it wrote to stdout and that were no JSON-RPC.
    #[serde(default)]
    pub noise_lines: u64,
    /// The last of these, oldest first; only without an asked place.
    #[serde(default)]
    pub noise: Vec<String>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/isolates", get(list))
        .route("/v1/isolates/{id}", get(show))
        .route("/v1/isolates/{id}/restart", post(restart))
        .route("/v1/isolates/{id}/kill", post(kill))
        .route("/v1/isolates/{id}/logs", get(logs))
}

/// The stderr after a place: what is left of the run that was read last, else the run after that from its
/// beginning. Without a place, the newest run that wrote something.
#[must_use]
pub fn lines_after(detail: &IsolateDetail, place: &LogPlace) -> LogLines {
    let Some(newest) = detail.runs.first() else {
        return LogLines {
            isolate: detail.view.id.clone(),
            state: detail.view.state.clone(),
            ..LogLines::default()
        };
    };
    let (run, after) = match place.epoch {
        None => {
            let spoke = |run: &&RunView| last_of(run) > 0 || run.noise_lines > 0;
            let spoke = detail.runs.iter().find(spoke);
            (spoke.unwrap_or(newest), place.after)
        }
        Some(epoch) => {
            // Newest first: the last one that fits is the oldest.
            let unread = |run: &&RunView| {
                run.epoch > epoch || (run.epoch == epoch && last_of(run) > place.after)
            };
            let run = detail.runs.iter().rfind(unread).unwrap_or(newest);
            let read = run.epoch == epoch;
            (run, if read { place.after } else { 0 })
        }
    };
    let last = last_of(run);
    let first_kept = last - kept(run);
    let skip = usize::try_from(after.saturating_sub(first_kept)).unwrap_or(usize::MAX);
    LogLines {
        isolate: detail.view.id.clone(),
        state: detail.view.state.clone(),
        epoch: Some(run.epoch),
        missed: first_kept.saturating_sub(after),
        lines: run.stderr_tail.iter().skip(skip).cloned().collect(),
        last,
        verdict: run.verdict.clone(),
        newest: Some(newest.epoch),
        noise_lines: run.noise_lines,
        noise: match place.epoch {
            None => run.noise_tail.clone(),
            Some(_) => Vec::new(),
        },
    }
}

fn kept(run: &RunView) -> u64 {
    u64::try_from(run.stderr_tail.len()).unwrap_or(u64::MAX)
}

/// The number of a run's last line. The tail may hold one that is not counted yet.
fn last_of(run: &RunView) -> u64 {
    run.stderr_lines.max(kept(run))
}

async fn list(_: Admin, State(control): State<Control>) -> Json<Vec<IsolateView>> {
    Json(control.isolates())
}

async fn show(
    _: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<IsolateDetail>, ApiError> {
    Ok(Json(control.isolate_now(&id).await?))
}

async fn logs(
    _: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
    Asked(place): Asked<LogPlace>,
) -> Result<Json<LogLines>, ApiError> {
    Ok(Json(lines_after(&control.isolate(&id)?, &place)))
}

/// The whole id of what is meant, for the record; as it was typed, if that means nothing.
fn whole(control: &Control, id: &str) -> String {
    let found = control.isolate(id);
    found.map_or_else(|_| id.to_owned(), |detail| detail.view.id)
}

async fn restart(
    admin: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<IsolateView>, ApiError> {
    let (tree, subject) = (control.clone(), Subject::isolate(whole(&control, &id)));
    let change = async move { Ok(tree.restart_isolate(&id).await?) };
    audited(&control, &admin, "isolate.restart", subject, change).await
}

async fn kill(
    admin: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
    Body(why): Body<Reason>,
) -> Result<Json<KillReport>, ApiError> {
    let reason = why.text()?;
    let (tree, subject) = (control.clone(), Subject::isolate(whole(&control, &id)));
    let change = async move { Ok(tree.kill_isolate(&id, &reason).await?) };
    audited(&control, &admin, "isolate.kill", subject, change).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(lines: &[&str], counted: u64) -> IsolateDetail {
        IsolateDetail {
            view: IsolateView::default(),
            egress: None,
            runs: vec![RunView {
                epoch: 7,
                stderr_lines: counted,
                stderr_tail: lines.iter().map(|l| (*l).to_owned()).collect(),
                ..RunView::default()
            }],
        }
    }

    fn ask(detail: &IsolateDetail, epoch: Option<u64>, after: u64) -> (Vec<String>, u64, u64) {
        let got = lines_after(detail, &LogPlace { epoch, after });
        (got.lines, got.missed, got.last)
    }

    #[test]
    fn a_reader_sees_each_line_once() {
        let all = detail(&["a", "a", "a"], 3);
        assert_eq!(
            ask(&all, None, 0),
            (vec!["a".into(), "a".into(), "a".into()], 0, 3)
        );
        assert_eq!(ask(&all, Some(7), 2), (vec!["a".into()], 0, 3));
        assert_eq!(ask(&all, Some(7), 3), (vec![], 0, 3));
        assert_eq!(ask(&all, Some(7), u64::MAX), (vec![], 0, 3));
    }

    #[test]
    fn a_slow_reader_learns_what_it_missed() {
        let cut = detail(&["y", "z"], 26);
        assert_eq!(
            ask(&cut, Some(7), 20),
            (vec!["y".into(), "z".into()], 4, 26)
        );
    }

    #[test]
    fn a_new_run_is_read_from_its_beginning() {
        let fresh = detail(&["hello"], 1);
        assert_eq!(ask(&fresh, Some(6), 900), (vec!["hello".into()], 0, 1));
        let never = IsolateDetail::default();
        assert_eq!(ask(&never, None, 5), (vec![], 0, 0));
    }

    fn run(epoch: u64, lines: &[&str]) -> RunView {
        RunView {
            epoch,
            ..detail(lines, 0).runs.remove(0)
        }
    }

    #[test]
    fn the_last_words_of_a_run_come_before_the_next_one_however_short_that_was() {
        let restarted = IsolateDetail {
            runs: vec![run(9, &[]), run(8, &["brief"]), run(7, &["a", "FATAL"])],
            ..detail(&[], 0)
        };
        let mut place = LogPlace {
            epoch: Some(7),
            after: 1,
        };
        let mut seen = Vec::new();
        for _ in 0..4 {
            let got = lines_after(&restarted, &place);
            assert_eq!(got.newest, Some(9));
            seen.push((got.epoch.unwrap(), got.lines.join(",")));
            place = LogPlace {
                epoch: got.epoch,
                after: got.last,
            };
        }
        let told = |epoch, text: &str| (epoch, text.to_owned());
        assert_eq!(
            seen,
            [told(7, "FATAL"), told(8, "brief"), told(9, ""), told(9, "")]
        );
    }

    #[test]
    fn the_log_of_a_run_that_is_silent_yet_is_the_one_before() {
        let restarted = IsolateDetail {
            runs: vec![run(8, &[]), run(7, &["FATAL"])],
            ..detail(&[], 0)
        };
        let got = lines_after(&restarted, &LogPlace::default());
        assert_eq!((got.epoch, got.newest), (Some(7), Some(8)));
        assert_eq!(got.lines, ["FATAL"]);
    }
}
