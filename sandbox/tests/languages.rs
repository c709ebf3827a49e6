//! What real servers are written in works in `strict`: threads, children, locks, interfaces.

use sandbox::status::Record;
use sandbox::{Network, Profile};

use crate::walls::{self, Home};
use crate::world::{Run, spec};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    ("node_has_what_it_needs", node_has_what_it_needs),
    ("python_has_what_it_needs", python_has_what_it_needs),
];

const NODE: &str = r#"
const { Worker } = require('worker_threads');
const { execFileSync } = require('child_process');
const os = require('os'), fs = require('fs');
const crypto = require('crypto');
console.log('cores', os.cpus().length > 0);
console.log('interfaces', Object.keys(os.networkInterfaces()).join());
console.log('child', execFileSync('/bin/sh', ['-c', 'echo $HOME']).toString().trim() === process.cwd());
console.log('user', os.userInfo().username);
fs.writeFileSync('kept', crypto.randomBytes(8));
fs.renameSync('kept', os.tmpdir() + '/../' + process.cwd() + '/moved');
const worker = new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true });
worker.on('message', (answer) => console.log('worker', answer));
"#;

const PYTHON: &str = r#"
import getpass, multiprocessing, os, ssl, subprocess, tempfile, threading, zoneinfo
def double(n): return 2 * n
if __name__ == "__main__":
    print("lock", multiprocessing.Lock().acquire())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("pool", pool.map(double, [1, 2, 3]))
    print("child", subprocess.run(["sh", "-c", "echo $HOME"], capture_output=True, text=True).stdout.strip() == os.getcwd())
    print("user", getpass.getuser(), os.path.expanduser("~") == os.getcwd())
    thread = threading.Thread(target=lambda: print("thread"))
    thread.start(); thread.join()
    with tempfile.NamedTemporaryFile() as file: file.write(b"x")
    print("certificates", len(ssl.create_default_context().get_ca_certs()) >= 0)
"#;

/// Runs a program found in our own `PATH` with a script that lies in its home.
fn told(name: &str, script: &str, network: Network) -> Result<String, String> {
    let host = walls::host()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The system's first: what stands before it in a developer's `PATH` is often a shim.
    let program = std::iter::once("/usr/bin".into())
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed"))?;
    let home = Home::new();
    let file = home.path().join("server");
    std::fs::write(&file, script).unwrap();
    let mut order = spec(program.to_str().unwrap(), &[file.to_str().unwrap()]);
    order.profile = Profile::Strict;
    order.network = network;
    order.workdir = home.path();
    order.limits.memory_bytes = 512 << 20;
    order.limits.pids = 128;
    order.user_limits.memory_bytes = 1 << 30;
    order.file_bytes = 1 << 30;
    let text = home.path().display().to_string();
    order.program.env.insert("HOME".to_owned(), text.into());
    let mut run = Run::start(&host, &order);
    let out = run.output();
    let mut err = String::new();
    std::io::Read::read_to_string(&mut run.stderr, &mut err).unwrap();
    assert_eq!(run.ending(), Record::Exited(0), "{out}{err}");
    Ok(out)
}

fn node_has_what_it_needs() -> Outcome {
    let out = told("node", NODE, Network::Loopback)?;
    assert_eq!(
        out,
        "cores true\ninterfaces lo\nchild true\nuser isolate\nworker 42\n"
    );
    Ok(())
}

fn python_has_what_it_needs() -> Outcome {
    let out = told("python3", PYTHON, Network::None)?;
    assert_eq!(
        out,
        "lock True\npool [2, 4, 6]\nchild True\nuser isolate True\nthread\ncertificates True\n"
    );
    Ok(())
}
