//! The frames of a WebSocket (RFC 6455 section 5.2) on their way down.
//!
//! A message is to be searched as a whole however it is cut into frames, and its last bytes must not
//! wait for the next one. So the frames are taken apart and made anew, which section 5.4 allows where
//! no extension is in use; the handshake sees to that. What is no frame at all is searched as bytes.

use super::buffer::Buffer;
use super::clean::Cleaner;
use super::failure::Failure;

/// The longest header of a frame that is not masked.
const HEADER: usize = 10;
const FIN: u8 = 0x80;

/// Where in the stream we are.
#[derive(Debug, Default)]
pub struct Frames {
    stage: Stage,
    /// The message that has begun.
    message: Option<Message>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Stage {
    #[default]
    Header,
    /// So much of a data frame is to come, and whether its message ends with it.
    Payload(u64, bool),
    /// The upstream speaks something else.
    Bytes,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    /// What the next frame of ours has as its opcode.
    opcode: u8,
}

/// One frame's header.
struct Header {
    first: u8,
    length: u64,
    size: usize,
}

impl Frames {
    /// Moves what has arrived as far as it may go; `end` says that no more will come.
    pub fn pass(
        &mut self,
        from: &mut Buffer,
        to: &mut Buffer,
        clean: &mut Cleaner,
        end: bool,
    ) -> Result<(), Failure> {
        loop {
            match self.stage {
                Stage::Bytes => {
                    let result = clean.pass(from.filled_mut(), end, |bytes| to.push(bytes));
                    from.consume(from.len());
                    return result;
                }
                Stage::Header => match header(from.filled()) {
                    Some(Ok(header)) if header.first & 8 != 0 => {
                        let whole = header.size + header.length as usize;
                        if from.len() < whole {
                            return Ok(());
                        }
                        // Control frames come between the frames of a message.
                        let frame = &mut from.filled_mut()[..whole];
                        clean.whole(&mut frame[header.size..])?;
                        to.push(frame);
                        from.consume(whole);
                    }
                    Some(Ok(header)) if self.follows(header.first & 15) => {
                        from.consume(header.size);
                        let opcode = header.first & 15;
                        self.message.get_or_insert(Message { opcode });
                        self.stage = Stage::Payload(header.length, header.first & FIN != 0);
                    }
                    None if !end => return Ok(()),
                    _ if self.message.is_some() && !from.is_empty() => {
                        return Err(Failure::Frames);
                    }
                    _ => self.stage = Stage::Bytes,
                },
                Stage::Payload(left, last) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(from.len());
                    let left = left - n as u64;
                    if n == 0 && left > 0 && !end {
                        return Ok(());
                    }
                    let over = left == 0 && last;
                    let opcode = self.message.map_or(0, |message| message.opcode);
                    let mut sent = false;
                    clean.pass(
                        &mut from.filled_mut()[..n],
                        over || (end && left > 0),
                        |bytes| {
                            push_frame(to, opcode, over, bytes);
                            sent = true;
                        },
                    )?;
                    from.consume(n);
                    if over && !sent {
                        push_frame(to, opcode, true, b"");
                    }
                    if sent {
                        self.message = Some(Message { opcode: 0 });
                    }
                    if over {
                        self.message = None;
                    }
                    if left > 0 && end {
                        return Ok(());
                    }
                    self.stage = if left == 0 {
                        Stage::Header
                    } else {
                        Stage::Payload(left, last)
                    };
                }
            }
        }
    }

    /// Whether a data frame may come now: the first of a message, or the next of one.
    fn follows(&self, opcode: u8) -> bool {
        (opcode == 0) == self.message.is_some()
    }
}

/// The header at the front; `None` when there is not enough of it, an error when it is none.
fn header(bytes: &[u8]) -> Option<Result<Header, ()>> {
    let first = *bytes.first()?;
    if first & 0x70 != 0 || !matches!(first & 15, 0..=2 | 8..=10) {
        return Some(Err(()));
    }
    let second = *bytes.get(1)?;
    let control = first & 8 != 0;
    if second & 0x80 != 0 || (control && (first & FIN == 0 || second > 125)) {
        return Some(Err(()));
    }
    let (length, size) = match second {
        126 => (
            u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
            4,
        ),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), HEADER),
        short => (short.into(), 2),
    };
    if length > i64::MAX as u64 {
        return Some(Err(()));
    }
    Some(Ok(Header {
        first,
        length,
        size,
    }))
}

fn push_frame(to: &mut Buffer, opcode: u8, last: bool, payload: &[u8]) {
    to.push(&[opcode | if last { FIN } else { 0 }]);
    match payload.len() {
        short @ 0..126 => to.push(&[short as u8]),
        len @ 126..65536 => {
            to.push(&[126]);
            to.push(&(len as u16).to_be_bytes());
        }
        len => {
            to.push(&[127]);
            to.push(&(len as u64).to_be_bytes());
        }
    }
    to.push(payload);
}
