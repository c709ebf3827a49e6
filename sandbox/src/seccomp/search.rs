//! A filter that finds a call's answer by halving.
//!
//! The kernel asks a new filter for its answer to every number there is, step by step: a list of seventy
//! calls to be looked through for each of four hundred took it longer than all other walls of an isolate.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_FROM: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where a `seccomp_data` has them.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// What is answered to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done.
    Allow,
    /// It fails with this.
    Errno(i32),
    /// It is the process's end.
    Kill,
    /// That depends on the arguments: the rest of the filter knows.
    Ask,
}

impl Answer {
    /// The kernel's word for it.
    const fn word(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | errno.unsigned_abs(),
            Self::Kill => 0x8000_0000,
            Self::Ask => 0,
        }
    }
}

/// A filter for one calling convention: these answers, `Allow` to numbers between them, and `Kill` from the number
/// `end` on and by every other convention. `ask` is a filter of its own. `None` if there are too many for the jumps of such a program.
pub(super) fn by_number(
    arch: u32,
    answers: &BTreeMap<u32, Answer>,
    end: u32,
    ask: BpfProgram,
) -> Option<BpfProgram> {
    let mut from = BTreeMap::from([(0, Answer::Allow), (end, Answer::Kill)]);
    for (number, answer) in answers.range(..end) {
        from.insert(*number, *answer);
        from.entry(number + 1).or_insert(Answer::Allow);
    }
    let mut stretches: Vec<(u32, Answer)> = from.into_iter().collect();
    stretches.dedup_by_key(|(_, answer)| *answer);
    let mut program = vec![
        op(LOAD_WORD, 0, 0, ARCH),
        op(JUMP_EQUAL, 1, 0, arch),
        op(RETURN, 0, 0, Answer::Kill.word()),
        op(LOAD_WORD, 0, 0, NUMBER),
    ];
    program.extend(halve(&stretches)?);
    let length = program.len();
    for (at, op) in program.iter_mut().enumerate() {
        if op.code == JUMP {
            op.k = u32::try_from(length - at - 1).ok()?;
        }
    }
    program.extend(ask);
    Some(program)
}

/// Finds the stretch that a number is in.
fn halve(stretches: &[(u32, Answer)]) -> Option<BpfProgram> {
    if let [(_, answer)] = stretches {
        let code = match answer {
            // To where the rest begins, which is known at the end.
            Answer::Ask => JUMP,
            _ => RETURN,
        };
        return Some(vec![op(code, 0, 0, answer.word())]);
    }
    let (low, high) = stretches.split_at(stretches.len() / 2);
    let (begin, _) = high.first()?;
    let (low, high) = (halve(low)?, halve(high)?);
    let mut program = vec![op(JUMP_FROM, u8::try_from(low.len()).ok()?, 0, *begin)];
    program.extend(low);
    program.extend(high);
    Some(program)
}

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
