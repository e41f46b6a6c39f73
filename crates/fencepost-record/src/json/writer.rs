//! Writing JSON: commas, strings and their escapes.

use core::fmt::{self, Write};

use crate::wording::Percent;

/// JSON as it is written: knows only whether a comma is due.
pub(super) struct Json<'w> {
    out: &'w mut dyn Write,
    comma: bool,
}

impl<'w> Json<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> Self {
        Json { out, comma: false }
    }

    /// Before each value: the comma, if one is due; and one is due after it.
    fn begin(&mut self) -> fmt::Result {
        if core::mem::replace(&mut self.comma, true) { self.out.write_char(',') } else { Ok(()) }
    }

    pub(super) fn open(&mut self, bracket: char) -> fmt::Result {
        self.begin()?;
        self.comma = false;
        self.out.write_char(bracket)
    }

    pub(super) fn close(&mut self, bracket: char) -> fmt::Result {
        self.comma = true;
        self.out.write_char(bracket)
    }

    /// The key of the value that comes next.
    pub(super) fn field(&mut self, key: &str) -> Result<&mut Self, fmt::Error> {
        self.string(key)?;
        self.out.write_char(':')?;
        self.comma = false;
        Ok(self)
    }

    pub(super) fn null(&mut self) -> fmt::Result {
        self.begin()?;
        self.out.write_str("null")
    }

    pub(super) fn boolean(&mut self, value: bool) -> fmt::Result {
        self.begin()?;
        write!(self.out, "{value}")
    }

    pub(super) fn number(&mut self, value: u64) -> fmt::Result {
        self.begin()?;
        write!(self.out, "{value}")
    }

    pub(super) fn number_or_null(&mut self, value: Option<u64>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.number(value))?;
        if value.is_none() { self.null() } else { Ok(()) }
    }

    pub(super) fn known(&mut self, known: bool, value: u64) -> fmt::Result {
        self.number_or_null(known.then_some(value))
    }

    pub(super) fn percent(&mut self, part: u64, whole: u64) -> fmt::Result {
        if whole == 0 {
            return self.null();
        }
        self.begin()?;
        write!(self.out, "{}", Percent { part, whole, digits: 2 })
    }

    pub(super) fn hex(&mut self, value: u64) -> fmt::Result {
        self.begin()?;
        write!(self.out, "\"{value:#x}\"")
    }

    pub(super) fn hex_padded(&mut self, value: u64) -> fmt::Result {
        self.begin()?;
        write!(self.out, "\"{value:#018x}\"")
    }

    pub(super) fn hex_or_null(&mut self, value: Option<u64>) -> fmt::Result {
        match value {
            Some(value) => self.hex(value),
            None => self.null(),
        }
    }

    pub(super) fn string(&mut self, text: &str) -> fmt::Result {
        self.display(&text)
    }

    /// A string, or null where it is empty.
    pub(super) fn text(&mut self, text: &str) -> fmt::Result {
        if text.is_empty() { self.null() } else { self.string(text) }
    }

    pub(super) fn display(&mut self, value: &dyn fmt::Display) -> fmt::Result {
        self.quoted(|out| write!(out, "{value}").map(|()| true)).map(|_| ())
    }

    /// A string of what `write` writes; nothing at all when it answers false, having written nothing.
    pub(super) fn quoted(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<bool, fmt::Error>,
    ) -> Result<bool, fmt::Error> {
        let mut escape = Escape { json: self, open: false };
        let some = write(&mut escape)?;
        let open = escape.open;
        if some && !open {
            self.begin()?;
            self.out.write_char('"')?;
        }
        if some {
            self.out.write_char('"')?;
        }
        Ok(some)
    }
}

/// The inside of a JSON string; opens it at the first character.
struct Escape<'j, 'w> {
    json: &'j mut Json<'w>,
    open: bool,
}

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !core::mem::replace(&mut self.open, true) {
            self.json.begin()?;
            self.json.out.write_char('"')?;
        }
        let out = &mut *self.json.out;
        // Whole runs at a time: in the fault handler each piece is a call through the sink.
        let mut rest = text;
        while let Some(at) = rest.find(needs_escape) {
            let (plain, special) = rest.split_at(at);
            out.write_str(plain)?;
            let mut characters = special.chars();
            match characters.next() {
                Some('"') => out.write_str("\\\"")?,
                Some('\\') => out.write_str("\\\\")?,
                Some('\n') => out.write_str("\\n")?,
                Some('\r') => out.write_str("\\r")?,
                Some('\t') => out.write_str("\\t")?,
                Some(other) => write!(out, "\\u{:04x}", u32::from(other))?,
                None => {}
            }
            rest = characters.as_str();
        }
        out.write_str(rest)
    }
}

/// Whether JSON forbids a character in a string, or some reader ends a line at it: U+0085, U+2028 and U+2029 are
/// allowed in JSON, but not everyone agrees.
const fn needs_escape(character: char) -> bool {
    matches!(
        character,
        '"' | '\\' | '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}'
    )
}
