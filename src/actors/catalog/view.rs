//! What one key sees: the tools of the mcps that it is subscribed to and its user's groups are granted.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::domain::name::ToolName;
use crate::protocol::tasks::{self, Support};

use super::super::schemas::ToolSchema;
use super::routes::Published;

/// What one key sees.
#[derive(Debug, Default)]
pub struct View {
    mcps: Vec<Published>,
    routes: Vec<Route>,
    by_name: HashMap<Box<str>, usize>,
}

/// One tool of a view.
#[derive(Debug)]
pub struct Route {
    /// The name the client sees.
    pub exposed: Box<str>,
    /// The tool's own name.
    pub tool: ToolName,
    /// Its mcp.
    pub published: Published,
    /// Its definition, as its server declared it.
    pub definition: Arc<RawValue>,
    /// What its arguments are held against, if its mcp says so.
    pub schema: Option<Arc<ToolSchema>>,
}

impl Route {
    /// Whether it works as a task.
    #[must_use]
    pub fn tasks(&self) -> Support {
        tasks::support(self.definition.get())
    }
}

impl View {
    /// A view of these mcps; each route with the place of its subscription.
    pub(super) fn new(mcps: Vec<Published>, mut routes: Vec<(usize, Route)>) -> Self {
        // Oldest subscription first, then by name: deterministic, and stable for clients.
        routes.sort_by(|(a, one), (b, two)| a.cmp(b).then_with(|| one.exposed.cmp(&two.exposed)));
        let routes: Vec<Route> = routes.into_iter().map(|(_, route)| route).collect();
        let by_name = routes
            .iter()
            .enumerate()
            .map(|(at, route)| (route.exposed.clone(), at))
            .collect();
        Self {
            mcps,
            routes,
            by_name,
        }
    }

    /// Its mcps, oldest subscription first.
    #[must_use]
    pub fn mcps(&self) -> &[Published] {
        &self.mcps
    }

    /// One of them by its name.
    #[must_use]
    pub fn mcp(&self, name: &str) -> Option<&Published> {
        let mut own = self.mcps.iter();
        own.find(|published| published.mcp.name.as_str() == name)
    }

    /// Its tools, in the order to show.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// A tool by its exposed name, or in the dotted form `mcp.tool`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Route> {
        if let Some(route) = self.by_name.get(name).and_then(|at| self.routes.get(*at)) {
            return Some(route);
        }
        // Names of mcps and of tools may have dots: what can be read in two ways is nobody's.
        let mut dotted = self.routes.iter().filter(|route| {
            name.strip_prefix(route.published.mcp.name.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|tool| tool == route.tool.as_str())
        });
        match (dotted.next(), dotted.next()) {
            (Some(route), None) => Some(route),
            _ => None,
        }
    }

    /// The tools of that own name, in the order to show: one of each mcp that has it.
    pub fn called<'a>(&'a self, tool: &'a str) -> impl Iterator<Item = &'a Route> {
        self.routes
            .iter()
            .filter(move |route| route.tool.as_str() == tool)
    }

    /// A tool of one mcp by its own name.
    #[must_use]
    pub fn find_of(&self, mcp: &str, tool: &str) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.published.mcp.name.as_str() == mcp && route.tool.as_str() == tool)
    }
}
