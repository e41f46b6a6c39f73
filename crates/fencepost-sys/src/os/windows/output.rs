//! Files, by handles: 1 and 2 mean the standard streams, other numbers are handles themselves, of which only the lower
//! half carries meaning ("Interprocess Communication Between 32-bit and 64-bit Applications").

use core::ptr::null_mut;

use windows_sys::Win32::Foundation::{CloseHandle, GENERIC_WRITE, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_ATTRIBUTE_NORMAL, FILE_BEGIN, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    FILE_TYPE_DISK, GetFileSizeEx, GetFileType, LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY,
    LockFileEx, OPEN_ALWAYS, SetEndOfFile, SetFilePointerEx, UnlockFileEx, WriteFile,
};
use windows_sys::Win32::System::Console::{
    GetConsoleMode, GetStdHandle, STD_ERROR_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::Environment::GetCommandLineW;
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Threading::Sleep;

use super::memory::last_error;
use super::teb::Kept;
use super::{Host, modules, text};
use crate::{Output, VmError, VmResult};
use fencepost_record::Module;

/// The longest path, in words of the system's, end mark included.
const PATH_MAX: usize = 1024;
/// How often a lock is asked for, a millisecond apart.
const LOCK_TRIES: u32 = 100;
/// The byte that stands for the whole file in a lock, far behind its end: locks here keep writers away from what is
/// locked, and nobody shall be kept from writing.
const LOCKED_AT: u32 = 0x4000_0000;
/// "At the end, wherever that is by then."
const AT_THE_END: u32 = u32::MAX;

fn handle(file: i32) -> HANDLE {
    match file {
        // SAFETY: the calls read words of the process's.
        1 => unsafe { GetStdHandle(STD_OUTPUT_HANDLE) },
        // SAFETY: as above.
        2 => unsafe { GetStdHandle(STD_ERROR_HANDLE) },
        other => other as isize as HANDLE,
    }
}

fn is_on_disk(handle: HANDLE) -> bool {
    // SAFETY: a wrong handle is answered with an error.
    unsafe { GetFileType(handle) == FILE_TYPE_DISK }
}

fn at(low: u32, high: u32) -> OVERLAPPED {
    // SAFETY: all-zero is a valid value of a structure of integers and pointers.
    let mut place: OVERLAPPED = unsafe { core::mem::zeroed() };
    place.Anonymous.Anonymous.Offset = low;
    place.Anonymous.Anonymous.OffsetHigh = high;
    place
}

impl Output for Host {
    fn open_append(&self, path: &[u8]) -> VmResult<i32> {
        let _kept = Kept::new();
        let mut wide = [0u16; PATH_MAX];
        text::to_utf16(path, &mut wide).ok_or(VmError::Unsupported)?;
        let share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
        // SAFETY: the path ends in a zero.
        let handle = unsafe {
            CreateFileW(
                wide.as_ptr(),
                GENERIC_WRITE,
                share,
                core::ptr::null(),
                OPEN_ALWAYS,
                FILE_ATTRIBUTE_NORMAL,
                null_mut(),
            )
        };
        if handle == INVALID_HANDLE_VALUE { Err(last_error()) } else { Ok(handle.addr() as i32) }
    }

    fn close(&self, file: i32) {
        let _kept = Kept::new();
        // SAFETY: `open_append` gave the handle to the caller.
        unsafe { CloseHandle(handle(file)) };
    }

    fn write(&self, file: i32, mut bytes: &[u8]) -> VmResult {
        let _kept = Kept::new();
        let handle = handle(file);
        let appends = is_on_disk(handle);
        while !bytes.is_empty() {
            let mut end = at(AT_THE_END, AT_THE_END);
            let place = if appends { &raw mut end } else { null_mut() };
            let mut written = 0;
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            // SAFETY: the call reads `len` bytes, which are borrowed.
            if unsafe { WriteFile(handle, bytes.as_ptr(), len, &raw mut written, place) } == 0 {
                return Err(last_error());
            }
            if written == 0 {
                return Err(VmError::Unsupported);
            }
            bytes = bytes.get(written as usize..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn file_len(&self, file: i32) -> Option<u64> {
        let _kept = Kept::new();
        let handle = handle(file);
        let mut len = 0i64;
        // SAFETY: the call writes one number.
        let known = is_on_disk(handle) && unsafe { GetFileSizeEx(handle, &raw mut len) } != 0;
        known.then_some(len as u64)
    }

    fn truncate(&self, file: i32, len: u64) -> VmResult {
        let _kept = Kept::new();
        let handle = handle(file);
        // SAFETY: the calls touch no memory of ours.
        let done = unsafe {
            SetFilePointerEx(handle, len as i64, null_mut(), FILE_BEGIN) != 0 && SetEndOfFile(handle) != 0
        };
        if done { Ok(()) } else { Err(last_error()) }
    }

    fn lock(&self, file: i32) -> bool {
        let _kept = Kept::new();
        for _ in 0..LOCK_TRIES {
            let mut place = at(0, LOCKED_AT);
            let how = LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY;
            // SAFETY: the call reads the place; it does not wait, so nothing is written to it later.
            if unsafe { LockFileEx(handle(file), how, 0, 1, 0, &raw mut place) } != 0 {
                return true;
            }
            // SAFETY: the call touches no memory.
            unsafe { Sleep(1) };
        }
        false
    }

    fn unlock(&self, file: i32) {
        let _kept = Kept::new();
        let mut place = at(0, LOCKED_AT);
        // SAFETY: as in `lock`.
        unsafe { UnlockFileEx(handle(file), 0, 1, 0, &raw mut place) };
    }

    fn is_terminal(&self, file: i32) -> bool {
        let _kept = Kept::new();
        let mut mode = 0;
        // SAFETY: the call writes one number.
        unsafe { GetConsoleMode(handle(file), &raw mut mode) != 0 }
    }

    fn each_module(&self, each: &mut dyn FnMut(&Module)) {
        modules::each_module(each);
    }

    fn executable(&self, into: &mut [u8]) -> usize {
        modules::executable(into)
    }

    /// The command line taken apart by the rules of the C runtime, by which programs read it.
    fn arguments(&self, into: &mut [u8]) -> usize {
        // SAFETY: the line ends in a zero and stays as long as the process.
        let line = unsafe { text::ended(GetCommandLineW()) };
        let mut parts = Parts { line, at: 0, quoted: false };
        let mut len = 0usize;
        while parts.begin() {
            let room = into.get_mut(len..).unwrap_or(&mut []);
            len = len.saturating_add(text::to_utf8(&mut parts, room));
            let Some(end) = into.get_mut(len) else { break };
            *end = 0;
            len = len.saturating_add(1);
        }
        len
    }
}

/// The arguments of a command line: each [`Parts::begin`] finds the next, whose words the iterator gives.
struct Parts<'a> {
    line: &'a [u16],
    at: usize,
    quoted: bool,
}

const SPACE: u16 = b' ' as u16;
const TAB: u16 = b'\t' as u16;
const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;

impl Parts<'_> {
    fn begin(&mut self) -> bool {
        let rest = self.line.get(self.at..).unwrap_or(&[]);
        let spaces = rest.iter().take_while(|word| matches!(**word, SPACE | TAB)).count();
        self.at = self.at.saturating_add(spaces);
        self.at < self.line.len()
    }
}

impl Iterator for &mut Parts<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        loop {
            let rest = self.line.get(self.at..)?;
            let slashes = rest.iter().take_while(|word| **word == BACKSLASH).count();
            let quotes = rest.get(slashes) == Some(&QUOTE);
            let word = *rest.first()?;
            // Before a quote two backslashes are one, and one makes the quote a letter.
            let skip = match (slashes, quotes) {
                (0, true) => {
                    self.quoted = !self.quoted;
                    self.at = self.at.saturating_add(1);
                    continue;
                }
                (1, true) => {
                    self.at = self.at.saturating_add(2);
                    return Some(QUOTE);
                }
                (_, true) => 2,
                _ => 1,
            };
            if slashes == 0 && !self.quoted && matches!(word, SPACE | TAB) {
                return None;
            }
            self.at = self.at.saturating_add(skip);
            return Some(word);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn command_lines_are_taken_apart_as_programs_do() {
        let line: Vec<u16> =
            r#"  "C:\a b\c.exe" x "" "say \"hi\"" back\slash "end\\" "#.encode_utf16().collect();
        let mut parts = Parts { line: &line, at: 0, quoted: false };
        let mut found = Vec::new();
        while parts.begin() {
            let words: Vec<u16> = (&mut parts).collect();
            found.push(String::from_utf16(&words).unwrap());
        }
        assert_eq!(found, [r"C:\a b\c.exe", "x", "", r#"say "hi""#, r"back\slash", r"end\"]);
    }
}
