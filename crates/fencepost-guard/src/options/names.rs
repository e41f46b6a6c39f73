//! Lists of names and patterns, as the filters by thread, module and function take them.

use core::fmt;

/// A short list of patterns: `*` stands for any text, `?` for any one byte, everything else for itself.
///
/// Entries are separated by commas, none is empty, none holds a quote.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NameList {
    // Zero past `len`, so that the derived comparison sees only the text.
    bytes: [u8; NameList::BYTES_MAX],
    len: u8,
}

impl NameList {
    /// The longest list, in bytes with its commas.
    pub const BYTES_MAX: usize = 240;
    /// The list without an entry; a filter with it filters nothing.
    pub const EMPTY: NameList = NameList { bytes: [0; NameList::BYTES_MAX], len: 0 };

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries with their commas.
    pub const fn as_bytes(&self) -> &[u8] {
        match self.bytes.split_at_checked(self.len as usize) {
            Some((text, _)) => text,
            None => &self.bytes,
        }
    }

    /// The entries with their commas, as text.
    pub const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.as_bytes()) {
            Ok(text) => text,
            Err(_) => "",
        }
    }

    /// The list with one more entry; `None` where it has no room.
    pub const fn with(mut self, entry: &[u8]) -> Option<NameList> {
        if self.len != 0 {
            let Some(longer) = self.push(b',') else { return None };
            self = longer;
        }
        let mut rest = entry;
        while let Some((&byte, after)) = rest.split_first() {
            let Some(longer) = self.push(byte) else { return None };
            self = longer;
            rest = after;
        }
        Some(self)
    }

    const fn push(mut self, byte: u8) -> Option<NameList> {
        let Some((_, room)) = self.bytes.split_at_mut_checked(self.len as usize) else { return None };
        let Some(cell) = room.first_mut() else { return None };
        *cell = byte;
        self.len = self.len.wrapping_add(1);
        Some(self)
    }

    /// Whether an entry fits the whole of a name.
    pub fn fits(&self, name: &[u8]) -> bool {
        self.as_bytes().split(|byte| *byte == b',').any(|entry| !entry.is_empty() && fits(entry, name))
    }
}

impl fmt::Debug for NameList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

/// Whether a pattern fits the whole of a text. Time is at most the product of the lengths: only the last `*` is tried again.
pub(crate) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', after)), _) => {
                again = Some((after, text));
                pattern = after;
                continue;
            }
            (Some((wanted, after)), Some((byte, rest))) if *wanted == b'?' || wanted == byte => {
                (pattern, text) = (after, rest);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        // One byte more for the last `*`.
        let Some((after, from)) = again else { return false };
        let Some((_, rest)) = from.split_first() else { return false };
        again = Some((after, rest));
        (pattern, text) = (after, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, expected) in [
            ("main", "main", true),
            ("main", "main2", false),
            ("*", "", true),
            ("?", "", false),
            ("worker-?", "worker-7", true),
            ("worker-?", "worker-17", false),
            ("*::parse*", "demo::json::parse_string", true),
            ("*::parse", "demo::json::parse_string", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("**", "x", true),
            ("libz.so*", "libz.so.1", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        let list = NameList::EMPTY.with(b"a*").and_then(|list| list.with(b"main")).expect("room");
        assert!(list.fits(b"abc") && list.fits(b"main") && !list.fits(b"") && !list.fits(b"b,main2,"));
        assert_eq!(list.as_str(), "a*,main");
        assert_eq!(NameList::EMPTY.with(&[b'x'; 241]), None);
    }
}
