//! Files over a serial line: the receiver of the YMODEM batch protocol (C. Forsberg, "XMODEM/YMODEM Protocol Reference", 1988).
//!
//! `sb FILE…` of lrzsz sends, as do most terminal programs. Blocks of 128 or 1024 bytes with a CRC of 16 bits, each acknowledged;
//! a first block with number 0 gives name and length, an empty one ends the batch.

use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const EOT: u8 = 0x04;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;
const CAN: u8 = 0x18;
/// Asks for a block with a CRC.
const WANT_CRC: u8 = b'C';
/// Control-C, from somebody who does not want to wait any more.
const INTERRUPT: u8 = 0x03;

/// Times that the sender is asked to begin, each [`PAUSE`].
const INVITATIONS: u32 = 20;
const PAUSE: Duration = Duration::from_secs(3);
/// Silence within a block that ends it.
const SILENCE: Duration = Duration::from_secs(1);
/// Bad blocks in a row that end the transfer.
const ERRORS: u32 = 10;

/// The line to the sender.
pub trait Line {
    /// The next byte, if it comes in time.
    fn receive(&mut self, within: Duration) -> Option<u8>;

    /// Sends a byte.
    fn send(&mut self, byte: u8);
}

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferError {
    /// Nobody sends. Start the sender within a minute.
    Silent,
    /// The sender, or who waits for it, gave up.
    Cancelled,
    /// The line is too bad, or the sender speaks another protocol.
    Garbled,
    /// A file is larger than allowed (bytes).
    TooLarge(usize),
    /// No memory for a file.
    NoMemory,
    /// The sender lost blocks, or ended before the length it said.
    Incomplete,
    /// A file has no name, or none in UTF-8.
    BadName,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("nobody sends; start the sender (`sb FILE`) within a minute"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Garbled => f.write_str("too many bad blocks"),
            Self::TooLarge(limit) => write!(f, "larger than the {limit} bytes there is room for"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::Incomplete => f.write_str("the sender ended before the file did"),
            Self::BadName => f.write_str("the file has no name"),
        }
    }
}

impl core::error::Error for TransferError {}

/// A file that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, as the sender has it.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Receives a batch of files, each of at most `limit` bytes.
///
/// # Errors
/// The transfer ended before the batch did; the sender is told, and what it sends until it is silent is dropped.
pub fn receive(line: &mut dyn Line, limit: usize) -> Result<Vec<File>, TransferError> {
    let mut files = Vec::new();
    let outcome = loop {
        match file(line, limit, files.is_empty()) {
            Ok(Some(file)) => files.push(file),
            Ok(None) => break Ok(files),
            Err(error) => break Err(error),
        }
    };
    if outcome.is_err() {
        (0..4).for_each(|_| line.send(CAN));
        // It has ended already.
        let _ = drain(line);
    }
    outcome
}

/// What arrives in the place of a block.
enum Arrival {
    Block { number: u8, data: Vec<u8> },
    End,
    Bad,
    Nothing,
}

/// Receives one file; `None` at the end of the batch.
fn file(line: &mut dyn Line, limit: usize, first: bool) -> Result<Option<File>, TransferError> {
    let header = header(line, if first { INVITATIONS } else { ERRORS })?;
    let name = header.split(|b| *b == 0).next().unwrap_or_default();
    if name.is_empty() {
        line.send(ACK);
        return Ok(None);
    }
    let rest = header.get(name.len() + 1..).unwrap_or_default();
    let digits: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_digit).collect();
    let length = match &digits[..] {
        [] => None,
        // What does not fit is larger than anything.
        digits => Some(core::str::from_utf8(digits).ok().and_then(|d| d.parse::<usize>().ok()).unwrap_or(usize::MAX)),
    };
    let name = core::str::from_utf8(name).map_err(|_| TransferError::BadName)?;
    if length.is_some_and(|length| length > limit) {
        return Err(TransferError::TooLarge(limit));
    }
    let mut content = Vec::new();
    content.try_reserve_exact(length.unwrap_or(0)).map_err(|_| TransferError::NoMemory)?;
    line.send(ACK);
    line.send(WANT_CRC);
    blocks(line, limit, length, &mut content)?;
    match length {
        Some(length) if content.len() < length => Err(TransferError::Incomplete),
        // The last block is padded.
        Some(length) => {
            content.truncate(length);
            Ok(Some(File { name: name.into(), content }))
        }
        None => Ok(Some(File { name: name.into(), content })),
    }
}

/// The block that says what comes.
fn header(line: &mut dyn Line, times: u32) -> Result<Vec<u8>, TransferError> {
    let mut garbled = false;
    for _ in 0..times {
        line.send(WANT_CRC);
        match arrival(line, PAUSE)? {
            Arrival::Block { number: 0, data } => return Ok(data),
            Arrival::Nothing => {}
            // The end of the file before was acknowledged, and the sender has not heard it.
            Arrival::End => line.send(ACK),
            Arrival::Block { .. } | Arrival::Bad => {
                garbled = true;
                drain(line)?;
            }
        }
    }
    Err(if garbled { TransferError::Garbled } else { TransferError::Silent })
}

/// The blocks with the content, up to and with the end of the file.
fn blocks(
    line: &mut dyn Line,
    limit: usize,
    length: Option<usize>,
    content: &mut Vec<u8>,
) -> Result<(), TransferError> {
    let (mut expected, mut errors) = (1u8, 0);
    while errors < ERRORS {
        match arrival(line, PAUSE)? {
            Arrival::Block { number, data } if number == expected => {
                let wanted = length.map_or(data.len(), |l| data.len().min(l.saturating_sub(content.len())));
                if wanted > limit.saturating_sub(content.len()) {
                    return Err(TransferError::TooLarge(limit));
                }
                content.try_reserve(wanted).map_err(|_| TransferError::NoMemory)?;
                content.extend_from_slice(&data[..wanted]);
                expected = expected.wrapping_add(1);
                errors = 0;
                line.send(ACK);
            }
            // The sender has not heard that it arrived.
            Arrival::Block { number, .. } if number == expected.wrapping_sub(1) => {
                errors += 1;
                line.send(ACK);
            }
            Arrival::Block { .. } => return Err(TransferError::Incomplete),
            Arrival::End => {
                line.send(ACK);
                return Ok(());
            }
            Arrival::Bad | Arrival::Nothing => {
                errors += 1;
                drain(line)?;
                line.send(NAK);
            }
        }
    }
    Err(TransferError::Garbled)
}

fn arrival(line: &mut dyn Line, within: Duration) -> Result<Arrival, TransferError> {
    let size = match line.receive(within) {
        Some(SOH) => 128,
        Some(STX) => 1024,
        Some(EOT) => return Ok(Arrival::End),
        Some(INTERRUPT) => return Err(TransferError::Cancelled),
        // One alone may be noise.
        Some(CAN) if line.receive(SILENCE) == Some(CAN) => return Err(TransferError::Cancelled),
        Some(_) => return Ok(Arrival::Bad),
        None => return Ok(Arrival::Nothing),
    };
    let mut block = Vec::new();
    block.try_reserve_exact(size + 4).map_err(|_| TransferError::NoMemory)?;
    while block.len() < size + 4 {
        match line.receive(SILENCE) {
            Some(byte) => block.push(byte),
            None => return Ok(Arrival::Bad),
        }
    }
    let (number, complement) = (block[0], block[1]);
    // With its own CRC behind it the CRC of what is right is 0.
    if number != !complement || crc(&block[2..]) != 0 {
        return Ok(Arrival::Bad);
    }
    block.truncate(size + 2);
    block.drain(..2);
    Ok(Arrival::Block { number, data: block })
}

/// Lets pass what is sent until there is silence.
///
/// # Errors
/// Nothing but Control-C came, which is somebody who gives up.
fn drain(line: &mut dyn Line) -> Result<(), TransferError> {
    /// No block and no answer to one is longer.
    const MOST: usize = 1 << 16;
    let (mut passed, mut interrupts) = (0, 0);
    while passed < MOST {
        let Some(byte) = line.receive(SILENCE / 4) else { break };
        passed += 1;
        interrupts += usize::from(byte == INTERRUPT);
    }
    if passed > 0 && interrupts == passed { Err(TransferError::Cancelled) } else { Ok(()) }
}

/// CRC-16 with the polynomial x^16 + x^12 + x^5 + 1, as XMODEM has it.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |c, _| if c & 0x8000 != 0 { c << 1 ^ 0x1021 } else { c << 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, vec, vec::Vec};

    /// A sender that answers what it is sent by a script: its next piece after each answer of the receiver.
    struct Script {
        pieces: VecDeque<Vec<u8>>,
        coming: VecDeque<u8>,
        sent: Vec<u8>,
    }

    impl Script {
        fn new(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
            Self { pieces: pieces.into_iter().collect(), coming: VecDeque::new(), sent: Vec::new() }
        }
    }

    impl Line for Script {
        fn receive(&mut self, _within: Duration) -> Option<u8> {
            self.coming.pop_front()
        }

        fn send(&mut self, byte: u8) {
            self.sent.push(byte);
            // An acknowledgement before an invitation asks for nothing by itself.
            if [ACK, NAK, WANT_CRC].contains(&byte) {
                self.coming.extend(self.pieces.pop_front().unwrap_or_default());
            }
        }
    }

    fn block(number: u8, data: &[u8]) -> Vec<u8> {
        let size = if data.len() <= 128 { 128 } else { 1024 };
        let mut data = data.to_vec();
        data.resize(size, if number == 0 { 0 } else { 0x1a });
        let crc = crc(&data).to_be_bytes();
        [&[if size == 128 { SOH } else { STX }, number, !number][..], &data, &crc].concat()
    }

    /// The pieces that send one file; the piece behind the header's acknowledgement is empty.
    fn file(name: &str, content: &[u8]) -> Vec<Vec<u8>> {
        let header = std::format!("{name}\0{} 0 100644\0", content.len());
        let mut pieces = vec![block(0, header.as_bytes()), vec![]];
        pieces.extend(content.chunks(1024).enumerate().map(|(i, data)| block((i + 1) as u8, data)));
        pieces.push(vec![EOT]);
        pieces.push(vec![]);
        pieces
    }

    fn batch(files: &[(&str, &[u8])]) -> Vec<Vec<u8>> {
        let mut pieces: Vec<Vec<u8>> = files.iter().flat_map(|(name, content)| file(name, content)).collect();
        pieces.push(block(0, &[]));
        pieces
    }

    #[test]
    fn a_batch_of_files_arrives_as_it_was_sent() {
        let long: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
        let files: [(&str, &[u8]); 3] = [("a.wasm", b"\0asm\x01\0\0\0"), ("empty", b""), ("long", &long)];
        let got = receive(&mut Script::new(batch(&files)), 1 << 20).unwrap();
        assert_eq!(got.iter().map(|f| (&f.name[..], &f.content[..])).collect::<Vec<_>>(), files);
    }

    #[test]
    fn bad_blocks_are_asked_for_again_and_repeated_ones_count_once() {
        let mut pieces = batch(&[("a", &[7; 2000])]);
        let mut damaged = pieces[2].clone();
        damaged[500] ^= 1;
        pieces.insert(2, damaged);
        pieces.insert(4, pieces[3].clone());
        pieces.insert(5, pieces[3][..200].to_vec());
        let mut script = Script::new(pieces);
        let got = receive(&mut script, 4096).unwrap();
        assert_eq!(got[0].content, [7; 2000]);
        assert_eq!(script.sent.iter().filter(|b| **b == NAK).count(), 2);
    }

    #[test]
    fn every_way_to_fail_is_an_error_and_the_sender_is_told() {
        let lost: Vec<_> =
            batch(&[("a", &[7; 5000])]).into_iter().enumerate().filter(|(i, _)| *i != 3).map(|p| p.1).collect();
        let mut short = batch(&[("a", &[7; 5000])]);
        short.drain(4..7);
        let cases = [
            (vec![], TransferError::Silent),
            (vec![vec![INTERRUPT]], TransferError::Cancelled),
            (vec![block(0, b"a\x0010"), vec![], vec![CAN, CAN]], TransferError::Cancelled),
            (vec![b"nonsense".to_vec()], TransferError::Garbled),
            (batch(&[("a", &[0; 5001])]), TransferError::TooLarge(5000)),
            (vec![block(0, b"a\0"), vec![], block(1, &[0; 1024]), block(2, &[0; 1024])], TransferError::Garbled),
            (lost, TransferError::Incomplete),
            (short, TransferError::Incomplete),
            (vec![block(0, b"\xff\x0010")], TransferError::BadName),
            (vec![block(0, b"a\x0099999999999999999999999")], TransferError::TooLarge(5000)),
        ];
        for (pieces, error) in cases {
            let mut script = Script::new(pieces);
            assert_eq!(receive(&mut script, 5000), Err(error));
            assert_eq!(script.sent[script.sent.len() - 4..], [CAN; 4]);
        }
    }

    #[test]
    fn control_c_gives_up_wherever_the_sender_has_stopped() {
        /// Bytes with silences between.
        struct Bytes(VecDeque<Option<u8>>);
        impl Line for Bytes {
            fn receive(&mut self, _within: Duration) -> Option<u8> {
                self.0.pop_front().flatten()
            }
            fn send(&mut self, _byte: u8) {}
        }
        let sent = [block(0, b"a\x00300"), block(1, &[7; 128]), vec![EOT; 1]].concat();
        for stop in 0..sent.len() {
            let bytes = sent[..stop].iter().map(|b| Some(*b));
            let mut line = Bytes(bytes.chain([None, Some(INTERRUPT), None]).chain(vec![Some(b'?'); 9999]).collect());
            assert_eq!(receive(&mut line, 5000), Err(TransferError::Cancelled), "behind {stop} bytes");
        }
    }

    #[test]
    fn a_file_of_unknown_length_keeps_to_the_limit() {
        let pieces = |blocks: u8| {
            let data = (1..=blocks).map(|i| block(i, &[i; 1024]));
            [block(0, b"a\0"), vec![]].into_iter().chain(data).chain([vec![EOT], vec![], block(0, &[])])
        };
        assert_eq!(receive(&mut Script::new(pieces(4)), 4096).unwrap()[0].content.len(), 4096);
        assert_eq!(receive(&mut Script::new(pieces(5)), 4096), Err(TransferError::TooLarge(4096)));
    }
}
