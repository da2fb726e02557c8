//! Module-independent types: what a cell shows to the linker.
//!
//! A concrete type is named by its [`TypeHash`], so two modules' types compare with `==` (core spec, 3.2/3.3:
//! functions are equal when their canonical structures are, recursion groups included).

use alloc::boxed::Box;
use bincode::{Decode, Encode};
use core::fmt;

/// Collision-resistant hash (first 16 bytes of BLAKE3) of the canonical structure of a defined type, its recursion group included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct TypeHash(pub [u8; 16]);

/// The 31-bit id that stands in the 4 bytes before a function's code, and that `call_indirect` compares. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct TypeId(pub u32);

/// The id that code uses for a type, and the salt it is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SaltedId {
    /// The id: [`TypeHash::id`] of the type and `salt`.
    pub id: TypeId,
    /// 0, unless another type has the id that 0 gives.
    pub salt: u8,
}

impl TypeHash {
    /// The id of the type under a salt: the low bits of the hash for salt 0, of a hash over hash and salt for others. Ids are
    /// so short that two types may share one; salts tell them apart. Which salt is in force is not this function's to
    /// know: take ids from [`crate::metadata::Metadata::type_ids`] or from the registry of the running system.
    pub fn id(self, salt: u8) -> TypeId {
        let low_bits = |[a, b, c, d]: [u8; 4]| TypeId((u32::from_le_bytes([a, b, c, d]) & 0x7fff_ffff).max(1));
        let [a, b, c, d, ..] = self.0;
        if salt == 0 {
            return low_bits([a, b, c, d]);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&[salt]);
        let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
        low_bits([a, b, c, d])
    }

    /// The id under a salt, with the salt.
    pub fn salted(self, salt: u8) -> SaltedId {
        SaltedId { id: self.id(salt), salt }
    }
}

/// Heap types that cells may exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum HeapType {
    /// Any function.
    Func,
    /// Any host value.
    Extern,
    /// No function (bottom of `func`).
    NoFunc,
    /// No host value (bottom of `extern`).
    NoExtern,
    /// Functions of one type.
    Concrete(TypeHash),
}

/// A reference type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct RefType {
    /// Whether null is among the values.
    pub nullable: bool,
    /// What is referred to.
    pub heap: HeapType,
}

impl RefType {
    /// `funcref`
    pub const FUNCREF: RefType = RefType { nullable: true, heap: HeapType::Func };
    /// `externref`
    pub const EXTERNREF: RefType = RefType { nullable: true, heap: HeapType::Extern };

    /// Whether a value of this type may stand where `other` is expected (core spec, 3.3.3).
    pub fn is_subtype_of(&self, other: &RefType) -> bool {
        let heap = match (self.heap, other.heap) {
            (a, b) if a == b => true,
            (HeapType::Concrete(_) | HeapType::NoFunc, HeapType::Func) => true,
            (HeapType::NoFunc, HeapType::Concrete(_)) => true,
            (HeapType::NoExtern, HeapType::Extern) => true,
            _ => false,
        };
        heap && (other.nullable || !self.nullable)
    }
}

/// A value type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum ValType {
    /// 32-bit integer
    I32,
    /// 64-bit integer
    I64,
    /// 32-bit IEEE 754 float
    F32,
    /// 64-bit IEEE 754 float
    F64,
    /// 128-bit vector
    V128,
    /// reference: 8 bytes, null is 0
    Ref(RefType),
}

impl ValType {
    /// Whether a value of this type may stand where `other` is expected.
    pub fn is_subtype_of(&self, other: &ValType) -> bool {
        match (self, other) {
            (ValType::Ref(a), ValType::Ref(b)) => a.is_subtype_of(b),
            (a, b) => a == b,
        }
    }

    /// Whether values travel in the floating-point/vector registers (System V psABI, 3.2.3).
    pub fn is_float_class(&self) -> bool {
        matches!(self, ValType::F32 | ValType::F64 | ValType::V128)
    }
}

impl fmt::Display for HeapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeapType::Func => f.write_str("func"),
            HeapType::Extern => f.write_str("extern"),
            HeapType::NoFunc => f.write_str("nofunc"),
            HeapType::NoExtern => f.write_str("noextern"),
            // As many digits as tell apart types that share an id.
            HeapType::Concrete(TypeHash([a, b, c, d, e, g, h, i, ..])) => {
                write!(f, "$type_{:016x}", u64::from_be_bytes([*a, *b, *c, *d, *e, *g, *h, *i]))
            }
        }
    }
}

impl fmt::Display for RefType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.nullable, self.heap) {
            (true, HeapType::Func) => f.write_str("funcref"),
            (true, HeapType::Extern) => f.write_str("externref"),
            (true, h) => write!(f, "(ref null {h})"),
            (false, h) => write!(f, "(ref {h})"),
        }
    }
}

impl fmt::Display for ValType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValType::I32 => f.write_str("i32"),
            ValType::I64 => f.write_str("i64"),
            ValType::F32 => f.write_str("f32"),
            ValType::F64 => f.write_str("f64"),
            ValType::V128 => f.write_str("v128"),
            ValType::Ref(r) => r.fmt(f),
        }
    }
}

/// A function type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct FuncType {
    /// Parameters, in order.
    pub params: Box<[ValType]>,
    /// Results, in order.
    pub results: Box<[ValType]>,
    /// Hash of the canonical structure.
    pub hash: TypeHash,
}

/// Integer registers for arguments (System V psABI, 3.2.3).
pub const INT_ARGS: usize = 6;
/// Vector registers for arguments.
pub const FLOAT_ARGS: usize = 8;
/// Integer and reference results in registers: `rax rcx rdx rsi rdi r8 r9 r10`.
pub const INT_RESULTS: usize = 8;
/// Float and vector results in registers: `xmm0`–`xmm7`.
pub const FLOAT_RESULTS: usize = 8;

impl FuncType {
    /// Whether every argument travels in a register and there is at most one result: then the wasm calling
    /// convention and C's are the same, and a body is its own native entry (docs/CELL_ABI.md).
    pub fn is_register_only(&self) -> bool {
        let floats = self.params.iter().filter(|p| p.is_float_class()).count();
        self.results.len() <= 1 && floats <= FLOAT_ARGS && self.params.len() - floats <= INT_ARGS
    }
}

impl fmt::Display for FuncType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, v: &[ValType]| {
            f.write_str("(")?;
            for (i, t) in v.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                t.fmt(f)?;
            }
            f.write_str(")")
        };
        list(f, &self.params)?;
        f.write_str(" -> ")?;
        list(f, &self.results)
    }
}

/// How accesses to a memory are kept inside it (D3). A property of the memory, checked at link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum MemoryStyle {
    /// 4 GiB of index space plus a guard are reserved; the MMU finds what is out of bounds.
    Guarded,
    /// Every access compares with the length in the descriptor.
    Checked,
}

/// A memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct MemoryType {
    /// Indices are 64-bit.
    pub is64: bool,
    /// Shared between tasks.
    pub shared: bool,
    /// Initial size in pages of `1 << page_size_log2` bytes.
    pub min: u64,
    /// Largest size in pages, if declared.
    pub max: Option<u64>,
    /// log2 of the page size in bytes: 16, or 0 for byte-granular memories (custom page sizes).
    pub page_size_log2: u32,
}

/// A table type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct TableType {
    /// Type of the elements.
    pub element: RefType,
    /// Indices are 64-bit.
    pub is64: bool,
    /// Initial number of elements.
    pub min: u64,
    /// Largest number of elements, if declared.
    pub max: Option<u64>,
}

/// A global type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct GlobalType {
    /// Type of the value.
    pub content: ValType,
    /// Whether it can be written.
    pub mutable: bool,
}

/// Type of an import or export.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum ExternType {
    /// a function
    Func(FuncType),
    /// a table
    Table(TableType),
    /// a memory
    Memory(MemoryType),
    /// a global
    Global(GlobalType),
}

impl fmt::Display for ExternType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExternType::Func(t) => write!(f, "func {t}"),
            ExternType::Table(t) => {
                write!(f, "table {}{}", if t.is64 { "i64 " } else { "" }, t.min)?;
                if let Some(m) = t.max {
                    write!(f, " {m}")?;
                }
                write!(f, " {}", t.element)
            }
            ExternType::Memory(t) => {
                write!(f, "memory {}{}", if t.is64 { "i64 " } else { "" }, t.min)?;
                if let Some(m) = t.max {
                    write!(f, " {m}")?;
                }
                if t.shared {
                    f.write_str(" shared")?;
                }
                if t.page_size_log2 != 16 {
                    write!(f, " (pagesize {})", 1u64 << t.page_size_log2)?;
                }
                Ok(())
            }
            ExternType::Global(t) if t.mutable => write!(f, "global (mut {})", t.content),
            ExternType::Global(t) => write!(f, "global {}", t.content),
        }
    }
}
