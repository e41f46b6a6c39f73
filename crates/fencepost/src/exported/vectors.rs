//! Buffers that a call names by a table of their addresses and lengths (`struct iovec`, `struct msghdr`).

use core::ffi::c_void;

/// `struct iovec` of POSIX.
#[repr(C)]
#[derive(Clone, Copy)]
struct Piece {
    start: *mut c_void,
    len: usize,
}

/// `struct msghdr`, as glibc has it on 64-bit systems.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    name: *mut c_void,
    name_len: u32,
    pieces: *mut Piece,
    count: usize,
    control: *mut c_void,
    control_len: usize,
    flags: i32,
}

/// `struct mmsghdr` of recvmmsg(2).
#[repr(C)]
#[derive(Clone, Copy)]
struct Counted {
    message: Message,
    len: u32,
}

const _: () = assert!(size_of::<Message>() == 56 && size_of::<Counted>() == 64, "as the kernel has them");

/// The most entries that the kernel takes (`UIO_MAXIOV`): with more it refuses the call.
const COUNT_MAX: usize = 1024;

/// How a buffer is looked at: its start, its length, the caller's anchor.
type Look = fn(*mut c_void, usize, usize);

/// Looks at every buffer of a table, and at the table.
pub(super) fn look_at_vector(vector: *mut c_void, count: usize, look: Look, anchor: usize) {
    if vector.is_null() || count > COUNT_MAX {
        return;
    }
    super::buffers::read_from(vector, count.saturating_mul(size_of::<Piece>()), anchor);
    for index in 0..count {
        // SAFETY: the caller gives a table of this many entries, which was just found to lie within its block.
        let piece = unsafe { vector.cast::<Piece>().wrapping_add(index).read() };
        look(piece.start, piece.len, anchor);
    }
}

/// Looks at the buffers of a message, and at its parts.
pub(super) fn look_at_message(message: *mut c_void, look: Look, anchor: usize) {
    if message.is_null() {
        return;
    }
    super::buffers::read_from(message, size_of::<Message>(), anchor);
    // SAFETY: the caller gives a message, which was just found to lie within its block.
    let message = unsafe { message.cast::<Message>().read() };
    look(message.name, if message.name.is_null() { 0 } else { message.name_len as usize }, anchor);
    look_at_vector(message.pieces.cast(), message.count, look, anchor);
    look(message.control, if message.control.is_null() { 0 } else { message.control_len }, anchor);
}

/// Looks at every message of a table.
pub(super) fn look_at_messages(messages: *mut c_void, count: usize, look: Look, anchor: usize) {
    if messages.is_null() {
        return;
    }
    for index in 0..count.min(COUNT_MAX) {
        look_at_message(messages.cast::<Counted>().wrapping_add(index).cast(), look, anchor);
    }
}
