//! The guest's linear memory, as WASI functions see it: bounds-checked little-endian accesses.

use super::Errno;

/// Longest buffer that one call moves; longer ones are moved in part, as the interface allows.
pub const CHUNK: usize = 1 << 20;
/// Most buffers that one call takes (Linux's `IOV_MAX`).
pub const MAX_BUFFERS: u32 = 1024;
/// Longest path; the host takes no longer one (Linux's `PATH_MAX`).
pub const MAX_PATH: u32 = 4096;

/// Memory of the calling cell.
pub trait GuestMemory {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// Fills `into` from `address` on; `Fault` if that leaves the memory.
    fn read(&self, address: u32, into: &mut [u8]) -> Result<(), Errno>;
    /// Stores `bytes` at `address`; `Fault` if that leaves the memory.
    fn write(&mut self, address: u32, bytes: &[u8]) -> Result<(), Errno>;
}

/// A `(address, length)` pair of the guest.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// First byte.
    pub address: u32,
    /// Number of bytes.
    pub length: u32,
}

impl dyn GuestMemory + '_ {
    /// Loads 4 bytes.
    pub fn u32_at(&self, address: u32) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Stores 4 bytes.
    pub fn put_u32(&mut self, address: u32, value: u32) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }

    /// Stores 8 bytes.
    pub fn put_u64(&mut self, address: u32, value: u64) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }

    /// Copies a range of the guest out.
    pub fn bytes(&self, address: u32, length: u32) -> Result<Vec<u8>, Errno> {
        if u64::from(address) + u64::from(length) > self.size() {
            return Err(Errno::Fault);
        }
        let mut bytes = vec![0; length as usize];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// A path or name argument.
    pub fn string(&self, address: u32, length: u32) -> Result<String, Errno> {
        if length > MAX_PATH {
            return Err(Errno::NameTooLong);
        }
        let bytes = self.bytes(address, length)?;
        if bytes.contains(&0) {
            return Err(Errno::Invalid);
        }
        String::from_utf8(bytes).map_err(|_| Errno::IllegalSequence)
    }

    /// An array of `(address, length)` pairs, every range checked, cut to `CHUNK` bytes in all.
    pub fn buffers(&self, address: u32, count: u32) -> Result<Vec<Buffer>, Errno> {
        if count > MAX_BUFFERS {
            return Err(Errno::Invalid);
        }
        let mut left = CHUNK as u32;
        let mut buffers = Vec::with_capacity(count as usize);
        for i in 0..count {
            let at = address.checked_add(8 * i).ok_or(Errno::Fault)?;
            let (start, length) = (self.u32_at(at)?, self.u32_at(at.checked_add(4).ok_or(Errno::Fault)?)?);
            if u64::from(start) + u64::from(length) > self.size() {
                return Err(Errno::Fault);
            }
            let length = length.min(left);
            left -= length;
            buffers.push(Buffer { address: start, length });
        }
        Ok(buffers)
    }

    /// The bytes that an array of buffers holds.
    pub fn gather(&self, buffers: &[Buffer]) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        for b in buffers {
            let start = bytes.len();
            bytes.resize(start + b.length as usize, 0);
            self.read(b.address, &mut bytes[start..])?;
        }
        Ok(bytes)
    }

    /// Spreads bytes over an array of buffers.
    pub fn scatter(&mut self, buffers: &[Buffer], mut bytes: &[u8]) -> Result<(), Errno> {
        for b in buffers {
            let (now, later) = bytes.split_at(bytes.len().min(b.length as usize));
            self.write(b.address, now)?;
            bytes = later;
        }
        Ok(())
    }
}

/// Number of bytes that an array of buffers holds.
pub fn total(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|b| b.length as usize).sum()
}
