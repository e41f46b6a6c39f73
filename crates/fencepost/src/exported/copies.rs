//! Functions that copy or fill memory. Such a function faults by itself where it runs out of a block, in the middle of it:
//! what these add is that the whole call can be told. Each keeps its arguments on the stack, calls the C library's
//! function and returns what that returned. Who reports a fault in there finds the call by its return address.
//!
//! No argument is looked at here (but for where a text ends that is added to), and nothing is written but the stack. Until
//! the C library's function has been looked for, `memcpy` and its like copy by one repeated instruction: the code that looks
//! for it copies as well, and other libraries may copy while the loader has not come to this one yet.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by the C standard, POSIX and the glibc manual")]

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicUsize, Ordering};

use fencepost_guard::Copying;
use fencepost_record::CopyInfo;
use fencepost_sys::{Memory, Next};

use super::behind;
use crate::runtime::GUARD;

/// What the arguments are.
#[derive(Clone, Copy)]
enum Shape {
    /// To, from, bytes.
    Copy,
    /// From, to, bytes.
    CopyBack,
    /// To, a value, bytes.
    Fill,
    /// To, bytes.
    Clear,
    /// To, from, up to the zero.
    Text,
    /// The same of wide characters.
    WideText,
    /// To, from, wide characters.
    WideCopy,
    /// To, a value, wide characters.
    WideFill,
    /// To, from, up to the zero or so many bytes, and a zero behind them.
    TextPart,
    /// The same of wide characters.
    WideTextPart,
}

/// Bytes of a wide character (`wchar_t` of Linux).
const WIDE: u64 = 4;

/// A function behind ours. Its address comes first: the code below reads it there.
#[repr(C)]
struct Behind {
    address: AtomicUsize,
    name: &'static CStr,
    shape: Shape,
    /// The function as its caller names it.
    called: &'static str,
}

/// The name of the function behind, where it has another. Programs that were linked long ago may copy within one block by
/// `memcpy`, and have a version of it that allows that.
const fn behind_name(name: &'static str) -> &'static CStr {
    let is_memcpy = matches!(name.as_bytes(), b"memcpy\0");
    if is_memcpy { c"memmove" } else { super::buffers::named(name) }
}

/// Looks for a function that is called before [`prepare`] has looked for it.
extern "C" fn look_for(behind: &'static Behind) -> usize {
    let found = Next::new(behind.name).address().unwrap_or(0);
    behind.address.store(found, Ordering::Release);
    found
}

/// The length of the text that another is added to, in bytes: it is lost as soon as its zero is overwritten.
extern "C" fn len_of_text(text: *const c_char) -> usize {
    // SAFETY: the C library's function of this name has this type, and the caller of one of these functions gives a text.
    unsafe { behind!(c"strlen", "C" (text => *const c_char) -> usize) }.unwrap_or(0)
}

/// The same of wide characters.
extern "C" fn len_of_wide_text(text: *const c_char) -> usize {
    // SAFETY: as above.
    let count = unsafe { behind!(c"wcslen", "C" (text => *const c_char) -> usize) };
    count.unwrap_or(0).wrapping_mul(WIDE as usize)
}

// On the stack, from the return address that `returns` is: to our own caller the arguments rdi, rsi and rdx, then the
// return address to it. The tables of the unwinder have each push. Of a function that adds to a text it is not rdi but
// where that text ends.
macro_rules! copies {
    ($($name:ident $returns:literal $shape:ident $early:ident $(+ $end:ident)?)*) => {
        mod behind {
            use super::{AtomicUsize, Behind, Shape, behind_name};
            $(
                #[allow(non_upper_case_globals, reason = "the name of the function")]
                pub(super) static $name: Behind = Behind {
                    address: AtomicUsize::new(0),
                    name: behind_name(concat!(stringify!($name), "\0")),
                    shape: Shape::$shape,
                    called: stringify!($name),
                };
            )*
        }

        mod returns {
            unsafe extern "C" {
                $(
                    #[link_name = $returns]
                    #[allow(non_upper_case_globals, reason = "the name of the function")]
                    pub(super) static $name: u8;
                )*
            }
        }

        // The places that `all` names lie within these: they must be there wherever it is, also in a test of this crate,
        // which exports none of them.
        #[used]
        static HERE: [unsafe extern "C" fn(); [$( $returns ),*].len()] = [$( $name ),*];

        /// Where each function returns to from the one behind it.
        fn all() -> impl Iterator<Item = (usize, &'static Behind)> {
            [$( ((&raw const returns::$name).addr(), &behind::$name) ),*].into_iter()
        }

        /// Looks for all functions behind ours: later it may be a signal handler that needs one.
        pub(super) fn prepare() {
            $( let _ = look_for(&behind::$name); )*
        }

        $(
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name() {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rdx",
                    ".cfi_adjust_cfa_offset 8",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rdi",
                    ".cfi_adjust_cfa_offset 8",
                    "mov rax, [rip + {behind}]",
                    "test rax, rax",
                    "jz 3f",
                    "2:",
                    $(copies!(@end $end),)?
                    "call rax",
                    concat!(".globl ", $returns),
                    concat!(".hidden ", $returns),
                    concat!($returns, ":"),
                    "add rsp, 24",
                    ".cfi_adjust_cfa_offset -24",
                    "ret",
                    ".cfi_adjust_cfa_offset 24",
                    "3:",
                    copies!(@$early),
                    "jmp 2b",
                    ".cfi_endproc",
                    behind = sym behind::$name,
                    early = sym $early,
                    $(end = sym $end,)?
                );
            }
        )*
    };
    // The function behind and its fourth argument are kept meanwhile.
    (@end $end:ident) => {
        "push rax\n.cfi_adjust_cfa_offset 8\npush rcx\n.cfi_adjust_cfa_offset 8\ncall {end}\nmov r10, rax\n\
         pop rcx\n.cfi_adjust_cfa_offset -8\npop rax\n.cfi_adjust_cfa_offset -8\n\
         mov rdi, [rsp]\nmov rsi, [rsp + 8]\nmov rdx, [rsp + 16]\nadd [rsp], r10"
    };
    // A function that does the same, with the same arguments.
    (@copy_early) => { "lea rax, [rip + {early}]" };
    (@copy_past_early) => { "lea rax, [rip + {early}]" };
    (@fill_early) => { "lea rax, [rip + {early}]" };
    // The function itself, looked for now.
    (@look_for) => {
        "push rcx\n.cfi_adjust_cfa_offset 8\npush rcx\n.cfi_adjust_cfa_offset 8\nlea rdi, [rip + {behind}]\n\
         call {early}\npop rcx\n.cfi_adjust_cfa_offset -8\npop rcx\n.cfi_adjust_cfa_offset -8\n\
         mov rdi, [rsp]\nmov rsi, [rsp + 8]\nmov rdx, [rsp + 16]"
    };
}

copies! {
    memcpy "fencepost_returns_memcpy" Copy copy_early
    memmove "fencepost_returns_memmove" Copy copy_early
    mempcpy "fencepost_returns_mempcpy" Copy copy_past_early
    memset "fencepost_returns_memset" Fill fill_early
    __memcpy_chk "fencepost_returns_memcpy_chk" Copy look_for
    __memmove_chk "fencepost_returns_memmove_chk" Copy look_for
    __mempcpy_chk "fencepost_returns_mempcpy_chk" Copy look_for
    __memset_chk "fencepost_returns_memset_chk" Fill look_for
    bcopy "fencepost_returns_bcopy" CopyBack look_for
    bzero "fencepost_returns_bzero" Clear look_for
    strcpy "fencepost_returns_strcpy" Text look_for
    stpcpy "fencepost_returns_stpcpy" Text look_for
    strncpy "fencepost_returns_strncpy" Copy look_for
    stpncpy "fencepost_returns_stpncpy" Copy look_for
    __strcpy_chk "fencepost_returns_strcpy_chk" Text look_for
    __stpcpy_chk "fencepost_returns_stpcpy_chk" Text look_for
    __strncpy_chk "fencepost_returns_strncpy_chk" Copy look_for
    __stpncpy_chk "fencepost_returns_stpncpy_chk" Copy look_for
    strcat "fencepost_returns_strcat" Text look_for + len_of_text
    strncat "fencepost_returns_strncat" TextPart look_for + len_of_text
    __strcat_chk "fencepost_returns_strcat_chk" Text look_for + len_of_text
    __strncat_chk "fencepost_returns_strncat_chk" TextPart look_for + len_of_text
    wmemcpy "fencepost_returns_wmemcpy" WideCopy look_for
    wmemmove "fencepost_returns_wmemmove" WideCopy look_for
    wmempcpy "fencepost_returns_wmempcpy" WideCopy look_for
    wmemset "fencepost_returns_wmemset" WideFill look_for
    wcscpy "fencepost_returns_wcscpy" WideText look_for
    wcpcpy "fencepost_returns_wcpcpy" WideText look_for
    wcsncpy "fencepost_returns_wcsncpy" WideCopy look_for
    wcpncpy "fencepost_returns_wcpncpy" WideCopy look_for
    wcscat "fencepost_returns_wcscat" WideText look_for + len_of_wide_text
    wcsncat "fencepost_returns_wcsncat" WideTextPart look_for + len_of_wide_text
    __wmemcpy_chk "fencepost_returns_wmemcpy_chk" WideCopy look_for
    __wmemmove_chk "fencepost_returns_wmemmove_chk" WideCopy look_for
    __wmempcpy_chk "fencepost_returns_wmempcpy_chk" WideCopy look_for
    __wmemset_chk "fencepost_returns_wmemset_chk" WideFill look_for
    __wcscpy_chk "fencepost_returns_wcscpy_chk" WideText look_for
    __wcpcpy_chk "fencepost_returns_wcpcpy_chk" WideText look_for
    __wcsncpy_chk "fencepost_returns_wcsncpy_chk" WideCopy look_for
    __wcpncpy_chk "fencepost_returns_wcpncpy_chk" WideCopy look_for
    __wcscat_chk "fencepost_returns_wcscat_chk" WideText look_for + len_of_wide_text
    __wcsncat_chk "fencepost_returns_wcsncat_chk" WideTextPart look_for + len_of_wide_text
}

/// `memmove` by one instruction.
#[unsafe(naked)]
unsafe extern "C" fn copy_early() {
    core::arch::naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        "lea r8, [rdi]",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        // It begins inside of what is read: from the end.
        "2:",
        "lea rsi, [rsi + rcx - 1]",
        "lea rdi, [rdi + rcx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
    );
}

/// `mempcpy` by one instruction.
#[unsafe(naked)]
unsafe extern "C" fn copy_past_early() {
    core::arch::naked_asm!("mov rcx, rdx", "rep movsb", "mov rax, rdi", "ret");
}

/// `memset` by one instruction.
#[unsafe(naked)]
unsafe extern "C" fn fill_early() {
    core::arch::naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret",);
}

/// Words of the stack that are looked through for a call: those functions use few, if any.
const WORDS: usize = 128;
/// The longest text that is measured, in bytes.
const TEXT_MAX: u64 = 1 << 20;

/// The call of one of these functions that is on the stack. Runs while an error is reported.
///
/// It is found by its return address among the innermost frames, and believed if on the stack its caller's return
/// address stands behind the arguments as well.
pub(crate) fn under_way(sp: usize, frames: &[u64]) -> Option<Copying> {
    let (frame, behind) = frames.iter().enumerate().skip(1).take(3).find_map(|(index, frame)| {
        all().find(|(returns, _)| *returns as u64 == *frame).map(|(_, behind)| (index, behind))
    })?;
    let (returns, caller) = (*frames.get(frame)?, *frames.get(frame.checked_add(1)?)?);
    let mut bytes = [0u8; WORDS * 8];
    let read = GUARD.platform().read_checked(sp, &mut bytes);
    let (words, _) = bytes.get(..read)?.as_chunks();
    let words = words
        .windows(5)
        .map(|five| <[[u8; 8]; 5]>::try_from(five).unwrap_or_default().map(u64::from_le_bytes));
    let found = words.into_iter().find(|[first, .., last]| (*first, *last) == (returns, caller));
    // Where the arguments are not found, the frame is ours all the same.
    let copy = found.map(|[_, rdi, rsi, rdx, _]| copy_of(behind, [rdi, rsi, rdx])).unwrap_or_default();
    Some(Copying { frame, copy })
}

fn copy_of(behind: &Behind, [first, second, third]: [u64; 3]) -> CopyInfo {
    let (to, from, size) = match behind.shape {
        Shape::Copy => (first, Some(second), Some(third)),
        Shape::CopyBack => (second, Some(first), Some(third)),
        Shape::Fill => (first, None, Some(third)),
        Shape::Clear => (first, None, Some(second)),
        Shape::Text => (first, Some(second), text_len(second, first, 1, u64::MAX)),
        Shape::TextPart => (first, Some(second), text_len(second, first, 1, third)),
        Shape::WideText => (first, Some(second), text_len(second, first, WIDE, u64::MAX)),
        Shape::WideTextPart => (first, Some(second), text_len(second, first, WIDE, third)),
        Shape::WideCopy => (first, Some(second), third.checked_mul(WIDE)),
        Shape::WideFill => (first, None, third.checked_mul(WIDE)),
    };
    CopyInfo { function: behind.called, to, from, size, left: None }
}

/// Bytes of the text at an address, its zero with them, if characters have `unit` bytes and no more than `most` count;
/// `None` where it has no end in readable memory, or where the copy of it may have overwritten that.
fn text_len(text: u64, to: u64, unit: u64, most: u64) -> Option<u64> {
    let most = most.saturating_mul(unit);
    let whole = |len: u64| (text.abs_diff(to) >= len).then_some(len);
    let mut len = 0u64;
    let mut bytes = [0u8; 256];
    while len < TEXT_MAX {
        let read = GUARD.platform().read_checked(text.checked_add(len)? as usize, &mut bytes);
        let part = bytes.get(..read)?;
        let mut characters = part.chunks_exact(usize::try_from(unit).ok()?);
        let zero = characters.position(|character| character.iter().all(|byte| *byte == 0));
        let end = zero.and_then(|zero| len.checked_add((zero as u64).checked_mul(unit)?));
        if let Some(end) = end.or_else(|| (len.checked_add(read as u64)? >= most).then_some(most)) {
            // The zero behind it is written in any case.
            return whole(end.min(most).checked_add(unit)?);
        }
        if part.len() < bytes.len() {
            return None;
        }
        len = len.checked_add(read as u64)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Move = unsafe extern "C" fn(*mut u8, *const u8, usize) -> *mut u8;

    fn as_move(function: unsafe extern "C" fn()) -> Move {
        // SAFETY: these functions take what `memmove` takes; naked ones have no type of their own.
        unsafe { core::mem::transmute(function) }
    }

    #[test]
    fn copies_before_the_start_are_right() {
        let start: Vec<u8> = (0..64).collect();
        for (to, from, len) in
            [(0, 8, 32), (8, 0, 32), (8, 0, 8), (1, 0, 63), (5, 5, 9), (3, 40, 0), (40, 3, 0)]
        {
            let (mut ours, mut wanted) = (start.clone(), start.clone());
            wanted.copy_within(from..from + len, to);
            let at = ours.as_mut_ptr();
            // SAFETY: both ranges lie in the vector.
            let end = unsafe { as_move(copy_early)(at.add(to), at.add(from), len) };
            assert_eq!((&ours, end.addr()), (&wanted, at.addr() + to), "{to} {from} {len}");
        }
        let mut bytes = [0u8; 9];
        // SAFETY: as above.
        let end = unsafe { as_move(copy_past_early)(bytes.as_mut_ptr(), start.as_ptr().add(1), 8) };
        assert_eq!((bytes, end.addr() - bytes.as_ptr().addr()), ([1, 2, 3, 4, 5, 6, 7, 8, 0], 8));
        // SAFETY: `memset` takes a number where `memmove` takes an address; the eight bytes are there.
        let back =
            unsafe { as_move(fill_early)(bytes.as_mut_ptr(), core::ptr::without_provenance(0x107), 8) };
        assert_eq!((bytes, back.addr()), ([7, 7, 7, 7, 7, 7, 7, 7, 0], bytes.as_ptr().addr()));
    }

    #[test]
    fn a_text_has_a_length_where_it_has_an_end() {
        let text = [b"x".repeat(700), b"\0rest".to_vec()].concat();
        let at = text.as_ptr().addr() as u64;
        let all = |to| text_len(at, to, 1, u64::MAX);
        assert_eq!(all(0), Some(701));
        assert_eq!(all(at + 701), Some(701));
        assert_eq!(all(at + 700), None, "its zero may be a copy's");
        assert_eq!(text_len(8, 0, 1, u64::MAX), None, "not to be read");
        for (most, len) in [(0, 1), (10, 11), (256, 257), (699, 700), (700, 701), (5000, 701)] {
            assert_eq!(text_len(at, 0, 1, most), Some(len), "{most}");
        }
        let wide: Vec<u32> = std::iter::repeat_n(0x100, 300).chain([0, 7]).collect();
        let at = wide.as_ptr().addr() as u64;
        for (most, len) in [(u64::MAX, 1204), (300, 1204), (299, 1200), (64, 260), (0, 4)] {
            assert_eq!(text_len(at, 0, 4, most), Some(len), "{most}");
        }
    }
}
