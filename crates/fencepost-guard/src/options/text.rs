//! Reading bytes in `const fn`: comparing, trimming, numbers, and the nearest of several names.
//!
//! Iterators, traits and slice indexing do not exist in `const fn` here, so everything is a loop that takes the first
//! byte off a slice. No function reads past its argument, and every loop shortens what it runs over.

/// Names longer than this get no hint; the longest key is far shorter.
const HINT_BYTES_MAX: usize = 24;

pub(super) const fn same(left: &[u8], right: &[u8]) -> bool {
    let (mut left, mut right) = (left, right);
    loop {
        match (left.split_first(), right.split_first()) {
            (None, None) => return true,
            (Some((a, after_a)), Some((b, after_b))) if *a == *b => {
                left = after_a;
                right = after_b;
            }
            _ => return false,
        }
    }
}

/// What stands before the first `separator`, and what stands after it if there is one.
pub(super) const fn split_at(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut rest = text;
    let mut length = 0_usize;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == separator {
            let before = match text.split_at_checked(length) {
                Some((before, _)) => before,
                None => text,
            };
            return (before, Some(after));
        }
        rest = after;
        length = length.wrapping_add(1);
    }
    (text, None)
}

/// What stands before the closing quote and what behind it; a doubled quote does not close.
pub(super) const fn split_at_closing(text: &[u8], quote: u8) -> Option<(&[u8], &[u8])> {
    let mut rest = text;
    let mut length = 0_usize;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == quote {
            match after.split_first() {
                Some((&next, behind)) if next == quote => {
                    rest = behind;
                    length = length.wrapping_add(1);
                }
                _ => {
                    let Some((value, _)) = text.split_at_checked(length) else { return None };
                    return Some((value, after));
                }
            }
        }
        length = length.wrapping_add(1);
    }
    None
}

/// An unsigned number: decimal digits, or hexadecimal ones after `0x`.
pub(super) const fn number(text: &[u8]) -> Option<u64> {
    let (digits, radix) = match text {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        _ => (text, 10),
    };
    number_in(digits, radix)
}

/// A number of bytes: decimal digits, and perhaps K, M, G or T, each 1024 of the one before.
pub(super) const fn size(text: &[u8]) -> Option<u64> {
    let Some((&last, digits)) = text.split_last() else { return None };
    let factor: u64 = match last {
        b'k' | b'K' => 1 << 10,
        b'm' | b'M' => 1 << 20,
        b'g' | b'G' => 1 << 30,
        b't' | b'T' => 1 << 40,
        _ => return number_in(text, 10),
    };
    match number_in(digits, 10) {
        Some(count) => count.checked_mul(factor),
        None => None,
    }
}

const fn number_in(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut rest = digits;
    let mut total = 0_u64;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some(digit) = (byte as char).to_digit(radix) else { return None };
        let Some(shifted) = total.checked_mul(radix as u64) else { return None };
        let Some(sum) = shifted.checked_add(digit as u64) else { return None };
        total = sum;
    }
    Some(total)
}

/// The name that `text` was most likely meant to be, if one is close enough to be worth saying.
///
/// Letter case does not count. A short name must be closer than a long one, or every three-letter word would be
/// called a misspelling of another.
pub(super) const fn nearest(text: &[u8], names: &[&'static str]) -> Option<&'static str> {
    let mut best = None;
    let mut best_distance = usize::MAX;
    let mut rest = names;
    while let Some((&name, after)) = rest.split_first() {
        rest = after;
        let limit = if name.len() <= 3 { 1 } else { 2 };
        if let Some(distance) = edit_distance(text, name.as_bytes())
            && distance <= limit
            && distance < best_distance
        {
            best = Some(name);
            best_distance = distance;
        }
    }
    best
}

/// The fewest letters to insert, drop or replace to make one name of the other, by Wagner and Fischer's rows.
const fn edit_distance(text: &[u8], name: &[u8]) -> Option<usize> {
    // One row of the matrix: the distance of the text read so far to each beginning of the name.
    let mut row = [0_usize; HINT_BYTES_MAX];
    if text.len() > HINT_BYTES_MAX || name.len() > HINT_BYTES_MAX {
        return None;
    }
    let mut column = 0_usize;
    let mut cells: &mut [usize] = &mut row;
    while let Some((cell, after)) = cells.split_first_mut() {
        column = column.wrapping_add(1);
        *cell = column;
        cells = after;
    }
    let mut distance = name.len();
    let mut line = 0_usize;
    let mut rest = text;
    while let Some((letter, after)) = rest.split_first() {
        rest = after;
        let mut diagonal = line;
        line = line.wrapping_add(1);
        let mut left = line;
        let mut cells: &mut [usize] = &mut row;
        let mut name_rest = name;
        while let (Some((name_letter, name_after)), Some((cell, cells_after))) =
            (name_rest.split_first(), cells.split_first_mut())
        {
            let replace = if letter.eq_ignore_ascii_case(name_letter) { 0 } else { 1 };
            let value = least(diagonal.wrapping_add(replace), least(*cell, left).wrapping_add(1));
            diagonal = *cell;
            *cell = value;
            left = value;
            name_rest = name_after;
            cells = cells_after;
        }
        distance = left;
    }
    Some(distance)
}

const fn least(left: usize, right: usize) -> usize {
    if left < right { left } else { right }
}
