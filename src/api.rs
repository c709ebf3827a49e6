//! The listeners: the standard client on the client port, the admins on a Unix socket.
//!
//! A listener is bound ([`serve::bind_tcp`], [`serve::bind_unix`]), given a router ([`client::router`]), and drains when its
//! token is cancelled. Requests reach the tree only through
//! [`Front`](crate::actors::front::Front); nothing here touches a process or the store.
//!
//! * [`serve`]: accept loops, connections and their bounds, draining.
//! * [`tls`]: certificates: self-made, from files, reloaded.
//! * [`peer`]: whose address a request has when proxies stand in between.
//! * [`client`]: the five calls of the standard client.
//! * [`admin`]: what the command line asks, on the admin socket.
//! * [`ops`]: health and metrics, for load balancers and Prometheus.
//! * [`error`]: the only place that knows the client port's HTTP statuses.

pub mod admin;
pub mod client;
pub mod error;
pub mod mcp;
pub mod ops;
pub mod peer;
pub mod serve;
mod shares;
pub mod stamp;
pub mod tls;
