//! The supervision tree, the slots, and the handles that carry calls past it.
//!
//! A tour, from the outside in:
//!
//! * [`system`] starts and stops the whole; [`root`] supervises the services in order;
//!   [`supervisor`] is the bookkeeping every supervisor shares.
//! * [`front`] is all that listeners may ask; a call goes from there through [`catalog`] snapshots
//!   to its [`slot`] and the [`handle`] of the run in it, and meets no actor on its way.
//! * [`control`] is all that administrators may ask; [`views`] is what they see.
//! * A slot is supervised by its [`isolate`] actor, which starts runs through the [`launcher`],
//!   reaps what they leave, and asks the restart policy what next.
//! * [`ctx`] holds the cells they share.

pub mod abilities;
pub mod access;
pub mod announced;
pub mod audit;
pub mod calls;
pub mod catalog;
mod caught_up;
pub mod changes;
pub mod clock;
pub mod control;
pub mod credentials;
pub mod ctx;
mod cut_off;
mod disk;
pub mod ears;
pub mod eras;
mod failure;
#[cfg(test)]
mod fragile;
pub mod front;
pub mod gate;
pub mod handle;
mod health;
mod household;
pub mod isolate;
pub mod jail;
pub mod killswitch;
pub mod launcher;
mod left_out;
mod life;
pub mod listeners;
mod lookup;
mod lost;
mod measured;
pub mod ops;
pub mod packages;
pub mod pending;
pub mod plan;
pub mod pressure;
mod probe;
pub mod record;
mod relimit;
pub mod remote;
pub mod ring;
pub mod room;
pub mod root;
pub mod roots;
mod router;
mod run;
mod sampler;
pub mod schemas;
mod scrape;
#[cfg(test)]
mod scripted;
mod services;
pub mod session;
mod sessions;
pub mod slot;
pub mod start_line;
mod start_work;
#[cfg(test)]
mod store_away_tests;
pub mod supervisor;
mod sync;
pub mod system;
pub mod tasks;
pub mod throttle;
pub mod tree;
#[cfg(test)]
mod tree_tests;
mod users;
pub mod vault;
pub mod views;
