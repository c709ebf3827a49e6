//! While the store is away, a service that fails comes up again: the database's absence is never
//! what ends the server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;

use crate::config::Config;
use crate::domain::account::User;
use crate::domain::name::Name;
use crate::domain::talk::Questions;

use super::clock::HostClock;
use super::front::Registration;
use super::listeners::NoDoors;
use super::scripted::Scripted;
use super::system::System;
use super::views::TreeNode;

/// How long anything may take before a test calls it stuck.
const PATIENCE: Duration = Duration::from_secs(60);

fn rename(folder: &Path, from: &str, to: &str) {
    for end in ["", "-wal", "-shm"] {
        let at = |name: &str| folder.join(format!("{name}{end}"));
        // The log may not be there at the moment.
        let _ = std::fs::rename(at(from), at(to));
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_service_comes_up_again_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.data_dir = folder.path().to_owned();
    let launcher = Arc::new(Scripted::default());
    let starting = System::start(config, Arc::new(HostClock), launcher, Arc::new(NoDoors));
    let system = starting.await.unwrap();
    let control = system.control();
    let gates = || control.status().not_ready;
    assert!(gates().is_empty());

    rename(folder.path(), "legation.db", "away.db");
    let store = control.store().clone();
    store.ping().await.unwrap_err();
    let services = system.services();
    assert_eq!(services.len(), 12);
    // Twice each, which is less than too often.
    for round in 1..=2 {
        for service in system.services() {
            service.kill();
        }
        until("all are up again", || {
            let tree = control.tree();
            let again = |one: &&TreeNode| one.state == "up" && one.restarts >= round;
            gates() == ["store"] && tree.children.iter().filter(again).count() == 12
        })
        .await;
    }
    let status = control.status();
    let why = status.store.away.unwrap();
    assert!(why.contains("cannot be opened"), "{why}");

    rename(folder.path(), "away.db", "legation.db");
    until("it is ready again", || gates().is_empty()).await;
    store.ping().await.unwrap();
    let gave_up = tokio::time::timeout(Duration::ZERO, system.gave_up()).await;
    assert!(gave_up.is_err(), "it gave up: {gave_up:?}");
    assert!(system.stop().await);
}

/// What is told to a catalog while it is down is lost, and what the store says besides routes is old.
#[tokio::test]
async fn a_catalog_that_was_down_takes_over_what_changed_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.data_dir = folder.path().to_owned();
    let launcher = Arc::new(Scripted::default());
    let starting = System::start(config, Arc::new(HostClock), launcher, Arc::new(NoDoors));
    let system = starting.await.unwrap();
    let (control, front) = (system.control(), system.front());
    let ada = User {
        id: control.user_id(),
        name: Name::parse("ada").unwrap(),
        created_at: 1,
    };
    control.store().create_user(&ada).await.unwrap();
    let (key, secret) = control.create_key(&ada.id, "", None).await.unwrap();
    let registration = Registration {
        preshared_key: secret,
        friendly_name: "a".to_owned(),
        host_tool: "b".to_owned(),
        questions: Questions::NONE,
        from: None,
    };
    let registered = front.register(registration).await.unwrap();
    let token = registered.token.expose_secret();
    assert!(front.authenticate(Some(token), None).is_ok());
    // Behind its back, as by an answer that did not come.
    control.store().revoke_key(&key.id, 2).await.unwrap();
    for service in system.services() {
        service.kill();
    }
    until("the session is over", || {
        front.authenticate(Some(token), None).is_err()
    })
    .await;
    assert!(system.stop().await);
}
