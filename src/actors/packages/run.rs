//! How what is installed is run.

use std::path::PathBuf;
use std::sync::Arc;

use super::shelf::{self, Runner};
use super::{Failed, Kind, Packages, State, root};
use crate::actors::ctx::Ctx;
use crate::actors::launcher::Extra;
use crate::actors::plan::{beside, find_program};
use crate::domain::mcp::Mcp;
use crate::domain::package::VENV;

/// How an installed package is run.
pub(in crate::actors) struct Installed {
    pub(in crate::actors) program: PathBuf,
    /// Before the definition's own arguments.
    pub(in crate::actors) args: Vec<String>,
    pub(in crate::actors) extra: Extra,
}

/// Why a package cannot be run.
#[derive(Debug)]
pub(in crate::actors) enum Lack {
    /// It is not there: whoever wants it has it installed.
    Absent,
    /// It is, and does not run here: in words.
    Unfit(String),
}

impl Packages {
    /// How the installed package of a definition is run; `None` if its program runs as it is written.
    /// Blocks.
    ///
    /// # Errors
    /// It is not installed, or cannot be run.
    pub(in crate::actors) fn installed(
        &self,
        ctx: &Ctx,
        mcp: &Mcp,
    ) -> Result<Option<Installed>, Lack> {
        let package = mcp
            .package()
            .map_err(|error| Lack::Unfit(error.to_string()))?;
        let Some(package) = package else {
            return Ok(None);
        };
        self.look(ctx, &mcp.id);
        let again = format!("legation mcp install {}", mcp.name);
        let (cell, new) = self.cell(ctx, mcp, &package);
        let mut record = match &*cell.state.borrow() {
            State::Installed(record) => Some(Arc::clone(record)),
            _ => None,
        };
        if record.is_none() {
            let found = shelf::load(&root(ctx), &mcp.id);
            let found = found.map_err(|error| Lack::Unfit(error.to_string()))?;
            record = found.filter(|record| record.key == cell.key).map(Arc::new);
        }
        if new {
            // Nobody is on the way for it.
            let state = match &record {
                Some(record) => State::Installed(Arc::clone(record)),
                None => State::Failed(Failed::new(Kind::Failed, "nobody installed it".to_owned())),
            };
            cell.state.send_replace(state);
        }
        let record = record.ok_or(Lack::Absent)?;
        let tree = shelf::tree(&root(ctx), &mcp.id, &record);
        let entry = tree.join(&record.done.entry);
        let shown = entry.display().to_string();
        let path = beside(&mcp.program.command, &ctx.settings.path);
        let find =
            |name: &str| find_program(name, &path).map_err(|error| Lack::Unfit(error.to_string()));
        let mut programs = Vec::new();
        let (program, args) = match &record.runner {
            Runner::Itself => (entry, Vec::new()),
            Runner::Interpreter { name, args } => {
                let args = args.iter().cloned().chain([shown]).collect();
                (find(name)?, args)
            }
            Runner::Environment { python } => {
                if !python.is_file() {
                    let python = python.display();
                    let why =
                        format!("it was installed for {python}, which is gone; {again} --again");
                    return Err(Lack::Unfit(why));
                }
                programs.push(python.clone());
                (tree.join(VENV).join("bin/python"), vec![shown])
            }
        };
        let extra = Extra {
            programs,
            tree: Some(tree),
            ..Extra::default()
        };
        Ok(Some(Installed {
            program,
            args,
            extra,
        }))
    }
}
