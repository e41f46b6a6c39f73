//! The C library's own functions behind the ones we put in their place, and its heap.
//!
//! The heap is called by the names that the C library keeps for such as us (`__libc_malloc` and its like: exported by
//! every glibc, malloc/malloc.c). The rest is asked of the loader, when it is first needed and never on the way of an
//! allocation: `dlsym` may allocate.

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

/// A function that another object of the process defines behind ours.
#[derive(Debug)]
pub struct Next {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Next {
    /// The function of this name; looked for at first use.
    pub const fn new(name: &'static CStr) -> Next {
        Next { name, address: AtomicUsize::new(0) }
    }

    /// Its address, if it was looked for before. Asks nobody.
    pub fn known(&self) -> Option<usize> {
        let address = self.address.load(Ordering::Acquire);
        (address != 0).then_some(address)
    }

    /// Its address; `None` where there is no such function. May allocate at first use.
    pub fn address(&self) -> Option<usize> {
        let mut address = self.address.load(Ordering::Acquire);
        if address == 0 {
            // RTLD_NEXT means the objects behind the one that this is in.
            address = look_up(libc::RTLD_NEXT, self.name);
            self.address.store(address, Ordering::Release);
        }
        (address != 0).then_some(address)
    }
}

/// A failed search leaves a message for the program's next `dlerror`, which is not the program's: it is taken away.
fn look_up(scope: *mut c_void, name: &CStr) -> usize {
    // SAFETY: dlsym reads a zero-ended name.
    let address = unsafe { libc::dlsym(scope, name.as_ptr()) }.addr();
    if address == 0 {
        // SAFETY: dlerror touches only the loader's own message of this thread.
        unsafe { libc::dlerror() };
    }
    address
}

/// The address that the whole process binds a name to. May allocate.
///
/// An executable with fixed addresses that keeps a pointer to a function of a library stands for that function by a
/// stub of its own, so that pointers to it compare equal everywhere (the x86-64 ABI, 4.3 "Function Addresses"); calls go on to
/// the first library that has it, which is what is answered here.
pub fn bound(name: &CStr) -> Option<usize> {
    let address = look_up(libc::RTLD_DEFAULT, name);
    let address = if address != 0 && is_stub(address) { bound_in_libraries(name) } else { address };
    (address != 0).then_some(address)
}

/// Whether what the loader knows at an address is a symbol that its object does not define.
#[cfg(target_env = "gnu")]
fn is_stub(address: usize) -> bool {
    unsafe extern "C" {
        fn dladdr1(
            address: *const c_void,
            found: *mut libc::Dl_info,
            extra: *mut *const libc::Elf64_Sym,
            flags: libc::c_int,
        ) -> libc::c_int;
    }
    const RTLD_DL_SYMENT: libc::c_int = 1;
    let mut found = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let mut symbol = core::ptr::null();
    // SAFETY: dladdr1 compares the address, fills one Dl_info and, with this flag, one pointer to a symbol (dladdr(3)).
    let known = unsafe {
        dladdr1(address as *const c_void, found.as_mut_ptr(), &raw mut symbol, RTLD_DL_SYMENT) != 0
    };
    // SAFETY: a symbol that the loader gives out lies in the table of a loaded object; no object is unloaded at the start.
    known && !symbol.is_null() && unsafe { (*symbol).st_shndx } == 0
}

#[cfg(not(target_env = "gnu"))]
fn is_stub(_address: usize) -> bool {
    false
}

/// The function of this name in the first library that has it, in the order in which the loader searches; 0 if none has.
fn bound_in_libraries(name: &CStr) -> usize {
    struct Search<'a> {
        name: &'a CStr,
        found: usize,
    }
    unsafe extern "C" fn one(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> libc::c_int {
        // SAFETY: the loader passes a valid description, and `data` on, which is the exclusive `Search` below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search<'_>>()) };
        // SAFETY: the loader keeps this zero-ended name, or null, while it walks.
        if info.dlpi_name.is_null() || unsafe { *info.dlpi_name } == 0 {
            return 0; // The executable.
        }
        // SAFETY: as above; RTLD_NOLOAD loads nothing, and the count that it raises goes down again.
        let handle = unsafe { libc::dlopen(info.dlpi_name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            // SAFETY: as in `look_up`: the message is not the program's.
            unsafe { libc::dlerror() };
            return 0;
        }
        let address = look_up(handle, search.name);
        // SAFETY: the handle is the one opened above, closed once.
        unsafe { libc::dlclose(handle) };
        // A library answers for those that it needs as well.
        let its_own = object_of(address).is_some_and(|base| base == info.dlpi_addr as usize);
        search.found = if address != 0 && its_own { address } else { 0 };
        libc::c_int::from(search.found != 0)
    }
    let mut search = Search { name, found: 0 };
    // SAFETY: `one` has the type that is wanted, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut search).cast()) };
    search.found
}

/// Whether an address lies in the object (executable or library) that this code is in.
pub fn is_in_this_object(address: usize) -> bool {
    let here = is_in_this_object as fn(usize) -> bool as usize;
    match (object_of(address), object_of(here)) {
        (Some(its), Some(ours)) => its == ours,
        // A static executable is one object, of which the loader knows nothing.
        _ => true,
    }
}

/// Where the object that holds an address begins.
fn object_of(address: usize) -> Option<usize> {
    about(address).map(|found| found.dli_fbase.addr())
}

/// Whether an address lies in an object whose file name begins with one of `names`.
pub fn is_in_library(address: usize, names: &[&str]) -> bool {
    let Some(path) = about(address).map(|found| found.dli_fname).filter(|path| !path.is_null()) else {
        return false;
    };
    // SAFETY: the loader keeps this zero-ended name as long as the object is loaded, and it holds running code.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    names.iter().any(|wanted| name.starts_with(wanted.as_bytes()))
}

fn about(address: usize) -> Option<libc::Dl_info> {
    let mut found = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr compares the address and fills one Dl_info, for which zeros are valid.
    unsafe { (libc::dladdr(address as *const c_void, found.as_mut_ptr()) != 0).then(|| found.assume_init()) }
}

/// The C library's heap, whatever name `malloc` is bound to.
#[derive(Clone, Copy, Debug, Default)]
pub struct LibcHeap;

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
}

#[cfg(target_env = "gnu")]
impl LibcHeap {
    /// A block of `size` bytes aligned to `align`, a power of two; null where there is no memory.
    pub fn allocate(self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        // What malloc aligns to.
        const NATURAL: usize = 16;
        // SAFETY: these functions take any size; the alignment is a power of two.
        let block = unsafe {
            match (align <= NATURAL, zeroed) {
                (true, false) => __libc_malloc(size),
                (true, true) => __libc_calloc(1, size),
                (false, _) => __libc_memalign(align, size),
            }
        };
        if zeroed && align > NATURAL && !block.is_null() {
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
        unsafe { __libc_realloc(block.cast(), size) }.cast()
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive, and not be used any more.
    pub unsafe fn free(self, block: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { __libc_free(block.cast()) };
    }

    /// Looks for the one function that the loader has to be asked for. May allocate, and must come before the program's
    /// own code runs.
    pub fn prepare(self) {
        let found = USABLE.address();
        // Without it blocks have no known room, which [`LibcHeap::room`] says.
        let _ = found;
    }

    /// The bytes that a block has room for; `None` before [`LibcHeap::prepare`].
    ///
    /// It never asks the loader itself: while that makes up a message for `dlerror` it resizes blocks, and a search in
    /// the middle of it would free the message under its hands.
    ///
    /// # Safety
    /// `block` must be one of this heap's, alive.
    pub unsafe fn room(self, block: *mut u8) -> Option<usize> {
        let address = USABLE.known()?;
        // SAFETY: the C library's function has this type; the rest is the caller's word.
        unsafe {
            let usable: extern "C" fn(*mut c_void) -> usize = core::mem::transmute(address);
            Some(usable(block.cast()))
        }
    }
}

#[cfg(target_env = "gnu")]
static USABLE: Next = Next::new(c"malloc_usable_size");
