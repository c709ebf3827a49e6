use proptest::prelude::*;

use super::super::checkpoint::{KEY_BYTES, Signer};
use super::*;

const HOUSE: &str = "0123456789ab";

fn signer() -> Signer {
    Signer::from_seed(&[1; KEY_BYTES]).unwrap()
}

/// A log as the writer makes it, in memory: segments by name.
#[derive(Clone)]
struct Sample {
    segments: Vec<(String, Vec<u8>)>,
    tip: Tip,
}

impl Sample {
    fn new() -> Self {
        let mut sample = Self {
            segments: Vec::new(),
            tip: Tip::START,
        };
        sample.open(GENESIS);
        sample
    }

    fn open(&mut self, event: &str) {
        let name = segment_name(self.tip.seq + 1);
        self.segments.push((name, Vec::new()));
        let prev = self.tip.hash;
        let key = signer().public().to_hex();
        self.put(&format!(
            ",\"at\":1,\"event\":\"{event}\",\"installation\":\"{HOUSE}\",\"public_key\":\"{key}\",\"prev\":\"{prev}\""
        ));
    }

    fn put(&mut self, fields: &str) {
        let (_, bytes) = self.segments.last_mut().unwrap();
        self.tip.seal(fields.as_bytes(), bytes);
    }

    fn checkpoint(&mut self) {
        let one = serde_json::to_value(signer().sign(HOUSE, self.tip, 5)).unwrap();
        let text = |name: &str| one[name].to_string();
        self.put(&format!(
            ",\"at\":5,\"event\":\"{CHECKPOINT}\",\"installation\":{},\"upto\":{},\"tip\":{},\"key\":{},\"signature\":{}",
            text("installation"), text("upto"), text("tip"), text("key"), text("signature"),
        ));
    }

    fn of(records: &[u8]) -> Self {
        let mut sample = Self::new();
        for byte in records {
            match byte % 8 {
                0 => {
                    sample.checkpoint();
                    sample.open(SEGMENT);
                }
                1 => sample.checkpoint(),
                _ => sample.put(&format!(
                    ",\"at\":{byte},\"event\":\"test.x\",\"b\":\"{byte}\""
                )),
            }
        }
        sample.checkpoint();
        sample
    }

    fn check(&self) -> Report {
        self.check_with(Some(signer().public()), vec![self.witness()])
    }

    fn witness(&self) -> Witness {
        Witness::new("a test", self.tip)
    }

    fn check_with(&self, key: Option<PublicKey>, witnesses: Vec<Witness>) -> Report {
        let mut walk = Walk::new(key, witnesses);
        let mut partial = 0;
        let mut broken = None;
        'all: for (name, bytes) in &self.segments {
            if let Err(fault) = walk.segment(name) {
                broken = Some(fault);
                break;
            }
            let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
            for line in &mut lines {
                let Some(line) = line.strip_suffix(b"\n") else {
                    partial = line.len() as u64;
                    continue;
                };
                if let Err(fault) = walk.line(line) {
                    broken = Some(fault);
                    break 'all;
                }
            }
        }
        walk.finish(broken, partial)
    }

    /// The number of the record that the byte at `place` of all bytes belongs to.
    fn record_at(&self, place: usize) -> (usize, usize, u64) {
        let mut left = place;
        let mut seq = 1;
        for (number, (_, bytes)) in self.segments.iter().enumerate() {
            if left < bytes.len() {
                let newlines = bytes[..left].iter().filter(|byte| **byte == b'\n').count();
                return (number, left, seq + newlines as u64);
            }
            left -= bytes.len();
            seq += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        unreachable!("no such byte")
    }

    fn bytes(&self) -> usize {
        self.segments.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

#[test]
fn what_was_not_touched_is_whole() {
    let report = Sample::of(&[2, 3, 1, 0, 9, 8, 0, 7]).check();
    assert!(report.whole, "{report:?}");
    assert_eq!(report.segments, 4);
    assert_eq!(report.first_seq, 1);
    assert_eq!(report.signed_upto + 1, report.last_seq);
    assert_eq!(report.notes, Vec::<String>::new());
}

fn found(sample: &Sample, seq: u64) {
    let report = sample.check();
    let fault = report.fault.expect("it is broken");
    assert!(!report.whole);
    assert_eq!(fault.seq, Some(seq), "{fault}");
}

proptest! {
    #[test]
    fn any_edited_byte_is_found_and_the_record_named(
        records in prop::collection::vec(any::<u8>(), 0..24), place: prop::sample::Index, with: u8,
    ) {
        let mut sample = Sample::of(&records);
        let (segment, at, seq) = sample.record_at(place.index(sample.bytes()));
        let byte = &mut sample.segments[segment].1[at];
        prop_assume!(*byte != with);
        *byte = with;
        let report = sample.check();
        let fault = report.fault.expect("it is broken");
        prop_assert!(!report.whole);
        prop_assert_eq!(fault.seq, Some(seq), "{}", fault);
    }

    #[test]
    fn any_dropped_or_doubled_record_is_found(
        records in prop::collection::vec(any::<u8>(), 1..24), place: prop::sample::Index, double: bool,
    ) {
        let mut sample = Sample::of(&records);
        let (segment, at, seq) = sample.record_at(place.index(sample.bytes()));
        let bytes = &mut sample.segments[segment].1;
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        let mut all = lines(bytes);
        if double {
            let again = all[line].clone();
            all.insert(line, again);
        } else {
            all.remove(line);
        }
        *bytes = all.concat();
        let report = sample.check();
        let fault = report.fault.expect("it is broken");
        prop_assert_eq!(fault.seq, Some(if double { seq + 1 } else { seq }), "{}", fault);
    }

    #[test]
    fn any_two_swapped_records_are_found(
        records in prop::collection::vec(2u8..8, 2..24), place: prop::sample::Index,
    ) {
        let mut sample = Sample::of(&records);
        let mut all = lines(&sample.segments[0].1);
        let first = place.index(all.len() - 1);
        all.swap(first, first + 1);
        sample.segments[0].1 = all.concat();
        let report = sample.check();
        prop_assert_eq!(report.fault.expect("it is broken").seq, Some(first as u64 + 1));
    }

    #[test]
    fn any_cut_is_found_by_the_witness(
        records in prop::collection::vec(any::<u8>(), 0..24), place: prop::sample::Index,
    ) {
        let mut sample = Sample::of(&records);
        let (segment, at, seq) = sample.record_at(place.index(sample.bytes()));
        let witness = sample.witness();
        sample.segments.truncate(segment + 1);
        sample.segments[segment].1.truncate(at);
        let report = sample.check_with(Some(signer().public()), vec![witness]);
        let fault = report.fault.expect("it is broken");
        prop_assert_eq!(fault.seq, Some(seq), "{}", fault);
    }
}

#[test]
fn segments_cannot_be_left_out_doubled_or_exchanged() {
    let whole = Sample::of(&[2, 0, 3, 0, 4, 0, 5]);
    let firsts: Vec<u64> = whole
        .segments
        .iter()
        .map(|(name, _)| first_seq(name).unwrap())
        .collect();
    let mut middle = whole.clone();
    middle.segments.remove(1);
    found(&middle, firsts[1]);
    let mut first = whole.clone();
    first.segments.remove(0);
    found(&first, 1);
    let mut twice = whole.clone();
    twice.segments.insert(1, twice.segments[0].clone());
    found(&twice, 1);
    let mut last = whole.clone();
    last.segments.pop();
    let report = last.check_with(Some(signer().public()), vec![whole.witness()]);
    assert_eq!(report.fault.unwrap().seq, Some(firsts[3]));
    let mut renamed = whole.clone();
    renamed.segments[1].0 = segment_name(firsts[1] + 1);
    found(&renamed, firsts[1]);
    let mut empty = whole.clone();
    empty.segments[1].1.clear();
    found(&empty, firsts[1]);
}

#[test]
fn a_log_that_was_forged_as_a_whole_fails_by_its_signatures() {
    let forged = Sample::of(&[2, 3, 4]);
    let other = Signer::from_seed(&[2; KEY_BYTES]).unwrap().public();
    let report = forged.check_with(Some(other), vec![]);
    assert!(
        report
            .fault
            .unwrap()
            .what
            .contains("not signed by the trusted key")
    );
    // Without a key the chain alone is checked, and the report says so.
    let unsigned = forged.check_with(None, vec![]);
    assert!(unsigned.whole && unsigned.notes[0].contains("no public key"));
    let (seq, hash) = (2, Hash::ZERO);
    let witness = Witness::new("a backup", Tip { seq, hash });
    let report = forged.check_with(Some(signer().public()), vec![witness]);
    assert!(
        report
            .fault
            .unwrap()
            .what
            .contains("a backup knows another")
    );
}

#[test]
fn what_retention_removed_is_not_missing_if_it_is_on_record_and_signed() {
    let mut sample = Sample::of(&[2, 3, 0, 4, 0, 5]);
    let end = first_seq(&sample.segments[1].0).unwrap() - 1;
    let text = String::from_utf8(sample.segments[1].1.clone()).unwrap();
    let head: Head = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    sample.put(&format!(
        ",\"at\":1,\"event\":\"{REMOVED}\",\"last_seq\":{end},\"last_hash\":\"{}\"",
        head.prev
    ));
    let mut unsigned = sample.clone();
    unsigned.segments.remove(0);
    let fault = unsigned.check().fault.unwrap();
    assert!(fault.what.contains("no signed checkpoint"), "{fault}");
    let mut gone = Sample::of(&[2, 3, 0, 4]);
    gone.segments.remove(0);
    let report = gone.check();
    assert!(
        !report.whole && report.notes.iter().all(|note| !note.contains("retention")),
        "{report:?}"
    );
    sample.checkpoint();
    assert!(sample.check().whole, "not removed yet");
    sample.segments.remove(0);
    let report = sample.check();
    assert!(report.whole, "{report:?}");
    assert!(report.notes[0].contains("removed by retention"));
    sample.segments.remove(0);
    found(&sample, 1);
}

#[test]
fn a_record_under_way_at_the_end_is_no_fault() {
    let mut sample = Sample::of(&[2, 3]);
    let (_, bytes) = sample.segments.last_mut().unwrap();
    bytes.extend_from_slice(b"{\"seq\":7,\"at");
    let report = sample.check();
    assert!(report.whole);
    assert!(report.notes[0].contains("12 bytes"), "{:?}", report.notes);
}

#[test]
fn names_are_numbers_of_twenty_digits() {
    assert_eq!(first_seq(&segment_name(42)), Some(42));
    for other in [
        "audit.jsonl",
        "42.jsonl",
        "checkpoint",
        "+0000000000000000042.jsonl",
    ] {
        assert_eq!(first_seq(other), None, "{other}");
    }
}

#[test]
fn a_checkpoint_elsewhere_proves_its_own_record_as_well() {
    let mut sample = Sample::of(&[2, 3, 1, 5]);
    let newest = |sample: &Sample| {
        let (_, bytes) = sample.segments.last().unwrap();
        let last = String::from_utf8(bytes.clone()).unwrap();
        let last: Checkpoint = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        Witness::signed("the copy", last).unwrap()
    };
    let copy = newest(&sample);
    let key = Some(signer().public());
    let check = |sample: &Sample| sample.check_with(key, vec![copy.clone()]);
    let report = check(&sample);
    assert!(report.whole && copy.upto() == sample.tip.seq, "{report:?}");
    assert_eq!(report.signed_upto, copy.tip.seq);

    let cut = |sample: &Sample, from: usize| {
        let mut cut = sample.clone();
        let (_, bytes) = cut.segments.last_mut().unwrap();
        bytes.truncate(bytes.len() - from);
        cut
    };
    let (_, bytes) = sample.segments.last().unwrap();
    let length = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .next_back()
        .unwrap()
        .len();
    for from in [length, length / 2, 1] {
        let report = check(&cut(&sample, from));
        let fault = report.fault.unwrap();
        assert!(fault.what.contains("the end is missing"), "{fault}");
        assert_eq!(fault.seq, Some(copy.upto()));
        // What is there is signed all the same: the copy says so.
        assert_eq!(report.signed_upto, copy.tip.seq);
        assert!(
            !report.notes.iter().any(|note| note.contains("behind")),
            "{:?}",
            report.notes
        );
    }
    // Another record in its place, with a hash that fits, and even another checkpoint.
    let mut forged = cut(&sample, length);
    forged.tip = copy.tip;
    let mut signed_anew = forged.clone();
    forged.put(",\"at\":7,\"event\":\"test.x\"");
    let one = serde_json::to_value(signer().sign(HOUSE, copy.tip, 6)).unwrap();
    let fields = one.to_string();
    let fields = fields.trim_start_matches('{').trim_end_matches('}');
    signed_anew.put(&format!(",\"at\":6,\"event\":\"{CHECKPOINT}\",{fields}"));
    for other in [&forged, &signed_anew] {
        let fault = check(other).fault.unwrap();
        assert!(fault.what.contains("the copy knows another"), "{fault}");
        assert_eq!(fault.seq, Some(copy.upto()));
    }
    // A later end is fine, and nothing at all is told as that.
    sample.put(",\"at\":8,\"event\":\"test.x\"");
    assert!(check(&sample).whole);
    sample.segments.clear();
    let fault = check(&sample).fault.unwrap().to_string();
    assert!(
        fault.contains("the whole log is missing") && !fault.starts_with(':'),
        "{fault}"
    );
}
