//! Checking a log's files: reads them in order and feeds the walk that knows what must come next.
//! Needs no server, and harms none that runs.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::audit::chain::Tip;
use crate::domain::audit::check::{Fault, Report, Walk, Witness, head};
use crate::domain::audit::checkpoint::PublicKey;

use super::files::{self, CHECKPOINT_NAME, Lines};
use super::setup::PUBLIC_KEY_NAME;

/// How often a check begins anew because retention removed a segment under its eyes.
const TRIES: usize = 3;
/// Bytes of a key's file that are read.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// Why a log could not be checked. It says nothing about the log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no log.
    #[error("there is no audit log in {}", .0.display())]
    Nothing(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The newest checkpoint's file.
enum Beside {
    There,
    Missing,
    Unfit(String),
}

/// A check to be made.
#[derive(Debug)]
pub struct Verify {
    dir: PathBuf,
    key: Option<PublicKey>,
    witnesses: Vec<Witness>,
    upto: Option<Tip>,
    notes: Vec<String>,
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> VerifyError + '_ {
    |error| VerifyError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

impl Verify {
    /// Of the log in this directory. The key is the one that is named, or the one of the server
    /// whose log it is: `audit.pub` in `keys` beside the directory or in it, or else the one the
    /// log itself names, which proves less.
    ///
    /// # Errors
    /// The named key cannot be read.
    pub fn of(dir: &Path, public_key: Option<&Path>) -> Result<Self, VerifyError> {
        let mut verify = Self {
            dir: dir.to_owned(),
            key: None,
            witnesses: Vec::new(),
            upto: None,
            notes: Vec::new(),
        };
        if let Some(path) = public_key {
            verify.key = Some(read_key(path)?);
            return Ok(verify);
        }
        let beside = dir.parent().map(|parent| parent.join("keys"));
        let places = beside.into_iter().chain([dir.join("keys")]);
        for place in places {
            let path = place.join(PUBLIC_KEY_NAME);
            if path.exists() {
                verify.key = Some(read_key(&path)?);
                return Ok(verify);
            }
        }
        Ok(verify)
    }

    /// With somebody else who knows where the log was.
    #[must_use]
    pub fn witness(mut self, name: impl Into<String>, tip: Tip) -> Self {
        self.witnesses.push(Witness::new(name, tip));
        self
    }

    /// With a checkpoint that was kept elsewhere.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn kept(mut self, path: &Path) -> Result<Self, VerifyError> {
        let found = files::checkpoint(path).map_err(unreadable(path))?;
        let name = format!("the checkpoint {}", path.display());
        let witness = found.and_then(|checkpoint| Witness::signed(name, checkpoint));
        let none = || unreadable(path)(io::Error::other("it is no checkpoint"));
        self.witnesses.push(witness.ok_or_else(none)?);
        Ok(self)
    }

    /// Only up to here: a server that runs goes on writing.
    #[must_use]
    pub fn upto(mut self, tip: Tip) -> Self {
        self.upto = Some(tip);
        self.witness("the running server", tip)
    }

    /// Makes the check. Reads every file: not for a runtime's worker.
    ///
    /// # Errors
    /// [`VerifyError`]: nothing can be said of the log.
    pub fn run(mut self) -> Result<Report, VerifyError> {
        if self.key.is_none() {
            let segments = files::segments(&self.dir).unwrap_or_default();
            self.trust_the_log(&segments)?;
        }
        let beside = self.beside()?;
        // Only now: what the checkpoint knows of is missing where nothing is.
        self.segments()?;
        let mut tries = 0;
        let mut report = loop {
            tries += 1;
            match self.walk(&self.segments()?) {
                Err(VerifyError::Unreadable { path, .. }) if !path.exists() && tries < TRIES => {}
                done => break done?,
            }
        };
        let lack = match beside {
            // The first of all is in the chain before its file is there.
            Beside::Missing if report.checkpoints > 1 => Some("is missing".to_owned()),
            Beside::Unfit(why) => Some(format!("is of no use ({why})")),
            Beside::Missing | Beside::There => None,
        };
        if let Some(lack) = lack.filter(|_| report.whole) {
            report.whole = false;
            report.fault = Some(Fault {
                segment: Some(CHECKPOINT_NAME.to_owned()),
                line: None,
                seq: None,
                what: format!(
                    "the newest checkpoint's file {lack}, so nobody can say whether the end of the log \
                     is there"
                ),
            });
        }
        report.notes.append(&mut self.notes);
        Ok(report)
    }

    fn segments(&self) -> Result<Vec<files::Segment>, VerifyError> {
        match files::segments(&self.dir) {
            Ok(found) if !found.is_empty() => Ok(found),
            // With a witness the missing log is a finding.
            Ok(found) if !self.witnesses.is_empty() => Ok(found),
            Ok(_) => Err(VerifyError::Nothing(self.dir.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(VerifyError::Nothing(self.dir.clone()))
            }
            Err(error) => Err(unreadable(&self.dir)(error)),
        }
    }

    /// The key that the first segment names: whoever forges a whole log can name his own.
    fn trust_the_log(&mut self, segments: &[files::Segment]) -> Result<(), VerifyError> {
        let Some(first) = segments.first() else {
            return Ok(());
        };
        let read = || -> io::Result<Option<PublicKey>> {
            let mut lines = Lines::open(&first.path, 0)?;
            let head = lines.next()?.and_then(head);
            Ok(head.and_then(|head| PublicKey::from_hex(&head.public_key).ok()))
        };
        self.key = read().map_err(unreadable(&first.path))?;
        if let Some(key) = &self.key {
            let what = format!(
                "the key {} is the one the log itself names; --public-key proves more",
                key.id()
            );
            self.notes.push(what);
        }
        Ok(())
    }

    /// The newest checkpoint's file knows where the end is at least.
    fn beside(&mut self) -> Result<Beside, VerifyError> {
        let path = self.dir.join(CHECKPOINT_NAME);
        let none = || Ok(Beside::Unfit("it holds no checkpoint".to_owned()));
        let checkpoint = match files::checkpoint(&path) {
            Ok(None) => return Ok(Beside::Missing),
            Ok(Some(found)) => found,
            Err(error) => match error.kind() {
                io::ErrorKind::Other | io::ErrorKind::InvalidData => return none(),
                _ => return Err(unreadable(&path)(error)),
            },
        };
        if let Some(key) = self.key.filter(|key| !checkpoint.is_signed_by(key)) {
            let why = format!("it is not signed by the trusted key {}", key.id());
            return Ok(Beside::Unfit(why));
        }
        let Some(witness) = Witness::signed("the newest checkpoint", checkpoint) else {
            return none();
        };
        // One that a running server made since it said where it was is behind what is looked at.
        if self.upto.is_none_or(|upto| witness.upto() <= upto.seq) {
            self.witnesses.push(witness);
        }
        Ok(Beside::There)
    }

    fn walk(&self, segments: &[files::Segment]) -> Result<Report, VerifyError> {
        let mut walk = Walk::new(self.key, self.witnesses.clone());
        let mut partial = 0;
        for (number, segment) in segments.iter().enumerate() {
            if let Err(fault) = walk.segment(&segment.name()) {
                return Ok(walk.finish(Some(fault), 0));
            }
            let io = unreadable(&segment.path);
            let mut lines = Lines::open(&segment.path, 0).map_err(&io)?;
            while let Some(line) = lines.next().map_err(&io)? {
                if let Err(fault) = walk.line(line) {
                    return Ok(walk.finish(Some(fault), 0));
                }
                if self.upto.is_some() && walk.tip().map(|tip| tip.seq) == self.upto.map(|t| t.seq)
                {
                    return Ok(walk.finish(None, 0));
                }
            }
            partial = lines.partial();
            if partial > 0 && number + 1 < segments.len() {
                let fault = walk.line(b"").err();
                return Ok(walk.finish(fault, 0));
            }
        }
        Ok(walk.finish(None, partial))
    }
}

fn read_key(path: &Path) -> Result<PublicKey, VerifyError> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable(path))?;
    file.take(KEY_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable(path))?;
    PublicKey::from_pem(&text).map_err(|error| unreadable(path)(io::Error::other(error)))
}
