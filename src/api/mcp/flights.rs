//! Calls under way, by the id their client gave them, so that it can cancel them. A call goes on when
//! its connection is lost (that is no cancellation in these versions), and ends with the server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{AbortHandle, AbortRegistration};

use crate::actors::session::SessionHandle;
use crate::domain::ids::ID_BYTES;
use crate::domain::limits::MCP_CALLS_MAX;

/// Those of a session are few, and looked through.
type Calls = HashMap<[u8; ID_BYTES], Vec<(Arc<str>, AbortHandle)>>;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Flights(Arc<Mutex<Calls>>);

/// A place among them, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Flight {
    calls: Arc<Mutex<Calls>>,
    session: [u8; ID_BYTES],
    id: Arc<str>,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The id is under way already.
    Twice,
    /// Too many are.
    Full,
}

impl Flights {
    /// A place for a call with this id, and what ends it when it is cancelled.
    pub(super) fn enter(
        &self,
        session: &SessionHandle,
        id: &str,
    ) -> Result<(Flight, AbortRegistration), NoPlace> {
        let session = session.id().bits();
        let mut calls = lock(&self.0);
        let own = calls.entry(session).or_default();
        if own.iter().any(|(known, _)| **known == *id) {
            return Err(NoPlace::Twice);
        }
        if own.len() >= MCP_CALLS_MAX {
            return Err(NoPlace::Full);
        }
        let (abort, aborted) = AbortHandle::new_pair();
        let id: Arc<str> = id.into();
        own.push((Arc::clone(&id), abort));
        let flight = Flight {
            calls: Arc::clone(&self.0),
            session,
            id,
        };
        Ok((flight, aborted))
    }

    /// Cancels a call of a session.
    pub(super) fn cancel(&self, session: &SessionHandle, id: &str) {
        let calls = lock(&self.0);
        let mut own = calls.get(&session.id().bits()).into_iter().flatten();
        if let Some((_, call)) = own.find(|(known, _)| **known == *id) {
            call.abort();
        }
    }

    /// Cancels all calls of a session.
    pub(super) fn cancel_all(&self, session: &SessionHandle) {
        let calls = lock(&self.0);
        let own = calls.get(&session.id().bits()).into_iter().flatten();
        own.for_each(|(_, call)| call.abort());
    }
}

impl Drop for Flights {
    fn drop(&mut self) {
        let calls = lock(&self.0);
        let all = calls.values().flatten();
        all.for_each(|(_, call)| call.abort());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut calls = lock(&self.calls);
        if let Some(own) = calls.get_mut(&self.session) {
            if let Some(at) = own.iter().position(|(id, _)| Arc::ptr_eq(id, &self.id)) {
                own.swap_remove(at);
            }
            if own.is_empty() {
                calls.remove(&self.session);
            }
        }
    }
}

fn lock(calls: &Mutex<Calls>) -> std::sync::MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
