//! Whose a resource is, where all servers of a key are: its URI says so ([`crate::domain::uri`]). One that does not is a
//! server's own, from a text, or from what only a server and its clients know: it is that server's which alone
//! has resources, or which alone lists it, and else nobody's.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::code::Code;
use crate::domain::name::Name;
use crate::domain::uri;
use crate::protocol::handshake::Abilities;
use crate::protocol::splice;

use super::super::failure::Reason;
use super::super::session::SessionHandle;
use super::gather::{Gathered, Listing};
use super::{Answer, Aside, Failure, Front, Outcome};

/// Whose a URI is.
#[derive(Debug)]
pub enum Owner {
    /// An mcp's, and the URI that its server knows.
    One(Name, String),
    /// Nobody's that the session sees, or nobody knows whose: why.
    None(Outcome),
}

/// Which mcps list which resources, by the URIs that their servers know, as it was when they were asked.
#[derive(Debug, Default)]
pub struct Listed {
    by: HashMap<String, Vec<Name>>,
    /// Whether all of them said all.
    is_whole: bool,
}

impl Listed {
    fn of(gathered: &Gathered) -> Self {
        let mut by: HashMap<String, Vec<Name>> = HashMap::new();
        for item in &gathered.items {
            if let Some(place) = splice::find(item, &["uri"])
                && let Some((mcp, own)) = uri::split(&place.text)
            {
                let listing = by.entry(own.to_owned()).or_default();
                if !listing.contains(&mcp) {
                    listing.push(mcp);
                }
            }
        }
        let is_whole = gathered.missing.is_empty();
        Self { by, is_whole }
    }
}

impl Front {
    /// Whose the resource, or template, is that the session's client names. Who names several gathers what is listed
    /// once for all of them, into `listed`.
    pub async fn owner(
        &self,
        session: &Arc<SessionHandle>,
        method: &str,
        named: &str,
        aside: &Aside<'_>,
        listed: &mut Option<Listed>,
    ) -> Owner {
        let with = self.mcps_that(session, |able| able.resources);
        let shown: String = named.chars().take(256).collect();
        if let Some((mcp, own)) = uri::split(named) {
            if with.iter().any(|published| published.mcp.name == mcp) {
                return Owner::One(mcp, own.to_owned());
            }
            let text = format!("there is no resource `{shown}`: no mcp of this name has any here");
            return self.nobody(session, method, Code::NotFound, text).await;
        }
        let names: Vec<Name> = with.iter().map(|one| one.mcp.name.clone()).collect();
        match names.as_slice() {
            [] => {
                let text = format!("there is no resource `{shown}`: no mcp has any here");
                return self.nobody(session, method, Code::NotFound, text).await;
            }
            [only] => return Owner::One(only.clone(), named.to_owned()),
            _ => {}
        }
        let listed = match listed {
            Some(listed) => listed,
            None => match self.gather(session, Listing::Resources, aside).await {
                Ok(gathered) => listed.insert(Listed::of(&gathered)),
                Err(refused) => {
                    // Nobody knows of the next one either.
                    *listed = Some(Listed::default());
                    return Owner::None(refused);
                }
            },
        };
        let listing = listed.by.get(named).cloned().unwrap_or_default();
        if let ([only], true) = (listing.as_slice(), listed.is_whole) {
            return Owner::One(only.clone(), named.to_owned());
        }
        let meant = if listing.is_empty() { names } else { listing };
        let meant: Vec<String> = meant
            .iter()
            .take(16)
            .map(|mcp| uri::exposed(mcp, &shown))
            .collect();
        let text = format!(
            "`{shown}` may be a resource of several mcps: say which, by one of {}",
            meant.join(", ")
        );
        self.nobody(session, method, Code::ResourceUnclear, text)
            .await
    }

    async fn nobody(
        &self,
        session: &SessionHandle,
        method: &str,
        code: Code,
        text: String,
    ) -> Owner {
        Owner::None(self.no_such(session, method, code, text).await)
    }

    /// Refuses what names nothing that is here, and records that. It counts as a call.
    pub async fn no_such(
        &self,
        session: &SessionHandle,
        method: &str,
        code: Code,
        text: String,
    ) -> Outcome {
        let reason = Reason::new(code, text);
        self.unknown(session, method, reason).await
    }

    /// What all servers of a session's key together can do. Lists change whenever an mcp comes or goes.
    #[must_use]
    pub fn abilities_of_all(&self, session: &SessionHandle) -> Abilities {
        let any = |can: fn(Abilities) -> bool| !self.mcps_that(session, can).is_empty();
        let (resources, prompts) = (any(|able| able.resources), any(|able| able.prompts));
        Abilities {
            tools: true,
            tools_change: true,
            resources,
            prompts,
            completions: any(|able| able.completions),
            logging: true,
            subscribe: any(|able| able.resources && able.subscribe),
            resources_change: resources,
            prompts_change: prompts,
            // The gateway's own, which says so itself.
            tasks: false,
            tasks_cancel: false,
        }
    }
}

impl Answer {
    /// With the URIs of resources as clients see them where all servers are. Where it is not certain what a result
    /// names it could name what is another server's: it is not passed on.
    #[must_use]
    pub fn seen_everywhere(mut self) -> Outcome {
        let result = self.line.get(self.result.clone()).unwrap_or_default();
        let found = std::str::from_utf8(result)
            .ok()
            .and_then(|result| Some((result, splice::uris(result).ok()?)));
        let Some((result, places)) = found else {
            return Outcome::Failed(self.unclear());
        };
        if !places.is_empty() {
            let other = splice::put(result, &places, |own| uri::exposed(&self.mcp, own));
            self.result = 0..other.len();
            self.line = Bytes::from(other);
        }
        Outcome::Answered(self)
    }

    fn unclear(self) -> Failure {
        let text = format!(
            "mcp `{}` answered with what can be read in several ways: a member stands there twice, or too many do",
            self.mcp
        );
        Failure {
            call: self.call,
            code: Code::ServerError,
            text,
            mcp: Some(self.mcp),
            retry_after: None,
            verdict: None,
            deny: None,
            error: None,
            modern: false,
            took: self.took,
        }
    }
}
