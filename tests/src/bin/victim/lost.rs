//! Bugs in processes that have lost what the guard worked with, and taken it again.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};

/// Closes all descriptors, frees a block, and overruns another that is as old as the descriptor was.
pub fn overrun_after_close_all() {
    let old = victim_allocates(24, 1);
    let freed = victim_allocates(24, 1);
    // SAFETY: the victim has no file but the standard ones, which stay.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    victim_frees(freed, 24, 1);
    armed();
    victim_touches(old.wrapping_add(24), Touch::Write);
}

/// Uses a freed block in a child that was made by a bare system call.
pub fn use_after_free_in_raw_clone() {
    let block = victim_allocates(24, 1);
    // SAFETY: as fork does, without a stack of its own.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        victim_frees(block, 24, 1);
        armed();
        victim_touches(block, Touch::Read);
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` lives through the call.
    unsafe { libc::waitpid(libc::pid_t::try_from(child).expect("a process"), &mut status, 0) };
    victim_frees(block, 24, 1);
    println!("child ended by signal {}", libc::WTERMSIG(status));
}
