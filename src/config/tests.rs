//! Layers, origins, and every way to be wrong.

use std::path::Path;

use super::client::Tls;
use super::server::Durability;
use super::*;

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    list.iter().map(owned).collect()
}

/// The problems of a file with that text, without the folder's name.
fn problems_of(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "legation.toml", text);
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    let prefix = format!("{}/", folder.path().display());
    match Config::load(&sources) {
        Ok(_) => vec![],
        Err(ConfigError::Invalid(problems)) => problems
            .iter()
            .map(|one| one.to_string().replace(&prefix, ""))
            .collect(),
        Err(other) => vec![other.to_string().replace(&prefix, "")],
    }
}

fn flag_problem(key: &str, value: &str) -> String {
    let sources = Sources {
        flags: pairs(&[(key, value)]),
        ..Sources::default()
    };
    Config::load(&sources).unwrap_err().to_string()
}

#[test]
fn the_built_in_configuration_is_sound() {
    let (config, origins) = Config::load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.client.listen.to_string(), "127.0.0.1:8443");
    assert_eq!(
        config.admin_socket().as_os_str(),
        "/var/lib/legation/admin.sock"
    );
    assert_eq!(config.audit_dir().as_os_str(), "/var/lib/legation/audit");
    assert!(config.isolates.starts_at_once() >= 4);
    assert_eq!(origins.of("client.listen"), Origin::BuiltIn);
    for key in Config::keys() {
        assert!(
            key.doc.trim().ends_with('.'),
            "{}.{}",
            key.section,
            key.name
        );
        assert_eq!(
            key.kind == Kind::Integer,
            key.range.is_some(),
            "{}",
            key.name
        );
        let Some(value) = config.get(key).and_then(|value| value.as_integer()) else {
            continue;
        };
        let (min, max) = key.range.unwrap();
        let value = u64::try_from(value).unwrap();
        assert!((min..=max).contains(&value), "{}.{}", key.section, key.name);
    }
}

#[test]
fn layers_override_key_by_key_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        folder.path(),
        "legation.toml",
        "[calls]\ndeadline_ms = 1_000\nin_flight_max = 10\nline_bytes_max = 67_108_864\n\
         [isolates]\npids = 10\n",
    );
    let second = write(
        folder.path(),
        "conf.d/20.toml",
        "[calls]\nin_flight_max = 30\n",
    );
    write(
        folder.path(),
        "conf.d/10.toml",
        "\n[calls]\nin_flight_max = 20\n[isolates]\npids = 20\n",
    );
    write(folder.path(), "conf.d/readme.txt", "not toml at all");
    let sources = Sources {
        file: Some(file.clone()),
        fragments: Some(folder.path().join("conf.d")),
        env: pairs(&[
            ("LEGATION__ISOLATES__PIDS", "30"),
            ("LEGATION__ISOLATES__CPU_MILLIS", "500"),
            ("LEGATION__CLIENT__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("LEGATION__CLIENT__TLS", "off"),
            ("LEGATION_BLESS", "1"),
            ("HOME", "/root"),
        ]),
        flags: pairs(&[("isolates.cpu_millis", "600"), ("server.dev", "true")]),
    };
    let (config, origins) = Config::load(&sources).unwrap();
    assert_eq!(config.calls.deadline_ms, 1_000);
    assert_eq!(config.calls.in_flight_max, 30);
    assert_eq!(config.isolates.pids, 30);
    assert_eq!(config.isolates.cpu_millis, 600);
    assert_eq!(config.client.tls, Tls::Off);
    assert_eq!(config.client.trusted_proxies.len(), 2);
    assert!(config.server.dev);
    assert_eq!(config.audit.durability, Durability::Durable);

    assert_eq!(
        origins.of("calls.deadline_ms"),
        Origin::File {
            path: file,
            line: 2
        }
    );
    assert_eq!(
        origins.of("calls.in_flight_max"),
        Origin::File {
            path: second,
            line: 2
        }
    );
    assert_eq!(
        origins.of("isolates.pids").to_string(),
        "environment LEGATION__ISOLATES__PIDS"
    );
    assert_eq!(
        origins.of("isolates.cpu_millis").to_string(),
        "flag isolates.cpu_millis"
    );
    assert_eq!(origins.of("log.level").to_string(), "built-in");
}

#[test]
fn unknown_keys_are_named_with_line_and_suggestion() {
    let problems = problems_of(
        "[calls]\ndeadline = 5\n\n[client]\nidle_ms = 7\nbanana = 1\n[clients]\nx = 1\n\
         [zebra]\n",
    );
    insta::assert_snapshot!(problems.join("\n"), @r#"
legation.toml:2: calls.deadline: there is no such key; did you mean calls.deadline_ms?
legation.toml:5: client.idle_ms: there is no such key; did you mean isolates.idle_ms?
legation.toml:6: client.banana: there is no such key; legation config show lists them all
legation.toml:7: clients: there is no such section; did you mean [client]?
legation.toml:9: zebra: there is no such section; there are admin, audit, calls, client, install, isolates, log, ops, restart, sandbox, server, sessions, storage
"#);
    assert_eq!(
        flag_problem("calls.dedline_ms", "5"),
        "the configuration is wrong:\n  flag calls.dedline_ms: calls.dedline_ms: there is no such \
         key; did you mean calls.deadline_ms?"
    );
    let sources = Sources {
        env: pairs(&[("LEGATION__LOGS__LEVEL", "info"), ("LEGATION__X", "1")]),
        ..Sources::default()
    };
    insta::assert_snapshot!(Config::load(&sources).unwrap_err(), @r#"
the configuration is wrong:
  environment LEGATION__LOGS__LEVEL: logs.level: there is no such key; did you mean log.level?
  environment LEGATION__X: x: names no key; a key is a section and a name
"#);
}

#[test]
fn wrong_values_are_all_named_at_once() {
    let problems = problems_of(
        "listen = 1\n[calls]\ndeadline_ms = \"5s\"\nin_flight_max = 0\n\
         [client]\nlisten = \"localhost\"\ntls = \"on\"\ntrusted_proxies = [\"10.1.0.0/8\", 5]\n\
         body_bytes_max = -1\n[server]\ndev = 1\n[audit]\ndurability = \"sometimes\"\n",
    );
    insta::assert_snapshot!(problems.join("\n"), @r#"
legation.toml:1: listen: is a value outside of any section; write it under a [section]
legation.toml:3: calls.deadline_ms: must be a whole number of milliseconds, without a unit, not "5s"
legation.toml:4: calls.in_flight_max: must be from 1 to 4096, not 0
legation.toml:6: client.listen: "localhost": invalid socket address syntax; the built-in value is "127.0.0.1:8443"
legation.toml:7: client.tls: "on": unknown variant `on`, expected one of `self`, `files`, `off`; the built-in value is "self"
legation.toml:8: client.trusted_proxies: ["10.1.0.0/8", 5]: `10.1.0.0/8` has address bits past its length; did you mean 10.0.0.0/8?
legation.toml:9: client.body_bytes_max: must be from 1024 to 67108864, not -1
legation.toml:11: server.dev: must be true or false, not 1
legation.toml:13: audit.durability: "sometimes": unknown variant `sometimes`, expected `durable` or `buffered`; the built-in value is "durable"
"#);
    insta::assert_snapshot!(flag_problem("calls.deadline_ms", "5s"), @r#"
the configuration is wrong:
  flag calls.deadline_ms: calls.deadline_ms: must be a whole number of milliseconds, without a unit, not "5s"
"#);
}

#[test]
fn values_must_fit_together() {
    let problems = problems_of(
        "[client]\nlisten = \"0.0.0.0:1\"\ntls = \"off\"\nkey_file = \"k\"\n\
         [isolates]\nmemory_bytes = 4_294_967_296\npids = 600\ncpu_millis = 3000\n\
         path = \"/bin:.\"\n\
         [restart]\nfloor_ms = 20_000\ncap_ms = 10_000\n\
         [sessions]\nttl_ms = 60_000\ntoken_grace_ms = 70_000\n\
         [calls]\nline_bytes_max = 1_000_000\n\
         [sandbox]\nallow_degraded = [\"user_range\", \"Every thing\"]\n",
    );
    insta::assert_snapshot!(problems.join("\n"), @r#"
legation.toml:4: client.key_file: is set, but client.tls is not "files"; set that, or leave this out
legation.toml:3: client.tls: "off" would send keys in clear text over the network; listen on loopback, or list the proxy that ends TLS in client.trusted_proxies
legation.toml:6: isolates.memory_bytes: 4294967296 is more than isolates.user_memory_bytes, which is 2147483648 (built-in)
legation.toml:7: isolates.pids: 600 is more than isolates.user_pids, which is 512 (built-in)
legation.toml:8: isolates.cpu_millis: 3000 is more than isolates.user_cpu_millis, which is 2000 (built-in)
built-in: calls.response_bytes_max: 10485760 is more than calls.line_bytes_max, which is 1000000 (legation.toml:17)
legation.toml:11: restart.floor_ms: 20000 is more than restart.cap_ms, which is 10000 (legation.toml:12)
legation.toml:15: sessions.token_grace_ms: 70000 is more than sessions.ttl_ms, which is 60000 (legation.toml:14)
legation.toml:9: isolates.path: `/bin:.` must be absolute directories without .. between colons
legation.toml:19: sandbox.allow_degraded: `Every thing` is not a facility; known are cgroup_memory, cgroup_pids, cgroup_cpu, cgroup_io, cgroup_kill, pid_namespace, mount_namespace, network_namespace, ipc_namespace, uts_namespace, cgroup_namespace, user_range, seccomp, landlock, network_guard
"#);
    let problems = problems_of("[client]\ntls = \"files\"\ncert_file = \"c\"\n");
    insta::assert_snapshot!(problems.join("\n"), @r#"
built-in: client.key_file: is not set, but client.tls is "files"; name the file
"#);
    let long = format!("[server]\ndata_dir = \"/{}\"\n", "x".repeat(100));
    let problems = problems_of(&long);
    assert!(problems[0].contains("107 bytes"), "{problems:?}");
}

#[test]
fn what_serve_would_refuse_is_refused_here() {
    let problems = problems_of("[sandbox]\nallow_degraded = [\"secomp\"]\n");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("legation.toml:2: sandbox.allow_degraded: `secomp` is not a")
            && problems[0].ends_with("did you mean seccomp?"),
        "{problems:?}"
    );
    let dev = Sources {
        flags: pairs(&[
            ("server.dev", "true"),
            ("sandbox.allow_degraded", "[\"secomp\"]"),
        ]),
        ..Sources::default()
    };
    assert!(Config::load(&dev).is_err(), "also where all is allowed");
    let listeners = |client: &str, ops: &str| {
        problems_of(&format!(
            "[client]\nlisten = \"{client}\"\n[ops]\nlisten = \"{ops}\"\ntoken_file = \"/t\"\n"
        ))
    };
    insta::assert_snapshot!(listeners("127.0.0.1:7000", "127.0.0.1:7000").join("\n"), @r#"
legation.toml:4: ops.listen: 127.0.0.1:7000 is taken by client.listen, which is 127.0.0.1:7000 (legation.toml:2); give one of them another port
"#);
    for (client, ops, meet) in [
        ("127.0.0.1:7000", "127.0.0.2:7000", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("127.0.0.1:7000", "127.0.0.1:7001", false),
        ("0.0.0.0:7000", "[::1]:7000", false),
        ("0.0.0.0:7000", "127.0.0.1:7000", true),
        ("127.0.0.1:7000", "[::]:7000", true),
        ("127.0.0.1:7000", "off", false),
    ] {
        assert_eq!(!listeners(client, ops).is_empty(), meet, "{client} {ops}");
    }
}

#[test]
fn clear_text_is_fine_on_loopback_and_behind_a_proxy() {
    for fine in [
        "[client]\ntls = \"off\"\n",
        "[client]\ntls = \"off\"\nlisten = \"[::1]:1\"\n",
        "[client]\ntls = \"off\"\nlisten = \"0.0.0.0:1\"\ntrusted_proxies = [\"10.0.0.1\"]\n",
    ] {
        assert_eq!(problems_of(fine), Vec::<String>::new());
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = |file: PathBuf| {
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        Config::load(&sources).unwrap_err()
    };
    let error = load(folder.path().join("none.toml"));
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    let bad = write(folder.path(), "bad.toml", "[calls]\n\ndeadline_ms = = 5\n");
    let error = load(bad);
    assert!(
        matches!(error, ConfigError::Syntax { line: 3, .. }),
        "{error}"
    );
    let double = write(
        folder.path(),
        "double.toml",
        "[log]\nlevel = \"info\"\nlevel = \"warn\"\n",
    );
    let error = load(double);
    assert!(
        matches!(error, ConfigError::Syntax { line: 3, .. }),
        "{error}"
    );
    let size = usize::try_from(crate::domain::limits::CONFIG_BYTES_MAX).unwrap();
    let large = write(folder.path(), "large.toml", &"#".repeat(size + 1));
    assert!(matches!(load(large), ConfigError::TooLarge { .. }));
}

#[test]
fn lists_come_from_flags_in_both_forms() {
    for text in ["10.0.0.0/8,::1", "[\"10.0.0.0/8\", \"::1\"]"] {
        let sources = Sources {
            flags: pairs(&[("client.trusted_proxies", text)]),
            ..Sources::default()
        };
        let (config, _) = Config::load(&sources).unwrap();
        assert_eq!(config.client.trusted_proxies.len(), 2, "{text}");
    }
    assert!(flag_problem("client.trusted_proxies", "[oops").contains("a list of texts"));
}

#[test]
fn the_example_loads() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/legation.toml");
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    let (config, origins) = Config::load(&sources).unwrap();
    assert_eq!(config.client.tls, Tls::SelfSigned);
    assert_ne!(origins.of("isolates.per_user_max"), Origin::BuiltIn);
}

#[test]
fn a_databases_url_is_checked_and_its_password_never_repeated() {
    let problems = problems_of(
        "[storage]\nurl = \"postgres://house:hunter2@db.example.org/house\"\n\
         password_file = \"/p\"\npool_max = 1\n",
    );
    insta::assert_snapshot!(problems.join("\n"), @r#"
legation.toml:2: storage.url: goes over a network and does not say how it is protected; add ?sslmode=verify-full (with storage.ca_file for a private authority), or ?sslmode=disable if that network is trusted
legation.toml:4: storage.pool_max: must be from 2 to 256, not 1
legation.toml:3: storage.password_file: is set, but there is no (right) storage.url, so it means nothing
"#);
    let problems = problems_of(
        "[storage]\nurl = \"postgres://house:hunter2@localhost/house\"\n\
         password_file = \"/p\"\nca_file = \"/c\"\n",
    );
    insta::assert_snapshot!(problems.join("\n"), @r#"
legation.toml:3: storage.password_file: is set, and storage.url holds a password too; take that out
legation.toml:4: storage.ca_file: is set, but storage.url does not say sslmode=verify-full or verify-ca, so no certificate would be checked
"#);
    for url in [
        "mysql://a:hunter2@h/d",
        "hunter2",
        "postgres://a:hunter2@h/d?sslmod=x",
    ] {
        let problem = flag_problem("storage.url", url);
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    let sources = Sources {
        flags: pairs(&[("storage.url", "postgres://house:hunter2@localhost/house")]),
        ..Sources::default()
    };
    let (config, origins) = Config::load(&sources).unwrap();
    let shown = render(&config, &origins);
    assert!(shown.contains("postgres://house:<set>@localhost:5432/house"));
    assert!(!format!("{config:?}{shown}").contains("hunter2"));
}
