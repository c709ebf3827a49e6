//! `[install]`: where packages come from, and over what.

use std::path::PathBuf;

use super::schema::{any, section};
use crate::domain::egress::site::Site;

section! {
    /// How packages are installed: what `npx` and `uvx` run. An install has an isolate of its own, with a
    /// network and without anybody's secrets.
    Install = "install" {
        /// npm's registry, like `https://npm.corp.example/`; private addresses are fine. Unset: the one that
        /// npm itself asks.
        npm_registry: Option<Site> = None, any();
        /// Python's package index, like `https://pypi.corp.example/simple`. Unset: the one that uv itself asks.
        python_index: Option<Site> = None, any();
        /// The proxy that leads there, `http://HOST:PORT`. Unset: none.
        proxy: Option<Site> = None, any();
        /// Certificates of authorities that the registries' and proxies' are checked against, in PEM. Unset: the
        /// tools' own.
        ca_file: Option<PathBuf> = None, any();
        /// A file with what `npm_registry` asks for, on one line: a token, or `USER:PASSWORD`. Nobody but its owner may
        /// read it; read at each install. Installs whose packages run scripts are refused then.
        npm_login_file: Option<PathBuf> = None, any();
        /// The same for `python_index`: `USER:PASSWORD`.
        python_login_file: Option<PathBuf> = None, any();
        /// The same for `proxy`, said by the gateway itself: `USER:PASSWORD`.
        proxy_login_file: Option<PathBuf> = None, any();
        /// Hosts that an install reaches besides its registry, written as `mcp add --host` has them. Where
        /// neither a host nor its registry is set: any host of the internet, on port 443.
        hosts: Vec<String> = Vec::new(), any();
    }
}
