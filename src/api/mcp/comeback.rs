//! A client without a session comes back with the answers that its call waits for.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::Asked;
use super::exchange::{Exchange, Side};
use super::rounds::Answers;
use crate::protocol::state::{self, Bound, Refused};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, default)]
    request_state: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    input_responses: Option<&'a RawValue>,
}

/// What a request is.
pub(super) enum Back {
    /// A call that was held.
    Held(Box<Exchange>),
    /// A new one, with these members of its parameters for a server that holds none.
    New(Bytes),
}

impl Asked<'_> {
    /// Who asks, and where.
    pub(super) fn principal(self) -> String {
        format!("{}/{}", self.session.key, self.view.unwrap_or_default())
    }

    /// The parameters as they came.
    pub(super) fn given(self) -> Bytes {
        match self.params {
            Some(params) => self.bytes.slice_ref(params.get().as_bytes()),
            None => Bytes::from_static(b"{}"),
        }
    }

    /// The call that waits for what this one brings, with the answers on their way to its server; or a new one.
    ///
    /// # Errors
    /// Why it is no answer to any call, in words.
    pub(super) fn comes_back(self, method: &str) -> Result<Back, String> {
        let given = self.given();
        if !state::may_bring(&given) {
            return Ok(Back::New(Bytes::new()));
        }
        let no_text = |why| format!("`requestState` must be text, as it was given: {why}");
        let params: Params<'_> = serde_json::from_slice(&given).map_err(no_text)?;
        let responses = params.input_responses.map(RawValue::get);
        if responses.is_some_and(|given| !given.starts_with('{')) {
            return Err("`inputResponses` must be an object".to_owned());
        }
        let Some(text) = params.request_state else {
            return Ok(Back::New(brought(responses, None)));
        };
        let shared = &self.shared.0;
        let (held, now) = (&shared.held, shared.front.wall_ms());
        let principal = self.principal();
        let bound = Bound {
            principal: &principal,
            request: &state::digest(method, &given),
        };
        let passing = held.sealer.open_passing(&text, bound, now);
        if let Some(own) = passing.map_err(|refused| refused.to_string())? {
            return Ok(Back::New(brought(responses, own.as_deref())));
        }
        let opened = held.sealer.open(&text, bound, now);
        let stub = opened.map_err(|refused| refused.to_string())?;
        let answers: Option<Answers> = match params.input_responses {
            Some(answers) => serde_json::from_str(answers.get())
                .map_err(|_| "`inputResponses` must be an object".to_owned())?,
            None => None,
        };
        let answers = answers.unwrap_or_default();
        let gone = || Refused::Gone.to_string();
        let place = (stub.call, stub.round);
        // One whose answers are none goes on waiting for better ones.
        let wrong = held.look(place, |exchange| match &exchange.side {
            Side::Stateless(rounds) => rounds.wrong(&answers),
            Side::Sessions(..) => None,
        });
        if let Some(why) = wrong.ok_or_else(gone)? {
            return Err(why);
        }
        let mut exchange = held.take(stub.call, stub.round).ok_or_else(gone)?;
        if let Side::Stateless(rounds) = &mut exchange.side {
            rounds.answer(answers);
        }
        Ok(Back::Held(Box::new(exchange)))
    }
}

/// Members of parameters, for a server that holds no call.
fn brought(responses: Option<&str>, state: Option<&str>) -> Bytes {
    let responses = responses.map(|given| format!("\"inputResponses\":{given}"));
    let state = state.map(|own| format!("\"requestState\":{own}"));
    let all: Vec<_> = [responses, state].into_iter().flatten().collect();
    all.join(",").into()
}
