//! Prompts where all servers of a key are: which name each has there, and whose a name is. A name is fixed when its
//! prompt is listed for the first time, by the rule of tools' names ([`crate::domain::expose`]), and kept in the
//! store.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::account::ExposedPrompt;
use crate::domain::code::Code;
use crate::domain::expose::{self, Prefix};
use crate::domain::ids::{KeyId, McpId};
use crate::domain::limits::{PROMPT_NAMES_KEPT_MAX, PROMPTS_NAMED_MAX};
use crate::domain::name::Name;
use crate::protocol::splice::{self, Place};
use crate::storage::StoreError;

use super::super::catalog::Published;
use super::super::session::SessionHandle;
use super::super::sync::Mutex;
use super::Front;
use super::gather::{Gathered, Missing};

/// How often names are chosen anew because another list has taken one of them.
const NAME_TRIES: usize = 4;

/// Names of keys' prompts, as of a snapshot of routes.
#[derive(Debug, Default)]
pub struct PromptNames(Mutex<HashMap<KeyId, Names>>);

/// Of which snapshot, and which.
type Names = (u64, Arc<[ExposedPrompt]>);

impl PromptNames {
    fn get(&self, key: &KeyId) -> Option<Names> {
        self.0.lock().get(key).cloned()
    }

    fn put(&self, key: &KeyId, of: u64, names: &Arc<[ExposedPrompt]>) {
        let mut kept = self.0.lock();
        if kept.len() >= PROMPT_NAMES_KEPT_MAX && !kept.contains_key(key) {
            // The store has them: any one may go.
            if let Some(other) = kept.keys().next().cloned() {
                kept.remove(&other);
            }
        }
        kept.insert(key.clone(), (of, Arc::clone(names)));
    }
}

impl Front {
    /// The mcp of a prompt and its own name there, by the name that the session's client knows or in the dotted form
    /// `mcp.prompt`; `None` if there is none.
    ///
    /// # Errors
    /// The store is away, and the names are not known.
    pub async fn prompt(
        &self,
        session: &SessionHandle,
        name: &str,
    ) -> Result<Option<(Name, String)>, StoreError> {
        let names = self.names_of(&session.key).await?;
        let with = self.mcps_that(session, |able| able.prompts);
        if let Some(found) = names.iter().find(|one| one.exposed == name) {
            let owner = with.iter().find(|one| one.mcp.id == found.mcp);
            return Ok(owner.map(|owner| (owner.mcp.name.clone(), found.prompt.clone())));
        }
        // What can be read in two ways is nobody's.
        let mut dotted = with.iter().filter_map(|published| {
            let mcp = &published.mcp.name;
            let own = name.strip_prefix(mcp.as_str())?.strip_prefix('.')?;
            Some((mcp.clone(), own.to_owned()))
        });
        Ok(match (dotted.next(), dotted.next()) {
            (one, None) => one,
            _ => None,
        })
    }

    /// Puts prompts into a list under their names. Those that have none get one.
    pub(super) async fn name_prompts(
        &self,
        session: &SessionHandle,
        found: Vec<(Published, Vec<(String, Place)>)>,
        gathered: &mut Gathered,
    ) {
        let mut missing = |published: &Published, code: Code| {
            let mcp = published.mcp.name.clone();
            if gathered.missing.iter().all(|one| one.mcp != mcp) {
                gathered.missing.push(Missing {
                    mcp,
                    code,
                    retry_after: None,
                });
            }
        };
        let known = match self.named(&session.key, &found).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!("prompts without a name are not listed: {error}");
                self.names_of(&session.key).await.unwrap_or_default()
            }
        };
        let names: HashMap<(&McpId, &str), &str> = known
            .iter()
            .map(|one| ((&one.mcp, one.prompt.as_str()), one.exposed.as_str()))
            .collect();
        for (published, items) in found {
            for (item, place) in items {
                let name = names
                    .get(&(&published.mcp.id, place.text.as_str()))
                    .copied();
                match name {
                    Some(name) => {
                        let named = splice::put(&item, &[place], |_| name.to_owned());
                        gathered.items.push(named);
                    }
                    None => missing(&published, Code::ListCut),
                }
            }
        }
    }

    /// The names of a key's prompts, these among them.
    async fn named(
        &self,
        key: &KeyId,
        found: &[(Published, Vec<(String, Place)>)],
    ) -> Result<Arc<[ExposedPrompt]>, StoreError> {
        let mut last = None;
        for _ in 0..NAME_TRIES {
            let names = self.names_of(key).await?;
            let fresh = newcomers(&names, found);
            if fresh.is_empty() {
                return Ok(names);
            }
            match self.ctx.store.expose_prompts(key, &fresh).await {
                Ok(()) => return self.read_names(key).await,
                // Another list named one of them in the same moment.
                Err(error @ StoreError::Conflict { .. }) => {
                    self.read_names(key).await?;
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => self.names_of(key).await,
        }
    }

    async fn names_of(&self, key: &KeyId) -> Result<Arc<[ExposedPrompt]>, StoreError> {
        let now = *self.ctx.rerouted.borrow();
        match self.ctx.prompts.get(key) {
            Some((of, names)) if of == now => Ok(names),
            // While the store is away, what was known is.
            Some((_, names)) => Ok(self.read_names(key).await.unwrap_or(names)),
            None => self.read_names(key).await,
        }
    }

    async fn read_names(&self, key: &KeyId) -> Result<Arc<[ExposedPrompt]>, StoreError> {
        let of = *self.ctx.rerouted.borrow();
        let names = self.ctx.store.prompts_exposed_to(key).await?.into();
        self.ctx.prompts.put(key, of, &names);
        Ok(names)
    }
}

/// Names for those that have none, in the order of the subscriptions.
fn newcomers(
    known: &[ExposedPrompt],
    found: &[(Published, Vec<(String, Place)>)],
) -> Vec<ExposedPrompt> {
    let mut view = known.to_vec();
    for (published, items) in found {
        let mcp = &published.mcp.id;
        let named = view.iter().filter(|one| one.mcp == *mcp).count();
        let prompts: Vec<&str> = items.iter().map(|(_, place)| &*place.text).collect();
        let name = &published.mcp.name;
        let fresh = expose::prompts(&view, mcp, name, &prompts, Prefix::IfTaken);
        let room = PROMPTS_NAMED_MAX.saturating_sub(named);
        view.extend(
            fresh
                .into_iter()
                .take(room)
                .map(|(prompt, exposed)| ExposedPrompt {
                    mcp: mcp.clone(),
                    prompt,
                    exposed,
                }),
        );
    }
    view.split_off(known.len())
}
