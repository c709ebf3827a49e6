//! Choosing records one by one as they stand in the log. The end of a call says only which call it
//! is: what its start said of it is kept in mind until then.

use std::collections::HashMap;

use crate::domain::audit::filter::{CALL_END, CALL_START, Columns, Filter};
use crate::domain::limits::AUDIT_OPEN_CALLS_MAX;

/// A filter on its way through the log.
#[derive(Debug)]
pub struct Selection {
    filter: Filter,
    open: HashMap<String, Columns>,
}

impl Selection {
    /// With this filter.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            open: HashMap::new(),
        }
    }

    /// Whether this record is one of those.
    pub fn takes(&mut self, line: &[u8]) -> bool {
        if self.filter == Filter::default() {
            return true;
        }
        let Some(mut columns) = Columns::of(line) else {
            return false;
        };
        if let Some(call) = columns.call.clone() {
            if columns.event == CALL_START && self.open.len() < AUDIT_OPEN_CALLS_MAX {
                self.open.insert(call, columns.clone());
            } else if columns.event == CALL_END
                && let Some(start) = self.open.remove(&call)
            {
                let Columns {
                    user,
                    mcp,
                    tool,
                    key,
                    ..
                } = start;
                columns = Columns {
                    user,
                    mcp,
                    tool,
                    key,
                    ..columns
                };
            }
        }
        let filter = &self.filter;
        let outcome = filter.outcome.as_deref();
        filter.fits(&columns)
            && outcome.is_none_or(|wanted| columns.outcome() == Some(wanted))
            && filter
                .text
                .as_ref()
                .is_none_or(|wanted| memchr::memmem::find(line, wanted.as_bytes()).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_belongs_to_whom_its_start_belonged() {
        let start = |call: &str, user: &str| {
            format!(r#"{{"seq":1,"at":1,"event":"call.start","call":"{call}","user":"{user}"}}"#)
        };
        let end = |call: &str, how: &str| {
            format!(r#"{{"seq":2,"at":2,"event":"call.end","call":"{call}","outcome":"{how}"}}"#)
        };
        let user = Some("u".to_owned());
        let mut of_user = Selection::new(Filter {
            user: user.clone(),
            ..Filter::default()
        });
        assert!(of_user.takes(start("a", "u").as_bytes()));
        assert!(!of_user.takes(start("b", "v").as_bytes()));
        assert!(of_user.takes(end("a", "answered").as_bytes()));
        assert!(!of_user.takes(end("b", "answered").as_bytes()));
        assert!(
            !of_user.takes(end("a", "answered").as_bytes()),
            "it has ended"
        );
        let mut ends = Selection::new(Filter {
            event: Some(CALL_END.to_owned()),
            ..Filter::default()
        });
        assert!(!ends.takes(start("a", "u").as_bytes()), "a start is no end");
        assert!(ends.takes(end("a", "answered").as_bytes()));
        let outcome = Some("busy".to_owned());
        let mut busy = Selection::new(Filter {
            user,
            outcome,
            ..Filter::default()
        });
        assert!(!busy.takes(start("a", "u").as_bytes()));
        assert!(busy.takes(end("a", "busy").as_bytes()));
    }
}
