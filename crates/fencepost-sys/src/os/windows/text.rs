//! Text between the program's UTF-8 and the system's UTF-16, in buffers of the caller's.

/// Writes UTF-16 as UTF-8 and says how many bytes that took. Half a pair becomes the replacement character.
pub(super) fn to_utf8(wide: impl IntoIterator<Item = u16>, into: &mut [u8]) -> usize {
    let mut len = 0usize;
    for decoded in char::decode_utf16(wide) {
        let mut bytes = [0; 4];
        let bytes = decoded.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut bytes).as_bytes();
        let end = len.saturating_add(bytes.len());
        let Some(place) = into.get_mut(len..end) else { break };
        place.copy_from_slice(bytes);
        len = end;
    }
    len
}

/// Writes UTF-8 as UTF-16 with a zero at the end, and says how many words that took without it; `None` where there is
/// no room, or it is no UTF-8, or holds a zero.
pub(super) fn to_utf16(bytes: &[u8], into: &mut [u16]) -> Option<usize> {
    let text = core::str::from_utf8(bytes).ok()?;
    let mut len = 0usize;
    for word in text.encode_utf16().chain([0]) {
        *into.get_mut(len)? = word;
        if word == 0 && len < text.encode_utf16().count() {
            return None;
        }
        len = len.checked_add(1)?;
    }
    len.checked_sub(1)
}

/// The words up to the first zero.
///
/// # Safety
/// `start` must point to words that end in a zero and stay as long as `'a`.
pub(super) unsafe fn ended<'a>(start: *const u16) -> &'a [u16] {
    let mut len = 0usize;
    // SAFETY: the caller's promise: there is a zero, and we stop at it.
    while unsafe { start.add(len).read() } != 0 {
        len = len.wrapping_add(1);
    }
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(start, len) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let (mut wide, mut back) = ([0; 32], [0; 32]);
        let len = to_utf16("grün 𝄞".as_bytes(), &mut wide).unwrap();
        assert_eq!(len, 7);
        let len = to_utf8(wide[..len].iter().copied(), &mut back);
        assert_eq!(&back[..len], "grün 𝄞".as_bytes());
        assert_eq!(to_utf16(b"a\0b", &mut wide), None);
        assert_eq!(to_utf16(&[b'x'; 32], &mut wide), None, "the zero must fit as well");
    }
}
