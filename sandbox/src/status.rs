//! What init tells the gateway over the status pipe: one JSON record per line, each shorter than
//! `PIPE_BUF`, so that a write is never torn.

use std::io::{self, Cursor, Write};

use serde::{Deserialize, Serialize};

/// Bytes of an error text kept in a record.
pub const TEXT_BYTES_MAX: usize = 512;
/// Bytes of an unfinished record; init never writes that much.
const LINE_BYTES_MAX: usize = 4096;
/// Bytes that hold a record of an end.
const ENDING_BYTES: usize = 64;

/// A step of the plan that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name, as in [`crate::plan::Place`].
    pub step: String,
    /// The kernel's error number, 0 if it was not the kernel.
    pub errno: i32,
    /// What was tried, with what, and the error's text.
    pub text: String,
}

/// One thing that happened to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The server was never executed.
    Failed(Failure),
    /// The server was executed.
    Started,
    /// The server ended by itself.
    Exited(i32),
    /// A signal ended the server.
    Signaled(i32),
}

impl Failure {
    /// A failure with an error's text, cut to [`TEXT_BYTES_MAX`].
    pub(crate) fn new(step: &str, errno: i32, text: &str) -> Self {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            step: step.to_owned(),
            errno,
            text: text.get(..end).unwrap_or_default().to_owned(),
        }
    }

    /// The text with what to do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> String {
        let advice = match (self.step.as_str(), self.errno) {
            ("exec", libc::ENOENT) => {
                "check that the command exists on this host, and the interpreter its first line names"
            }
            ("exec", libc::EACCES) => {
                "make the command, and its interpreter, readable and executable for everybody: \
                 isolates run as users of their own"
            }
            ("exec", libc::ENOEXEC) => {
                "the file is no program for this machine, or a script without a `#!` line"
            }
            ("exec", libc::E2BIG) => "shorten the arguments or the environment",
            ("mounts", libc::ENOENT) => {
                "the path must exist on this host; declared paths are changed with \
                 `legation mcp update`"
            }
            ("mounts", libc::ELOOP) => {
                "a path that is written to may hold no symbolic link; declare where it leads"
            }
            ("workdir", _) => "the home directory must exist and be enterable for the isolate",
            ("cgroup", libc::EAGAIN) => "the limit on processes of the user or host is reached",
            ("fork", libc::EAGAIN) => "raise the isolate's limit on processes",
            _ => "run `legation doctor` to see what this host offers",
        };
        format!("{}; {advice}", self.text)
    }
}

/// Encodes one record as a line.
pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Writes how the server ended. Asks for no memory: init's filter knows no call for that.
pub(crate) fn write_ending(to: &mut impl Write, record: &Record) -> io::Result<()> {
    let mut space = [0; ENDING_BYTES];
    let mut line = Cursor::new(space.as_mut_slice());
    serde_json::to_writer(&mut line, record)?;
    line.write_all(b"\n")?;
    let length = usize::try_from(line.position()).unwrap_or(ENDING_BYTES);
    to.write_all(space.get(..length).unwrap_or_default())
}

/// Cuts the bytes of a status pipe into records.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    /// Takes in bytes and gives the records they complete. What is no record is dropped: only
    /// init, our own code, writes here.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Record> {
        let mut records = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                records.extend(serde_json::from_slice(&self.partial));
                self.partial = Vec::new();
            } else if self.partial.len() < LINE_BYTES_MAX {
                self.partial.push(*byte);
            }
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_cut() {
        let records = [
            Record::Failed(Failure::new("exec", 2, "cannot execute `nö`")),
            Record::Started,
            Record::Exited(7),
            Record::Signaled(9),
        ];
        let bytes: Vec<u8> = records.iter().flat_map(encode).collect();
        for size in [1, 2, 7, bytes.len()] {
            let mut decoder = Decoder::default();
            let got: Vec<Record> = bytes.chunks(size).flat_map(|c| decoder.feed(c)).collect();
            assert_eq!(got, records, "cut into {size}");
        }
    }

    #[test]
    fn an_end_is_written_like_any_record() {
        for record in [
            Record::Exited(0),
            Record::Exited(i32::MIN),
            Record::Signaled(64),
        ] {
            let mut line = Vec::new();
            write_ending(&mut line, &record).unwrap();
            assert_eq!(line, encode(&record));
        }
    }

    #[test]
    fn a_record_fits_into_one_atomic_write() {
        let failure = Failure::new("exec", 2, &"\u{1}ä".repeat(10_000));
        assert!(failure.text.len() <= TEXT_BYTES_MAX);
        assert!(encode(&Record::Failed(failure)).len() < libc::PIPE_BUF);
    }

    #[test]
    fn advice_is_given_for_what_people_meet() {
        let text = Failure::new("exec", libc::ENOENT, "cannot execute `uvx`").advice();
        assert!(text.contains("cannot execute `uvx`; check that the command exists"));
    }
}
