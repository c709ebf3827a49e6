//! The ops door: opened with the others, closed after the whole tree is down, so that a probe
//! hears "not ready" and a scraper sees the last numbers while the house drains.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::doors::{no_certificate, shut};
use crate::actors::clock::Clock;
use crate::actors::listeners::DoorError;
use crate::actors::ops::{Ops, Which};
use crate::api::ops::{self, Options, Token};
use crate::api::serve::{Bounds, OtherPort, bind_tcp};
use crate::api::tls::{Source, Tls, local_names};
use crate::cli::error::{CliError, chain};
use crate::config::Config;
use crate::config::client::Tls as Wanted;
use crate::config::ops::IsolatesPage;
use crate::domain::code::Code;
use crate::domain::limits::{LAST_ANSWERS, OPS_CONNECTIONS_MAX, OPS_HEADER_READ_MAX, OPS_IDLE_MAX};
use crate::telemetry::metrics::labels::Listener;

/// The listener for health and metrics.
pub(super) struct OpsDoor {
    asked: SocketAddr,
    any_port: bool,
    bound: OnceLock<SocketAddr>,
    tls: Option<Arc<Tls>>,
    token: Option<Arc<Token>>,
    isolates: Option<Which>,
    stop: CancellationToken,
    serving: Mutex<Option<Serving>>,
}

/// It serves as long as this is kept.
struct Serving {
    _task: AbortOnDropHandle<()>,
    ended: watch::Receiver<bool>,
}

impl OpsDoor {
    /// Reads what it needs; `None` if it is switched off.
    ///
    /// # Errors
    /// Certificate, authorities or token cannot be used.
    pub(super) fn new(
        config: &Config,
        any_port: bool,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Self>, CliError> {
        let ops = &config.ops;
        let Some(asked) = ops.listen.address() else {
            return Ok(None);
        };
        let token = match &ops.token_file {
            Some(file) => Some(Token::load(file).map_err(|error| not_started(&error))?),
            None => None,
        };
        let loopback = asked.ip().to_canonical().is_loopback();
        if token.is_some() && ops.tls == Wanted::Off && !loopback {
            tracing::warn!(
                address = %asked,
                "the ops token travels in clear text: set ops.tls, or keep this network private"
            );
        }
        Ok(Some(Self {
            asked,
            any_port,
            bound: OnceLock::new(),
            tls: tls(config, clock)?,
            token,
            isolates: match ops.isolates {
                IsolatesPage::Off => None,
                IsolatesPage::Top => Some(Which::Top(ops.isolates_top)),
                IsolatesPage::All => Some(Which::All),
            },
            stop: CancellationToken::new(),
            serving: Mutex::default(),
        }))
    }

    /// Opens it, unless it is open: it outlives the other doors.
    ///
    /// # Errors
    /// The port is taken or refused.
    pub(super) async fn open(&self, ops: Ops, client: Option<Arc<Tls>>) -> Result<(), DoorError> {
        if self.is_open() {
            return Ok(());
        }
        let (address, other) = match self.bound.get() {
            Some(before) => (*before, OtherPort::Refuse),
            None if self.any_port => (self.asked, OtherPort::Take),
            None => (self.asked, OtherPort::Refuse),
        };
        let port = bind_tcp(address, other)
            .await
            .map_err(|e| shut("ops.listen", &e))?;
        let bound = port.tcp().unwrap_or(address);
        let bound = *self.bound.get_or_init(|| bound);
        ops.listening(&self.url(bound));
        let own = self.tls.clone().map(|tls| (Listener::Ops, tls));
        let certificates = client.map(|tls| (Listener::Client, tls));
        let options = Options {
            token: self.token.clone(),
            isolates: self.isolates,
            certificates: certificates.into_iter().chain(own).collect(),
        };
        let bounds = Bounds {
            connections: OPS_CONNECTIONS_MAX,
            header_read: OPS_HEADER_READ_MAX,
            idle: OPS_IDLE_MAX,
            drain: LAST_ANSWERS,
            ..Bounds::default()
        };
        let mut listener = port.measured(ops.http(Listener::Ops)).serve(
            ops::router(ops, options),
            self.tls.clone(),
            bounds,
            self.stop.clone(),
        );
        let (tell, ended) = watch::channel(false);
        let token = self.token.clone();
        let task = tokio::spawn(async move {
            let watch = async {
                match &token {
                    Some(token) => match token.watch().await {},
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = listener.stopped() => {
                    if let Err(error) = ended {
                        tracing::error!("the ops listener broke, which is a bug: {error}");
                    }
                }
                () = watch => {}
            }
            tell.send_replace(true);
        });
        *self.serving() = Some(Serving {
            _task: AbortOnDropHandle::new(task),
            ended,
        });
        Ok(())
    }

    /// Resolves when it ended without being told.
    pub(super) async fn broken(&self) -> DoorError {
        let ended = self.serving().as_ref().map(|serving| serving.ended.clone());
        if let Some(mut ended) = ended {
            // An error is a task that was dropped: that is an end as well.
            let _ = ended.wait_for(|ended| *ended).await;
        }
        if self.stop.is_cancelled() {
            std::future::pending::<()>().await;
        }
        DoorError {
            code: Code::Internal,
            message: "the ops listener stopped by itself".to_owned(),
        }
    }

    /// Closes it; waits for the last answers.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let ended = self.serving().as_ref().map(|serving| serving.ended.clone());
        if let Some(mut ended) = ended {
            let patience = LAST_ANSWERS + Duration::from_millis(500);
            let _ = tokio::time::timeout(patience, ended.wait_for(|ended| *ended)).await;
        }
    }

    /// The port that was asked for, if another one had to be taken.
    pub(super) fn taken_port(&self) -> Option<u16> {
        let bound = self.bound.get()?;
        let other = self.asked.port() != 0 && self.asked.port() != bound.port();
        other.then(|| self.asked.port())
    }

    fn is_open(&self) -> bool {
        let serving = self.serving();
        serving
            .as_ref()
            .is_some_and(|serving| !*serving.ended.borrow())
    }

    fn serving(&self) -> std::sync::MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, bound: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let ip = bound.ip().to_canonical();
        if ip.is_loopback() || ip.is_unspecified() {
            format!("{scheme}://localhost:{}", bound.port())
        } else {
            format!("{scheme}://{}", SocketAddr::new(ip, bound.port()))
        }
    }
}

fn tls(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Tls>>, CliError> {
    let ops = &config.ops;
    let source = match (ops.tls, &ops.cert_file, &ops.key_file) {
        (Wanted::Off, ..) => return Ok(None),
        (Wanted::Files, Some(cert), Some(key)) => Source::Files {
            cert: cert.clone(),
            key: key.clone(),
        },
        // For `files` without files the configuration's own check says so first.
        (Wanted::SelfSigned | Wanted::Files, ..) => Source::Own {
            dir: config.server.data_dir.join("tls"),
            names: local_names(),
        },
    };
    let clock = Arc::clone(clock);
    let now = Arc::new(move || clock.wall_ms());
    let loaded = Tls::load_trusting(source, ops.client_ca_file.clone(), now);
    loaded.map(Some).map_err(|error| no_certificate(&error))
}

fn not_started(error: &dyn std::error::Error) -> CliError {
    CliError::NotStarted {
        code: Code::StartFailed,
        message: chain(error),
        next: None,
    }
}
