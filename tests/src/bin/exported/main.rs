//! System calls on memory that is closed on purpose, in a program that exports the C library's functions: each is looked
//! at, reported or noted, and has its effect.

use std::hint::black_box;
use std::sync::Mutex;

use fencepost::WatchOptions;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fencepost::export_libc!();

/// Reads eight bytes from a pipe to an address.
#[inline(never)]
fn victim_reads(to: *mut u8) -> isize {
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two numbers to an array of two, reads eight bytes of a string that has them, and writes as
    // many to a block that has room.
    let read = unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        assert_eq!(libc::write(ends[1], c"abcdefgh".as_ptr().cast(), 8), 8);
        libc::read(ends[0], to.cast(), 8)
    };
    black_box(read)
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let mut block = vec![0u8; 64];
    let at = black_box(block.as_mut_ptr());
    match what.as_str() {
        "seal" => {
            let seal = fencepost::seal(&block[..]).expect("sealed");
            println!("read {} violations {}\n{}", victim_reads(at), seal.violations(), seal.system_calls());
        }
        "tripwire" => {
            let wire = fencepost::tripwire(&block[..]).expect("set");
            println!("read {} tripped {}\n{}", victim_reads(at), wire.is_tripped(), wire.system_calls());
        }
        "watch" => {
            let watch = fencepost::watch(&block[..], WatchOptions::new().by_pages()).expect("watched");
            println!("read {} noted {}\n{}", victim_reads(at), watch.writes().len(), watch.system_calls());
        }
        "value" => {
            let mut value = fencepost::Sealed::new([0u8; 8]).expect("pages of its own");
            let read = value.write(|bytes| victim_reads(bytes.as_mut_ptr()));
            println!("read {read} {:?} violations {}", &value[..2], value.violations());
            let at = value.as_ptr().cast_mut();
            println!("read {} violations {}", victim_reads(at), value.violations());
        }
        // The lock's waits are system calls on a watched word.
        "lock" => {
            let lock = Box::new(Mutex::new(0u64));
            let word = (&raw const *lock).cast::<u8>();
            // SAFETY: the box outlives the watch.
            let watch = unsafe { fencepost::watch_raw(word, 4, WatchOptions::new().by_pages()) };
            let watch = watch.expect("watched");
            let held = lock.lock().expect("a lock");
            let waiting = std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..50).for_each(|_| *lock.lock().expect("a lock") += 1));
                }
                // The language's lock has 2 in its word while somebody waits for it by futex(2).
                let is_waited_for = || {
                    std::thread::yield_now();
                    // SAFETY: the lock begins with a word of four bytes.
                    unsafe { word.cast::<u32>().read_volatile() == 2 }
                };
                let waiting = (0..10_000_000).any(|_| is_waited_for());
                drop(held);
                waiting
            });
            println!("waited {waiting} sum {} noted {}", lock.lock().expect("a lock"), watch.count() > 0);
        }
        _ => std::process::exit(2),
    }
    println!("first {}", block[0]);
}
