//! Names, and the addresses they have inside an isolate.
//!
//! A name that a rule allows gets an address that is no host's anywhere (198.18.0.0/15, RFC 2544).
//! Who connects to it is taken to the name. Nothing about the real address is told, and no other name
//! is answered, so that looking up names carries nothing out.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::Shared;
use super::pace::Pace;
use crate::actors::sync::Mutex;
use crate::domain::egress::Wanted;
use crate::domain::limits::{ACCEPT_RETRY, EGRESS_NAMES_MAX};
use crate::protocol::egress::dns::{Answer, Kind, QUERY_BYTES_MAX, Query};

/// 198.18.0.0, where the addresses begin.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// The addresses of one run's names.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    /// The address of a name; `None` if it has none and there are no more.
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let mut table = self.0.lock();
        if let Some(number) = table.numbers.get(name) {
            return Some((FIRST + number).into());
        }
        if table.names.len() >= EGRESS_NAMES_MAX {
            return None;
        }
        let name: Arc<str> = name.into();
        table.names.push(Arc::clone(&name));
        let number = u32::try_from(table.names.len()).ok()?;
        table.numbers.insert(name, number);
        Some((FIRST + number).into())
    }

    /// Whose address this is.
    pub(super) fn name(&self, address: Ipv4Addr) -> Option<Arc<str>> {
        let number = u32::from(address).checked_sub(FIRST + 1)?;
        let table = self.0.lock();
        table.names.get(usize::try_from(number).ok()?).cloned()
    }
}

/// Answers name queries.
pub(super) async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut bytes = [0; QUERY_BYTES_MAX + 1];
    let mut pace = Pace::new();
    loop {
        pace.next().await;
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let query = bytes
            .get(..length)
            .filter(|bytes| bytes.len() <= QUERY_BYTES_MAX)
            .and_then(Query::read);
        if let Some(query) = query {
            let answer = query.answer(answer(&query, &shared));
            // Whoever asked may have gone, or not read: it asks again.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

fn answer(query: &Query<'_>, shared: &Shared) -> Answer {
    let wanted = Wanted::parse(&query.name);
    let allowed = wanted
        .as_ref()
        .filter(|wanted| shared.leave.rules.iter().any(|rule| rule.names(wanted)));
    match (allowed, query.kind) {
        (Some(Wanted::Name(name)), Kind::A) => match shared.names.address(name) {
            Some(address) => Answer::Address(address),
            None => {
                let why = format!("this run has looked up {EGRESS_NAMES_MAX} other names");
                shared.deny(name, &why);
                Answer::Failed
            }
        },
        (Some(_), _) => Answer::Nothing,
        (None, _) => {
            let target: String = query.name.chars().take(EGRESS_SHOWN_CHARS).collect();
            shared.deny(&target, "no host of that name is on the list");
            Answer::NoName
        }
    }
}

/// Characters of a name that are told.
const EGRESS_SHOWN_CHARS: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_address_and_there_are_only_so_many() {
        let names = Names::default();
        let first = names.address("a.example").unwrap();
        assert_eq!(first, Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(names.address("a.example"), Some(first));
        assert_eq!(names.name(first).as_deref(), Some("a.example"));
        for n in 1..EGRESS_NAMES_MAX {
            assert!(names.address(&format!("{n}.example")).is_some());
        }
        assert_eq!(names.address("one.more"), None);
        assert_eq!(names.address("a.example"), Some(first));
        assert_eq!(names.name(Ipv4Addr::new(198, 18, 0, 0)), None);
        assert_eq!(names.name(Ipv4Addr::new(198, 19, 255, 255)), None);
        assert_eq!(names.name(Ipv4Addr::LOCALHOST), None);
    }

    /// A server asked without end, and the gateway's cores were busy with answers.
    #[tokio::test]
    async fn a_flood_of_queries_is_answered_at_its_pace() {
        use std::sync::atomic::{AtomicU64, Ordering};
        use std::time::Duration;

        use super::super::places::Users;
        use super::super::{Leave, Shared};
        use crate::domain::limits::{EGRESS_BURST, EGRESS_PER_SECOND};

        let shared = Arc::new(Shared {
            leave: Leave {
                rules: vec!["a.example".parse().unwrap()],
                proxy: None,
                proxy_login: None,
            },
            names: Names::default(),
            places: Users::default().places(None),
            asker: crate::actors::lookup::Asker::new(None),
            on_denied: Arc::new(|_, _| {}),
            connections: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        });
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let serving = tokio::spawn(serve(socket, shared));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(server).await.unwrap();
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x01a\x07example\x00\x00\x01\x00\x01");
        let answers = AtomicU64::new(0);
        let count = async {
            let mut bytes = [0; 512];
            while client.recv(&mut bytes).await.is_ok() {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        };
        let flood = async {
            loop {
                let _ = client.send(&query).await;
                tokio::task::yield_now().await;
            }
        };
        let over = tokio::time::sleep(Duration::from_secs(1));
        tokio::select! {
            () = count => {}
            () = flood => {}
            () = over => {}
        }
        serving.abort();
        let answers = answers.load(Ordering::Relaxed);
        let most = u64::from(EGRESS_BURST + 2 * EGRESS_PER_SECOND);
        assert!((1..most).contains(&answers), "{answers}");
    }
}
