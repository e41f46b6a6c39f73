//! The C library's own functions behind the ones we put in their place, and its heap.
//!
//! What is put in their place is said in a table that the loader reads (`__DATA,__interpose`), and the loader leaves the
//! calls of that table's own library alone: so the plain names mean the C library's functions here.

use core::ffi::c_void;

/// Whether an address lies in the executable or library that this code is in.
pub fn is_in_this_object(address: usize) -> bool {
    let here = is_in_this_object as fn(usize) -> bool as usize;
    match (object_of(address), object_of(here)) {
        (Some(its), Some(ours)) => its == ours,
        _ => true,
    }
}

/// Where the object that holds an address begins.
fn object_of(address: usize) -> Option<usize> {
    let mut found = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr compares the address and fills one Dl_info, for which zeros are valid.
    let found = unsafe {
        (libc::dladdr(address as *const c_void, found.as_mut_ptr()) != 0).then(|| found.assume_init())
    };
    found.map(|found| found.dli_fbase.addr())
}

/// The C library's heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct LibcHeap;

impl LibcHeap {
    /// A block of `size` bytes aligned to `align`, a power of two; null where there is no memory.
    pub fn allocate(self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        // What malloc aligns to.
        const NATURAL: usize = 16;
        // SAFETY: these functions take any size.
        match (align <= NATURAL, zeroed) {
            (true, false) => return unsafe { libc::malloc(size) }.cast(),
            // SAFETY: as above.
            (true, true) => return unsafe { libc::calloc(1, size) }.cast(),
            (false, _) => {}
        }
        let mut block = core::ptr::null_mut();
        // SAFETY: the alignment is a power of two and at least a pointer's size; the function writes one address.
        if unsafe { libc::posix_memalign(&raw mut block, align, size) } != 0 {
            return core::ptr::null_mut();
        }
        if zeroed {
            // SAFETY: the block was given out just now with this many bytes.
            unsafe { block.cast::<u8>().write_bytes(0, size) };
        }
        block.cast()
    }

    /// Resizes a block; null where there is no memory, and then the block is as it was.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive, and `size` not zero.
    pub unsafe fn resize(self, block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { libc::realloc(block.cast(), size) }.cast()
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive, and not be used any more.
    pub unsafe fn free(self, block: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { libc::free(block.cast()) };
    }

    /// Nothing has to be looked for.
    pub fn prepare(self) {}

    /// The bytes that a block has room for.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive.
    pub unsafe fn room(self, block: *mut u8) -> Option<usize> {
        // SAFETY: passed on to the caller.
        Some(unsafe { libc::malloc_size(block.cast()) })
    }
}
