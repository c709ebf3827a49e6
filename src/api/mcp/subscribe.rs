//! `subscriptions/listen`: a stream of what changes, of the kinds that were asked for and that we tell of.

use std::collections::HashSet;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::Asked;
use super::events::event;
use super::listen::Words;
use super::tasks::{self, extension};
use super::{answer, refused};
use crate::actors::clock::id_bits;
use crate::actors::front::{Aside, Front, Listed, Owner, Subscriber, Told};
use crate::actors::session::SessionHandle;
use crate::api::error::{Error, json};
use crate::domain::code::Code;
use crate::domain::ids::TaskId;
use crate::domain::limits::{MCP_LISTEN_TASKS_MAX, MCP_LISTEN_URIS_MAX, MCP_LISTENS_MAX};
use crate::domain::talk::Questions;
use crate::protocol::handshake::Abilities;
use crate::protocol::{envelope, jsonrpc, modern};

/// As what the log has it that a resource is named that is nobody's.
const SUBSCRIBE: &str = "resources/subscribe";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    tools_list_changed: bool,
    resources_list_changed: bool,
    prompts_list_changed: bool,
    resource_subscriptions: Vec<String>,
    task_ids: Option<Vec<String>>,
}

pub(super) async fn listen(asked: Asked<'_>) -> Response {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        notifications: &'a RawValue,
    }
    let given = asked.params.map_or("", RawValue::get);
    // serde would take an array for a struct.
    let wanted = serde_json::from_str::<Params<'_>>(given)
        .ok()
        .filter(|params| params.notifications.get().starts_with('{'))
        .and_then(|params| serde_json::from_str::<Wanted>(params.notifications.get()).ok());
    let Some(notifications) = wanted else {
        let text = "`notifications` must be an object that says of what to tell";
        return answer::error(asked.id, jsonrpc::INVALID_PARAMS, text);
    };
    if notifications.resource_subscriptions.len() > MCP_LISTEN_URIS_MAX {
        let text = format!("a subscription names at most {MCP_LISTEN_URIS_MAX} resources");
        return answer::error(asked.id, jsonrpc::INVALID_PARAMS, &text);
    }
    let task_ids = notifications.task_ids.clone().unwrap_or_default();
    if notifications.task_ids.is_some() && !asked.takes_tasks {
        return tasks::extension::not_declared(asked.id);
    }
    if task_ids.len() > MCP_LISTEN_TASKS_MAX {
        let text = format!("a subscription names at most {MCP_LISTEN_TASKS_MAX} tasks");
        return answer::error(asked.id, jsonrpc::INVALID_PARAMS, &text);
    }
    if !asked.head.takes_events {
        let text = "the answer is a stream of events: send `Accept: text/event-stream` as well";
        return refused(Error::new(Code::NotAcceptable, text));
    }
    if let Some(name) = asked.view
        && asked.shared.0.front.tools_of(asked.session, name).is_none()
    {
        return asked.nothing_here(name);
    }
    let Some(place) = asked.shared.0.listening.enter(&asked.session.key) else {
        let text =
            format!("{MCP_LISTENS_MAX} subscriptions of this key are open, which is the most");
        let code = jsonrpc::INTERNAL_ERROR;
        let body = answer::body_of_error(asked.id, code, &text, Some(Code::Busy));
        return json(StatusCode::OK, body);
    };
    let who = id_bits();
    let view = asked.view.map(str::to_owned);
    let session = Arc::clone(asked.session);
    let front = &asked.shared.0.front;
    // It listens before anything is subscribed to, so that nothing told in between is missed.
    let lists = front.follow(session, view, who);
    let (mut honoured, watching) = asked.honoured(notifications, who).await;
    honoured.tasks = asked.own_tasks(&task_ids);
    let words = honoured.words(asked);
    words.tell(lists, (place, watching))
}

/// What is told of.
#[derive(Debug, Default)]
struct Honoured {
    tools: bool,
    resources: bool,
    prompts: bool,
    uris: Vec<String>,
    tasks: Vec<TaskId>,
}

/// Resources that are subscribed to for a stream, until it ends.
struct Watching {
    front: Front,
    session: Arc<SessionHandle>,
    questions: Questions,
    who: Subscriber,
    /// With their mcps.
    uris: Vec<(String, String)>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let uris = std::mem::take(&mut self.uris);
        if uris.is_empty() {
            return;
        }
        let (front, session) = (self.front.clone(), Arc::clone(&self.session));
        let (questions, who) = (self.questions, self.who);
        tokio::spawn(async move {
            for (mcp, uri) in uris {
                let what = (mcp.as_str(), uri.as_str());
                front.watch_for(&session, what, questions, who, false).await;
            }
        });
    }
}

impl Asked<'_> {
    /// Those of these tasks that its client's changes are told of here.
    fn own_tasks(self, ids: &[String]) -> Vec<TaskId> {
        let front = &self.shared.0.front;
        let found = ids
            .iter()
            .filter_map(|id| front.task(self.session, self.view, id));
        let own = found.filter(|task| task.is_stateless());
        own.map(|task| task.id.clone()).collect()
    }

    async fn honoured(self, wanted: Wanted, who: Subscriber) -> (Honoured, Option<Watching>) {
        let mut honoured = Honoured {
            tools: wanted.tools_list_changed,
            ..Honoured::default()
        };
        let more = wanted.resources_list_changed
            || wanted.prompts_list_changed
            || !wanted.resource_subscriptions.is_empty();
        if !more {
            return (honoured, None);
        }
        let able: Abilities = self.able().await.unwrap_or_default();
        honoured.resources = wanted.resources_list_changed && able.resources_change;
        honoured.prompts = wanted.prompts_list_changed && able.prompts_change;
        if !able.subscribe {
            return (honoured, None);
        }
        let front = &self.shared.0.front;
        let mut watching = Watching {
            front: front.clone(),
            session: Arc::clone(self.session),
            questions: self.says.questions,
            who,
            uris: Vec::new(),
        };
        let uris: HashSet<String> = wanted.resource_subscriptions.into_iter().collect();
        let mut listed = None;
        for uri in uris {
            let questions = self.says.questions;
            let Some((mcp, own)) = self.whose(&uri, &mut listed).await else {
                continue;
            };
            let what = (mcp.as_str(), own.as_str());
            if front
                .watch_for(self.session, what, questions, who, true)
                .await
            {
                honoured.uris.push(uri);
                watching.uris.push((mcp, own));
            }
        }
        // What is acknowledged is told.
        let questions = self.says.questions;
        front.told_of(self.session, &watching.uris, questions).await;
        (honoured, Some(watching))
    }
}

impl Asked<'_> {
    /// The mcp whose resource this is, and the URI that its server knows.
    async fn whose(self, uri: &str, listed: &mut Option<Listed>) -> Option<(String, String)> {
        if let Some(mcp) = self.view {
            return Some((mcp.to_owned(), uri.to_owned()));
        }
        let aside = Aside {
            questions: self.says.questions,
            ..Aside::default()
        };
        let front = &self.shared.0.front;
        let owner = front.owner(self.session, SUBSCRIBE, uri, &aside, listed);
        match owner.await {
            Owner::One(mcp, own) => Some((mcp.to_string(), own)),
            Owner::None(_) => None,
        }
    }
}

impl Honoured {
    /// In the words of its stream.
    fn words(self, asked: Asked<'_>) -> Words {
        let id = asked.id;
        let meta = modern::of_subscription(id);
        let message = move |method: &str, more: &str| -> Bytes {
            let head = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{method}\",\"params\":{{"
            );
            event(format!("{head}{meta}{more}}}}}").as_bytes())
        };
        let mut kinds = Vec::new();
        for (is_told, name) in [
            (self.tools, "toolsListChanged"),
            (self.resources, "resourcesListChanged"),
            (self.prompts, "promptsListChanged"),
        ] {
            if is_told {
                kinds.push(format!("\"{name}\":true"));
            }
        }
        if !self.uris.is_empty() {
            let uris = serde_json::to_string(&self.uris).unwrap_or_default();
            kinds.push(format!("\"resourceSubscriptions\":{uris}"));
        }
        if !self.tasks.is_empty() {
            let ids: Vec<_> = self.tasks.iter().map(TaskId::as_str).collect();
            let ids = serde_json::to_string(&ids).unwrap_or_default();
            kinds.push(format!("\"taskIds\":{ids}"));
        }
        let end = format!(
            "{{\"resultType\":\"complete\",{}}}",
            modern::of_subscription(id)
        );
        let end = answer::body_of_result(id, end.as_bytes());
        let first = format!(",\"notifications\":{{{}}}", kinds.join(","));
        let (resources, prompts, tasks) = (self.resources, self.prompts, self.tasks);
        let (front, session) = (asked.shared.0.front.clone(), Arc::clone(asked.session));
        let view = asked.view.map(str::to_owned);
        Words {
            key: asked.session.key.clone(),
            first: Some(message("subscriptions/acknowledged", &first)),
            changed: self.tools.then(|| message("tools/list_changed", "")),
            last: Some(event(&end)),
            told: Box::new(move |told| match told {
                Told::Resources => resources.then(|| message("resources/list_changed", "")),
                Told::Prompts => prompts.then(|| message("prompts/list_changed", "")),
                // This version has no word for it.
                Told::Elicited(_) | Told::OfTask(_) => None,
                Told::Task(id) => {
                    let id = tasks.iter().find(|own| *own == id)?;
                    let task = front.task(&session, view.as_deref(), id.as_str())?;
                    let whole = extension::whole(&front, &session, &task);
                    let members = std::str::from_utf8(whole.get(1..whole.len() - 1)?).ok()?;
                    Some(message("tasks", &format!(",{members}")))
                }
                Told::Updated(line) => {
                    let uri = serde_json::to_string(&envelope::updated_uri(line)?).ok()?;
                    Some(message("resources/updated", &format!(",\"uri\":{uri}")))
                }
            }),
        }
    }
}
