//! A trap: why wasm code stopped, and where.
//!
//! Making one is cheap: it keeps program counters and a share of the code they lie in. Names and offsets are looked up
//! when somebody asks, which works after the cell was swapped or unloaded, because the share keeps its metadata. So are
//! lines of the source text ([`crate::source_line`]).

mod held;

use crate::call::{BACKTRACE_FRAMES, Raised};
use crate::code::LoadedCode;
use crate::fault_log::FaultType;
use crate::recovery;
use crate::source_line::SourceFrame;
use crate::text_index::{TEXT, Text};
use alloc::{borrow::Cow, boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::{error::Error, fmt, mem::MaybeUninit};
use held::Held;
use runtime_port::backtrace::{Location, Symbol, SymbolSource, resolve, resolve_inlined};
use wasm_cell::metadata::{ExportItem, Metadata};
use wasm_cell::trap::TrapCode;

/// What a host function failed with.
pub type HostError = Box<dyn Error + Send + Sync>;

/// Why a call into wasm did not return.
///
/// When the heap has nothing left for the rest, only the code is there.
pub struct Trap {
    code: TrapCode,
    inner: Option<Held>,
}

struct Inner {
    exact: bool,
    frames: usize,
    /// Functions whose code stands in place of calls in frames that are not kept.
    inlined: usize,
    /// Initialised up to `frames`.
    pcs: [MaybeUninit<usize>; BACKTRACE_FRAMES],
    /// The code of the innermost frame.
    first: Option<Arc<LoadedCode>>,
    /// The other cells of the backtrace.
    others: Vec<Arc<LoadedCode>>,
    error: Option<HostError>,
}

/// One frame of a backtrace.
#[derive(Debug, Clone)]
pub struct Frame<'t> {
    /// Address: of the instruction that faulted in the innermost frame of such a trap, else the return address.
    pub pc: usize,
    /// The wasm function it is in; `None` for native code and for code that was unloaded meanwhile.
    pub wasm: Option<WasmFrame<'t>>,
}

/// A frame in wasm code.
#[derive(Debug, Clone)]
pub struct WasmFrame<'t> {
    /// Name of the cell.
    pub cell: &'t str,
    /// Version of the cell, from 1.
    pub version: u32,
    /// Function index; `None` in code that belongs to no function.
    pub function: Option<u32>,
    /// Name of the function: from the name section, else of an export, else `wasm[N]`.
    pub name: Cow<'t, str>,
    /// Offset of the instruction in the wasm module, in bytes.
    pub wasm_offset: Option<u32>,
    code: &'t LoadedCode,
}

impl Trap {
    /// A trap without a place in wasm.
    #[cold]
    pub fn new(code: TrapCode) -> Trap {
        Trap { code, inner: Inner::held(false, None, None) }
    }

    /// A trap with the error of a host function (or of the platform under it), without a place in wasm.
    #[cold]
    pub fn host(error: HostError) -> Trap {
        Trap { code: TrapCode::HostError, inner: Inner::held(false, None, Some(error)) }
    }

    /// A trap with an error that says more, without a place in wasm.
    #[cold]
    pub(crate) fn with_error(code: TrapCode, error: HostError) -> Trap {
        Trap { code, inner: Inner::held(false, None, Some(error)) }
    }

    /// What a raised trap left behind. Takes the share of the code out of it.
    pub(crate) fn raised(raised: &mut Raised, error: Option<HostError>) -> Trap {
        let code = TrapCode::from_u8(raised.code as u8).unwrap_or(TrapCode::Unreachable);
        let first = core::mem::replace(&mut raised.first, core::ptr::null());
        // SAFETY: a share that the walk took with `Arc::into_raw`, taken back once.
        let first = (!first.is_null()).then(|| unsafe { Arc::from_raw(first) });
        if let Some(first) = &first
            // What wasm code that a host function called failed with is known already.
            && !error.as_ref().is_some_and(|e| e.is::<Trap>())
        {
            recovery::failed(first, raised.pc(), raised.exact, FaultType::Trap(code));
        }
        let Some(mut inner) = Inner::held(raised.exact, first, error) else { return Trap { code, inner: None } };
        inner.frames = raised.frames;
        inner.inlined = raised.inlined;
        let kept = raised.frames.min(BACKTRACE_FRAMES);
        if let (Some(to), Some(from)) = (inner.pcs.get_mut(..kept), raised.pcs.get_mut(..kept)) {
            // The catch lies on the stack, where nothing is to be left that could be taken for something in use. A loop, because they
            // are few.
            for (to, from) in to.iter_mut().zip(from) {
                *to = core::mem::replace(from, MaybeUninit::new(0));
            }
        }
        if raised.mixed {
            inner.find_others();
        }
        Trap { code, inner: Some(inner) }
    }

    /// Why.
    pub fn code(&self) -> TrapCode {
        self.code
    }

    /// The frames of the backtrace, innermost first; at most [`BACKTRACE_FRAMES`]. A function whose code stands in place of a call has one, too.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.inner.iter().flat_map(|inner| inner.all_frames()).take(BACKTRACE_FRAMES)
    }

    /// Frames of the backtrace, those beyond the kept ones included.
    pub fn depth(&self) -> usize {
        let Some(inner) = &self.inner else { return 0 };
        let inlined = |(i, pc): &(usize, &usize)| inner.has_inlined(**pc, *i == 0 && inner.exact);
        inner.frames + inner.inlined + inner.pcs().iter().enumerate().filter(inlined).count()
    }

    /// Where it happened: the innermost frame, if it is in wasm.
    pub fn origin(&self) -> Option<WasmFrame<'_>> {
        self.frames().next()?.wasm
    }

    /// Name of the cell it happened in.
    pub fn cell(&self) -> Option<&str> {
        self.origin().map(|o| o.cell)
    }

    /// Index of the function it happened in.
    pub fn function(&self) -> Option<u32> {
        self.origin()?.function
    }

    /// Offset of the instruction in the wasm module, in bytes.
    pub fn wasm_offset(&self) -> Option<u32> {
        self.origin()?.wasm_offset
    }

    /// The error of the host function, when that is why.
    pub fn host_error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.inner.as_ref()?.error.as_deref()
    }

    /// The host function's error as a `T`, when it is one: how a caller tells an exit from a failure. Looks through
    /// traps that host functions passed on.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        let error = self.inner.as_ref()?.error.as_ref()?;
        match error.downcast_ref::<T>() {
            Some(e) => Some(e),
            None => self.cause()?.downcast_ref(),
        }
    }

    /// The trap that a host function got from wasm and passed on as its own error.
    pub fn cause(&self) -> Option<&Trap> {
        self.inner.as_ref()?.error.as_ref()?.downcast_ref()
    }

    /// Takes the host function's error out.
    pub fn into_host_error(self) -> Result<HostError, Trap> {
        let mut this = self;
        match this.inner.as_mut().and_then(|i| i.error.take()) {
            Some(e) => Ok(e),
            None => Err(this),
        }
    }
}

impl Inner {
    fn code_at(&self, pc: usize) -> Option<&Arc<LoadedCode>> {
        self.first.iter().chain(&self.others).find(|c| c.text().contains(&pc))
    }

    /// Whether a function's code stands at an address in place of a call.
    fn has_inlined(&self, pc: usize, exact: bool) -> bool {
        let place = |c: &Arc<LoadedCode>| Place::find(c.metadata(), (pc - c.text().start) as u32, exact);
        self.code_at(pc).is_some_and(|c| place(c).callee.is_some())
    }

    fn all_frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.pcs().iter().enumerate().flat_map(|(i, pc)| self.frames(*pc, i == 0 && self.exact))
    }

    /// The frame at an address, after that of a function whose code stands there in place of a call.
    fn frames(&self, pc: usize, exact: bool) -> impl Iterator<Item = Frame<'_>> {
        let at = self.code_at(pc).map(|c| WasmFrame::at(c, (pc - c.text().start) as u32, exact));
        let (callee, own) = at.map_or((None, None), |(callee, own)| (callee, Some(own)));
        callee.map(|wasm| Frame { pc, wasm: Some(wasm) }).into_iter().chain([Frame { pc, wasm: own }])
    }

    /// Without frames. The addresses, which need no value then, are not even touched. `None`: the heap has nothing left.
    fn held(exact: bool, first: Option<Arc<LoadedCode>>, error: Option<HostError>) -> Option<Held> {
        let write = |p: *mut Inner| {
            // SAFETY: memory of this layout that nobody else has; every field but `pcs`, which needs no value, is written.
            unsafe {
                (&raw mut (*p).exact).write(exact);
                (&raw mut (*p).frames).write(0);
                (&raw mut (*p).inlined).write(0);
                (&raw mut (*p).first).write(first);
                (&raw mut (*p).others).write(Vec::new());
                (&raw mut (*p).error).write(error);
            }
        };
        // SAFETY: every field is initialised.
        unsafe { Held::new(write) }
    }

    fn pcs(&self) -> &[usize] {
        let kept = self.frames.min(BACKTRACE_FRAMES);
        // SAFETY: initialised up to `frames`, and the length is at most the array's.
        unsafe { core::slice::from_raw_parts(self.pcs.as_ptr().cast(), kept) }
    }

    /// Takes shares of all code the backtrace goes through.
    #[cold]
    fn find_others(&mut self) {
        let reader = TEXT.read();
        let mut last: Option<Text<'_>> = None;
        for i in 0..self.pcs().len() {
            let Some(pc) = self.pcs().get(i).copied() else { return };
            if last.as_ref().is_some_and(|t| t.contains(pc)) {
                continue;
            }
            last = reader.find(pc);
            let Some(code) = last.as_ref().and_then(Text::code) else { continue };
            let known = self.first.iter().chain(&self.others).any(|c| Arc::ptr_eq(c, code));
            if !known && self.others.try_reserve(1).is_ok() {
                self.others.push(code.clone());
            }
        }
    }
}

impl<'t> WasmFrame<'t> {
    /// The frame at an offset of the text, and that of a function whose code stands there in place of a call.
    fn at(code: &'t LoadedCode, offset: u32, exact: bool) -> (Option<Self>, Self) {
        let Place { function, wasm_offset, callee } = Place::find(code.metadata(), offset, exact);
        let callee = callee.map(|(function, offset)| Self::new(code, Some(function), Some(offset)));
        (callee, Self::new(code, function, wasm_offset))
    }

    fn new(code: &'t LoadedCode, function: Option<u32>, wasm_offset: Option<u32>) -> Self {
        let metadata = code.metadata();
        let name = match (function, function.and_then(|f| name_of(metadata, f))) {
            (_, Some(name)) => Cow::Borrowed(name),
            (Some(f), None) => Cow::Owned(format!("wasm[{f}]")),
            (None, None) => Cow::Borrowed("?"),
        };
        WasmFrame { cell: code.cell(), version: code.version(), function, name, wasm_offset, code }
    }

    /// The code it is in.
    pub fn code(&self) -> &'t LoadedCode {
        self.code
    }

    /// Place in the source text, when the module's own DWARF tells: that of the innermost inlined function, if there is
    /// one. Looked up now; see [`WasmFrame::source`].
    pub fn location(&self) -> Option<Location> {
        self.source().first()?.location.clone()
    }

    /// The functions of the source text: first those that were inlined here, innermost first, last the one this frame is
    /// a call of. Empty when the module has no DWARF for it. Looked up when it is asked for, which takes some
    /// microseconds to milliseconds.
    pub fn source(&self) -> Arc<[SourceFrame]> {
        self.wasm_offset.map(|o| self.code.module().source_frames(o)).unwrap_or_default()
    }

    /// Cell, function, version.
    fn write_function(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        // Of several versions that live, the one in service has the plain name.
        if self.code.is_superseded() {
            return write!(f, "{}@{}!{name}", self.cell, self.version);
        }
        write!(f, "{}!{name}", self.cell)?;
        match self.version {
            1 => Ok(()),
            version => write!(f, " (version {version})"),
        }
    }

    /// The place in the source, if it is known, and in the module.
    fn write_place(&self, f: &mut fmt::Formatter<'_>, location: Option<&Location>) -> fmt::Result {
        match (location, self.wasm_offset) {
            (Some(at), Some(o)) => write!(f, " at {at} (wasm offset {o:#x})"),
            (Some(at), None) => write!(f, " at {at}"),
            (None, Some(o)) => write!(f, " at wasm offset {o:#x}"),
            (None, None) => Ok(()),
        }
    }
}

/// What an offset of the text stands for.
struct Place {
    /// The function whose frame it is.
    function: Option<u32>,
    /// Where it is there.
    wasm_offset: Option<u32>,
    /// The function whose code stands there in place of a call, and where it is in that.
    callee: Option<(u32, u32)>,
}

impl Place {
    /// `offset`: of an instruction if it is `exact`, else a return address.
    fn find(metadata: &Metadata, offset: u32, exact: bool) -> Place {
        // A return address may be the first byte of the next function: the call is before it.
        let function = metadata.func_at(if exact { offset } else { offset.saturating_sub(1) });
        let start = function
            .and_then(|f| metadata.funcs.get((f as usize).checked_sub(metadata.imported_funcs.len())?))
            .filter(|f| exact && f.offset == offset)
            .map(|f| f.wasm_offset);
        if start.is_some() {
            return Place { function, wasm_offset: start, callee: None };
        }
        let place = metadata.place(offset, exact);
        let callee = place.and_then(|p| p.call.and(metadata.func_of(p.wasm_offset)).map(|f| (f, p.wasm_offset)));
        Place { function, wasm_offset: place.map(|p| p.call.unwrap_or(p.wasm_offset)), callee }
    }
}

/// Innermost function and wasm offset in it at an offset of the text: of an instruction, or a return address.
pub(crate) fn locate(metadata: &Metadata, offset: u32, exact: bool) -> (Option<u32>, Option<u32>) {
    match Place::find(metadata, offset, exact) {
        Place { callee: Some((function, wasm_offset)), .. } => (Some(function), Some(wasm_offset)),
        Place { function, wasm_offset, callee: None } => (function, wasm_offset),
    }
}

/// Name of a function: in the name section, else of an export.
pub(crate) fn name_of(metadata: &Metadata, function: u32) -> Option<&str> {
    metadata.func_name(function).or_else(|| {
        let export = metadata.exports.iter().find(|e| e.item == ExportItem::Func(function))?;
        Some(&export.name)
    })
}

/// One line: function and place. With `{:#}` a line for each function that was inlined here, before that of the function
/// itself, which are parted by line breaks and six spaces, as a backtrace wants them.
impl fmt::Display for WasmFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source();
        let Some((own, inlined)) = source.split_last() else {
            self.write_function(f, &self.name)?;
            return self.write_place(f, None);
        };
        if f.alternate() {
            for frame in inlined {
                self.write_function(f, frame.function.as_deref().unwrap_or("?"))?;
                if let Some(at) = &frame.location {
                    write!(f, " at {at}")?;
                }
                f.write_str(" (inlined)\n      ")?;
            }
            self.write_function(f, &self.name)?;
            return self.write_place(f, own.location.as_ref());
        }
        let innermost = inlined.first();
        match innermost.and_then(|i| i.function.as_deref()) {
            Some(name) => {
                self.write_function(f, name)?;
                write!(f, " inlined in {}", self.name)?;
            }
            None => self.write_function(f, &self.name)?,
        }
        self.write_place(f, innermost.unwrap_or(own).location.as_ref())
    }
}

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wasm {
            Some(w) => w.fmt(f),
            // Return addresses, all of them: only wasm code faults.
            None if f.alternate() => match resolve_inlined(self.pc.wrapping_sub(1)).split_last() {
                Some((own, inlined)) => {
                    inlined.iter().try_for_each(|symbol| write!(f, "{symbol} (inlined)\n      "))?;
                    write!(f, "{own} (native)")
                }
                None => write!(f, "{:#x}", self.pc),
            },
            None => match resolve(self.pc.wrapping_sub(1)) {
                Some(symbol) => write!(f, "{symbol} (native)"),
                None => write!(f, "{:#x}", self.pc),
            },
        }
    }
}

/// Names wasm code in the platform's own backtraces: of panics, fatal faults, tasks that hang.
pub(crate) struct WasmSymbols;

impl SymbolSource for WasmSymbols {
    fn resolve(&self, pc: usize) -> Option<Symbol> {
        self.resolve_inlined(pc).pop()
    }

    fn resolve_inlined(&self, pc: usize) -> Vec<Symbol> {
        let code = TEXT.read().find(pc).and_then(|text| text.code().cloned());
        let Some(code) = code else { return Vec::new() };
        let metadata = code.metadata();
        let offset = (pc - code.text().start) as u32;
        // Who walks a stack asks for the last byte of a call.
        let is_call = metadata.addresses.binary_search_by_key(&(offset + 1), |a| a.code_offset).is_ok();
        let (callee, own) = match is_call {
            true => WasmFrame::at(&code, offset + 1, false),
            false => WasmFrame::at(&code, offset, true),
        };
        let defined = own.function.map(|f| f as usize - metadata.imported_funcs.len());
        let start = defined.and_then(|f| metadata.funcs.get(f)).map(|f| f.offset);
        let symbol = |frame: WasmFrame<'_>, offset| Symbol {
            offset,
            module: Some(String::from(frame.cell)),
            location: frame.location(),
            name: frame.name.into_owned(),
        };
        let own_offset = start.and_then(|s| offset.checked_sub(s)).map(|o| o as usize);
        callee.map(|c| symbol(c, None)).into_iter().chain([symbol(own, own_offset)]).collect()
    }
}

/// One line with code, host error and place; with `{:#}` a backtrace below it.
impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.inner.as_ref().and_then(|i| i.error.as_ref()) {
            Some(e) if !e.is::<Trap>() => write!(f, ": {e}")?,
            _ => {}
        }
        if let Some(o) = self.origin() {
            write!(f, " in {o}")?;
        }
        if f.alternate() {
            for (i, frame) in self.frames().enumerate() {
                write!(f, "\n{i:4}: {frame:#}")?;
            }
            if self.depth() > BACKTRACE_FRAMES {
                write!(f, "\n      and {} more", self.depth() - BACKTRACE_FRAMES)?;
            }
            if let Some(cause) = self.cause() {
                write!(f, "\ncaused by: {cause:#}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames: Vec<String> = self.frames().map(|x| format!("{x}")).collect();
        f.debug_struct("Trap")
            .field("code", &self.code)
            .field("error", &self.host_error())
            .field("depth", &self.depth())
            .field("frames", &frames)
            .finish()
    }
}

impl Error for Trap {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.host_error().map(|e| e as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[derive(Debug, thiserror::Error)]
    #[error("exit {0}")]
    struct Exit(i32);

    #[test]
    fn host_errors_can_be_told_apart() {
        let trap = Trap::host(Box::new(Exit(3)));
        assert_eq!(trap.code(), TrapCode::HostError);
        assert_eq!(trap.downcast_ref::<Exit>().map(|e| e.0), Some(3));
        assert_eq!(trap.to_string(), "host function failed: exit 3");
        assert!(trap.source().is_some());
        assert!(trap.into_host_error().is_ok());
        assert!(Trap::new(TrapCode::Unreachable).into_host_error().is_err());
    }
}
