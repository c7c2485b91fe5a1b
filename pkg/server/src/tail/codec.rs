//! WebSocket frames on a tail's socket, without buffers of their own: an idle tail costs what is in these structs.
//!
//! Invariants:
//! * What a client sends is read and forgotten, except control frames: of a ping its payload, of a close its code. Nothing a client
//!   sends makes memory grow; a message of more than [`MAX_CLIENT_MESSAGE`] bytes ends the tail.
//! * Frames of the protocol's version 13 without extensions only: client frames are masked, reserved bits are zero, control frames
//!   are whole and at most 125 bytes long.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest message of a client, in bytes.
pub(super) const MAX_CLIENT_MESSAGE: u64 = 64 << 10;

/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// Longest close reason: a control frame's payload without the code.
const MAX_REASON: usize = MAX_CONTROL - 2;

/// Longest head of a frame.
const MAX_HEADER: usize = 14;

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A ping, to be answered with its payload.
    Ping(Vec<u8>),
    /// A close, with its code if it had one.
    Close(Option<u16>),
    /// Something the protocol or this server does not allow.
    Violation(CloseCode, &'static str),
}

/// Reads a client's frames as bytes arrive, in any pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Bytes of the unfinished message.
    message: u64,
}

#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    remaining: u64,
    /// Payload so far, of control frames only.
    payload: Vec<u8>,
}

impl Reader {
    /// Takes bytes off `input`; answers what the client did, or `None` when all of `input` is used.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<Incoming> {
        loop {
            if self.frame.is_none() {
                let (&byte, rest) = input.split_first()?;
                *input = rest;
                self.header[self.header_len] = byte;
                self.header_len += 1;
                match self.parse_header() {
                    Ok(None) => continue,
                    Ok(frame) => self.frame = frame,
                    Err(why) => {
                        // What follows has no meaning any more.
                        (self.header_len, *input) = (0, &[]);
                        return Some(Incoming::Violation(CloseCode::Protocol, why));
                    }
                }
            }
            let frame = self.frame.as_mut()?;
            let n = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len());
            let (payload, rest) = input.split_at(n);
            *input = rest;
            frame.remaining -= n as u64;
            if let OpCode::Control(_) = frame.opcode {
                let at = frame.payload.len();
                frame.payload.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ frame.mask[(at + i) % 4]));
            }
            if frame.remaining > 0 {
                return None;
            }
            let frame = self.frame.take()?;
            if let Some(incoming) = self.finished(frame) {
                return Some(incoming);
            }
        }
    }

    /// The frame whose header is complete.
    fn parse_header(&mut self) -> Result<Option<Frame>, &'static str> {
        let parsed = FrameHeader::parse(&mut Cursor::new(&self.header[..self.header_len]));
        let Some((header, length)) = parsed.map_err(|_invalid| "malformed frame")? else {
            // A complete header is never longer than this; the parser has answered by then.
            return if self.header_len < MAX_HEADER { Ok(None) } else { Err("malformed frame") };
        };
        self.header_len = 0;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err("reserved bits are set");
        }
        let mask = header.mask.ok_or("client frames must be masked")?;
        match header.opcode {
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => return Err("reserved opcode"),
            OpCode::Control(_) if !header.is_final || length > MAX_CONTROL as u64 => {
                return Err("control frames are whole and short");
            }
            OpCode::Control(_) => {}
            OpCode::Data(_) => self.message = self.message.saturating_add(length),
        }
        let FrameHeader { is_final, opcode, .. } = header;
        Ok(Some(Frame { opcode, is_final, mask, remaining: length, payload: Vec::new() }))
    }

    fn finished(&mut self, frame: Frame) -> Option<Incoming> {
        match frame.opcode {
            OpCode::Control(Control::Ping) => Some(Incoming::Ping(frame.payload)),
            OpCode::Control(Control::Close) => Some(close_of(&frame.payload)),
            OpCode::Control(_) => None,
            OpCode::Data(_) => {
                let size = self.message;
                if frame.is_final {
                    self.message = 0;
                }
                (size > MAX_CLIENT_MESSAGE)
                    .then_some(Incoming::Violation(CloseCode::Size, "messages to a tail are limited to 65536 bytes"))
            }
        }
    }
}

fn close_of(payload: &[u8]) -> Incoming {
    match payload {
        [] => Incoming::Close(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() || std::str::from_utf8(reason).is_err() {
                return Incoming::Violation(CloseCode::Protocol, "malformed close frame");
            }
            Incoming::Close(Some(code))
        }
        [_] => Incoming::Violation(CloseCode::Protocol, "malformed close frame"),
    }
}

/// The head of a whole server frame.
pub(super) fn header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to memory does not fail.
    let _written = header.format(length as u64, out);
}

/// A ping without payload, as Loki sends it.
pub(super) fn ping(out: &mut Vec<u8>) {
    header(OpCode::Control(Control::Ping), 0, out);
}

/// The answer to a ping.
pub(super) fn pong(payload: &[u8], out: &mut Vec<u8>) {
    header(OpCode::Control(Control::Pong), payload.len(), out);
    out.extend_from_slice(payload);
}

/// A close with a code and a reason, cut to what a control frame can carry.
pub(super) fn close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    header(OpCode::Control(Control::Close), 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// A close without code or reason.
pub(super) fn close_empty(out: &mut Vec<u8>) {
    header(OpCode::Control(Control::Close), 0, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame with an arbitrary mask.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | n as u8),
            n @ 126..65536 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        out
    }

    fn read(bytes: &[u8], piece: usize) -> Vec<Incoming> {
        let mut reader = Reader::default();
        let mut all = Vec::new();
        for mut chunk in bytes.chunks(piece) {
            while let Some(incoming) = reader.next(&mut chunk) {
                all.push(incoming);
            }
        }
        all
    }

    #[test]
    fn frames_are_read_in_any_pieces() {
        let bytes = [
            frame(0x81, b"ignored text"),
            frame(0x89, b"are you there"),
            frame(0x01, &[b'x'; 300]),
            frame(0x89, b""),
            frame(0x80, &[b'y'; 70]),
            frame(0x8a, b"pong"),
            frame(0x82, &[0; 65_536]),
            frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']),
        ]
        .concat();
        let wanted =
            [Incoming::Ping(b"are you there".to_vec()), Incoming::Ping(Vec::new()), Incoming::Close(Some(1000))];
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            assert_eq!(read(&bytes, piece), wanted, "pieces of {piece}");
        }
        assert_eq!(read(&frame(0x88, b""), 1), [Incoming::Close(None)]);
    }

    #[test]
    fn violations_are_named() {
        let violation = |bytes: &[u8]| match read(bytes, 5).first() {
            Some(Incoming::Violation(code, _)) => Some(u16::from(*code)),
            other => panic!("{other:?}"),
        };
        assert_eq!(violation(&[0x81, 0x01, b'x', 0, 0, 0, 0]), Some(1002), "not masked");
        assert_eq!(violation(&frame(0xc1, b"x")), Some(1002), "compressed");
        assert_eq!(violation(&frame(0x83, b"x")), Some(1002), "reserved opcode");
        assert_eq!(violation(&frame(0x09, b"x")), Some(1002), "ping in pieces");
        assert_eq!(violation(&frame(0x89, &[0; 126])), Some(1002), "long ping");
        assert_eq!(violation(&frame(0x88, &[3])), Some(1002), "half a code");
        assert_eq!(violation(&frame(0x88, &[0x03, 0xed])), Some(1002), "code 1005");
        assert_eq!(violation(&frame(0x82, &[0; 65_537])), Some(1009), "too long");
        let pieces = [frame(0x01, &[0; 40_000]), frame(0x80, &[0; 40_000])].concat();
        assert_eq!(violation(&pieces), Some(1009), "too long in pieces");
    }

    #[test]
    fn server_frames_have_the_wire_form() {
        let mut out = Vec::new();
        ping(&mut out);
        assert_eq!(out, [0x89, 0]);
        out.clear();
        pong(b"ab", &mut out);
        assert_eq!(out, [0x8a, 2, b'a', b'b']);
        out.clear();
        header(OpCode::Data(Data::Text), 200, &mut out);
        assert_eq!(out, [0x81, 126, 0, 200]);
        out.clear();
        close(1011, "bye", &mut out);
        assert_eq!(out, [0x88, 5, 0x03, 0xf3, b'b', b'y', b'e']);
        out.clear();
        close_empty(&mut out);
        assert_eq!(out, [0x88, 0]);
        for reason in ["x".repeat(500), "é".repeat(100), "€".repeat(100)] {
            out.clear();
            close(1011, &reason, &mut out);
            let sent = std::str::from_utf8(&out[4..]).unwrap();
            assert!(reason.starts_with(sent) && (121..=123).contains(&sent.len()), "{}", sent.len());
        }
    }

    proptest::proptest! {
        /// Whatever a client sends, in whatever pieces: no panic, nothing kept but what a control frame may hold.
        #[test]
        fn any_bytes_are_read_in_bounded_memory(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            piece in 1usize..40,
        ) {
            let mut reader = Reader::default();
            for mut chunk in bytes.chunks(piece) {
                while let Some(incoming) = reader.next(&mut chunk) {
                    if let Incoming::Ping(payload) = incoming {
                        assert!(payload.len() <= MAX_CONTROL);
                    }
                }
                assert!(chunk.is_empty() && reader.header_len < MAX_HEADER);
                assert!(reader.frame.as_ref().is_none_or(|frame| frame.payload.len() <= MAX_CONTROL));
            }
        }
    }
}
