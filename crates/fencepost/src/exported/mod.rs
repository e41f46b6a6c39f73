//! The C library's functions, as [`export_libc!`](crate::export_libc) puts them in the C library's place.
//!
//! Nothing here is exported by itself: the macro defines the symbols, each a jump to the function of the same name in
//! this module. A jump, so that no frame of ours stands between the program and these functions, and so that they find
//! their arguments as the caller left them.
//!
//! Invariants: every function behaves as the C library's, for the program's eyes; `errno` is touched only where the
//! function's own rules say so; while we stand back, the C library's own function behind ours does the work.

mod buffers;
#[cfg(target_arch = "x86_64")]
pub(crate) mod copies;
pub(crate) mod ending;
mod heap;
mod operators;
mod questions;
mod resource_limits;
mod signals;
mod start;
mod structures;
mod threads;
mod vectors;

pub use buffers::*;
#[cfg(target_arch = "x86_64")]
pub use copies::*;
pub use ending::*;
pub use heap::*;
pub use operators::*;
pub use questions::*;
pub use resource_limits::*;
pub use signals::*;
pub(crate) use start::{is_in_force, take_over};
pub use start::{on_load, step_back};
pub use structures::*;
pub use threads::*;

use crate::c_heap::{MALLOC, given, resized};
pub use crate::c_heap::{aligned_alloc, calloc, free, malloc, posix_memalign, realloc, valloc};
use crate::runtime::GUARD;

/// Whether the program's system calls come by functions of ours that look at their buffers. May allocate.
pub(crate) fn looks_at_calls() -> bool {
    GUARD.checks_buffers() && !MALLOC.stands_back() && start::is_in_force()
}

/// Calls the function that stands behind ours, if there is one: `None` where there is none.
///
/// # Safety
/// The types must be those of the function of that name, and the call allowed by its rules.
macro_rules! behind {
    ($name:literal, $abi:literal ($($arg:expr => $type:ty),*) $(-> $result:ty)?) => {{
        static NEXT: fencepost_sys::Next = fencepost_sys::Next::new($name);
        NEXT.address().map(|address| {
            // SAFETY: the function of this name has this type, by whoever wrote this line.
            let function: unsafe extern $abi fn($($type),*) $(-> $result)? = core::mem::transmute(address);
            function($($arg),*)
        })
    }};
}
use behind;

/// Puts fencepost in the place of the C library's allocator: written once in an executable, the C and C++ libraries
/// in it, and all shared libraries that it loads, allocate guarded memory.
///
/// ```
/// fencepost::export_libc!();
/// # fn main() {}
/// ```
///
/// It exports C's and C++'s allocation functions from the executable. Needs glibc. Best together with a
/// [`GuardedAlloc`](crate::GuardedAlloc) for the Rust side, whose blocks end on the guard page to the byte; without one,
/// Rust allocates by `malloc`, and is guarded with malloc's alignment. An explicit macro rather than a feature: a feature
/// would be switched on by any dependency.
#[macro_export]
macro_rules! export_libc {
    () => {
        const _: () = {
            $crate::__export_functions! {
                malloc calloc realloc reallocarray free cfree memalign aligned_alloc posix_memalign valloc pvalloc
                free_sized free_aligned_sized malloc_usable_size mallinfo mallinfo2 malloc_info malloc_stats
                malloc_trim mallopt
                _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
                _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
                _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t
                _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t
                _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t
                sigaction signal bsd_signal ssignal sysv_signal __sysv_signal sigprocmask pthread_sigmask
                pthread_create pthread_setname_np prctl syscall
                _exit _Exit quick_exit execve execv execvp execvpe execl execlp execle fexecve execveat
                read __read_chk write pread __pread_chk pwrite pread64 __pread64_chk pwrite64 recv __recv_chk
                recvfrom __recvfrom_chk send sendto readv preadv preadv2 preadv64 preadv64v2 writev pwritev
                pwritev2 pwritev64 pwritev64v2 recvmsg sendmsg recvmmsg sendmmsg fread __fread_chk
                fread_unlocked __fread_unlocked_chk fwrite fwrite_unlocked getcwd __getcwd_chk getdents64
                getrandom getentropy readlink __readlink_chk readlinkat __readlinkat_chk getsockopt setsockopt
                getsockname getpeername accept accept4 connect bind poll __poll_chk ppoll epoll_wait epoll_pwait
                getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
                stat stat64 lstat lstat64 fstat fstat64 fstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64
                uname getrusage getrlimit getrlimit64 setrlimit setrlimit64 prlimit prlimit64 select pselect open open64 openat openat64 creat creat64
                access faccessat unlink unlinkat mkdir rmdir chdir rename renameat link symlink chmod chown truncate
                fopen fopen64 opendir __open_2 __open64_2 __openat_2 __openat64_2 __xstat __xstat64 __lxstat
                __lxstat64 __fxstat __fxstat64 __fxstatat __fxstatat64
                fencepost_describe fencepost_describe_print fencepost_reports_print fencepost_sites_print fencepost_check fencepost_seal
                fencepost_tripwire fencepost_hits fencepost_unseal fencepost_stats
            }
            #[cfg(target_arch = "x86_64")]
            $crate::__export_functions! {
                memcpy memmove mempcpy memset __memcpy_chk __memmove_chk __mempcpy_chk __memset_chk bcopy bzero
                strcpy stpcpy strncpy stpncpy __strcpy_chk __stpcpy_chk __strncpy_chk __stpncpy_chk
                strcat strncat __strcat_chk __strncat_chk
                wmemcpy wmemmove wmempcpy wmemset wcscpy wcpcpy wcsncpy wcpncpy wcscat wcsncat
                __wmemcpy_chk __wmemmove_chk __wmempcpy_chk __wmemset_chk __wcscpy_chk __wcpcpy_chk __wcsncpy_chk
                __wcpncpy_chk __wcscat_chk __wcsncat_chk
            }
            $crate::__at_load!($crate::exported::on_load);
        };
    };
}

/// Defines each function as a jump to ours of the same name.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_functions {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[allow(non_snake_case)]
        unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!("jmp {}", sym $crate::exported::$name);
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!("b {}", sym $crate::exported::$name);
        }
    )* };
}

/// All that the library to preload exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_preload {
    () => {
        $crate::export_libc!();
    };
}
