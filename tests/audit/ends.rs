//! The last record of a log, and its files when they may not be read.

use legation::domain::audit::chain::{Hash, Tip};

use super::*;

/// Makes something of the last line of the newest segment.
fn last_line(dir: &Path, make: impl FnOnce(&str, &str) -> String) {
    let newest = segments(dir).pop().unwrap();
    let text = std::fs::read_to_string(&newest).unwrap();
    let at = text.trim_end().rfind('\n').unwrap() + 1;
    let (before, last) = text.split_at(at);
    std::fs::write(&newest, format!("{before}{}", make(before, last))).unwrap();
}

/// A record of somebody's own in the place of the last one, with a hash that fits.
fn forged(before: &str) -> String {
    let last: Value = serde_json::from_str(before.lines().last().unwrap()).unwrap();
    let hash = last["hash"].as_str().unwrap();
    let mut tip = Tip {
        seq: last["seq"].as_u64().unwrap(),
        hash: Hash::parse(hash.as_bytes()).unwrap(),
    };
    let mut line = Vec::new();
    tip.seal(
        b",\"at\":1,\"event\":\"system.stopped\",\"orderly\":\"yes\"",
        &mut line,
    );
    String::from_utf8(line).unwrap()
}

#[test]
fn the_record_of_the_last_checkpoint_is_missed_like_any_other() {
    let mut world = World::new();
    world.cli(&["user", "add", "ada"]);
    world.stop();
    let whole = dir(&world);
    let last = records(&whole).pop().unwrap();
    assert_eq!(last["event"], "system.checkpoint");
    let seq = &last["seq"];
    let kept = std::fs::read_to_string(whole.join("checkpoint")).unwrap();
    let signed: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(signed["upto"].as_u64().unwrap() + 1, seq.as_u64().unwrap());
    let public = world.data_dir().join("keys/audit.pub");
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().join("kept");
    std::fs::write(&elsewhere, &kept).unwrap();
    let check = |tampered: &dyn Fn(&Path), more: &[&str]| -> (i32, Value) {
        let copy = copy(&whole);
        tampered(copy.path());
        // The index would know as well.
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            let _ = std::fs::remove_file(copy.path().join(name));
        }
        let all = [&["--public-key", public.to_str().unwrap()], more].concat();
        verify(copy.path(), &all)
    };
    assert_eq!(check(&|_| {}, &[]).0, 0);
    let ways: [&dyn Fn(&Path); 3] = [
        &|dir| last_line(dir, |_, _| String::new()),
        &|dir| {
            last_line(dir, |_, last| {
                last.get(..last.len() / 2).unwrap().to_owned()
            })
        },
        &|dir| last_line(dir, |before, _| forged(before)),
    ];
    for (way, tampered) in ways.iter().enumerate() {
        for more in [&[][..], &["--checkpoint", elsewhere.to_str().unwrap()]] {
            let (code, report) = check(tampered, more);
            assert_eq!(code, 1, "{way}: {report}");
            assert_eq!(&report["fault"]["seq"], seq, "{way}: {report}");
            assert_eq!(report["signed_upto"], signed["upto"], "{way}: {report}");
            assert!(!report["notes"].to_string().contains("behind"), "{report}");
        }
    }
    // In right words: a file that is none is not missing, and a log that is gone has no segment.
    let garbage = |dir: &Path| std::fs::write(dir.join("checkpoint"), "nonsense").unwrap();
    let (code, report) = check(&garbage, &[]);
    let what = report["fault"]["what"].as_str().unwrap();
    assert!(
        code == 1 && what.contains("is of no use (it holds no checkpoint)"),
        "{what}"
    );
    let gone = |dir: &Path| {
        for path in segments(dir) {
            std::fs::remove_file(path).unwrap();
        }
    };
    let (code, report) = check(&gone, &[]);
    assert_eq!(
        (code, &report["fault"]["segment"]),
        (1, &Value::Null),
        "{report}"
    );
    assert!(
        report["fault"]["what"]
            .as_str()
            .unwrap()
            .contains("the whole log is missing")
    );

    // A start finds it, says so everywhere, and gives the number to nobody else.
    last_line(&whole, |_, _| String::new());
    world.start();
    says_damaged(&world);
    world.stop();
    let all = records(&whole);
    assert!(
        all.iter().all(|one| one["seq"] != *seq),
        "{seq} is given out twice"
    );
    assert!(all.iter().any(|one| one["event"] == "system.damaged"));
    let (code, report) = verify(&whole, &[]);
    assert_eq!((code, &report["fault"]["seq"]), (1, seq), "{report}");
}

/// A gateway that the permissions of files hold, though it is root's; ended when it is dropped.
struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On this data directory. It has no isolates: for those it would need the right that is taken from it.
fn held(data: &Path) -> Command {
    let mut command = match am_root() {
        true => {
            let mut held = Command::new("setpriv");
            held.args([
                "--bounding-set=-dac_override,-dac_read_search",
                "--",
                LEGATION,
            ]);
            held
        }
        false => Command::new(LEGATION),
    };
    command
        .args([
            "serve",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "client.tls=off",
        ])
        .args(["--set", "ops.listen=off", "--data-dir"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_may_not_be_read_are_named_and_nothing_is_lost() {
    if am_root() && tools::on_path("setpriv").is_none() {
        return tools::skip("files that may not be read", "root needs setpriv");
    }
    let mut world = World::new();
    let key = world.key_alone("ada");
    world.stop();
    let log = dir(&world);
    let newest = segments(&log).pop().unwrap();
    let before = std::fs::read(&newest).unwrap();
    // At a start the error names the file, and leaves it as it is.
    mode(&newest, 0);
    let output = held(&world.data_dir()).output().unwrap();
    mode(&newest, 0o600);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains(name) && told.contains("ermission denied"),
        "{told}"
    );
    assert_eq!(std::fs::read(&newest).unwrap(), before);

    // Lost while it runs: what must be recorded is refused, and goes on when it can be.
    let held = Held(
        held(&world.data_dir())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let status = |world: &World| -> Option<Value> {
        serde_json::from_str(&world.run(&["-o", "json", "status"]).stdout).ok()
    };
    let url = world.until("it serves", |world| {
        let status = status(world).filter(|status| status["ready"] == true)?;
        status["client_url"].as_str().map(str::to_owned)
    });
    let http = Http::new(&url.replace("localhost", "127.0.0.1"));
    assert_eq!(http.register_with(&key).status, 201);
    mode(&log, 0);
    world.until("it cannot be recorded", |_| {
        (http.register_with(&key).code() == "audit_unavailable").then_some(())
    });
    let why = status(&world).unwrap()["audit"].to_string();
    mode(&log, 0o700);
    assert!(why.contains("ermission denied"), "{why}");
    world.until("it can be again", |_| {
        (http.register_with(&key).status == 201).then_some(())
    });
    assert_eq!(world.cli(&["audit", "verify"])["whole"], true);
    drop(held);
    assert_eq!(verify(&log, &[]).0, 0);
}

#[test]
fn a_search_reads_the_log_when_its_index_breaks_under_a_running_server() {
    use sqlx::Connection as _;
    let world = World::new();
    for name in ["ada", "ben", "eve"] {
        world.cli(&["user", "add", name]);
    }
    let indexed = || {
        world.until("the index has caught up", |world| {
            (world.status()["audit"]["index_lag"] == 0).then_some(())
        });
    };
    indexed();
    let acts = || search(&world, &["--event", "admin.action"])["items"].clone();
    let before = acts();
    assert_eq!(before.as_array().unwrap().len(), 3, "{before}");
    let url = format!("sqlite://{}", dir(&world).join("index.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut index = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("DROP TABLE events")
            .execute(&mut index)
            .await
            .unwrap();
        index.close().await.unwrap();
    });
    assert_eq!(acts(), before, "at once, from the log");
    indexed();
    assert_eq!(acts(), before, "and from the new index");
}
