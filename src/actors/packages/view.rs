//! A package as operators see it.

use serde::{Deserialize, Serialize};

use super::shelf::Record;
use super::{Ctx, Packages, State, root, shelf};
use crate::domain::mcp::Mcp;

/// An mcp's package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageView {
    /// `installed`, `installing`, `failed` or `absent`.
    pub state: String,
    /// What the definition names.
    pub package: String,
    /// `npm` or `uv`.
    pub manager: String,
    /// What it does, or why it failed.
    pub detail: Option<String>,
    /// The installed package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What its registry says its archive's content is known by.
    pub integrity: String,
    /// Packages, with all it depends on.
    pub packages: u64,
    /// SHA-256 of the lock file.
    pub lock_sha256: String,
    /// SHA-256 over all names, contents and links.
    pub tree_sha256: String,
    /// The program that is run, in the tree.
    pub entry: String,
    /// Where the tree is.
    pub path: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Whether programs of packages ran during the install.
    pub scripts: bool,
    /// When, in milliseconds since the epoch; 0 if it is not.
    pub installed_at: i64,
    /// How long it took.
    pub took_ms: u64,
}

impl Packages {
    /// An mcp's package; `None` if its program runs as it is written. Blocks.
    pub(in crate::actors) fn view(&self, ctx: &Ctx, mcp: &Mcp) -> Option<PackageView> {
        let package = mcp.package().ok().flatten()?;
        let key = package.key(&mcp.install);
        let mut view = PackageView {
            state: "absent".to_owned(),
            package: package.to_string(),
            manager: package.manager.as_str().to_owned(),
            ..PackageView::default()
        };
        self.look(ctx, &mcp.id);
        let cell = self.cells.lock().get(&mcp.id).cloned();
        let state = cell.filter(|cell| cell.key == key);
        let state = state.map(|cell| cell.state.borrow().clone());
        match state {
            Some(State::Installed(record)) => view.fill(ctx, mcp, &record),
            Some(State::Installing(progress)) => {
                "installing".clone_into(&mut view.state);
                view.detail = Some(progress.text());
            }
            Some(State::Failed(failed)) => {
                "failed".clone_into(&mut view.state);
                view.detail = Some(failed.why);
            }
            None => {
                let found = shelf::load(&root(ctx), &mcp.id).ok().flatten();
                if let Some(record) = found.filter(|record| record.key == key) {
                    view.fill(ctx, mcp, &record);
                }
            }
        }
        Some(view)
    }
}

impl PackageView {
    fn fill(&mut self, ctx: &Ctx, mcp: &Mcp, record: &Record) {
        let done = record.done.clone();
        *self = Self {
            state: "installed".to_owned(),
            package: std::mem::take(&mut self.package),
            manager: std::mem::take(&mut self.manager),
            detail: None,
            name: done.name,
            version: done.version,
            integrity: done.integrity,
            packages: done.packages,
            lock_sha256: record.lock_sha256.clone(),
            tree_sha256: record.tree_sha256.clone(),
            entry: done.entry,
            path: shelf::tree(&root(ctx), &mcp.id, record)
                .display()
                .to_string(),
            bytes: record.bytes,
            entries: record.entries,
            scripts: record.scripts,
            installed_at: record.installed_at,
            took_ms: record.took_ms,
        };
    }
}
