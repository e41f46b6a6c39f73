//! Processes: forks, and mappings of the program's own.

use crate::Dice;
use std::sync::atomic::{AtomicBool, Ordering};

/// Forks while other threads allocate; each child allocates, frees what it inherited, and ends with its own status.
pub fn fork_threaded(children: usize) {
    static STOP: AtomicBool = AtomicBool::new(false);
    let workers: Vec<_> = (0..3)
        .map(|index| {
            std::thread::spawn(move || {
                let mut kept: Vec<String> = Vec::new();
                while !STOP.load(Ordering::Relaxed) {
                    kept.push(format!("worker {index} {}", kept.len()));
                    if kept.len() > 200 {
                        kept.clear();
                    }
                }
            })
        })
        .collect();
    for child in 0..children {
        let inherited: Vec<String> = (0..20).map(|n| format!("inherited {child} {n}")).collect();
        // SAFETY: the child calls nothing but the allocator, which has to work after a fork, and `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let own: Vec<String> = inherited.iter().map(|line| line.to_uppercase()).collect();
            let good = own.iter().all(|line| line.starts_with("INHERITED"));
            drop(inherited);
            drop(own);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(if good { 40 + (child % 10) as i32 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the child is this process's own and is waited for once.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status), "child {child} ended with status {status:#x}");
        assert_eq!(libc::WEXITSTATUS(status), 40 + (child % 10) as i32);
    }
    STOP.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("a thread that ends");
    }
    println!("{children} children");
}

/// Large vectors grow by doubling and page by page on two threads, while a third takes and gives back mappings of such
/// sizes: content stays, and nobody takes what is another's.
pub fn large_growth() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = AtomicBool::new(false);
    let sums = std::thread::scope(|scope| {
        let mapper = scope.spawn(|| {
            let mut dice = Dice(77);
            let mut sum = 0usize;
            while !over.load(Ordering::Relaxed) {
                let len = (17 + dice.roll(600)) * 4096;
                let (flags, protection) =
                    (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
                // SAFETY: a mapping of this thread's own, at an address of the kernel's choice, given back below.
                unsafe {
                    let start = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0).cast::<u8>();
                    assert_ne!(start.cast(), libc::MAP_FAILED);
                    assert_eq!(start.add(len - 1).read_volatile(), 0, "fresh memory is zero");
                    start.write_bytes(0x11, len);
                    sum += usize::from(start.add(len / 2).read_volatile());
                    assert_eq!(libc::munmap(start.cast(), len), 0);
                }
            }
            assert!(sum > 0);
        });
        let grow = |step: usize| {
            let mut numbers: Vec<u64> = Vec::new();
            for index in 0..400_000u64 {
                if numbers.len() == numbers.capacity() {
                    numbers.reserve_exact(if step == 0 { numbers.len().max(4) } else { step });
                }
                numbers.push(index ^ 0xabcd);
            }
            numbers.truncate(150_000);
            numbers.shrink_to_fit();
            assert!(numbers.iter().enumerate().all(|(at, number)| at as u64 ^ 0xabcd == *number));
            numbers.iter().sum::<u64>()
        };
        let growing = [0, 512, 1000].map(|step| scope.spawn(move || grow(step)));
        let sums = growing.map(|thread| thread.join().expect("no panic"));
        over.store(true, Ordering::Relaxed);
        mapper.join().expect("no panic");
        sums
    });
    println!("{sums:?}");
}
