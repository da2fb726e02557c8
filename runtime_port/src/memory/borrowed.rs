//! Typed views that own their mapping (Theseus: `BorrowedMappedPages`, `BorrowedSliceMappedPages`).
//!
//! The check of range, alignment and flags is made once, when the mapping is given up for the view.

use super::{FromBytes, MappedPages, MemoryError};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// Whether a view can be written.
pub trait Mutability: private::Sealed {}

/// A view that is read only.
#[derive(Debug)]
pub struct Immutable;

/// A view that can be written.
#[derive(Debug)]
pub struct Mutable;

impl Mutability for Immutable {}
impl Mutability for Mutable {}

mod private {
    pub trait Sealed {}
    impl Sealed for super::Immutable {}
    impl Sealed for super::Mutable {}
}

/// A `T` in a mapping, with the mapping.
#[derive(Debug)]
pub struct BorrowedMappedPages<T: FromBytes, M: Mutability> {
    slice: BorrowedSliceMappedPages<T, M>,
}

/// A `[T]` in a mapping, with the mapping.
#[derive(Debug)]
pub struct BorrowedSliceMappedPages<T: FromBytes, M: Mutability> {
    pages: MappedPages,
    offset: usize,
    length: usize,
    _kind: PhantomData<(fn() -> T, M)>,
}

/// A mapping that was not given up, and why.
type Refused = (MemoryError, MappedPages);

impl MappedPages {
    /// Gives the mapping up for a view of the `T` at `offset`.
    pub fn into_borrowed<T: FromBytes>(self, offset: usize) -> Result<BorrowedMappedPages<T, Immutable>, Refused> {
        Ok(BorrowedMappedPages { slice: self.into_borrowed_slice(offset, 1)? })
    }

    /// Gives the mapping up for a writable view of the `T` at `offset`.
    pub fn into_borrowed_mut<T: FromBytes>(self, offset: usize) -> Result<BorrowedMappedPages<T, Mutable>, Refused> {
        Ok(BorrowedMappedPages { slice: self.into_borrowed_slice_mut(offset, 1)? })
    }

    /// Gives the mapping up for a view of `length` elements from `offset` on.
    pub fn into_borrowed_slice<T: FromBytes>(
        self,
        offset: usize,
        length: usize,
    ) -> Result<BorrowedSliceMappedPages<T, Immutable>, Refused> {
        match self.as_slice::<T>(offset, length).map(|_| ()) {
            Ok(()) => Ok(BorrowedSliceMappedPages { pages: self, offset, length, _kind: PhantomData }),
            Err(e) => Err((e, self)),
        }
    }

    /// Gives the mapping up for a writable view of `length` elements from `offset` on.
    pub fn into_borrowed_slice_mut<T: FromBytes>(
        mut self,
        offset: usize,
        length: usize,
    ) -> Result<BorrowedSliceMappedPages<T, Mutable>, Refused> {
        match self.as_slice_mut::<T>(offset, length).map(|_| ()) {
            Ok(()) => Ok(BorrowedSliceMappedPages { pages: self, offset, length, _kind: PhantomData }),
            Err(e) => Err((e, self)),
        }
    }
}

/// The check was made when the view was made, and neither the pages nor their flags change while it owns them.
const CHECKED: &str = "range, alignment and flags were checked when the view was made";

impl<T: FromBytes, M: Mutability> BorrowedSliceMappedPages<T, M> {
    /// The mapping back.
    pub fn into_inner(self) -> MappedPages {
        self.pages
    }
}

impl<T: FromBytes, M: Mutability> Deref for BorrowedSliceMappedPages<T, M> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.pages.as_slice(self.offset, self.length).expect(CHECKED)
    }
}

impl<T: FromBytes> DerefMut for BorrowedSliceMappedPages<T, Mutable> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.pages.as_slice_mut(self.offset, self.length).expect(CHECKED)
    }
}

impl<T: FromBytes, M: Mutability> BorrowedMappedPages<T, M> {
    /// The mapping back.
    pub fn into_inner(self) -> MappedPages {
        self.slice.into_inner()
    }
}

impl<T: FromBytes, M: Mutability> Deref for BorrowedMappedPages<T, M> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.slice[0]
    }
}

impl<T: FromBytes> DerefMut for BorrowedMappedPages<T, Mutable> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.slice[0]
    }
}
