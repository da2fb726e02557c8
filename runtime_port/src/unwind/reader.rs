//! Reads bytes of unwind info, never beyond their end.
#![deny(unsafe_code)]

/// Pointer encodings (LSB 5.0 Core, 10.5): the format in the low half, the application in bits 4 to 6.
pub(super) mod encoding {
    pub const ABSOLUTE: u8 = 0x00;
    pub const PC_RELATIVE: u8 = 0x10;
    pub const DATA_RELATIVE: u8 = 0x30;
    pub const APPLICATION: u8 = 0x70;
    /// What is read is the address of the pointer.
    pub const INDIRECT: u8 = 0x80;
    /// No pointer at all.
    pub const OMIT: u8 = 0xff;
}

/// A place in unwind info that is mapped at `address`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    address: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], address: usize, at: usize) -> Reader<'a> {
        Reader { bytes, address, at }
    }

    /// Another place in the same bytes.
    pub fn at_offset(reader: Reader<'a>, at: usize) -> Reader<'a> {
        Reader { at, ..reader }
    }

    /// Offset of what is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The same place, where nothing at or behind offset `end` can be read. `None` if the end lies outside.
    pub fn until(&self, end: usize) -> Option<Reader<'a>> {
        Some(Reader { bytes: self.bytes.get(..end).filter(|_| self.at <= end)?, ..*self })
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let bytes = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(bytes)
    }

    /// The next `length` bytes.
    pub fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub fn sleb(&mut self) -> Option<i64> {
        let mut value = 0i64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64u32.saturating_sub(shift + 7);
                return Some(if byte & 0x40 != 0 { value << unused >> unused } else { value });
            }
        }
        None
    }

    /// The bytes up to a zero, which is skipped.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|b| *b == 0)?;
        self.at += length + 1;
        rest.get(..length)
    }

    /// A number in the format of a pointer encoding; signed ones wrap.
    #[inline]
    pub fn number(&mut self, encoding: u8) -> Option<usize> {
        // Nearly all are these.
        if encoding & 0x0f == 0x0b {
            return Some(i32::from_le_bytes(self.take()?) as usize);
        }
        self.other_number(encoding)
    }

    fn other_number(&mut self, encoding: u8) -> Option<usize> {
        Some(match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => self.u64()? as usize,
            0x01 => self.uleb()? as usize,
            0x02 => usize::from(self.u16()?),
            0x03 => self.u32()? as usize,
            0x09 => self.sleb()? as usize,
            0x0a => i16::from_le_bytes(self.take()?) as usize,
            _ => return None,
        })
    }

    /// A pointer as its encoding says, but for following an indirect one. A zero stands for null whatever the encoding.
    #[inline]
    pub fn pointer(&mut self, encoding: u8, data_base: usize) -> Option<usize> {
        let place = self.address.wrapping_add(self.at);
        let base = match encoding & encoding::APPLICATION {
            encoding::ABSOLUTE => 0,
            encoding::PC_RELATIVE => place,
            encoding::DATA_RELATIVE => data_base,
            _ => return None,
        };
        match self.number(encoding)? {
            0 => Some(0),
            n => Some(base.wrapping_add(n)),
        }
    }
}
