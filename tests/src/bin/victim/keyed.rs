//! Values that are opened for one thread, and the manners of protection keys: each line must be the same without them, but
//! for what only a key can see.

use crate::armed;
use crate::races::victim_strays;
use fencepost::Sealed;
use std::hint::black_box;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Enough that what lies beside the scopes does not count.
const SCOPES: u64 = 1000;

type Value = Sealed<[u64; 8]>;

static AT: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn address(value: &Value) -> usize {
    value.as_ptr().expose_provenance()
}

fn read(at: usize) -> u64 {
    // SAFETY: the value outlives its readers.
    unsafe { black_box(std::ptr::with_exposed_provenance::<u64>(at)).read_volatile() }
}

extern "C" fn on_signal(_: i32) {
    SEEN.store(read(AT.load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// What a signal handler reads.
fn read_in_handler() -> u64 {
    SEEN.store(0, Ordering::Relaxed);
    // SAFETY: a handler is in force for it.
    unsafe { libc::raise(libc::SIGUSR1) };
    SEEN.load(Ordering::Relaxed)
}

/// Makes this thread like one that was there before any key was taken.
#[cfg(target_arch = "x86_64")]
fn forget_keys() {
    // SAFETY: the leaf is there, and says whether the next instruction is.
    let has_keys = std::arch::x86_64::__cpuid_count(7, 0).ecx & (1 << 4) != 0;
    if has_keys {
        // SAFETY: as the system switched the register on. The first key stays open.
        unsafe { std::arch::asm!("wrpkru", in("eax") 0x5555_5554, in("ecx") 0, in("edx") 0) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn forget_keys() {}

pub fn keyed() {
    let mut value = Sealed::new([0u64; 8]).expect("pages of its own");
    AT.store(address(&value), Ordering::Relaxed);
    // SAFETY: the handler has the form that is asked for.
    unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as usize) };
    armed();
    let before = fencepost::stats().syscalls;
    (0..SCOPES).for_each(|_| value.write(|numbers| numbers[0] += 1));
    println!("alone {} calls {}", value.opens_to_one_thread(), fencepost::stats().syscalls - before);
    while_open(&mut value);
    manners(&mut value);
    nested(&mut value);
    kernel(&mut value);
    forked(&mut value);
    println!("sealed {} set right {}", value.is_sealed(), Value::set_right());
}

/// What one change costs, by the system's clock.
pub fn cost() {
    let mut value = Sealed::new([0u64; 8]).expect("pages of its own");
    let change = |value: &mut Value| value.write(|numbers| numbers[0] = black_box(numbers[0] + 1));
    (0..10).for_each(|_| change(&mut value));
    let (began, calls) = (std::time::Instant::now(), fencepost::stats().syscalls);
    (0..SCOPES).for_each(|_| change(&mut value));
    let (took, calls) = (began.elapsed().as_nanos() as u64, fencepost::stats().syscalls - calls);
    println!(
        "{} ns and {} memory calls a change, alone {}",
        took / SCOPES,
        calls as f64 / SCOPES as f64,
        value.opens_to_one_thread()
    );
}

/// Another thread writes while the owner has it open.
fn while_open(value: &mut Value) {
    let (at, before) = (address(value), value.violations());
    value.write(|numbers| {
        std::thread::scope(|scope| scope.spawn(move || victim_strays(at + 8, 5)).join().expect("a thread"));
        numbers[2] = numbers[1];
    });
    let written = value[2];
    println!("while open caught {} written {written}", value.violations() - before);
}

/// Signal handlers, a thread older than the key, and one born inside.
fn manners(value: &mut Value) {
    let at = address(value);
    let inside = value.write(|_| read_in_handler());
    println!("handler read {} and {inside}", read_in_handler());
    let older = std::thread::spawn(move || {
        forget_keys();
        read(at)
    });
    println!("older read {}", older.join().expect("a thread"));
    let before = value.violations();
    let closed = Barrier::new(2);
    std::thread::scope(|scope| {
        let born = value.write(|_| {
            scope.spawn(|| {
                // Until the first allocation nobody has heard of it.
                black_box(Box::new(1));
                closed.wait();
                victim_strays(at + 24, 6);
            })
        });
        closed.wait();
        born.join().expect("a thread");
    });
    println!("born inside caught {} written {}", value.violations() - before, value[3]);
}

/// Two values, and a panic in the inner change.
fn nested(value: &mut Value) {
    let mut other = Sealed::new([0u64; 8]).expect("pages of its own");
    std::panic::set_hook(Box::new(|_| ()));
    value.write(|numbers| {
        let change = AssertUnwindSafe(|| other.write(|_| panic!("in the middle")));
        assert!(catch_unwind(change).is_err());
        numbers[4] = 1;
    });
    let before = value.violations() + other.violations();
    victim_strays(address(value) + 40, 7);
    victim_strays(address(&other), 7);
    println!("nested caught {}", value.violations() + other.violations() - before);
}

/// What the kernel reads and writes for this thread.
fn kernel(value: &mut Value) {
    let mut zeros = std::fs::File::open("/dev/zero").expect("there");
    let mut sink = std::fs::File::create("/dev/null").expect("there");
    // SAFETY: any bytes are a number.
    let bytes = |numbers: &mut [u64; 8]| unsafe { numbers[6..].align_to_mut::<u8>().1.as_mut_ptr() };
    let read = value.write(|numbers| {
        // SAFETY: the last two numbers are 16 bytes.
        zeros.read(unsafe { std::slice::from_raw_parts_mut(bytes(numbers), 16) }).ok()
    });
    // SAFETY: the value is 64 bytes.
    let written = sink.write(unsafe { std::slice::from_raw_parts(value.as_ptr().cast::<u8>(), 64) }).ok();
    println!("kernel read {read:?} wrote {written:?}");
}

/// A child that is made inside has what its parent has.
fn forked(value: &mut Value) {
    use std::io::stdout;
    let mut child = -1;
    value.write(|numbers| {
        stdout().flush().expect("written");
        // SAFETY: the child goes on as this thread alone.
        child = unsafe { libc::fork() };
        numbers[7] += 1;
    });
    if child == 0 {
        let before = value.violations();
        victim_strays(address(value) + 56, 9);
        println!("child {} caught {}", value[7], value.violations() - before);
        stdout().flush().expect("written");
        // SAFETY: nothing is to be done at its end.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: it is this process's child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    println!("parent {}", value[7]);
}
