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

    /// The call that waits for what this one brings, with the answers on their way to its server; `None` if this is
    /// a new one.
    ///
    /// # Errors
    /// Why it is no answer to any call, in words.
    pub(super) fn comes_back(self, method: &str) -> Result<Option<Exchange>, String> {
        let given = self.given();
        if memchr::memmem::find(&given, b"requestState").is_none() {
            return Ok(None);
        }
        let no_text = |why| format!("`requestState` must be text, as it was given: {why}");
        let params: Params<'_> = serde_json::from_slice(&given).map_err(no_text)?;
        let Some(text) = params.request_state else {
            return Ok(None);
        };
        let shared = &self.shared.0;
        let (held, now) = (&shared.held, shared.front.wall_ms());
        let principal = self.principal();
        let bound = Bound {
            principal: &principal,
            request: &state::digest(method, &given),
        };
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
        Ok(Some(exchange))
    }
}
