//! Strings of fixed size: what a record keeps of names and paths without a heap.

/// A string of at most `N` bytes, kept in place. Longer input is cut and remembered as cut.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: u16,
    cut: bool,
}

impl<const N: usize> Text<N> {
    /// The empty string.
    pub const EMPTY: Self = Text { bytes: [0; N], len: 0, cut: false };

    /// A copy of `bytes`, cut at the capacity and at a character's boundary; bytes that are not UTF-8 become `?`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut text = Self::EMPTY;
        text.push(bytes);
        text
    }

    /// Appends `bytes` under the rules of [`Text::new`].
    pub fn push(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                let mut utf8 = [0; 4];
                if !self.push_whole(character.encode_utf8(&mut utf8).as_bytes()) {
                    return;
                }
            }
            if !chunk.invalid().is_empty() && !self.push_whole(b"?") {
                return;
            }
        }
    }

    fn push_whole(&mut self, bytes: &[u8]) -> bool {
        let start = usize::from(self.len);
        let end = start.saturating_add(bytes.len());
        match self.bytes.get_mut(start..end) {
            Some(room) if !self.cut => {
                room.copy_from_slice(bytes);
                self.len = u16::try_from(end).unwrap_or(u16::MAX);
                true
            }
            _ => {
                self.cut = true;
                false
            }
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether input was longer than the capacity.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> core::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> core::fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}
