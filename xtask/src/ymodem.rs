//! Sends files to the kernel over its serial line: the sender of the YMODEM batch protocol, whose receiver is `nano_core::ymodem`.

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const EOT: u8 = 0x04;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;
const WANT_CRC: u8 = b'C';

/// A transfer that goes on with each byte of the receiver's.
#[derive(Debug)]
pub struct Sender {
    pieces: Vec<Piece>,
    /// How many of them were sent.
    sent: usize,
    /// The last one was acknowledged, but the next needs an invitation.
    acknowledged: bool,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// Sent only when the receiver asks for a block, not when it acknowledges the one before.
    invited: bool,
}

impl Sender {
    /// A batch of files by name and content.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let mut pieces = Vec::new();
        for (name, content) in files {
            pieces.push(Piece { bytes: block(0, format!("{name}\0{}", content.len()).as_bytes()), invited: true });
            for (i, data) in content.chunks(1024).enumerate() {
                pieces.push(Piece { bytes: block((i + 1) as u8, data), invited: i == 0 });
            }
            pieces.push(Piece { bytes: vec![EOT], invited: content.is_empty() });
        }
        pieces.push(Piece { bytes: block(0, &[]), invited: true });
        Self { pieces, sent: 0, acknowledged: true }
    }

    /// What to send when the receiver has sent this byte.
    pub fn answer(&mut self, byte: u8) -> Option<&[u8]> {
        let next = self.pieces.get(self.sent)?;
        match byte {
            ACK if !self.acknowledged => {
                self.acknowledged = true;
                if next.invited {
                    return None;
                }
            }
            WANT_CRC if self.acknowledged && next.invited => {}
            NAK => return self.pieces.get(self.sent.checked_sub(1)?).map(|piece| &piece.bytes[..]),
            _ => return None,
        }
        self.sent += 1;
        self.acknowledged = false;
        Some(&next.bytes)
    }
}

/// A block of 128 or 1024 bytes.
fn block(number: u8, data: &[u8]) -> Vec<u8> {
    let (start, size) = if data.len() <= 128 { (SOH, 128) } else { (STX, 1024) };
    let mut padded = data.to_vec();
    padded.resize(size, if number == 0 { 0 } else { 0x1a });
    let check = crc(&padded).to_be_bytes();
    [&[start, number, !number][..], &padded, &check].concat()
}

/// CRC-16 with the polynomial x^16 + x^12 + x^5 + 1.
fn crc(bytes: &[u8]) -> u16 {
    let step = |c: u16, _| if c & 0x8000 != 0 { c << 1 ^ 0x1021 } else { c << 1 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ u16::from(*byte) << 8, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nano_core::ymodem::{Line, receive};
    use std::{collections::VecDeque, time::Duration};

    /// A line on which every n-th byte is damaged; 0: none.
    struct Wire {
        sender: Sender,
        coming: VecDeque<u8>,
        damage: usize,
        count: usize,
    }

    impl Line for Wire {
        fn receive(&mut self, _within: Duration) -> Option<u8> {
            let byte = self.coming.pop_front()?;
            self.count += 1;
            let damaged = self.damage > 0 && self.count.is_multiple_of(self.damage);
            Some(if damaged { byte ^ 0x10 } else { byte })
        }

        fn send(&mut self, byte: u8) {
            self.coming.extend(self.sender.answer(byte).unwrap_or_default());
        }
    }

    #[test]
    fn the_kernels_receiver_gets_what_is_sent_over_a_good_and_a_bad_line() {
        let long: Vec<u8> = (0..50_000u32).map(|i| (i * i) as u8).collect();
        let files: [(&str, &[u8]); 4] = [("a.wasm", b"12345"), ("empty", b""), ("long", &long), ("b", b"6")];
        for damage in [0, 3001, 6007] {
            let mut wire = Wire { sender: Sender::new(&files), coming: VecDeque::new(), damage, count: 0 };
            let got = receive(&mut wire, 1 << 20).unwrap();
            assert_eq!(got.iter().map(|f| (&f.name[..], &f.content[..])).collect::<Vec<_>>(), files, "{damage}");
        }
    }
}
