//! What must hold between values. Bounds of single values are in the sections' declarations.

use std::net::SocketAddr;
use std::path::{Component, Path};

use sandbox::Facility;

use super::client::Tls;
use super::{Config, Origin, Origins, Problem, nearest};
use crate::domain::audit::Category;
use crate::domain::egress::Rule;
use crate::domain::limits::EGRESS_PROXY_PORT;

/// Bytes of a Unix socket's path, the closing zero not counted (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

struct Check<'a> {
    config: &'a Config,
    origins: &'a Origins,
    problems: Vec<Problem>,
}

pub(super) fn check(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut check = Check {
        config,
        origins,
        problems: Vec::new(),
    };
    check.tls();
    check.ops();
    check.sums();
    check.times();
    check.paths();
    check.words();
    check.listeners();
    check.storage();
    check.problems
}

impl Check<'_> {
    fn problem(&mut self, key: &str, what: impl Into<String>) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin: self.origins.of(key),
            what: what.into(),
        });
    }

    /// `low` must not be above `high`.
    fn ordered(&mut self, (low, low_is): (&str, u64), (high, high_is): (&str, u64)) {
        if low_is > high_is {
            let from = self.origins.of(high);
            let what = format!("{low_is} is more than {high}, which is {high_is} ({from})");
            self.problem(low, what);
        }
    }

    fn tls(&mut self) {
        let client = &self.config.client;
        let files = [
            ("client.cert_file", client.cert_file.is_some()),
            ("client.key_file", client.key_file.is_some()),
        ];
        for (key, set) in files {
            match (client.tls, set) {
                (Tls::Files, false) => {
                    self.problem(
                        key,
                        "is not set, but client.tls is \"files\"; name the file",
                    );
                }
                (Tls::SelfSigned | Tls::Off, true) => {
                    let what =
                        "is set, but client.tls is not \"files\"; set that, or leave this out";
                    self.problem(key, what);
                }
                _ => {}
            }
        }
        let open = client.tls == Tls::Off && !client.listen.ip().to_canonical().is_loopback();
        if open && client.trusted_proxies.is_empty() {
            let what = "\"off\" would send keys in clear text over the network; listen on loopback, \
                        or list the proxy that ends TLS in client.trusted_proxies";
            self.problem("client.tls", what);
        }
    }

    fn ops(&mut self) {
        let ops = &self.config.ops;
        let files = [
            ("ops.cert_file", ops.cert_file.is_some()),
            ("ops.key_file", ops.key_file.is_some()),
        ];
        for (key, set) in files {
            match (ops.tls, set) {
                (Tls::Files, false) => {
                    self.problem(key, "is not set, but ops.tls is \"files\"; name the file");
                }
                (Tls::SelfSigned | Tls::Off, true) => {
                    let what = "is set, but ops.tls is not \"files\"; set that, or leave this out";
                    self.problem(key, what);
                }
                _ => {}
            }
        }
        if ops.client_ca_file.is_some() && ops.tls == Tls::Off {
            let what = "is set, but ops.tls is \"off\", so no client can show a certificate; set \
                        ops.tls to \"files\" or \"self\"";
            self.problem("ops.client_ca_file", what);
        }
        let Some(listen) = ops.listen.address() else {
            return;
        };
        let open = !listen.ip().to_canonical().is_loopback();
        if open && ops.token_file.is_none() && ops.client_ca_file.is_none() {
            let what = format!(
                "{listen} is not loopback, so anybody could read the metrics; set ops.token_file or \
                 ops.client_ca_file, or listen on 127.0.0.1"
            );
            self.problem("ops.listen", what);
        }
    }

    fn sums(&mut self) {
        let isolates = &self.config.isolates;
        let pairs = [
            (
                ("isolates.memory_bytes", isolates.memory_bytes),
                ("isolates.user_memory_bytes", isolates.user_memory_bytes),
            ),
            (
                ("isolates.pids", isolates.pids),
                ("isolates.user_pids", isolates.user_pids),
            ),
            (
                ("isolates.cpu_millis", isolates.cpu_millis),
                ("isolates.user_cpu_millis", isolates.user_cpu_millis),
            ),
            (
                (
                    "calls.response_bytes_max",
                    self.config.calls.response_bytes_max as u64,
                ),
                (
                    "calls.line_bytes_max",
                    self.config.calls.line_bytes_max as u64,
                ),
            ),
        ];
        for (low, high) in pairs {
            self.ordered(low, high);
        }
    }

    fn times(&mut self) {
        let (restart, sessions) = (&self.config.restart, &self.config.sessions);
        let pairs = [
            (
                ("restart.floor_ms", restart.floor_ms),
                ("restart.cap_ms", restart.cap_ms),
            ),
            (
                ("sessions.token_grace_ms", sessions.token_grace_ms),
                ("sessions.ttl_ms", sessions.ttl_ms),
            ),
        ];
        for (low, high) in pairs {
            self.ordered(low, high);
        }
    }

    fn paths(&mut self) {
        if self.config.server.data_dir.as_os_str().is_empty() {
            self.problem("server.data_dir", "is empty; name a directory");
        }
        let socket = self.config.admin_socket();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let what = format!(
                "`{}` is longer than the {SOCKET_PATH_BYTES_MAX} bytes a socket's path may have; \
                 set admin.socket to a shorter one",
                socket.display()
            );
            self.problem("admin.socket", what);
        }
        let clean = |path: &str| {
            let path = Path::new(path);
            path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
        };
        if !self.config.isolates.path.split(':').all(clean) {
            let what = format!(
                "`{}` must be absolute directories without .. between colons",
                self.config.isolates.path
            );
            self.problem("isolates.path", what);
        }
    }

    fn storage(&mut self) {
        let storage = &self.config.storage;
        let files = [
            ("storage.password_file", storage.password_file.is_some()),
            ("storage.ca_file", storage.ca_file.is_some()),
        ];
        let Some(dsn) = &storage.url else {
            for (key, _) in files.into_iter().filter(|(_, set)| *set) {
                self.problem(
                    key,
                    "is set, but there is no (right) storage.url, so it means nothing",
                );
            }
            return;
        };
        let (twice, blind) = (
            storage.password_file.is_some() && dsn.password().is_some(),
            storage.ca_file.is_some() && !dsn.tls().verifies(),
        );
        if twice {
            let what = "is set, and storage.url holds a password too; take that out";
            self.problem("storage.password_file", what);
        }
        if blind {
            let what = "is set, but storage.url does not say sslmode=verify-full or verify-ca, so \
                        no certificate would be checked";
            self.problem("storage.ca_file", what);
        }
    }

    fn words(&mut self) {
        let classes = self.config.audit.required.iter();
        if let Some(bad) = classes.clone().find(|one| Category::parse(one).is_none()) {
            let known: Vec<&str> = Category::ALL.iter().map(|one| one.as_str()).collect();
            let what = format!(
                "`{bad}` is no class of records; there are {}",
                known.join(", ")
            );
            self.problem("audit.required", what);
        }
        self.facilities();
        self.install();
        let sandbox = &self.config.sandbox;
        let relative = |root: &&String| !root.starts_with('/');
        if let Some(bad) = sandbox.path_roots.iter().find(relative) {
            let what = format!("`{bad}` is not an absolute path");
            self.problem("sandbox.path_roots", what);
        }
    }

    /// A misspelt facility would be allowed to nobody, and the one that was meant stays required.
    fn facilities(&mut self) {
        let names = self.config.sandbox.allow_degraded.iter();
        let mut unknown = names.filter_map(|name| name.parse::<Facility>().err());
        if let Some(unknown) = unknown.next() {
            let known = Facility::ALL.map(Facility::name);
            let what = match nearest::word(&known, &unknown.0) {
                Some(near) => format!("{unknown}; did you mean {near}?"),
                None => unknown.to_string(),
            };
            self.problem("sandbox.allow_degraded", what);
        }
    }

    /// Two listeners cannot have one port of one address.
    fn listeners(&mut self) {
        let client = self.config.client.listen;
        let Some(ops) = self.config.ops.listen.address() else {
            return;
        };
        // Every address is this one as well; those of IPv6 are those of IPv4, too.
        let takes = |one: SocketAddr, other: SocketAddr| {
            one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4())
        };
        let meets = client.ip().to_canonical() == ops.ip().to_canonical()
            || takes(client, ops)
            || takes(ops, client);
        // A trial run finds itself another port, unless it was told which.
        if self.config.server.dev && self.origins.of("ops.listen") == Origin::BuiltIn {
            return;
        }
        // Port 0 is any that is free.
        if client.port() == ops.port() && client.port() != 0 && meets {
            let from = self.origins.of("client.listen");
            let what = format!(
                "{ops} is taken by client.listen, which is {client} ({from}); give one of them \
                 another port"
            );
            self.problem("ops.listen", what);
        }
    }

    /// What an install reaches must be reachable.
    fn install(&mut self) {
        let install = &self.config.install;
        let wrong = install.hosts.iter().find_map(|host| {
            let rule: Result<Rule, _> = host.parse();
            rule.err().map(|error| error.to_string())
        });
        let proxy = install.proxy.iter().find(|proxy| !proxy.is_bare());
        let proxy = proxy.map(|proxy| format!("`{proxy}` must be http://HOST:PORT"));
        let ca_file = install.ca_file.iter().find(|file| !file.is_absolute());
        let ca_file = ca_file.map(|file| format!("`{}` is not an absolute path", file.display()));
        let registries = [
            ("install.npm_registry", &install.npm_registry),
            ("install.python_index", &install.python_index),
        ];
        let unreachable: Vec<_> = registries
            .into_iter()
            .filter(|(_, site)| site.as_ref().is_some_and(|site| !site.is_reachable()))
            .map(|(key, _)| {
                (
                    key,
                    format!("port {EGRESS_PROXY_PORT} is the isolate's own proxy's"),
                )
            })
            .collect();
        let logins = [
            (
                "install.npm_login_file",
                &install.npm_login_file,
                "install.npm_registry",
                install.npm_registry.is_some(),
            ),
            (
                "install.python_login_file",
                &install.python_login_file,
                "install.python_index",
                install.python_index.is_some(),
            ),
            (
                "install.proxy_login_file",
                &install.proxy_login_file,
                "install.proxy",
                install.proxy.is_some(),
            ),
        ];
        let mut homeless = Vec::new();
        for (key, file, of, is_set) in logins {
            let Some(file) = file else { continue };
            if !is_set {
                homeless.push((
                    key,
                    format!("is set, but there is no {of} that it could be for"),
                ));
            } else if !file.is_absolute() {
                homeless.push((key, format!("`{}` is not an absolute path", file.display())));
            }
        }
        for (key, what) in homeless {
            self.problem(key, what);
        }
        if let Some(what) = wrong {
            self.problem("install.hosts", what);
        }
        if let Some(what) = proxy {
            self.problem("install.proxy", what);
        }
        if let Some(what) = ca_file {
            self.problem("install.ca_file", what);
        }
        for (key, what) in unreachable {
            self.problem(key, what);
        }
    }
}
