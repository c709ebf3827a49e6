//! The doors of the house: the client port and the admin socket, with what answers behind them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::actors::clock::Clock;
use crate::actors::control::Control;
use crate::actors::front::Front;
use crate::actors::launcher::BoxFuture;
use crate::actors::listeners::{DoorError, Doors, OpenDoors};
use crate::api::admin::{self, About};
use crate::api::client::{self, Options};
use crate::api::mcp;
use crate::api::serve::{
    BindError, Bounds, Listener as Serving, OtherPort, SocketMode, bind_tcp, bind_unix,
};
use crate::api::tls::{Source, Tls, TlsError, local_names};
use crate::cli::error::{CliError, chain};
use crate::config::Config;
use crate::config::client::Tls as Wanted;
use crate::domain::code::Code;
use crate::telemetry::metrics::labels::Listener;

use super::ops::OpsDoor;

/// What the tree's listeners service opens.
pub(super) struct HouseDoors {
    asked: SocketAddr,
    any_port: bool,
    /// Where the client port came to be; a second opening takes the same.
    bound: OnceLock<SocketAddr>,
    socket: PathBuf,
    socket_mode: SocketMode,
    tls: Option<Arc<Tls>>,
    own_certificate: bool,
    options: Options,
    about: About,
    ops: Option<Arc<OpsDoor>>,
}

// === impl HouseDoors ===

impl HouseDoors {
    /// Loads the certificate, and makes it at the first start.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(super) fn new(
        config: &Config,
        about: About,
        any_port: bool,
        any_ops_port: bool,
        socket_mode: SocketMode,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, CliError> {
        let tls = match source(config)? {
            Some(source) => {
                let clock = Arc::clone(clock);
                let now = Arc::new(move || clock.wall_ms());
                Some(Tls::load(source, now).map_err(|error| no_certificate(&error))?)
            }
            None => None,
        };
        Ok(Self {
            asked: config.client.listen,
            any_port,
            bound: OnceLock::new(),
            socket: config.admin_socket(),
            socket_mode,
            own_certificate: config.client.tls == Wanted::SelfSigned,
            tls,
            options: Options {
                body_bytes_max: config.client.body_bytes_max,
                response_bytes_max: config.calls.response_bytes_max,
                trusted_proxies: config.client.trusted_proxies.clone(),
                http_sse: config.client.http_sse,
            },
            about,
            ops: OpsDoor::new(config, any_ops_port, clock)?.map(Arc::new),
        })
    }

    /// The port that was asked for, if another one had to be taken.
    pub(super) fn taken_port(&self) -> Option<u16> {
        let bound = self.bound.get()?;
        let other = self.asked.port() != 0 && self.asked.port() != bound.port();
        other.then(|| self.asked.port())
    }

    /// The ops door, if there is one.
    pub(super) fn ops(&self) -> Option<&OpsDoor> {
        self.ops.as_deref()
    }

    /// Fingerprint and file of our own certificate.
    pub(super) fn certificate(&self) -> Option<(String, PathBuf)> {
        let tls = self.tls.as_ref().filter(|_| self.own_certificate)?;
        Some((tls.fingerprint(), tls.cert_path()))
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

    async fn open_both(
        &self,
        front: Front,
        control: Control,
        stop: CancellationToken,
    ) -> Result<OpenDoors, DoorError> {
        // The socket first: who has it is the one server of this directory.
        let admin =
            bind_unix(&self.socket, self.socket_mode).map_err(|e| shut("admin.socket", &e))?;
        let (address, other) = match self.bound.get() {
            Some(before) => (*before, OtherPort::Refuse),
            None if self.any_port => (self.asked, OtherPort::Take),
            None => (self.asked, OtherPort::Refuse),
        };
        let clients = bind_tcp(address, other)
            .await
            .map_err(|e| shut("client.listen", &e))?;
        let bound = clients.tcp().unwrap_or(address);
        let client_url = self.url(*self.bound.get_or_init(|| bound));
        let ops = control.ops();
        let clients = clients.measured(ops.http(Listener::Client));
        let admin = admin.measured(ops.http(Listener::Admin));
        if let Some(door) = &self.ops {
            door.open(ops, self.tls.clone()).await?;
        }
        let admin = admin.serve(
            admin::router(control, self.about.clone()),
            None,
            Bounds::default(),
            stop.clone(),
        );
        let clients = clients.serve(
            client::router(front.clone(), self.options.clone())
                .merge(mcp::router(front, &self.options)),
            self.tls.clone(),
            Bounds::default(),
            stop.clone(),
        );
        Ok(OpenDoors {
            client_url,
            closed: Box::pin(closed(clients, admin, self.ops.clone(), stop)),
        })
    }
}

impl Doors for HouseDoors {
    fn open(
        &self,
        front: Front,
        control: Control,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<OpenDoors, DoorError>> {
        Box::pin(self.open_both(front, control, stop))
    }
}

fn source(config: &Config) -> Result<Option<Source>, CliError> {
    let client = &config.client;
    match (client.tls, &client.cert_file, &client.key_file) {
        (Wanted::Off, ..) => Ok(None),
        (Wanted::SelfSigned, ..) => Ok(Some(Source::Own {
            dir: config.server.data_dir.join("tls"),
            names: local_names(),
        })),
        (Wanted::Files, Some(cert), Some(key)) => Ok(Some(Source::Files {
            cert: cert.clone(),
            key: key.clone(),
        })),
        // The configuration's own check says so first.
        (Wanted::Files, ..) => Err(CliError::Config {
            text: "client.tls is \"files\", but client.cert_file or client.key_file is not set"
                .into(),
            unreadable: false,
        }),
    }
}

pub(super) fn no_certificate(error: &TlsError) -> CliError {
    CliError::NotStarted {
        code: Code::StartFailed,
        message: chain(error),
        next: None,
    }
}

/// Why a listener is shut, and which setting says where it is.
pub(super) fn shut(setting: &str, error: &BindError) -> DoorError {
    let code = match error {
        BindError::InUse { .. } | BindError::Answers { .. } => Code::PortTaken,
        _ => Code::StartFailed,
    };
    DoorError {
        code,
        message: format!("{setting}: {}", chain(error)),
    }
}

async fn broken(ops: Option<&OpsDoor>) -> DoorError {
    match ops {
        Some(ops) => ops.broken().await,
        None => std::future::pending().await,
    }
}

/// Resolves when both have drained after `stop`, or when one of them ended without it.
async fn closed(
    mut clients: Serving,
    mut admin: Serving,
    ops: Option<Arc<OpsDoor>>,
    stop: CancellationToken,
) -> Result<(), DoorError> {
    let broke = |message: String| DoorError {
        code: Code::Internal,
        message,
    };
    let first = tokio::select! {
        // In order: told to stop, an idle listener is gone at once, and that is no failure. Taking
        // it for one would drop the other and cut off the calls it still has in hand.
        biased;
        () = stop.cancelled() => {
            let (clients, admin) = tokio::join!(clients.stopped(), admin.stopped());
            let both = clients.and(admin);
            return both.map(|_| ()).map_err(|error| broke(error.to_string()));
        }
        ended = clients.stopped() => ("client port", ended),
        ended = admin.stopped() => ("admin socket", ended),
        broken = broken(ops.as_deref()) => return Err(broken),
    };
    match first {
        (name, Ok(_)) => Err(broke(format!("the {name} stopped by itself"))),
        (name, Err(error)) => Err(broke(format!("the {name} broke: {error}"))),
    }
}
