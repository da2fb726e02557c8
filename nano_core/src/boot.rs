//! From the boot loader to Rust.
//!
//! The PVH boot protocol (Xen, `docs/misc/pvh.pandoc`; QEMU's `-kernel` speaks it): 32-bit protected mode, paging off,
//! `ebx` points to the start info. The code here turns on 64-bit mode with the first 4 GiB mapped at their own address and in the
//! window of physical memory, and calls [`crate::kernel_main`]; [`StartInfo`] reads what the loader left, through that window.

use crate::exit::{DEBUG_EXIT, Status};
use core::{ffi::CStr, ops::Range};
use kernel_config::{bare_metal::PHYSICAL, memory::PAGE_SIZE, task::ALTERNATE_STACK};
use runtime_port::bare_metal::memory::at_physical;

/// A stack in the image with a page below it that the final page tables leave out.
#[repr(C, align(4096))]
pub struct GuardedStack<const SIZE: usize> {
    guard: [u8; PAGE_SIZE],
    stack: [u8; SIZE],
}

impl<const SIZE: usize> GuardedStack<SIZE> {
    /// A stack of zeroes.
    pub const fn new() -> Self {
        Self { guard: [0; PAGE_SIZE], stack: [0; SIZE] }
    }
}

/// The stack until the boot task has its own.
pub static mut BOOT_STACK: GuardedStack<ALTERNATE_STACK> = GuardedStack::new();

core::arch::global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY (18): where to start.
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".balign 4",
    ".quad pvh_start",
    ".popsection",
    //
    ".pushsection .bss.boot, \"aw\", @nobits",
    ".balign 4096",
    "boot_pml4: .skip 4096",
    "boot_pdpt: .skip 4096",
    "boot_pd: .skip 4 * 4096",
    ".popsection",
    //
    ".pushsection .rodata.boot, \"a\", @progbits",
    ".balign 8",
    "boot_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff", // null; 64-bit code; data
    "boot_gdt_end:",
    "boot_gdt_pointer: .word boot_gdt_end - boot_gdt - 1",
    ".long boot_gdt",
    "boot_too_old: .asciz \"\\r\\nFATAL: this processor has no 64-bit mode: use `-cpu qemu64` or a later one\\r\\n\"",
    ".popsection",
    //
    ".pushsection .text.boot, \"ax\", @progbits",
    ".code32",
    ".globl pvh_start",
    "pvh_start:",
    "cli",
    "cld",
    "mov esi, ebx",
    "mov esp, offset {stack} + {stack_size}",
    // CPUID, extended features: EDX bit 29, long mode.
    "mov eax, 0x80000000",
    "cpuid",
    "cmp eax, 0x80000001",
    "jb 4f",
    "mov eax, 0x80000001",
    "cpuid",
    "bt edx, 29",
    "jc 7f",
    "4: mov edi, offset boot_too_old",
    "5: mov al, [edi]",
    "test al, al",
    "jz 6f",
    "mov dx, 0x3f8", // the first serial port, which firmware or emulator has set up, takes a byte
    "out dx, al",
    "inc edi",
    "jmp 5b",
    "6: mov eax, {fatal}",
    "mov dx, {exit_port}",
    "out dx, eax",
    "8: hlt",
    "jmp 8b",
    // Page tables: two PML4 entries, four PDPT entries, 2048 large pages (present, writable).
    "7: mov eax, offset boot_pdpt + 3",
    "mov [boot_pml4], eax",
    "mov [boot_pml4 + {window} * 8], eax",
    "mov eax, offset boot_pd + 3",
    "xor ecx, ecx",
    "2: mov [boot_pdpt + ecx * 8], eax",
    "add eax, 4096",
    "inc ecx",
    "cmp ecx, 4",
    "jne 2b",
    "mov eax, 0x83",
    "xor ecx, ecx",
    "3: mov [boot_pd + ecx * 8], eax",
    "add eax, 0x200000",
    "inc ecx",
    "cmp ecx, 2048",
    "jne 3b",
    "mov eax, offset boot_pml4",
    "mov cr3, eax",
    "mov eax, 0x620", // CR4: PAE, OSFXSR, OSXMMEXCPT: compiled code uses SSE2
    "mov cr4, eax",
    "mov eax, 0x80000001", // CPUID, extended features: EDX bit 20, no-execute, becomes EFER bit 11
    "cpuid",
    "shr edx, 9",
    "and edx, 0x800",
    "mov ebx, edx",
    "mov ecx, 0xc0000080", // EFER: long mode, no-execute if there is such a thing
    "xor edx, edx",
    "mov eax, 0x100",
    "or eax, ebx",
    "wrmsr",
    "mov eax, cr0",
    "and eax, 0xfffffffb", // not EM
    "or eax, 0x80010023",  // PG, WP, NE (x87 errors are exceptions), MP, PE
    "mov cr0, eax",
    "lgdt [boot_gdt_pointer]",
    ".byte 0xea", // far jump to 64-bit code
    ".long pvh_start64",
    ".word 8",
    ".code64",
    "pvh_start64:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "xor eax, eax",
    "mov fs, eax",
    "mov gs, eax",
    "fninit",
    "xor ebp, ebp",
    "mov edi, esi",
    "push rbp", // the end of the stack for the unwinder
    "jmp {main}",
    ".popsection",
    stack = sym BOOT_STACK,
    fatal = const Status::Fatal as u32,
    exit_port = const DEBUG_EXIT,
    window = const PHYSICAL.start >> 39,
    stack_size = const size_of::<GuardedStack<ALTERNATE_STACK>>(),
    main = sym crate::kernel_main,
);

/// Most entries of the memory map, and most boot modules, that are read.
const MAX_ENTRIES: usize = 64;

/// `hvm_start_info` (Xen, `public/arch-x86/hvm/start_info.h`).
#[repr(C)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
/// E820: usable memory.
const RAM: u32 = 1;

/// A list of ranges of fixed capacity: there is no heap yet.
pub struct Ranges {
    ranges: [Range<u64>; MAX_ENTRIES],
    len: usize,
}

impl Ranges {
    fn collect(from: impl Iterator<Item = Range<u64>>) -> Self {
        let mut this = Self { ranges: [const { 0..0 }; MAX_ENTRIES], len: 0 };
        for range in from.take(MAX_ENTRIES) {
            this.ranges[this.len] = range;
            this.len += 1;
        }
        this
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges[..self.len]
    }
}

/// Why the boot loader's information cannot be used.
#[derive(Debug)]
pub enum BootError {
    /// Not started by PVH.
    Magic(u32),
    /// A start info without memory map.
    NoMemoryMap,
    /// A start info or module above 4 GiB, where nothing is mapped yet.
    TooHigh(u64),
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic(found) => write!(f, "not started by the PVH protocol (magic {found:#x}): use `qemu -kernel`"),
            Self::NoMemoryMap => write!(f, "the boot loader gave no memory map (PVH start info version 0)"),
            Self::TooHigh(at) => write!(f, "the boot loader left its information at {at:#x}, above 4 GiB"),
        }
    }
}

impl StartInfo {
    /// Reads what the loader left.
    ///
    /// # Safety
    /// The physical `address` came from the loader, and its memory was not touched since.
    pub unsafe fn at<'a>(address: u32) -> Result<&'a Self, BootError> {
        // SAFETY: by the caller; the first 4 GiB are mapped.
        let this = unsafe { &*(at_physical(address.into()) as *const Self) };
        if this.magic != MAGIC {
            return Err(BootError::Magic(this.magic));
        }
        if this.version < 1 || this.memory_map == 0 || this.memory_map_entries == 0 {
            return Err(BootError::NoMemoryMap);
        }
        let ends = this.module_list().map(|m| m.address.saturating_add(m.size));
        match ends.chain([this.memory_map, this.command_line, this.modules]).max() {
            Some(highest) if highest > 1 << 32 => Err(BootError::TooHigh(highest)),
            _ => Ok(this),
        }
    }

    fn memory_map(&self) -> impl Iterator<Item = &MemoryMapEntry> {
        let entries = at_physical(self.memory_map) as *const MemoryMapEntry;
        // SAFETY: the loader says that so many entries lie there.
        (0..self.memory_map_entries as usize).map(move |i| unsafe { &*entries.add(i) })
    }

    fn module_list(&self) -> impl Iterator<Item = &Module> {
        let modules = at_physical(self.modules) as *const Module;
        // SAFETY: the loader says that so many modules are described there.
        (0..self.module_count as usize).map(move |i| unsafe { &*modules.add(i) })
    }

    /// Usable memory.
    pub fn ram(&self) -> Ranges {
        let usable = self.memory_map().filter(|e| e.kind == RAM);
        Ranges::collect(usable.map(|e| e.address..e.address.saturating_add(e.size)))
    }

    /// Memory that holds the loader's structures and the modules.
    pub fn reserved(&self) -> Ranges {
        let sized = |start: u64, size: usize| start..start + size as u64;
        let own = sized((core::ptr::from_ref(self) as usize - PHYSICAL.start) as u64, size_of::<Self>());
        let map = sized(self.memory_map, size_of::<MemoryMapEntry>() * self.memory_map_entries as usize);
        let list = sized(self.modules, size_of::<Module>() * self.module_count as usize);
        let line = sized(self.command_line, self.command_line().len() + 1);
        let modules = self.module_list().map(|m| m.address..m.address.saturating_add(m.size));
        let page_aligned = |r: Range<u64>| r.start & !4095..r.end.next_multiple_of(4096);
        Ranges::collect([own, map, list, line].into_iter().chain(modules).filter(|r| r.start != 0).map(page_aligned))
    }

    /// The command line, empty when there is none.
    pub fn command_line(&self) -> &'static [u8] {
        match self.command_line {
            0 => b"",
            // SAFETY: the loader says that a zero-terminated string lies there; the memory is never given out.
            at => unsafe { CStr::from_ptr(at_physical(at) as *const core::ffi::c_char) }.to_bytes(),
        }
    }

    /// Content of the first boot module (`-initrd`).
    pub fn first_module(&self) -> Option<&'static [u8]> {
        let module = self.module_list().next()?;
        // SAFETY: the loader put the module there; the memory is never given out.
        Some(unsafe { core::slice::from_raw_parts(at_physical(module.address) as *const u8, module.size as usize) })
    }
}
