//! The least a server can do: handshake, ping, one `echo` tool. For measuring hops, so it
//! allocates nothing per call once warm and flushes once per batch of lines.

use std::io::{BufReader, Read, Write, stdin, stdout};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::{Line, Message, read_line};

const BUFFER_BYTES: usize = 64 << 10;

const TOOLS: &str = r#"{"tools":[{"name":"echo","description":"Give the text back.","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}}]}"#;

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// Serves until stdin ends.
pub(super) fn serve() -> ExitCode {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, stdin().lock());
    let mut output = stdout().lock();
    if pump(&mut input, &mut output).is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn pump<R: Read>(input: &mut BufReader<R>, output: &mut impl Write) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(BUFFER_BYTES);
    let mut answers = Vec::with_capacity(BUFFER_BYTES);
    while read_line(input, &mut line) != Line::End {
        answer(&line, &mut answers);
        if memchr::memchr(b'\n', input.buffer()).is_none() && !answers.is_empty() {
            output.write_all(&answers)?;
            output.flush()?;
            answers.clear();
        }
    }
    output.write_all(&answers)?;
    output.flush()
}

fn answer(line: &[u8], answers: &mut Vec<u8>) {
    let Ok(message) = Message::parse(line) else {
        return;
    };
    let Some(id) = message.id else { return };
    answers.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    answers.extend_from_slice(id.get().as_bytes());
    match message.method.as_ref() {
        "tools/call" => {
            let text = message
                .params
                .and_then(|params| serde_json::from_str::<Params<'_>>(params.get()).ok())
                .and_then(|params| params.arguments?.text)
                .map_or("\"\"", RawValue::get);
            answers.extend_from_slice(br#","result":{"content":[{"type":"text","text":"#);
            answers.extend_from_slice(text.as_bytes());
            answers.extend_from_slice(b"}],\"isError\":false}}\n");
        }
        "initialize" => {
            let version = super::server::agreed_version(message.params);
            answers.extend_from_slice(br#","result":{"protocolVersion":""#);
            answers.extend_from_slice(version.as_bytes());
            answers.extend_from_slice(
                b"\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"legation-echo\",\"version\":\"1\"}}}\n",
            );
        }
        "tools/list" => {
            answers.extend_from_slice(br#","result":"#);
            answers.extend_from_slice(TOOLS.as_bytes());
            answers.extend_from_slice(b"}\n");
        }
        "ping" => answers.extend_from_slice(b",\"result\":{}}\n"),
        _ => answers
            .extend_from_slice(b",\"error\":{\"code\":-32601,\"message\":\"no such method\"}}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(lines: &str) -> Vec<serde_json::Value> {
        let mut output = Vec::new();
        pump(&mut BufReader::new(lines.as_bytes()), &mut output).unwrap();
        String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn answers_what_it_knows_and_refuses_the_rest() {
        let answers = exchange(concat!(
            "{\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-03-26\"}}\n",
            "{\"method\":\"notifications/initialized\"}\n",
            "{\"id\":\"s\",\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"text\":\"h\\u0069\"}}}\n",
            "{\"id\":3,\"method\":\"tools/list\"}\n",
            "not json\n",
            "{\"id\":4,\"method\":\"prompts/list\"}\n",
            "{\"id\":5,\"method\":\"ping\"}\n",
        ));
        assert_eq!(answers.len(), 5);
        assert_eq!(answers[0]["result"]["protocolVersion"], "2025-03-26");
        assert_eq!(answers[1]["id"], "s");
        assert_eq!(answers[1]["result"]["content"][0]["text"], "hi");
        assert_eq!(answers[2]["result"]["tools"][0]["name"], "echo");
        assert_eq!(answers[3]["error"]["code"], -32601);
        assert_eq!(answers[4]["result"], serde_json::json!({}));
    }
}
