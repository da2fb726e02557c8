//! What was observed of a run, in terms that both engines share.

use wasm_cell::trap::TrapCode;

/// Kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `v128`
    V128,
    /// a function reference of any type
    Func,
    /// a host reference
    Extern,
}

/// A value. Floats as bits; of references only whether they are null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `i32`
    I32(i32),
    /// `i64`
    I64(i64),
    /// `f32`, its bits
    F32(u32),
    /// `f64`, its bits
    F64(u64),
    /// `v128`
    V128(u128),
    /// a function reference
    Func {
        /// whether it is null
        null: bool,
    },
    /// a host reference
    Extern {
        /// whether it is null
        null: bool,
    },
}

/// How something ended that did not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A trap.
    Trap(TrapCode),
    /// Refused before it ran: did not compile, did not link. The words differ between engines.
    Refused(String),
    /// Something that says nothing about the semantics; nothing after it is compared.
    Inconclusive(String),
}

/// One observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A provider or the module was loaded.
    Load(Result<(), Stop>),
    /// A call ended.
    Call(Result<Vec<Value>, Stop>),
    /// State of the host function that providers report to.
    Host(u64),
    /// Contents of a memory.
    Memory(Vec<u8>),
    /// Per element, whether it is null.
    Table(Vec<bool>),
    /// Value of a global.
    Global(Value),
}

/// Everything observed of a run, each step with a word on what it was.
#[derive(Clone, Debug, Default)]
pub struct Transcript(pub Vec<(String, Step)>);

impl Transcript {
    /// Adds a step.
    pub fn push(&mut self, what: impl Into<String>, step: Step) {
        self.0.push((what.into(), step));
    }

    /// Describes the first step in which two runs differ.
    ///
    /// After a stack overflow nothing is compared: how deep the stack is does not belong to the semantics. The same for
    /// a collision of type ids, which depends on everything else that is loaded.
    pub fn difference(&self, found: &Transcript) -> Option<String> {
        for ((what, expected), (_, found)) in self.0.iter().zip(&found.0) {
            if exhausted(expected) || exhausted(found) {
                return None;
            }
            if !same(expected, found) {
                return Some(format!(
                    "{what}\n  expected {}\n  found    {}",
                    shown(expected, found),
                    shown(found, expected)
                ));
            }
        }
        (self.0.len() != found.0.len()).then(|| format!("{} steps here, {} there", found.0.len(), self.0.len()))
    }
}

fn exhausted(step: &Step) -> bool {
    matches!(
        step,
        Step::Load(Err(Stop::Trap(TrapCode::StackOverflow) | Stop::Inconclusive(_)))
            | Step::Call(Err(Stop::Trap(TrapCode::StackOverflow)))
    )
}

fn same(a: &Step, b: &Step) -> bool {
    match (a, b) {
        (Step::Load(Err(Stop::Refused(_))), Step::Load(Err(Stop::Refused(_)))) => true,
        (a, b) => a == b,
    }
}

/// Memories are long: of two that differ, the first difference is enough.
fn shown(step: &Step, other: &Step) -> String {
    match (step, other) {
        (Step::Memory(a), Step::Memory(b)) => match a.iter().zip(b).position(|(a, b)| a != b) {
            Some(i) => format!("{} bytes, {:02x?} at {i:#x}", a.len(), &a[i..a.len().min(i + 16)]),
            None => format!("{} bytes", a.len()),
        },
        _ => format!("{step:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(steps: &[Step]) -> Transcript {
        Transcript(steps.iter().map(|s| ("step".into(), s.clone())).collect())
    }

    #[test]
    fn the_words_of_a_refusal_do_not_matter() {
        let refused = |s: &str| transcript(&[Step::Load(Err(Stop::Refused(s.into())))]);
        assert_eq!(refused("a").difference(&refused("b")), None);
        assert!(refused("a").difference(&transcript(&[Step::Load(Ok(()))])).is_some());
    }

    #[test]
    fn the_first_differing_byte_of_a_memory_is_named() {
        let memory = |b: u8| transcript(&[Step::Memory(vec![0, 0, b])]);
        let words = memory(1).difference(&memory(2)).unwrap();
        assert!(words.contains("[01] at 0x2") && words.contains("[02] at 0x2"), "{words}");
    }

    #[test]
    fn nothing_is_compared_after_a_stack_overflow() {
        let overflow = Step::Call(Err(Stop::Trap(TrapCode::StackOverflow)));
        let a = transcript(&[overflow, Step::Host(1)]);
        let b = transcript(&[Step::Call(Ok(vec![])), Step::Host(2)]);
        assert_eq!(a.difference(&b), None);
    }
}
