//! The product as MCP clients call it: Streamable HTTP in both eras.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::http::Connection;
use super::load::{Dialect, Session};
use super::ours::Gateway;

/// Which MCP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25, with a session.
    Sessions,
    /// 2026-07-28, without.
    Stateless,
}

impl Era {
    pub(crate) const BOTH: [Self; 2] = [Self::Sessions, Self::Stateless];

    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Sessions => "2025-11-25",
            Self::Stateless => "2026-07-28",
        }
    }
}

impl Gateway {
    /// The head of requests of a client with this key at this path, which has begun if its version wants that. It ends
    /// without its method's own headers.
    pub(crate) async fn face(&self, key: &str, path: &str, era: Era) -> Result<String> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nauthorization: Bearer {key}\r\n"
        );
        let version = format!("mcp-protocol-version: {}\r\n", era.version());
        if era == Era::Stateless {
            return Ok(format!("{head}{version}"));
        }
        let mut connection = self.connect().await?;
        let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": era.version(), "capabilities": {},
            "clientInfo": {"name": "legation-bench", "version": "0"}}});
        let answer = connection
            .exchange(&head, begin.to_string().as_bytes())
            .await?;
        let session = answer.header("mcp-session-id").context("no session")?;
        Ok(format!("{head}mcp-session-id: {session}\r\n{version}"))
    }

    /// A client's calls of an echo tool, as load.
    pub(crate) async fn face_session(&self, key: &str, path: &str, era: Era) -> Result<Session> {
        let mut head = self.face(key, path, era).await?;
        if era == Era::Stateless {
            head.push_str("mcp-method: tools/call\r\nmcp-name: echo\r\n");
        }
        Ok(Session {
            endpoint: self.endpoint().clone(),
            head: Arc::from(head),
            dialect: match era {
                Era::Sessions => Dialect::Rpc,
                Era::Stateless => Dialect::RpcStateless,
            },
            tool: Arc::from("echo"),
            argument: Arc::from("text"),
        })
    }
}

/// One request over a connection: its result, whichever way it is answered.
pub(crate) async fn ask(
    connection: &mut Connection,
    head: &str,
    method: &str,
    params: &Value,
) -> Result<Vec<u8>> {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let answer = connection
        .exchange(head, request.to_string().as_bytes())
        .await?;
    let text = String::from_utf8_lossy(answer.body);
    ensure!(
        answer.status == 200 && text.contains("\"result\""),
        "{method}: status {}: {:.300}",
        answer.status,
        text
    );
    Ok(answer.body.to_vec())
}
