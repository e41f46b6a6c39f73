//! Memory that is read-only, watched or under a tripwire, and what an access changed in it.

use core::fmt;

use crate::Stack;

/// The most bytes of a change that are kept.
pub const CHANGED_MAX: usize = 32;

/// A few bytes, as they were at one moment. Empty when they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    bytes: [u8; CHANGED_MAX],
    len: u8,
}

impl Bytes {
    /// None: nothing is known.
    pub const NONE: Bytes = Bytes { bytes: [0; CHANGED_MAX], len: 0 };

    /// The first of these bytes, as many as are kept.
    pub fn new(bytes: &[u8]) -> Bytes {
        let mut kept = Bytes::default();
        for (to, from) in kept.bytes.iter_mut().zip(bytes) {
            *to = *from;
            kept.len = kept.len.saturating_add(1);
        }
        kept
    }

    /// The bytes written as pairs of hex digits; `None` for anything else, or for too many.
    pub fn parse(text: &str) -> Option<Bytes> {
        let mut kept = Bytes::default();
        for pair in text.as_bytes().chunks(2) {
            let digits = core::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            *kept.bytes.get_mut(usize::from(kept.len))? = u8::from_str_radix(digits, 16).ok()?;
            kept.len = kept.len.saturating_add(1);
        }
        Some(kept)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Pairs of hex digits without spaces; with `{:#}` with a space between them.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_slice().iter().enumerate() {
            let space = if index > 0 && f.alternate() { " " } else { "" };
            write!(f, "{space}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Who made memory read-only or set a tripwire, for an access to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealInfo {
    /// First sealed byte.
    pub address: u64,
    /// Sealed bytes.
    pub size: u64,
    /// The whole pages that are closed for it: first byte and bytes.
    pub pages: (u64, u64),
    /// What the accessed bytes held before.
    pub old: Bytes,
    /// What they held after; empty where the access did not take place.
    pub new: Bytes,
    /// Who sealed it.
    pub sealer: Stack,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn bytes_are_written_and_read() {
        let bytes = Bytes::new(&[0, 0x5a, 0xff]);
        assert_eq!((bytes.to_string().as_str(), Bytes::parse("005aff")), ("005aff", Some(bytes)));
        assert_eq!(std::format!("{bytes:#}"), "00 5a ff");
        assert_eq!((Bytes::parse("0"), Bytes::parse("zz"), Bytes::parse("é")), (None, None, None));
        assert_eq!(Bytes::new(&[1; 99]).as_slice().len(), CHANGED_MAX);
        assert_eq!(Bytes::parse(&"00".repeat(CHANGED_MAX + 1)), None);
    }
}
