//! Labels of the supervision tree.

use super::{Label, Labelled, Values};

labels! {
    /// A kind of actor.
    ActorKind "kind" {
        /// The root supervisor.
        Root "root",
        /// The link to spawnd.
        Spawner "spawner",
        /// The store's keeper.
        Store "store",
        /// The audit log's keeper.
        Audit "audit",
        /// The deny table.
        KillSwitch "killswitch",
        /// The keys.
        Vault "vault",
        /// The routes.
        Catalog "catalog",
        /// The boot sweep.
        Reaper "reaper",
        /// The supervisor of shared instances.
        Shared "shared",
        /// The supervisor of users.
        Users "users",
        /// The supervisor of sessions.
        Sessions "sessions",
        /// Pings and sweeps.
        Health "health",
        /// The doors.
        Listeners "listeners",
        /// One user's supervisor.
        User "user",
        /// The supervisor of one slot.
        Isolate "isolate",
        /// One run.
        Run "run",
        /// One registered client.
        Session "session",
    }

    /// How an actor ended.
    ActorEnd "reason" {
        /// It stopped.
        Normal "normal",
        /// A handler failed.
        Error "error",
        /// A handler panicked.
        Panic "panic",
        /// Its supervisor killed it.
        Killed "killed",
    }
}
