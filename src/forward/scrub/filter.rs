//! Tells the places where no match can be, at a fraction of a look at each byte.
//!
//! No match is shorter than the key. So when every `stride`th position of a text is looked at, one of
//! them lies within the first bytes of any match, and the four bytes there are four bytes that some
//! form has at that distance from its beginning. All such fours are kept, as bits of their hashes:
//! what is not among them is no match, and the rest is for the matcher to decide. A second look a
//! few bytes further on spares it most of the chances.

use zeroize::{Zeroize, Zeroizing};

use super::escape::{SOFT, Spelling, Spellings, WRAPS};
use super::form::{ENTRIES, FILTERED, Form};

/// Bits of the filter, as a power of two: 32 KiB, which stays in the cache.
const BITS: u32 = 18;

/// The fours of one key.
pub struct Filter {
    bits: Vec<u64>,
    /// How far apart the looks are.
    pub stride: usize,
    /// How far behind the first look the second one is.
    pub second: usize,
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.bits.zeroize();
    }
}

impl Filter {
    /// The key has 8 bytes at least.
    pub fn new(key: &[u8]) -> Filter {
        // A match has `stride + second + 3` bytes at least.
        let (stride, second) = match key.len() {
            23.. => (16, 4),
            15.. => (8, 4),
            _ => (4, 1),
        };
        let mut filter = Filter {
            bits: vec![0; 1 << (BITS - 6)],
            stride,
            second,
        };
        for (form, start) in &ENTRIES[..FILTERED] {
            let fours = Fours::new(*form, key, *start, stride + second);
            fours.visit(|four| {
                let bit = place(four);
                filter.bits[bit >> 6] |= 1 << (bit & 63);
            });
        }
        filter
    }

    /// Whether a match can begin at `at` or up to `stride - 1` bytes before. There are
    /// `second + 4` bytes at `at`.
    #[inline(always)]
    pub fn hits(&self, data: &[u8], at: usize) -> bool {
        self.has(data, at) && self.has(data, at + self.second)
    }

    #[inline(always)]
    fn has(&self, data: &[u8], at: usize) -> bool {
        let four = match data.get(at..at + 4) {
            Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => return true,
        };
        let bit = place(four);
        self.bits[bit >> 6] >> (bit & 63) & 1 == 1
    }
}

#[inline(always)]
fn place(four: u32) -> usize {
    (four.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

/// Up to four bytes, the first lowest, and how many they are.
type Few = (u32, u32);

/// The first bytes of some spelling, or of the rest of one; and the character that may follow, if
/// these are all of its bytes.
type Piece = (Few, usize);

/// The fours at the beginning of one form.
struct Fours {
    /// How many characters count as the beginning.
    depth: usize,
    /// What each character can begin with, and the rests of its spellings.
    heads: Vec<Zeroizing<Vec<Piece>>>,
    rests: Vec<Zeroizing<Vec<Piece>>>,
    wraps: Vec<&'static [&'static [u8]]>,
    /// `ahead[i][n]`: the `n` bytes that character `i` and what follows can begin with.
    ahead: Vec<[Zeroizing<Vec<u32>>; 5]>,
}

impl Fours {
    fn new(form: Form, key: &[u8], start: usize, depth: usize) -> Fours {
        let count = (form.len(key) - start).min(depth + 4);
        let mut fours = Fours {
            depth: depth.min(count),
            heads: Vec::with_capacity(count),
            rests: Vec::with_capacity(count),
            wraps: (0..count)
                .map(|i| {
                    if i == 0 {
                        &[][..]
                    } else {
                        wraps(form, start + i)
                    }
                })
                .collect(),
            ahead: (0..count).map(|_| Default::default()).collect(),
        };
        for i in 0..count {
            let spellings = Spellings::of(form, key, start + i);
            let piece = |spelling: &Spelling, t: usize| {
                let (bytes, len) = few(&spelling.bytes()[t..]);
                let follows = i + usize::from(spelling.counts);
                // What follows does not matter where four bytes are there already.
                ((bytes, len), if len < 4 { follows } else { 0 })
            };
            let heads = spellings.iter().map(|s| piece(s, 0));
            fours.heads.push(distinct(heads));
            let rests = spellings
                .iter()
                .flat_map(|s| (1..s.bytes().len()).map(move |t| piece(s, t)));
            fours.rests.push(distinct(rests));
        }
        // From the last character on, because each needs those that follow.
        for i in (0..count).rev() {
            let plain: [_; 5] = std::array::from_fn(|n| fours.plain(i, n as u32));
            let mut all = plain.clone();
            for wrap in fours.wraps[i] {
                for n in 1..=4u32 {
                    extend(
                        few(wrap),
                        n,
                        &plain[n.saturating_sub(few(wrap).1) as usize],
                        &mut all[n as usize],
                    );
                }
            }
            fours.ahead[i] = all;
        }
        fours
    }

    fn ahead(&self, i: usize, n: u32) -> &[u32] {
        self.ahead.get(i).map_or(&[], |sets| &sets[n as usize])
    }

    /// `ahead` without a line break first.
    fn plain(&self, i: usize, n: u32) -> Zeroizing<Vec<u32>> {
        let mut out = Zeroizing::new(Vec::with_capacity(if n == 4 { 512 } else { 64 }));
        if n > 0 {
            for &(first, next) in self.heads[i].iter() {
                extend(
                    first,
                    n,
                    self.ahead(next, n.saturating_sub(first.1)),
                    &mut out,
                );
            }
            out.sort_unstable();
            out.dedup();
        }
        out
    }

    fn visit(&self, mut take: impl FnMut(u32)) {
        let mut out = Zeroizing::new(Vec::with_capacity(4096));
        for i in 0..self.depth {
            out.extend_from_slice(self.ahead(i, 4));
            for &(first, next) in self.rests[i].iter() {
                extend(first, 4, self.ahead(next, 4 - first.1), &mut out);
            }
            for wrap in self.wraps[i] {
                for t in 1..wrap.len() {
                    let first = few(&wrap[t..]);
                    extend(first, 4, self.ahead(i, 4 - first.1), &mut out);
                }
            }
            out.iter().for_each(|&four| take(four));
            out.clear();
        }
    }
}

fn distinct(pieces: impl Iterator<Item = Piece>) -> Zeroizing<Vec<Piece>> {
    let mut all = Zeroizing::new(Vec::with_capacity(256));
    for piece in pieces {
        // Neighbours are often the same: the zeros that a number may begin with.
        if !all.contains(&piece) {
            all.push(piece);
        }
    }
    all
}

/// The line breaks that may stand before character `n` of a form. Not before the first ones: every
/// line that happens to end like the beginning of a form would be held back.
pub fn wraps(form: Form, n: usize) -> &'static [&'static [u8]] {
    match (form, n) {
        (_, 0) => &[],
        (Form::Raw, _) | (_, 1) => SOFT,
        _ => WRAPS,
    }
}

fn few(bytes: &[u8]) -> Few {
    let bytes = &bytes[..bytes.len().min(4)];
    let four = bytes
        .iter()
        .rev()
        .fold(0, |four, &b| four << 8 | u32::from(b));
    (four, bytes.len() as u32)
}

/// `first` cut to `n` bytes, or lengthened to them in each of these ways.
fn extend(first: Few, n: u32, ways: &[u32], out: &mut Vec<u32>) {
    let (bytes, len) = first;
    if len >= n {
        out.push(if n < 4 {
            bytes & ((1 << (8 * n)) - 1)
        } else {
            bytes
        });
    } else {
        out.extend(ways.iter().map(|rest| bytes | rest << (8 * len)));
    }
}
