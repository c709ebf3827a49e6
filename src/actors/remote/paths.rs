//! What stands for the pipes of a process: lines from the tasks of a run, written one after the other.

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Writes lines until nobody has any more; then the pipe ends.
pub(super) fn write(
    mut lines: mpsc::Receiver<Bytes>,
    mut pipe: DuplexStream,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if pipe.write_all(&line).await.is_err() || pipe.write_all(b"\n").await.is_err() {
                return;
            }
        }
    }))
}

/// JSON text on one line: a break may stand between tokens, never inside a string, so a space does as
/// well.
pub(super) fn on_one_line(text: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &text).is_none() {
        return text;
    }
    let one = text.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    });
    one.collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_become_spaces() {
        let text = on_one_line(Bytes::from_static(b"{\r\n  \"a\": \"b\\n\"\n}"));
        assert_eq!(&text[..], br#"{    "a": "b\n" }"#);
    }
}
