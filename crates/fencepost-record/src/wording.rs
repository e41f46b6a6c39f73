//! Numbers, times and names as a person reads them.
//!
//! Everything here is a `Display` over plain values, so that text, JSON and summary say the same thing the same
//! way, and nothing needs a buffer.

use core::fmt;

/// A number with a comma between groups of three digits: `12,345`.
pub(crate) struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 20 digits are the most that a u64 has: seven groups.
        let mut groups = [0_u64; 7];
        let mut rest = self.0;
        let mut used = 0_usize;
        for group in &mut groups {
            *group = rest % 1000;
            rest /= 1000;
            used = used.saturating_add(1);
            if rest == 0 {
                break;
            }
        }
        for (index, group) in groups.iter().take(used).rev().enumerate() {
            if index == 0 {
                write!(f, "{group}")?;
            } else {
                write!(f, ",{group:03}")?;
            }
        }
        Ok(())
    }
}

/// A count and its noun: `1 byte`, `2 bytes`, `12,345 bytes`.
pub(crate) struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Grouped(self.0), self.1)
    }
}

/// A count of bytes without separators, for messages that programs match: `1 byte`, `4097 bytes`.
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// The article that a number takes when it is spoken: `an 8-byte block`, `a 24-byte block`.
pub(crate) const fn article(number: u64) -> &'static str {
    // Only the leading group is heard first: 11,000 is "eleven thousand", 1,100 is "one thousand …".
    let mut lead = number;
    while lead >= 1000 {
        lead /= 1000;
    }
    match lead {
        8 | 11 | 18 | 80..=89 | 800..=899 => "an",
        _ => "a",
    }
}

/// A share of a whole in percent, with `digits` places. Never `100` unless it is all of it.
pub(crate) struct Percent {
    pub part: u64,
    pub whole: u64,
    pub digits: u32,
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = 10_u128.saturating_pow(self.digits.min(9));
        let all = steps.saturating_mul(100);
        let whole = u128::from(self.whole);
        let scaled = u128::from(self.part).saturating_mul(all).saturating_add(whole / 2);
        let mut value = scaled.checked_div(whole).unwrap_or(0);
        if self.part < self.whole {
            value = value.min(all.saturating_sub(1));
        }
        // Nor `0` unless it is nothing.
        if self.part > 0 {
            value = value.max(1);
        }
        let digits = usize::try_from(self.digits).unwrap_or(0);
        let above = value.checked_div(steps).unwrap_or(0);
        let below = value.checked_rem(steps).unwrap_or(0);
        write!(f, "{above}.{below:0digits$}")
    }
}

/// A span of time in the unit that fits: `less than 1 ms`, `37 ms`, `1.2 s`, `5 min 3 s`, `2 h 5 min`.
pub(crate) struct Age(pub u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let minutes = seconds / 60;
        match self.0 {
            0 => f.write_str("less than 1 ms"),
            1..=999 => write!(f, "{} ms", self.0),
            1000..=59_999 => write!(f, "{seconds}.{} s", self.0 % 1000 / 100),
            60_000..=3_599_999 => write!(f, "{minutes} min {} s", seconds % 60),
            _ => write!(f, "{} h {} min", Grouped(minutes / 60), minutes % 60),
        }
    }
}

/// An amount of memory in the unit that fits: `512 bytes`, `4.9 MiB`.
pub(crate) struct Amount(pub u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return Count(self.0, "byte").fmt(f);
        }
        let mut value = self.0;
        let mut tenths = 0;
        let mut name = "";
        for unit in UNITS {
            if value < 1024 {
                break;
            }
            tenths = (value % 1024).saturating_mul(10) / 1024;
            value /= 1024;
            name = unit;
        }
        write!(f, "{value}.{tenths} {name}")
    }
}

/// Text from outside on one line: what could move the cursor or end the line is written as an escape.
pub(crate) struct Clean<'a>(pub &'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(moves_the_cursor) {
            let (plain, special) = rest.split_at(at);
            f.write_str(plain)?;
            let mut characters = special.chars();
            if let Some(character) = characters.next() {
                write!(f, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// Control characters, line ends that are not ASCII, and marks that turn the direction of writing.
const fn moves_the_cursor(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}
