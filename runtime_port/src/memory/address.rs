//! Virtual addresses as a type of their own.

use core::fmt;
use kernel_config::memory::PAGE_SIZE;

/// An address in the one address space (Theseus: `memory_structs::VirtualAddress`). Canonical by construction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct VirtualAddress(usize);

impl VirtualAddress {
    /// The address, if it is canonical: bits 63 to 47 all equal (Intel SDM vol. 1, 3.3.7.1).
    pub const fn new(address: usize) -> Option<VirtualAddress> {
        let top = (address as i64) >> 47;
        if top == 0 || top == -1 { Some(VirtualAddress(address)) } else { None }
    }

    /// The address made canonical by copying bit 47 upwards.
    pub const fn new_canonical(address: usize) -> VirtualAddress {
        VirtualAddress((((address as i64) << 16) >> 16) as usize)
    }

    /// Address 0, never mapped.
    pub const fn zero() -> VirtualAddress {
        VirtualAddress(0)
    }

    /// The address as a number.
    pub const fn value(self) -> usize {
        self.0
    }

    /// Offset of the address in its page.
    pub const fn page_offset(self) -> usize {
        self.0 & (PAGE_SIZE - 1)
    }

    /// Whether the address is the first of a page.
    pub const fn is_page_aligned(self) -> bool {
        self.page_offset() == 0
    }

    /// As a pointer; to use it is the caller's responsibility.
    pub const fn as_ptr<T>(self) -> *const T {
        self.0 as *const T
    }
}

impl core::ops::Add<usize> for VirtualAddress {
    type Output = VirtualAddress;
    fn add(self, bytes: usize) -> VirtualAddress {
        VirtualAddress::new_canonical(self.0.wrapping_add(bytes))
    }
}

impl core::ops::Sub<VirtualAddress> for VirtualAddress {
    type Output = usize;
    /// Bytes from `other` up to this address, modulo 2^64.
    fn sub(self, other: VirtualAddress) -> usize {
        self.0.wrapping_sub(other.0)
    }
}

impl fmt::Debug for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{:#x}", self.0)
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// `bytes` rounded up to whole pages; `None` when that overflows.
pub const fn round_up_to_page(bytes: usize) -> Option<usize> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(n) => Some(n & !(PAGE_SIZE - 1)),
        None => None,
    }
}
