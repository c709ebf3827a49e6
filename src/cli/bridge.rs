//! `legation bridge`: a stdio MCP server for AI tools that speak nothing else. It relays each message
//! to the server's `/mcp` and what comes back to stdout.
//!
//! Stdout is the protocol's. What the bridge has to tell goes into its log, warnings to stderr too, and
//! failures into the answers, where a person or a model reads them.

mod again;
mod bearer;
mod cache;
mod endpoint;
mod events;
mod flights;
mod host;
mod http;
mod input;
mod journal;
mod link;
mod listener;
mod output;
mod probe;
mod reach;
mod relay;
mod session;
mod settings;
mod stream;
mod trust;
mod wire;
mod wishes;

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{CliError, Done, Exit};
use crate::domain::limits::BRIDGE_LEAVE_MAX;
use cache::Cache;
use host::Host;
use link::Link;
use output::Output;
use settings::Settings;

pub(super) use endpoint::Endpoint;
pub(super) use probe::{Unseen, count_tools};
pub(super) use settings::{
    BridgeArgs, KEY_VARIABLE, URL_VARIABLE, endpoint, key, key_of_file, trust, unquoted,
};

/// Runs until stdin ends or a signal comes.
pub(super) fn run(args: BridgeArgs) -> Done {
    let settings = Settings::of(args, &|name| std::env::var(name).ok())?;
    let http = http::Http::new(
        settings.endpoint.clone(),
        &settings.trust,
        &settings.key,
        settings.key_file.clone(),
    )?;
    journal::start(settings.log_file.as_deref());
    let cache = Cache::open(settings.cache_file.clone(), settings.fingerprint());
    // One thread: the bridge waits more than it works.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let done = runtime.block_on(Box::pin(serve(http, cache)));
    // A read of stdin under way cannot be ended, and must not be waited for.
    runtime.shutdown_background();
    done
}

async fn serve(http: http::Http, cache: Cache) -> Done {
    let over = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    let (output, writer) = Output::start(over.clone());
    let link = Arc::new(Link::new(http, cache, output));
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(server = link.url(), version, "the bridge has started");
    let mut host = Host::new(Arc::clone(&link));
    let listener = tokio::spawn(listener::listen(Arc::clone(&link)));
    tokio::select! {
        () = host.serve(tokio::io::stdin(), &over) => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    host.leave().await;
    listener.abort();
    // Aborted: its end is what is waited for.
    _ = listener.await;
    leave(&link).await;
    // The writer ends with the last who writes.
    drop(link);
    _ = timeout(BRIDGE_LEAVE_MAX, writer).await;
    tracing::info!("the bridge has ended");
    Ok(Exit::Ok)
}

/// Ends the session, if the server is there to hear it.
async fn leave(link: &Link) {
    let Some(session) = link.current() else {
        return;
    };
    session::end(&link.http, &session).await;
}
