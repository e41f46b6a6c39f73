//! The bytes around a block and the bytes that new memory holds.
//!
//! The *redzone* pattern is random for each run and depends on the offset within a page, so that a program can
//! hardly write it back by chance; a single byte it can, if it is one of the 32 that occur. The *fill* pattern is an 8-byte value that is a canonical address in a range we
//! keep unmapped: a pointer read from memory that nobody wrote faults, at an address that names its cause.
//!
//! Both are kept as one prepared page, so that filling is `memcpy` and checking is `memcmp`: as fast in a program
//! built without optimisation as in one built with it.

use fencepost_sys::Range;

/// The 8-byte value that new memory is filled with: canonical, and in the middle of [`FILL_RANGE`].
pub(crate) const FILL_VALUE: u64 = 0x0000_1fe9_ce1f_e9ce;
/// The addresses kept unmapped around [`FILL_VALUE`], so that fields at an offset from it fault as well.
pub(crate) const FILL_RANGE: Range = Range { start: 0x0000_1fe9_8000_0000, len: 1 << 31 };

/// New memory of a block that is filled, in bytes: more would touch pages that the program may never use.
const FILL_MAX: usize = 4 << 10;

/// Bits of each byte of the redzone that are always set, and those that never are: what programs write most, zero, small
/// numbers, -1 and ASCII text, is none of these bytes (0x81 to 0xbf, odd), so that even a single one of it is seen.
const UNUSUAL_SET: u64 = 0x8181_8181_8181_8181;
const UNUSUAL_CLEAR: u64 = 0x4040_4040_4040_4040;

/// The prepared pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patterns {
    redzone: *const u8,
    fill: *const u8,
    zeros: *const u8,
    page: usize,
}

impl Patterns {
    /// The patterns of a runtime that does not fill.
    pub(crate) const NONE: Patterns =
        Patterns { redzone: core::ptr::null(), fill: core::ptr::null(), zeros: core::ptr::null(), page: 0 };

    /// Writes the patterns into `room`: a page of fill, one of zeros, and the redzone on all pages that follow.
    ///
    /// # Safety
    /// `room` must be at least three pages of committed, untouched memory that are the caller's to give away for good.
    pub(crate) unsafe fn write(room: Range, page: usize, key: u64) -> Patterns {
        let fill = room.start as *mut u8;
        let zeros = room.start.wrapping_add(page) as *mut u8;
        let redzone = room.start.wrapping_add(page.wrapping_mul(2)) as *mut u8;
        let mut state = key | 1;
        for offset in (0..page).step_by(8) {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            let word = (state & !UNUSUAL_CLEAR) | UNUSUAL_SET;
            // SAFETY: `offset` is below one page, and the caller gives three pages of committed memory.
            unsafe {
                redzone.wrapping_add(offset).cast::<u64>().write(word);
                fill.wrapping_add(offset).cast::<u64>().write(FILL_VALUE.to_le());
            }
        }
        let rest = (redzone as usize).wrapping_add(page)..room.end();
        for copy in rest.step_by(page.max(1)) {
            // SAFETY: the page lies in the caller's room, after the one that is copied.
            unsafe { core::ptr::copy_nonoverlapping(redzone, copy as *mut u8, page) };
        }
        Patterns { redzone, fill, zeros, page }
    }

    /// The address of the redzone's pages, as many as were written.
    pub(crate) fn template(&self) -> usize {
        self.redzone as usize
    }

    /// The address of a page of zeros.
    pub(crate) fn zeros(&self) -> usize {
        self.zeros as usize
    }

    /// Writes the redzone pattern over `range`.
    ///
    /// # Safety
    /// `range` must be writable memory that belongs to no block's bytes.
    #[inline]
    pub(crate) unsafe fn lay_redzone(&self, range: Range) {
        // SAFETY: passed on to the caller.
        unsafe { self.lay(self.redzone, range) };
    }

    /// Fills a new block, as far as that touches no page that the program may never use.
    ///
    /// # Safety
    /// The block must be writable memory that the program has not been given yet.
    #[inline]
    pub(crate) unsafe fn lay_new(&self, block: usize, size: usize) {
        let len = if size < FILL_MAX { size } else { FILL_MAX };
        // SAFETY: passed on to the caller.
        unsafe { self.lay_fill(Range { start: block, len }) };
    }

    /// Writes the fill pattern over `range`, in step with the address.
    ///
    /// # Safety
    /// `range` must be writable memory that the program has not been given yet.
    #[inline]
    pub(crate) unsafe fn lay_fill(&self, range: Range) {
        // SAFETY: passed on to the caller.
        unsafe { self.lay(self.fill, range) };
    }

    #[inline]
    unsafe fn lay(&self, from: *const u8, range: Range) {
        let mut start = range.start;
        let end = range.end();
        while start < end && self.page != 0 {
            let (offset, len) = self.piece(start, end);
            // SAFETY: a piece stays within one page of the pattern, `range` is writable by the caller's word, and
            // the pattern pages are ours alone, so the two cannot overlap.
            unsafe { core::ptr::copy_nonoverlapping(from.wrapping_add(offset), start as *mut u8, len) };
            start = start.wrapping_add(len);
        }
    }

    /// Where in its page `start` lies, and how far it is from there to the end of the page or of the range. Loops over
    /// these are written out: an iterator costs several calls a piece in a build without optimisation.
    #[inline(always)]
    fn piece(&self, start: usize, end: usize) -> (usize, usize) {
        let offset = start & self.page.wrapping_sub(1);
        let (page, range) = (self.page.wrapping_sub(offset), end.wrapping_sub(start));
        (offset, if page < range { page } else { range })
    }

    /// The first damaged byte of a redzone, and how many bytes from there to the last damaged one.
    ///
    /// # Safety
    /// `range` must be readable.
    #[inline]
    pub(crate) unsafe fn find_damage(&self, range: Range) -> Option<Range> {
        let mut damage: Option<Range> = None;
        let mut next = range.start;
        let end = range.end();
        while next < end && self.page != 0 {
            let start = next;
            let (offset, len) = self.piece(start, end);
            next = start.wrapping_add(len);
            // SAFETY: a piece stays within one page of the pattern, and `range` is readable by the caller's word.
            // The program may write to it at this moment, which is the very error looked for: a torn byte is
            // damage as well.
            let (here, expected) = unsafe {
                (
                    core::slice::from_raw_parts(start as *const u8, len),
                    core::slice::from_raw_parts(self.redzone.wrapping_add(offset), len),
                )
            };
            if is_same(here, expected) {
                continue;
            }
            for (index, _) in here.iter().zip(expected).enumerate().filter(|(_, (a, b))| a != b) {
                let address = start.wrapping_add(index);
                let first = damage.map_or(address, |range| range.start);
                damage = Some(Range { start: first, len: address.wrapping_sub(first).wrapping_add(1) });
            }
        }
        damage
    }
}

/// Pieces shorter than this are compared without the C library.
const SHORT: usize = 64;

/// Whether two pieces of one length are the same. The slack between a block and its guard page is a few bytes that end where
/// the page ends: there the C library's `memcmp` for AVX-512 reads past the end with the bytes in question masked, which
/// costs 130 ns where the next page is missing.
#[inline]
fn is_same(here: &[u8], expected: &[u8]) -> bool {
    if here.len() >= SHORT {
        return here == expected;
    }
    let ((words, rest), (as_words, as_rest)) = (here.as_chunks::<8>(), expected.as_chunks::<8>());
    words.iter().zip(as_words).all(|(word, other)| u64::from_ne_bytes(*word) == u64::from_ne_bytes(*other))
        && rest.iter().zip(as_rest).all(|(byte, other)| byte == other)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): spreads every bit over the word.
#[inline]
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(memory: &mut [u64]) -> Range {
        Range { start: memory.as_mut_ptr() as usize, len: size_of_val(memory) }
    }

    #[test]
    fn damage_is_found_to_the_byte() {
        let mut pattern = [0u64; 4 * 512];
        let mut zone = [0u64; 1024];
        let room = page(&mut zone);
        // SAFETY: `pattern` is four pages of our own that outlive the test.
        let patterns = unsafe { Patterns::write(page(&mut pattern), 4096, 7) };
        let range = Range { start: room.start + 13, len: 5000 };
        // SAFETY: `range` lies within `zone`, which is ours.
        unsafe {
            patterns.lay_redzone(range);
            assert_eq!(patterns.find_damage(range), None);
            *((range.start + 100) as *mut u8) ^= 1;
            *((range.start + 4200) as *mut u8) = 0;
            assert_eq!(patterns.find_damage(range), Some(Range { start: range.start + 100, len: 4101 }));
        }
        assert_eq!(zone[0].to_le_bytes()[..8], [0; 8], "bytes before the range are untouched");
        assert_eq!(pattern[1024..1536], pattern[1536..], "every page of the template is the same");
        assert_eq!(pattern[512..1024], [0; 512], "and the page of zeros is one");
    }

    #[test]
    fn damage_to_any_byte_of_a_short_piece_is_found() {
        let mut pattern = [0u64; 4 * 512];
        let mut zone = [0u64; 512];
        let room = page(&mut zone);
        // SAFETY: `pattern` is four pages of our own that outlive the test.
        let patterns = unsafe { Patterns::write(page(&mut pattern), 4096, 7) };
        for len in 1..2 * SHORT {
            let range = Range { start: room.end() - len, len };
            for at in range.start..range.end() {
                // SAFETY: `range` lies within `zone`, which is ours, and `at` within `range`.
                unsafe {
                    patterns.lay_redzone(range);
                    assert_eq!(patterns.find_damage(range), None);
                    *(at as *mut u8) ^= 0x10;
                    assert_eq!(patterns.find_damage(range), Some(Range { start: at, len: 1 }), "{len}");
                }
            }
        }
    }

    #[test]
    fn no_byte_of_the_redzone_is_one_that_programs_write_most() {
        let mut pattern = [0u64; 3 * 512];
        for key in 0..64 {
            // SAFETY: `pattern` is three pages of our own, and the patterns end with the turn.
            unsafe { Patterns::write(page(&mut pattern), 4096, key) };
            let mut bytes = pattern[1024..].iter().flat_map(|word| word.to_le_bytes());
            assert!(bytes.all(|byte| !byte.is_ascii() && byte < 0xc0));
        }
    }

    #[test]
    fn the_fill_is_a_canonical_address_at_every_aligned_word() {
        assert!(FILL_RANGE.contains(FILL_VALUE as usize));
        const { assert!(FILL_VALUE >> 47 == 0) };
        let mut pattern = [0u64; 3 * 512];
        let mut zone = [0u64; 64];
        let range = page(&mut zone);
        // SAFETY: both are memory of our own.
        unsafe {
            let patterns = Patterns::write(page(&mut pattern), 4096, 7);
            patterns.lay_fill(Range { start: range.start + 8, len: 64 });
        }
        assert_eq!(zone[0], 0);
        assert!(zone[1..9].iter().all(|word| *word == FILL_VALUE));
    }
}
