//! Programs that take from the guard what it works with, without meaning to: they close every descriptor, make processes
//! in unusual ways, lock their memory, forbid system calls. What they hold must stay as it is, and they must go on.

use crate::{Dice, Marked};
use std::hint::black_box;

/// Blocks of many sizes, verified and exchanged: enough that every way of the guard's is used.
fn work(kept: &mut Vec<Marked>, rounds: usize) {
    let mut dice = Dice(0x51de_51de);
    for round in 0..rounds {
        let size = [1, 24, 100, 700, 5000, 20_000, 100_000][dice.roll(7)] + dice.roll(16);
        kept.push(black_box(Marked::new(round as u8, size)));
        if kept.len() > 60 {
            kept.swap_remove(dice.roll(60)).verify();
        }
    }
    kept.iter().for_each(Marked::verify);
}

fn close_all() {
    // SAFETY: no file of this program is open but the standard ones, which stay.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Closes all descriptors, as daemons do, and works on; then once more, with other files in their numbers.
pub fn close_all_and_work() {
    let mut kept = Vec::new();
    work(&mut kept, 300);
    close_all();
    work(&mut kept, 300);
    close_all();
    // SAFETY: the descriptors are new ones of this program.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
        for number in 900..1024 {
            libc::dup2(null, number);
        }
    }
    work(&mut kept, 300);
    println!("{} blocks", kept.len());
}

fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the child is this process's own and is waited for once.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child ended with status {status:#x}");
    libc::WEXITSTATUS(status)
}

/// A child that no library knows of: it has the parent's descriptors and must not touch the parent's memory.
pub fn raw_clone() {
    let mut kept = Vec::new();
    work(&mut kept, 200);
    // SAFETY: as fork does, without a stack of its own; the child calls the allocator and `_exit`.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        work(&mut kept, 200);
        kept.clear();
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(7) };
    }
    work(&mut kept, 200);
    assert_eq!(wait_for(libc::pid_t::try_from(child).expect("a process")), 7);
    work(&mut kept, 200);
    println!("{} blocks", kept.len());
}

extern "C" fn borrowed_child(_: *mut libc::c_void) -> libc::c_int {
    close_all();
    let mut own: Vec<Marked> = (0..50).map(|n| Marked::new(n, 64)).collect();
    own.retain(|block| block.seed % 2 == 0);
    own.iter().for_each(Marked::verify);
    9
}

/// A child that borrows this memory, as vfork's does, closes all descriptors and allocates in it nevertheless.
pub fn borrowed_memory() {
    let mut kept = Vec::new();
    work(&mut kept, 200);
    let mut stack = vec![0u128; 1 << 14];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is large enough for what the child does, and this thread sleeps until the child has ended.
    let child = unsafe {
        libc::clone(borrowed_child, stack.as_mut_ptr_range().end.cast(), flags, std::ptr::null_mut())
    };
    assert_eq!(wait_for(child), 9);
    work(&mut kept, 200);
    println!("{} blocks", kept.len());
}

/// Locks what there is, and everything to come.
pub fn lock_memory() {
    let mut kept = Vec::new();
    work(&mut kept, 200);
    for what in [libc::MCL_CURRENT, libc::MCL_CURRENT | libc::MCL_FUTURE] {
        // SAFETY: locking changes no content.
        let locked = unsafe { libc::mlockall(what) } == 0;
        eprintln!("figure: locked with {what}: {locked}");
        work(&mut kept, 300);
    }
    // SAFETY: as above.
    unsafe { libc::munlockall() };
    work(&mut kept, 200);
    println!("{} blocks", kept.len());
}

/// Drops the content of pages of its own block, which are zero then.
pub fn drop_own_pages() {
    let layout = std::alloc::Layout::from_size_align(4 * 4096, 4096).expect("a layout");
    for _ in 0..20 {
        // SAFETY: the block has four whole pages; what is dropped is its own content.
        unsafe {
            let block = std::alloc::alloc(layout);
            block.write_bytes(7, layout.size());
            assert_eq!(libc::madvise(block.add(4096).cast(), 8192, libc::MADV_DONTNEED), 0);
            assert_eq!((*block.add(4095), *block.add(4096), *block.add(8192 + 4095)), (7, 0, 0));
            assert_eq!(*block.add(3 * 4096), 7);
            std::alloc::dealloc(block, layout);
        }
    }
    println!("dropped");
}

/// Forbids ioctl from here on, as a sandbox may, and works on. Prints how many blocks were not guarded.
pub fn forbid_ioctl() {
    let mut kept = Vec::new();
    work(&mut kept, 200);
    let number = u32::try_from(libc::SYS_ioctl).expect("a number");
    let load = |offset| filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let program = [
        load(0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives through the call, which copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
    let before = fencepost::stats();
    work(&mut kept, 600);
    let after = fencepost::stats();
    let missed = (after.total - after.guarded) - (before.total - before.guarded);
    println!(
        "{} blocks, {} of the new ones not guarded",
        kept.len(),
        if missed < 30 { "few" } else { "many" }
    );
}

fn filter(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt, jf, k }
}
