//! Processes: forks, and mappings of the program's own.

use crate::Dice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

static FORKED: AtomicUsize = AtomicUsize::new(0);

/// A child that ends at once, waited for; its status.
fn child(status: i32) -> i32 {
    // SAFETY: the child calls `_exit` only.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe { libc::_exit(status) };
    }
    let mut ended = 0;
    loop {
        // SAFETY: the child is this process's own and is waited for once.
        match unsafe { libc::waitpid(pid, &mut ended, 0) } {
            -1 => assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR)),
            found => break assert_eq!(found, pid),
        }
    }
    if libc::WIFEXITED(ended) { libc::WEXITSTATUS(ended) } else { -1 }
}

extern "C" fn fork_here(_: i32) {
    // SAFETY: each thread has its own errno.
    let errno = unsafe { *libc::__errno_location() };
    assert_eq!(child(7), 7);
    FORKED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Forks in a signal handler that interrupts allocations and forks, wherever it finds them.
pub fn fork_in_handlers(rounds: usize) {
    // SAFETY: the handler touches an atomic, errno, and what a fork needs.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = fork_here as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
    }
    let mut dice = Dice(5);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for round in 0..rounds {
        let soon = libc::timeval { tv_sec: 0, tv_usec: (20 + dice.roll(400)) as libc::suseconds_t };
        let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let once = libc::itimerval { it_interval: never, it_value: soon };
        // SAFETY: the kernel reads one structure.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &once, std::ptr::null_mut()) }, 0);
        while FORKED.load(Ordering::Relaxed) == round {
            if round % 3 == 0 {
                assert_eq!(child(8), 8);
            }
            kept.push(vec![round as u8; 1 + dice.roll(9000)]);
            if kept.len() > 100 {
                assert!(kept.iter().all(|block| block.iter().all(|byte| *byte == block[0])));
                kept.clear();
            }
        }
    }
    println!("{rounds} forks in handlers");
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
