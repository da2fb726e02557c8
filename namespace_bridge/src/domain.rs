//! State domains: cells that share mutable state, and the one gate in front of them (D7).
//!
//! What two cells share decides: a memory that is not shared between tasks, a table, a mutable global. A cell that has any of these is in the
//! domain of all of them; state that nobody has linked yet belongs to no domain. Which domain is fixed when the cell is linked. A cell that
//! imports state of two domains joins them: from then on they are one, with one gate.
//!
//! ```text
//! memory of a ──┐
//! table of b ───┼── c imports all three ──► one domain {a, b, c, …}, one gate
//! global of d ──┘
//! ```
//!
//! A cell without such state is *stateless*: any number of tasks may be inside, and a new version takes over without waiting for anybody. So
//! it is with a *concurrent* cell, which has a shared memory (threads proposal) and leaves order to its own atomics.

use crate::gate::chain;
use crate::gate::protocol::{DEFERRED, GUARDED, Gate, Refused, Waiter};
use crate::gate::{GateError, WAITING, Wait, word_of};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use runtime_port::task::TaskLocals;
use runtime_port::{platform, unwind::catch_unwind_with_arg};
use spin::{Mutex, Once};
use wasm_cell::metadata::Metadata;

/// Who may be inside a cell at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// Any number of tasks: there is no state that one could spoil for another.
    Stateless,
    /// Any number of tasks: the module shares memory between them and sees to the rest.
    Concurrent,
    /// One task at a time.
    Gated,
}

impl Concurrency {
    /// That of a module's instances.
    pub fn of(m: &Metadata) -> Concurrency {
        if m.memories.iter().any(|m| m.ty.shared) {
            return Concurrency::Concurrent;
        }
        match m.writes_tables || !m.memories.is_empty() || m.globals.iter().any(|g| g.ty.mutable) {
            true => Concurrency::Gated,
            false => Concurrency::Stateless,
        }
    }
}

/// Cells that share mutable state.
#[repr(C)]
pub struct Domain {
    /// First, so that a gate's address is its domain's.
    gate: Gate,
    serial: u64,
    /// What it has become part of.
    joined: Once<Arc<Domain>>,
    members: Mutex<Vec<Member>>,
    deferred: Mutex<Vec<Deferred>>,
}

type Deferred = Box<dyn FnOnce() + Send>;

/// A cell of a domain.
struct Member {
    cell: Arc<str>,
    version: u32,
    image: Range<usize>,
    /// The word by which the cell's stubs find the gate; 0 if it has no stubs.
    gate_word: usize,
    /// Another version has taken its place: its gate word leads nowhere.
    superseded: bool,
}

impl Member {
    fn word(&self) -> Option<&AtomicUsize> {
        // SAFETY: a word of the image's data that is used atomically only; the membership ends before the image.
        unsafe { core::ptr::with_exposed_provenance::<AtomicUsize>(self.gate_word).as_ref() }
    }
}

/// Who is inside of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Number of the task; `None` for one that never attached.
    pub task: Option<u64>,
    /// The cell by which it came in; `None` when it came by [`Domain::acquire`].
    pub cell: Option<Arc<str>>,
    /// Number of tasks that wait to come in.
    pub waiting: usize,
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// Where the stubs of versions that have been superseded find no gate.
pub(crate) static NO_GATE: spin::LazyLock<Gate> = spin::LazyLock::new(|| Gate::moved(&WAITING));

/// The domain that a memory, table or global belongs to: none until a cell that is gated links it.
#[derive(Debug, Default)]
pub(crate) struct StateDomain(Once<Arc<Domain>>);

impl StateDomain {
    /// Of state that nobody has linked.
    pub(crate) const fn new() -> StateDomain {
        StateDomain(Once::new())
    }

    /// The domain, as it was when the state came to belong to it.
    pub(crate) fn get(&self) -> Option<&Arc<Domain>> {
        self.0.get()
    }

    /// The domain; this one, if there was none.
    pub(crate) fn get_or_set(&self, domain: &Arc<Domain>) -> &Arc<Domain> {
        self.0.call_once(|| domain.root())
    }

    /// Says which domain it is, if there was none.
    pub(crate) fn set(&self, domain: &Arc<Domain>) {
        self.0.call_once(|| domain.clone());
    }
}

impl Domain {
    /// A domain without cells.
    pub(crate) fn new() -> Arc<Domain> {
        Arc::new(Domain {
            gate: Gate::new(&WAITING),
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            joined: Once::new(),
            members: Mutex::new(Vec::new()),
            deferred: Mutex::new(Vec::new()),
        })
    }

    /// The domain that a gate belongs to.
    pub(crate) fn of(gate: &Gate) -> &Domain {
        // SAFETY: every gate that can be held or waited for is the first field of a domain, which lives as long.
        unsafe { &*core::ptr::from_ref(gate).cast::<Domain>() }
    }

    /// What it is now: itself, or the domain that it has become part of.
    pub fn root(self: &Arc<Self>) -> Arc<Domain> {
        let mut domain = self;
        while let Some(next) = domain.joined.get() {
            domain = next;
        }
        domain.clone()
    }

    /// Its gate.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// A number that no other domain has or had. Of domains that were joined, one keeps its number.
    pub fn serial(self: &Arc<Self>) -> u64 {
        self.root().serial
    }

    /// Whether two domains are the same now.
    pub fn is_same(self: &Arc<Self>, other: &Arc<Domain>) -> bool {
        core::ptr::eq(self.gate.root(), other.gate.root())
    }

    /// Names of its cells, each once.
    pub fn cells(self: &Arc<Self>) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for member in self.root().members.lock().iter() {
            if !member.superseded && !names.contains(&member.cell) {
                names.push(member.cell.clone());
            }
        }
        names
    }

    /// Its cells for a message.
    pub(crate) fn name(&self) -> String {
        const SHOWN: usize = 4;
        let members = self.members.lock();
        let mut names: Vec<&str> = members.iter().filter(|m| !m.superseded).map(|m| &*m.cell).collect();
        names.dedup();
        let shown = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        match names.len() {
            0 => String::from("a domain without cells"),
            n if n > SHOWN => format!("{shown} and {} more", n - SHOWN),
            _ => shown,
        }
    }

    /// Waits until no other task is inside, at most this long (`None`: as long as it takes), and keeps others out until the guard
    /// is dropped. Those who ask first come first. The task itself may be inside already, and may call the cells of the domain while
    /// it holds the guard.
    ///
    /// # Errors
    /// [`GateError`]: who is inside, or the cycle that the wait would close.
    pub fn acquire(self: &Arc<Self>, timeout: Option<Duration>) -> Result<GateGuard, GateError> {
        let task = crate::call::current_task();
        let gate = self.gate.root();
        let gate = match gate.is_held_by(word_of(task)) {
            true => gate,
            false => self.enter(task, timeout)?,
        };
        gate.count_guard(1);
        gate.attend(GUARDED);
        let guards = chain::guards(task);
        guards.set(guards.get() + 1);
        Ok(GateGuard { domain: self.clone(), not_send: PhantomData })
    }

    fn enter(self: &Arc<Self>, task: &TaskLocals, timeout: Option<Duration>) -> Result<&Gate, GateError> {
        let limit = timeout.map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        let mut wait = Wait::new(task, limit);
        let gate = self.enter_patiently(task, &mut wait);
        let gate = gate.map_err(|refused| self.error(refused, wait, timeout.unwrap_or(Duration::MAX)))?;
        gate.set_entered(0);
        Ok(gate)
    }

    /// Enters by the protocol. The task is not inside.
    fn enter_patiently(&self, task: &TaskLocals, wait: &mut Wait<'_>) -> Result<&Gate, Refused> {
        self.gate.enter(&Waiter::new(word_of(task), task.id.get()), false, wait)
    }

    /// The error for a refusal.
    pub(crate) fn error(self: &Arc<Self>, refused: Refused, wait: Wait<'_>, waited: Duration) -> GateError {
        match refused {
            Refused::Cancelled => GateError::Killed,
            Refused::Cycle => GateError::Cycle(wait.cycle),
            Refused::TimedOut => {
                let inside = self.owner();
                let (inside, through) = inside.map_or((None, None), |i| (i.task, i.cell));
                GateError::TimedOut { cells: self.root().name(), inside, through, waited }
            }
        }
    }

    /// Whether the current task is inside.
    pub fn is_held_by_current(&self) -> bool {
        self.gate.is_held_by(word_of(crate::call::current_task()))
    }

    /// Who is inside now.
    pub fn owner(self: &Arc<Self>) -> Option<Inside> {
        let (owner, entered) = (self.gate.owner(), self.gate.entered());
        if owner == crate::gate::protocol::FREE {
            return None;
        }
        let mut task = None;
        platform().tasks().for_each(&mut |t| {
            if word_of(t) == owner {
                task = Some(t.id.get());
            }
        });
        let root = self.root();
        let members = root.members.lock();
        let cell = members.iter().find(|m| m.image.contains(&entered)).map(|m| m.cell.clone());
        drop(members);
        Some(Inside { task, cell, waiting: self.gate.in_line() })
    }

    /// Runs `f` when the current task leaves the domain, as the last thing that it does inside: nobody else comes in before it is done.
    /// Gives `f` back when the task is not inside.
    pub fn when_left<F: FnOnce() + Send + 'static>(self: &Arc<Self>, f: F) -> Result<(), F> {
        if !self.is_held_by_current() {
            return Err(f);
        }
        let root = self.root();
        root.deferred.lock().push(Box::new(f));
        root.gate.attend(DEFERRED);
        Ok(())
    }

    /// Whether something is to be done before the owner leaves. For the owner.
    pub(crate) fn has_deferred(&self) -> bool {
        self.gate.attention() & DEFERRED != 0
    }

    /// Does what is to be done before the owner leaves. For the owner.
    pub(crate) fn run_deferred(&self) {
        self.gate.forget(DEFERRED);
        let all = core::mem::take(&mut *self.deferred.lock());
        for f in all {
            if let Err(reason) = catch_unwind_with_arg(|f: Deferred| f(), f) {
                log::error!("what was to be done on leaving {} panicked: {reason:?}", self.name());
            }
        }
    }

    /// Makes one domain of two, with the cells and the state of both. Waits until nobody else is inside of either. A task that is
    /// inside of one or both stays inside.
    ///
    /// # Errors
    /// [`GateError`]: who is inside. Nothing has changed then.
    pub(crate) fn join(self: &Arc<Self>, other: &Arc<Domain>, timeout: Duration) -> Result<(), GateError> {
        loop {
            // Everybody takes two gates in the same order.
            let (a, b) = (self.root(), other.root());
            let (first, second) = if a.serial <= b.serial { (a, b) } else { (b, a) };
            if Arc::ptr_eq(&first, &second) {
                return Ok(());
            }
            let _first = first.acquire(Some(timeout))?;
            let _second = second.acquire(Some(timeout))?;
            // Somebody else may have joined one of them to something while this task waited.
            if first.joined.get().is_some() || second.joined.get().is_some() {
                continue;
            }
            second.become_part_of(&first);
            return Ok(());
        }
    }

    /// The current task holds both.
    fn become_part_of(&self, to: &Arc<Domain>) {
        self.joined.call_once(|| to.clone());
        to.deferred.lock().append(&mut self.deferred.lock());
        self.gate.forward_to(&to.gate);
        // Who looks for a member of either finds it in one list or the other.
        let mut members = to.members.lock();
        let moved = core::mem::take(&mut *self.members.lock());
        for member in &moved {
            if let Some(word) = member.word().filter(|_| !member.superseded) {
                word.store(to.gate_address(), Ordering::Release);
            }
        }
        members.extend(moved);
    }

    fn gate_address(&self) -> usize {
        core::ptr::from_ref(&self.gate).expose_provenance()
    }

    /// Calls `f` with the list of members of the domain that this one is now.
    fn with_members<R>(self: &Arc<Self>, mut f: impl FnMut(&Arc<Domain>, &mut Vec<Member>) -> R) -> R {
        loop {
            let root = self.root();
            let mut members = root.members.lock();
            if root.joined.get().is_none() {
                return f(&root, &mut members);
            }
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain {} of {}", self.serial, self.name())
    }
}

/// Keeps others out of a domain. Not to be sent to another task.
#[derive(Debug)]
#[must_use = "others come in when this is dropped"]
pub struct GateGuard {
    domain: Arc<Domain>,
    not_send: PhantomData<*const ()>,
}

impl GateGuard {
    /// The domain.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        let task = crate::call::current_task();
        let guards = chain::guards(task);
        guards.set(guards.get().saturating_sub(1));
        let gate = self.domain.gate.root();
        gate.count_guard(-1);
        if gate.guards() == 0 {
            gate.forget(GUARDED);
        }
        chain::leave_if_last(task, gate);
    }
}

/// A cell's place in its domain, as long as the instance lives.
#[derive(Debug)]
pub(crate) struct Membership {
    domain: Arc<Domain>,
    /// First address of the cell's image, which no other member has.
    image: usize,
}

impl Membership {
    /// Makes a cell a member. `gate_word` is the word of its image by which its stubs find the gate.
    pub(crate) fn new(
        domain: Arc<Domain>,
        cell: Arc<str>,
        version: u32,
        image: Range<usize>,
        gate_word: Option<&AtomicUsize>,
    ) -> Membership {
        let start = image.start;
        domain.with_members(|root, members| {
            if let Some(word) = gate_word {
                word.store(root.gate_address(), Ordering::Release);
            }
            let gate_word = gate_word.map_or(0, |w| core::ptr::from_ref(w).expose_provenance());
            let (cell, image) = (cell.clone(), image.clone());
            if members.is_empty() {
                // Most cells stay alone; a vector that grows makes room for four.
                members.reserve_exact(1);
            }
            members.push(Member { cell, version, image, gate_word, superseded: false });
        });
        Membership { domain, image: start }
    }

    /// The domain.
    pub(crate) fn domain(&self) -> Arc<Domain> {
        self.domain.root()
    }

    /// The domain it was linked into, which may be part of another one now.
    pub(crate) fn first_domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Says whether another version has taken the cell's place: callers that come by its stubs, also those that have waited there, then go
    /// by the stable entry again.
    pub(crate) fn set_superseded(&self, superseded: bool) {
        self.domain.with_members(|root, members| {
            let Some(member) = members.iter_mut().find(|m| m.image.start == self.image) else { return };
            member.superseded = superseded;
            let gate =
                if superseded { core::ptr::from_ref(&*NO_GATE).expose_provenance() } else { root.gate_address() };
            if let Some(word) = member.word() {
                word.store(gate, Ordering::Release);
            }
        });
    }

    /// Whether another version has taken the cell's place.
    pub(crate) fn is_superseded(&self) -> bool {
        let find = |members: &mut Vec<Member>| members.iter().any(|m| m.image.start == self.image && m.superseded);
        self.domain.with_members(|_, members| find(members))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let gone = self.domain.with_members(|_, members| {
            let at = members.iter().position(|m| m.image.start == self.image)?;
            Some(members.swap_remove(at))
        });
        drop(gone);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.cell, self.version)
    }
}
