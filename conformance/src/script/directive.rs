//! A script: what it says, with its modules assembled.

use super::value::{Argument, Pattern};
use alloc::{string::String, vec::Vec};
use bincode::{Decode, Encode};

/// A script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Script {
    /// Its name as shown.
    pub name: String,
    /// Lines of assertions that may fail.
    pub excluded: Vec<u32>,
    /// What is done, in order.
    pub directives: Vec<Directive>,
    /// What the script's threads do: [`Action::Thread`] names one by its index.
    pub threads: Vec<Vec<Directive>>,
}

/// One thing that a script says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Directive {
    /// Line of the text, from 1.
    pub line: u32,
    /// What to do.
    pub action: Action,
}

/// What a directive does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Makes an instance.
    Module {
        /// Its name.
        id: Option<String>,
        /// Of this module.
        module: Module,
    },
    /// Keeps a module.
    Definition {
        /// Its name.
        id: Option<String>,
        /// The module.
        module: Module,
    },
    /// Makes an instance of a module that was kept.
    Instance {
        /// Its name.
        id: Option<String>,
        /// The module's name; the last one by default.
        module: Option<String>,
    },
    /// Lets modules import from an instance.
    Register {
        /// The name in imports.
        name: String,
        /// The instance; the current one by default.
        instance: Option<String>,
    },
    /// Calls.
    Invoke(Invoke),
    /// It must return these results.
    AssertReturn {
        /// What.
        execute: Execute,
        /// Results.
        results: Vec<Pattern>,
    },
    /// It must trap.
    AssertTrap {
        /// What.
        execute: Execute,
        /// Why.
        message: String,
    },
    /// It must overflow the stack.
    AssertExhaustion(Invoke),
    /// It must be refused: malformed or invalid.
    AssertInvalid {
        /// What.
        module: Module,
        /// Why.
        message: String,
    },
    /// It must not link.
    AssertUnlinkable {
        /// What.
        module: Module,
        /// Why.
        message: String,
    },
    /// It must end with an exception.
    AssertException(Execute),
    /// Needs a feature that is refused.
    AssertRefused(String),
    /// Starts a thread with a namespace of its own.
    Thread {
        /// Its name.
        name: String,
        /// The instance that it shares.
        shared: Option<String>,
        /// Index of what it does in [`Script::threads`]; larger than that of the thread that starts it.
        body: u32,
    },
    /// Waits for a thread's end.
    Wait(String),
}

impl Action {
    /// Whether it is counted as an assertion; the others are commands.
    pub fn is_assertion(&self) -> bool {
        !matches!(
            self,
            Action::Module { .. }
                | Action::Definition { .. }
                | Action::Instance { .. }
                | Action::Register { .. }
                | Action::Invoke(_)
                | Action::Thread { .. }
                | Action::Wait(_)
        )
    }
}

/// A module as the assembler left it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Module {
    /// In the binary format, right or wrong.
    Binary(Vec<u8>),
    /// Text that the assembler refuses, with its words.
    Malformed(String),
    /// It needs a feature, of this name, that the assembler or the compiler refuses.
    Refused(String),
    /// The assembler itself failed, with its words.
    Unusable(String),
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Invoke {
    /// The instance; the current one by default.
    pub instance: Option<String>,
    /// The export.
    pub name: String,
    /// Its arguments.
    pub args: Vec<Argument>,
}

/// What an assertion is about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Execute {
    /// A call.
    Invoke(Invoke),
    /// The value of a global.
    Get {
        /// The instance; the current one by default.
        instance: Option<String>,
        /// The export.
        name: String,
    },
    /// The instantiation of a module.
    Instantiate(Module),
}
