//! An isolate that attacks its own way out: bounded, and nobody else's trouble.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Session, World};

/// Connections of one isolate at once (`EGRESS_CONNECTIONS_MAX`).
const PLACES: u64 = 64;
/// How long a request's head may take (`EGRESS_HEAD_WAIT`).
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Longer than that.
const SIEGE_SECONDS: u64 = 14;

/// A host that answers whatever is said.
fn host() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let read = stream.read(&mut [0; 64]).unwrap_or(0);
                let _ = write!(stream, "{read} bytes");
            });
        }
    });
    port
}

fn reach(session: &Session, port: u16) -> Value {
    let wanted = json!({"host": "localhost", "port": port, "say": "hello", "proxy": true});
    serde_json::from_str(&session.ask("demo.reach", wanted)).unwrap()
}

fn descriptors(world: &World) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", world.pid()));
    all.map_or(0, Iterator::count)
}

/// Ten thousand connections to the proxy, and into each that it takes a head that never ends.
#[test]
fn ten_thousand_slow_connections_are_one_isolate_s_own_trouble() {
    let world = World::with("[sandbox]\nallow_network_private = true\n");
    let port = host();
    world.demo("demo", &["--host", &format!("localhost:{port}/private")]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for session in [&ada, &ben] {
        assert_eq!(reach(session, port)["answer"], "5 bytes");
    }
    let before = descriptors(&world);
    let over = AtomicBool::new(false);
    let (mut most, mut open, mut slowest, mut asked) = (0, 0, Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let siege = scope.spawn(|| {
            let end = Over(&over);
            let told = ada.ask(
                "demo.besiege",
                json!({"connections": 10_000, "seconds": SIEGE_SECONDS}),
            );
            drop(end);
            serde_json::from_str::<Value>(&told).unwrap()
        });
        while !over.load(Ordering::Relaxed) {
            let since = Instant::now();
            let told = reach(&ben, port);
            slowest = slowest.max(since.elapsed());
            assert_eq!(told["answer"], "5 bytes", "{told}");
            asked += 1;
            most = most.max(descriptors(&world));
            let shown = world.isolate_detail("demo", Some("ada"));
            open = open.max(shown["egress"]["open"].as_u64().unwrap());
            // A bystander's pace, not a second attack.
            std::thread::sleep(Duration::from_millis(50));
        }
        let told = siege.join().unwrap();
        let made = told["made"].as_u64().unwrap() + told["refused"].as_u64().unwrap();
        assert_eq!(made, 10_000, "{told}");
        assert!(
            told["held"].as_u64() > Some(PLACES),
            "it did attack: {told}"
        );
        assert!(
            told["cut"].as_u64() >= Some(PLACES),
            "heads end in time: {told}"
        );
    });
    assert!(asked > 20, "{asked}");
    assert!(slowest < HEAD_WAIT / 2, "ben waited {slowest:?}");
    assert_eq!(open, PLACES, "all of hers, and no more");
    // Hers, one that waits at each listener, and what ben and this test have open meanwhile.
    let bound = before + usize::try_from(PLACES).unwrap() + 32;
    assert!(most <= bound, "{most} descriptors of {before} before");
    // Her places come back.
    world.until("ada reaches her host again", |_| {
        (reach(&ada, port)["answer"] == "5 bytes").then_some(())
    });
}

/// A client that has begun to speak TLS and never comes to the point.
#[test]
fn a_slow_hello_ends_in_time() {
    let world = World::with("[sandbox]\nallow_network_private = true\n");
    let port = host();
    world.demo("demo", &["--host", &format!("localhost:{port}/private")]);
    let ada = world.client("ada");
    // A record of 512 bytes that is a handshake, of which a byte comes each second.
    let begun = json!({
        "host": "localhost", "port": port, "proxy": true, "hex": true,
        "say": "1603010200010001fc0303", "drip_ms": 1000
    });
    let since = Instant::now();
    let told: Value = serde_json::from_str(&ada.ask("demo.reach", begun)).unwrap();
    let took = since.elapsed();
    assert_eq!(told["failed"], "talk", "{told}");
    assert!(took < HEAD_WAIT * 2, "{took:?}");
}

/// Says that the attack is over, also where it failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens a connection out, then writes to it, or waits and reads nothing; tells how much it got rid of.
const STUCK: &str = r#"
import json, socket, sys, time
def stuck(port, write):
    way = socket.socket()
    way.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    way.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    way.connect(("127.0.0.1", 3128))
    way.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % port)
    way.recv(100)
    way.settimeout(1)
    sent = 0
    try:
        while write:
            sent += way.send(b"x" * 65536)
    except TimeoutError:
        return sent
    time.sleep(3)
    return 0
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        said = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif asked["method"] == "tools/list":
        said = {"tools": [{"name": "stuck", "inputSchema": {"type": "object"}}]}
    elif asked["method"] == "tools/call":
        said = {"content": [{"type": "text", "text": str(stuck(**asked["params"]["arguments"]))}]}
    else:
        said = {}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}), flush=True)
"#;

/// Whatever a connection is stuck for, the gateway's sockets hold no more of it than their bound.
#[test]
fn what_waits_in_a_connection_is_bounded() {
    use nix::sys::socket::{setsockopt, sockopt};
    const MOST: usize = 1 << 20;
    let world = World::with("[sandbox]\nallow_network_private = true\n");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &4096).unwrap();
    setsockopt(&listener, sockopt::SndBuf, &4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    let rule = format!("localhost:{port}/private");
    let options = ["--host", &rule];
    world.mcp("stuck", &options, &["/usr/bin/python3", "-c", STUCK]);
    let ada = world.client("ada");
    let told = ada.ask("stuck.stuck", json!({"port": port, "write": true}));
    let sent: usize = told.parse().unwrap();
    assert!((1..MOST).contains(&sent), "{sent} bytes towards the host");
    let _unread = listener.accept().unwrap();
    let writer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut sent = 0;
        while let Ok(more) = stream.write(&[1; 65536]) {
            sent += more;
        }
        sent
    });
    ada.ask("stuck.stuck", json!({"port": port, "write": false}));
    let sent = writer.join().unwrap();
    assert!(
        (1..MOST).contains(&sent),
        "{sent} bytes towards the isolate"
    );
}
