//! Bytes on their way: filled at one end, consumed at the other, grown only while much flows.

use zeroize::Zeroize;

/// What a buffer starts with: enough for the head and body of a small message.
pub const SMALL: usize = 16 * 1024;
/// What it may grow to while a large body flows.
pub const LARGE: usize = 256 * 1024;

/// A growable byte buffer.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read took all the room it was given.
    flooded: bool,
}

impl Buffer {
    /// What has been filled and not consumed yet.
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The same, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `n` bytes off the front.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room behind the filled bytes, at least `want` bytes of it.
    pub fn spare(&mut self, want: usize) -> &mut [u8] {
        if self.data.len() - self.end < want {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.data.len() - self.end < want {
                let size = (self.end + want).next_multiple_of(SMALL);
                // A fresh allocation rather than a resize: nothing but the filled part is copied.
                let mut larger = vec![0; size];
                larger[..self.end].copy_from_slice(&self.data[..self.end]);
                // The old memory may hold a credential.
                self.data.zeroize();
                self.data = larger;
            }
        }
        &mut self.data[self.end..]
    }

    /// Counts `n` bytes of the room as filled.
    pub fn fill(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.data.len());
        self.flooded = self.end == self.data.len();
    }

    /// The room that the next read should get at least: a read that took all it was given suggests
    /// that a large body flows, and that fewer, larger reads would do.
    pub fn next_read(&self) -> usize {
        if self.flooded {
            (2 * self.data.len())
                .min(LARGE)
                .saturating_sub(self.len())
                .max(1)
        } else {
            1
        }
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Overwrites what was filled and empties the buffer, for one that held a credential.
    pub fn wipe(&mut self) {
        self.data[..self.end].zeroize();
        (self.start, self.end) = (0, 0);
    }

    /// Gives the memory back when nothing is in it and it is larger than `keep`.
    pub fn release(&mut self, keep: usize) {
        if self.is_empty() && self.data.len() > keep {
            *self = Buffer::default();
        }
    }
}

/// The buffers of one stream, kept from request to request.
#[derive(Debug, Default)]
pub struct Buffers {
    pub from_client: Buffer,
    pub to_client: Buffer,
    /// Holds the credential while a request head is in it.
    pub to_upstream: Buffer,
    pub from_upstream: Buffer,
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // Whatever way the stream took to its end.
        self.to_upstream.data.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut buffer = Buffer::default();
        let mut expected = std::collections::VecDeque::new();
        let mut seed = 1u32;
        for round in 0..2000usize {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (seed >> 16) as usize % 300;
            let bytes: Vec<u8> = (0..n).map(|i| (round + i) as u8).collect();
            buffer.push(&bytes);
            expected.extend(bytes);
            let take = ((seed >> 8) as usize % 350).min(buffer.len());
            assert!(
                buffer.filled()[..take]
                    .iter()
                    .eq(expected.iter().take(take))
            );
            buffer.consume(take);
            expected.drain(..take);
        }
        assert!(buffer.filled().iter().eq(expected.iter()));
    }

    #[test]
    fn room_grows_only_while_reads_fill_it() {
        let mut buffer = Buffer::default();
        let room = buffer.spare(1).len();
        assert_eq!(room, SMALL);
        buffer.fill(room / 2);
        assert_eq!(buffer.next_read(), 1);
        buffer.fill(room - room / 2);
        assert_eq!(buffer.next_read(), SMALL);
        buffer.consume(room);
        let room = buffer.spare(buffer.next_read()).len();
        assert_eq!(room, 2 * SMALL);
        buffer.fill(1);
        assert_eq!(buffer.next_read(), 1);
        buffer.consume(1);
        buffer.release(0);
        assert_eq!(buffer.spare(1).len(), SMALL);
    }
}
