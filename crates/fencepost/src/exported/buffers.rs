//! Functions that hand a buffer of the program's to the kernel.
//!
//! The kernel does not raise a fault for a page that traps: it gives a short result, or `EFAULT`. So each of these looks
//! at its buffers first, against the block they lie in, and then lets the C library's function do what it does. The
//! length that counts is the one that the program names, as for the C library's own fortified functions: a buffer
//! that is shorter than the program says is an error whatever arrives in it.
//!
//! Not seen: calls by `syscall` (but for futexes, see `threads`), by other languages' runtimes and through io_uring.
#![allow(clippy::missing_safety_doc, reason = "each has the rules of the C function of its name")]
#![allow(missing_docs, reason = "documented by POSIX and the Linux manual pages")]

use core::ffi::{c_int, c_void};

use fencepost_record::AccessType;
use fencepost_sys::{ErrorNumber, Next};

use super::vectors::{look_at_message, look_at_messages, look_at_vector};
use crate::runtime::{GUARD, here};

type Bytes = *mut c_void;

/// Bytes of one entry of `poll` (`struct pollfd`).
const POLLED: usize = 8;
/// Bytes of one entry of `epoll_wait` (`struct epoll_event`), which is packed on x86_64.
const EVENT: usize = if cfg!(target_arch = "x86_64") { 12 } else { 16 };

/// Looks at a buffer that the kernel will write to.
#[inline]
pub(super) fn filled(buffer: Bytes, len: usize, anchor: usize) {
    GUARD.check_buffer(buffer.addr(), len, AccessType::Write, anchor);
}

/// Looks at a buffer that the kernel will read.
#[inline]
pub(super) fn read_from(buffer: Bytes, len: usize, anchor: usize) {
    GUARD.check_buffer(buffer.addr(), len, AccessType::Read, anchor);
}

/// Looks at a buffer whose length stands in a place of its own, as for socket addresses.
fn filled_up_to(buffer: Bytes, len: *const u32, anchor: usize) {
    if buffer.is_null() || len.is_null() {
        return;
    }
    // SAFETY: the caller of a socket function gives the address of a length, or null.
    let len = unsafe { len.read() };
    filled(buffer, len as usize, anchor);
}

/// What a function gives that the C library does not have: its like for an error.
pub(super) trait Missing {
    fn missing() -> Self;
}

impl Missing for isize {
    fn missing() -> isize {
        ErrorNumber::NOT_THERE.set();
        -1
    }
}

impl Missing for c_int {
    fn missing() -> c_int {
        ErrorNumber::NOT_THERE.set();
        -1
    }
}

impl Missing for usize {
    fn missing() -> usize {
        0
    }
}

impl Missing for *mut c_void {
    fn missing() -> *mut c_void {
        core::ptr::null_mut()
    }
}

// Each function: its type, and what to look at before it is called. Unwinding must come through, because a thread may be
// cancelled while it waits in one of these.
macro_rules! looked_at {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty { |$anchor:ident| $($look:expr);+ })*) => {
        mod behind {
            use super::Next;
            $(
                #[allow(non_upper_case_globals, reason = "the name of the function")]
                pub(super) static $name: Next = Next::new(super::named(concat!(stringify!($name), "\0")));
            )*
        }

        /// Finds all functions behind ours: later it may be a signal handler that needs one.
        pub(super) fn prepare() {
            $( let _ = behind::$name.address(); )*
        }

        $(
            #[inline(never)]
            pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> $result {
                let $anchor = here();
                $( $look; )+
                let Some(address) = behind::$name.address() else { return Missing::missing() };
                // SAFETY: the C library's function of this name has this type, and the caller keeps its rules.
                unsafe {
                    let function: unsafe extern "C-unwind" fn($($type),*) -> $result =
                        core::mem::transmute(address);
                    let result = function($($arg),*);
                    crate::runtime::GUARD.after_call();
                    result
                }
            }
        )*
    };
}
pub(super) use looked_at;

pub(super) const fn named(name: &'static str) -> &'static core::ffi::CStr {
    match core::ffi::CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => c"",
    }
}

looked_at! {
    read(file: c_int, buffer: Bytes, len: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    __read_chk(file: c_int, buffer: Bytes, len: usize, room: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    write(file: c_int, buffer: Bytes, len: usize) -> isize { |anchor| read_from(buffer, len, anchor) }
    pread(file: c_int, buffer: Bytes, len: usize, offset: i64) -> isize { |anchor| filled(buffer, len, anchor) }
    __pread_chk(file: c_int, buffer: Bytes, len: usize, offset: i64, room: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    pwrite(file: c_int, buffer: Bytes, len: usize, offset: i64) -> isize { |anchor| read_from(buffer, len, anchor) }
    pread64(file: c_int, buffer: Bytes, len: usize, offset: i64) -> isize { |anchor| filled(buffer, len, anchor) }
    __pread64_chk(file: c_int, buffer: Bytes, len: usize, offset: i64, room: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    pwrite64(file: c_int, buffer: Bytes, len: usize, offset: i64) -> isize { |anchor| read_from(buffer, len, anchor) }
    recv(socket: c_int, buffer: Bytes, len: usize, flags: c_int) -> isize { |anchor| filled(buffer, len, anchor) }
    __recv_chk(socket: c_int, buffer: Bytes, len: usize, room: usize, flags: c_int) -> isize { |anchor| filled(buffer, len, anchor) }
    recvfrom(socket: c_int, buffer: Bytes, len: usize, flags: c_int, from: Bytes, from_len: *mut u32) -> isize { |anchor| filled(buffer, len, anchor); filled_up_to(from, from_len, anchor) }
    __recvfrom_chk(socket: c_int, buffer: Bytes, len: usize, room: usize, flags: c_int, from: Bytes, from_len: *mut u32) -> isize { |anchor| filled(buffer, len, anchor); filled_up_to(from, from_len, anchor) }
    send(socket: c_int, buffer: Bytes, len: usize, flags: c_int) -> isize { |anchor| read_from(buffer, len, anchor) }
    sendto(socket: c_int, buffer: Bytes, len: usize, flags: c_int, to: Bytes, to_len: u32) -> isize { |anchor| read_from(buffer, len, anchor); read_from(to, to_len as usize, anchor) }
    readv(file: c_int, vector: Bytes, count: c_int) -> isize { |anchor| look_at_vector(vector, count as usize, filled, anchor) }
    preadv(file: c_int, vector: Bytes, count: c_int, offset: i64) -> isize { |anchor| look_at_vector(vector, count as usize, filled, anchor) }
    preadv2(file: c_int, vector: Bytes, count: c_int, offset: i64, flags: c_int) -> isize { |anchor| look_at_vector(vector, count as usize, filled, anchor) }
    preadv64(file: c_int, vector: Bytes, count: c_int, offset: i64) -> isize { |anchor| look_at_vector(vector, count as usize, filled, anchor) }
    preadv64v2(file: c_int, vector: Bytes, count: c_int, offset: i64, flags: c_int) -> isize { |anchor| look_at_vector(vector, count as usize, filled, anchor) }
    writev(file: c_int, vector: Bytes, count: c_int) -> isize { |anchor| look_at_vector(vector, count as usize, read_from, anchor) }
    pwritev(file: c_int, vector: Bytes, count: c_int, offset: i64) -> isize { |anchor| look_at_vector(vector, count as usize, read_from, anchor) }
    pwritev2(file: c_int, vector: Bytes, count: c_int, offset: i64, flags: c_int) -> isize { |anchor| look_at_vector(vector, count as usize, read_from, anchor) }
    pwritev64(file: c_int, vector: Bytes, count: c_int, offset: i64) -> isize { |anchor| look_at_vector(vector, count as usize, read_from, anchor) }
    pwritev64v2(file: c_int, vector: Bytes, count: c_int, offset: i64, flags: c_int) -> isize { |anchor| look_at_vector(vector, count as usize, read_from, anchor) }
    recvmsg(socket: c_int, message: Bytes, flags: c_int) -> isize { |anchor| look_at_message(message, filled, anchor) }
    sendmsg(socket: c_int, message: Bytes, flags: c_int) -> isize { |anchor| look_at_message(message, read_from, anchor) }
    recvmmsg(socket: c_int, messages: Bytes, count: u32, flags: c_int, timeout: Bytes) -> c_int { |anchor| look_at_messages(messages, count as usize, filled, anchor) }
    sendmmsg(socket: c_int, messages: Bytes, count: u32, flags: c_int) -> c_int { |anchor| look_at_messages(messages, count as usize, read_from, anchor) }
    fread(buffer: Bytes, size: usize, count: usize, stream: Bytes) -> usize { |anchor| filled(buffer, size.saturating_mul(count), anchor) }
    __fread_chk(buffer: Bytes, room: usize, size: usize, count: usize, stream: Bytes) -> usize { |anchor| filled(buffer, size.saturating_mul(count), anchor) }
    fread_unlocked(buffer: Bytes, size: usize, count: usize, stream: Bytes) -> usize { |anchor| filled(buffer, size.saturating_mul(count), anchor) }
    __fread_unlocked_chk(buffer: Bytes, room: usize, size: usize, count: usize, stream: Bytes) -> usize { |anchor| filled(buffer, size.saturating_mul(count), anchor) }
    fwrite(buffer: Bytes, size: usize, count: usize, stream: Bytes) -> usize { |anchor| read_from(buffer, size.saturating_mul(count), anchor) }
    fwrite_unlocked(buffer: Bytes, size: usize, count: usize, stream: Bytes) -> usize { |anchor| read_from(buffer, size.saturating_mul(count), anchor) }
    getcwd(buffer: Bytes, len: usize) -> *mut c_void { |anchor| filled(buffer, len, anchor) }
    __getcwd_chk(buffer: Bytes, len: usize, room: usize) -> *mut c_void { |anchor| filled(buffer, len, anchor) }
    getdents64(file: c_int, buffer: Bytes, len: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    getrandom(buffer: Bytes, len: usize, flags: u32) -> isize { |anchor| filled(buffer, len, anchor) }
    getentropy(buffer: Bytes, len: usize) -> c_int { |anchor| filled(buffer, len, anchor) }
    readlink(path: Bytes, buffer: Bytes, len: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    __readlink_chk(path: Bytes, buffer: Bytes, len: usize, room: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    readlinkat(folder: c_int, path: Bytes, buffer: Bytes, len: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    __readlinkat_chk(folder: c_int, path: Bytes, buffer: Bytes, len: usize, room: usize) -> isize { |anchor| filled(buffer, len, anchor) }
    getsockopt(socket: c_int, level: c_int, name: c_int, value: Bytes, len: *mut u32) -> c_int { |anchor| filled_up_to(value, len, anchor) }
    setsockopt(socket: c_int, level: c_int, name: c_int, value: Bytes, len: u32) -> c_int { |anchor| read_from(value, len as usize, anchor) }
    getsockname(socket: c_int, address: Bytes, len: *mut u32) -> c_int { |anchor| filled_up_to(address, len, anchor) }
    getpeername(socket: c_int, address: Bytes, len: *mut u32) -> c_int { |anchor| filled_up_to(address, len, anchor) }
    accept(socket: c_int, address: Bytes, len: *mut u32) -> c_int { |anchor| filled_up_to(address, len, anchor) }
    accept4(socket: c_int, address: Bytes, len: *mut u32, flags: c_int) -> c_int { |anchor| filled_up_to(address, len, anchor) }
    connect(socket: c_int, address: Bytes, len: u32) -> c_int { |anchor| read_from(address, len as usize, anchor) }
    bind(socket: c_int, address: Bytes, len: u32) -> c_int { |anchor| read_from(address, len as usize, anchor) }
    poll(files: Bytes, count: u64, timeout: c_int) -> c_int { |anchor| filled(files, POLLED.saturating_mul(count as usize), anchor) }
    __poll_chk(files: Bytes, count: u64, timeout: c_int, room: usize) -> c_int { |anchor| filled(files, POLLED.saturating_mul(count as usize), anchor) }
    ppoll(files: Bytes, count: u64, timeout: Bytes, mask: Bytes) -> c_int { |anchor| filled(files, POLLED.saturating_mul(count as usize), anchor) }
    epoll_wait(file: c_int, events: Bytes, count: c_int, timeout: c_int) -> c_int { |anchor| filled(events, EVENT.saturating_mul(count.max(0) as usize), anchor) }
    epoll_pwait(file: c_int, events: Bytes, count: c_int, timeout: c_int, mask: Bytes) -> c_int { |anchor| filled(events, EVENT.saturating_mul(count.max(0) as usize), anchor) }
    getxattr(path: Bytes, name: Bytes, value: Bytes, len: usize) -> isize { |anchor| filled(value, len, anchor) }
    lgetxattr(path: Bytes, name: Bytes, value: Bytes, len: usize) -> isize { |anchor| filled(value, len, anchor) }
    fgetxattr(file: c_int, name: Bytes, value: Bytes, len: usize) -> isize { |anchor| filled(value, len, anchor) }
    listxattr(path: Bytes, list: Bytes, len: usize) -> isize { |anchor| filled(list, len, anchor) }
    llistxattr(path: Bytes, list: Bytes, len: usize) -> isize { |anchor| filled(list, len, anchor) }
    flistxattr(file: c_int, list: Bytes, len: usize) -> isize { |anchor| filled(list, len, anchor) }
}
