//! What `serve` says once it serves: one block that a person can act on.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;

use crate::actors::views::EnforcementView;
use crate::protocol::modern::VERSION;

/// The key in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyShown {
    /// Made just now: shown this once.
    New(String),
    /// Made at an earlier start: only its digest is left.
    Earlier,
}

/// What the block tells.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// This version.
    pub(super) version: String,
    /// How this program is called from here.
    pub(super) program: String,
    /// Where clients connect.
    pub(super) client_url: String,
    /// The port that was asked for and taken, if it is another one now.
    pub(super) taken_port: Option<u16>,
    /// Where health and metrics are, if anywhere.
    pub(super) ops_url: Option<String>,
    /// The port of that which was asked for and taken.
    pub(super) ops_taken_port: Option<u16>,
    /// SHA-256 and file of a self-signed certificate.
    pub(super) certificate: Option<(String, PathBuf)>,
    /// Where everything is kept.
    pub(super) data_dir: PathBuf,
    /// What a command needs so that it finds this server: nothing, or a flag.
    pub(super) found_by: String,
    /// What the host enforces.
    pub(super) enforcement: EnforcementView,
}

/// The lines every `serve` prints. No secret is among them.
pub(super) fn plain(facts: &Facts) -> String {
    let mut out = format!("legation {}\n\n", facts.version);
    let mut line = |title: &str, text: &str| {
        // A String takes every write.
        _ = writeln!(out, "  {title:<13} {text}");
    };
    let url = |url: &str, taken: Option<u16>| match taken {
        Some(port) => format!("{url} (port {port} is taken, so another free one)"),
        None => url.to_owned(),
    };
    line("clients", &url(&facts.client_url, facts.taken_port));
    if let Some(ops) = &facts.ops_url {
        let metrics = format!("{ops}/metrics");
        line("ops", &url(&metrics, facts.ops_taken_port));
        line("", &format!("{ops}/readyz?verbose"));
    }
    if let Some((fingerprint, file)) = &facts.certificate {
        line("certificate", &format!("self-signed, {}", file.display()));
        line("", &format!("sha256 {fingerprint}"));
    }
    line("data", &facts.data_dir.display().to_string());
    line("isolates", &facts.enforcement.summary);
    for (index, missing) in facts.enforcement.missing.iter().enumerate() {
        line(if index == 0 { "NOT ENFORCED" } else { "" }, missing);
    }
    out
}

/// The same as one line of the log, where that is read by programs.
pub(super) fn log(facts: &Facts) {
    let sha256 = facts.certificate.as_ref().map(|(sha256, _)| sha256);
    tracing::info!(
        version = facts.version,
        clients = facts.client_url,
        clients.taken_port = facts.taken_port,
        ops = facts.ops_url,
        ops.taken_port = facts.ops_taken_port,
        certificate.sha256 = sha256,
        data = %facts.data_dir.display(),
        isolates = facts.enforcement.summary,
        not_enforced = facts.enforcement.missing.join("; "),
        "serving"
    );
}

/// The whole block of `serve --dev`.
pub(super) fn dev(facts: &Facts, key: &KeyShown, demo: bool) -> String {
    let mut out = plain(facts);
    let shown = match key {
        KeyShown::New(key) => format!("{key}\n{:16}user demo; it is shown only now", ""),
        KeyShown::Earlier => {
            let (program, found_by) = (&facts.program, &facts.found_by);
            format!(
                "made at an earlier start and cannot be shown again; another one:\n{:16}\
                 {program} key create demo{found_by}",
                ""
            )
        }
    };
    let key = match key {
        KeyShown::New(key) => key.as_str(),
        KeyShown::Earlier => "YOUR_KEY",
    };
    // A String takes every write.
    _ = writeln!(out, "  {:<13} {shown}", "key");
    out.push_str(&any_client(facts, key));
    out.push_str(&client(facts, key));
    out.push_str(&next(facts, key, demo));
    out
}

/// How an AI tool that speaks MCP over HTTP is told of us, by the example of one.
fn any_client(facts: &Facts, key: &str) -> String {
    let url = &facts.client_url;
    let mut out = format!(
        "\nAny MCP client, over Streamable HTTP; in Claude Code, for example:\n\n    claude mcp add \
         --transport http legation {url}/mcp --header \"Authorization: Bearer {key}\"\n"
    );
    if let Some((_, file)) = &facts.certificate {
        _ = writeln!(
            out,
            "\n    (A client on Node or Bun trusts the certificate with NODE_EXTRA_CA_CERTS={})",
            file.display()
        );
    }
    out
}

/// How the standard client is started, by hand and by an AI tool.
fn client(facts: &Facts, key: &str) -> String {
    let url = &facts.client_url;
    let (flag, arguments) = match facts.certificate {
        Some(_) => (" --allow-self-signed", vec!["--allow-self-signed"]),
        None => ("", vec![]),
    };
    let mut args = vec!["-y", "@mcpambassador/client", "--server", url];
    args.extend(arguments);
    let snippet = json!({ "mcpServers": { "legation": {
        "command": "npx",
        "args": args,
        "env": { "MCP_AMBASSADOR_PRESHARED_KEY": key },
    }}});
    let snippet = serde_json::to_string_pretty(&snippet).unwrap_or_default();
    let indented: String = snippet
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!(
        "\nThe standard client (it needs Node 20):\n\n    \
         MCP_AMBASSADOR_PRESHARED_KEY={key} npx -y @mcpambassador/client --server {url}{flag}\n\n\
         The same in an AI tool's MCP configuration:\n\n{indented}"
    )
}

fn next(facts: &Facts, key: &str, demo: bool) -> String {
    let (program, by) = (&facts.program, &facts.found_by);
    let mut out = "\nWhat to try next, in another terminal:\n\n".to_owned();
    if demo {
        out.push_str(&call(facts, key));
    }
    _ = writeln!(
        out,
        "    {program} tree{by}\n    {program} isolate list{by}\n    {program} status{by}"
    );
    if demo {
        _ = writeln!(out, "    {program} mcp show demo{by}");
    }
    out.push_str("\nStop it with Ctrl-C.\n");
    out
}

/// A call that needs nothing but curl: it starts the isolate that the other lines show.
fn call(facts: &Facts, key: &str) -> String {
    let insecure = if facts.certificate.is_some() { "k" } else { "" };
    let of = |name: &str| format!("io.modelcontextprotocol/{name}");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "echo",
        "arguments": { "text": "hello" },
        "_meta": {
            of("protocolVersion"): VERSION,
            of("clientInfo"): { "name": "curl", "version": "1" },
            of("clientCapabilities"): {},
        },
    }});
    let head = [
        format!("Authorization: Bearer {key}"),
        "Content-Type: application/json".to_owned(),
        "Accept: application/json, text/event-stream".to_owned(),
        format!("MCP-Protocol-Version: {VERSION}"),
        "Mcp-Method: tools/call".to_owned(),
        "Mcp-Name: echo".to_owned(),
    ];
    let head: String = head.map(|line| format!(" -H '{line}' \\\n     ")).concat();
    format!(
        "    curl -s{insecure} {}/mcp/demo{head} -d '{body}'\n",
        facts.client_url
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            version: "0.1.0".into(),
            program: "legation".into(),
            client_url: "https://localhost:41443".into(),
            taken_port: Some(8443),
            ops_url: Some("http://localhost:9464".into()),
            ops_taken_port: None,
            certificate: Some(("4F:19".into(), "/d/tls/cert.pem".into())),
            data_dir: "/d".into(),
            found_by: String::new(),
            enforcement: EnforcementView {
                summary: "process groups only".into(),
                enforced: vec![],
                missing: vec![
                    "memory limit: no cgroup; run as root".into(),
                    "pid namespace: EPERM".into(),
                ],
            },
        }
    }

    #[test]
    fn the_first_block_has_all_it_takes() {
        let text = dev(&facts(), &KeyShown::New("amb_pk_x".into()), true);
        insta::assert_snapshot!(text, @r#"
        legation 0.1.0

          clients       https://localhost:41443 (port 8443 is taken, so another free one)
          ops           http://localhost:9464/metrics
                        http://localhost:9464/readyz?verbose
          certificate   self-signed, /d/tls/cert.pem
                        sha256 4F:19
          data          /d
          isolates      process groups only
          NOT ENFORCED  memory limit: no cgroup; run as root
                        pid namespace: EPERM
          key           amb_pk_x
                        user demo; it is shown only now

        Any MCP client, over Streamable HTTP; in Claude Code, for example:

            claude mcp add --transport http legation https://localhost:41443/mcp --header "Authorization: Bearer amb_pk_x"

            (A client on Node or Bun trusts the certificate with NODE_EXTRA_CA_CERTS=/d/tls/cert.pem)

        The standard client (it needs Node 20):

            MCP_AMBASSADOR_PRESHARED_KEY=amb_pk_x npx -y @mcpambassador/client --server https://localhost:41443 --allow-self-signed

        The same in an AI tool's MCP configuration:

            {
              "mcpServers": {
                "legation": {
                  "args": [
                    "-y",
                    "@mcpambassador/client",
                    "--server",
                    "https://localhost:41443",
                    "--allow-self-signed"
                  ],
                  "command": "npx",
                  "env": {
                    "MCP_AMBASSADOR_PRESHARED_KEY": "amb_pk_x"
                  }
                }
              }
            }

        What to try next, in another terminal:

            curl -sk https://localhost:41443/mcp/demo -H 'Authorization: Bearer amb_pk_x' \
              -H 'Content-Type: application/json' \
              -H 'Accept: application/json, text/event-stream' \
              -H 'MCP-Protocol-Version: 2026-07-28' \
              -H 'Mcp-Method: tools/call' \
              -H 'Mcp-Name: echo' \
              -d '{"id":1,"jsonrpc":"2.0","method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"curl","version":"1"},"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"arguments":{"text":"hello"},"name":"echo"}}'
            legation tree
            legation isolate list
            legation status
            legation mcp show demo

        Stop it with Ctrl-C.
        "#);
    }

    #[test]
    fn a_later_block_says_how_to_make_another_key() {
        let mut facts = facts();
        facts.found_by = " --data-dir /d".into();
        let text = dev(&facts, &KeyShown::Earlier, false);
        assert!(
            text.contains("legation key create demo --data-dir /d"),
            "{text}"
        );
        assert!(
            text.contains("cannot be shown again") && text.contains("YOUR_KEY"),
            "{text}"
        );
    }

    #[test]
    fn without_dev_there_is_no_key_at_all() {
        let mut facts = facts();
        facts.certificate = None;
        facts.taken_port = None;
        let text = plain(&facts);
        assert!(
            !text.contains("key") && !text.contains("certificate"),
            "{text}"
        );
        assert!(text.contains("NOT ENFORCED"), "{text}");
    }
}
