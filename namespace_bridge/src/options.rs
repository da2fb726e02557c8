//! How to load: name policy, memory styles, limits.
#![deny(unsafe_code)]

use core::time::Duration;
use kernel_config::memory::{CHECKED_RESERVATION_MAX, TABLE_RESERVATION_MAX};

/// What to do when a name or symbol exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AddPolicy {
    /// Refuse, naming the namespace and the name.
    #[default]
    Refuse,
    /// Unload what has the name, if nobody depends on it, and take its place in one step.
    Replace,
    /// Leave what is there and give that back.
    KeepExisting,
}

/// How a cell is loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadOptions {
    /// What to do when the namespace has a cell of this name.
    pub policy: AddPolicy,
    /// Whether memories may rely on guard pages (4 GiB of address space each). Without, modules are compiled with
    /// checked memories.
    pub guarded_memories: bool,
    /// Most bytes a memory of the cell may grow to.
    pub memory_limit: u64,
    /// Most elements a table of the cell may grow to.
    pub table_limit: u64,
    /// Whether missing cells may be loaded from the namespace's providers.
    pub providers: bool,
    /// How long a load may wait for the tasks inside of the cells whose memories, tables or globals it imports.
    pub gate_timeout: Duration,
    /// Whether symbols of native cells that no description gives a type are taken for what the module's imports say.
    pub(crate) assumes_native_types: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            policy: AddPolicy::Refuse,
            guarded_memories: true,
            memory_limit: CHECKED_RESERVATION_MAX,
            table_limit: TABLE_RESERVATION_MAX,
            providers: true,
            gate_timeout: Duration::from_secs(10),
            assumes_native_types: false,
        }
    }
}

impl LoadOptions {
    /// Sets the policy for a name that is taken.
    pub fn policy(mut self, policy: AddPolicy) -> LoadOptions {
        self.policy = policy;
        self
    }

    /// Allows or forbids guard-page memories.
    pub fn guarded_memories(mut self, on: bool) -> LoadOptions {
        self.guarded_memories = on;
        self
    }

    /// Lets imports bind to symbols of native cells without a typed description, as functions of the type that the import
    /// says.
    ///
    /// # Safety
    /// Each such symbol must be a C function of just that type.
    #[expect(unsafe_code, reason = "who calls it vouches for what nothing here can check")]
    pub unsafe fn assume_native_types(mut self) -> LoadOptions {
        self.assumes_native_types = true;
        self
    }

    /// Sets the most bytes a memory may grow to.
    pub fn memory_limit(mut self, bytes: u64) -> LoadOptions {
        self.memory_limit = bytes;
        self
    }

    /// Sets how long a load may wait for the tasks inside of the cells whose state it imports.
    pub fn gate_timeout(mut self, timeout: Duration) -> LoadOptions {
        self.gate_timeout = timeout;
        self
    }

    /// Sets the most elements a table may grow to.
    pub fn table_limit(mut self, elements: u64) -> LoadOptions {
        self.table_limit = elements;
        self
    }
}
