//! What a fault is told to be, and what each verdict does.

use core::sync::atomic::{AtomicUsize, Ordering};

use fencepost_sys::{Fault, Faults, Host, Memory, Output, Platform, Range, Threads, Verdict};

use crate::{End, Scene, say};

pub(crate) static ASKED: AtomicUsize = AtomicUsize::new(0);
pub(crate) static PLACE: AtomicUsize = AtomicUsize::new(0);

/// Eight pages, the second half inaccessible, whose border is remembered.
pub(crate) fn border() -> usize {
    Host.probe();
    let page = Host.page_size();
    let base = Host.reserve(8 * page, page).unwrap();
    // SAFETY: the range was just reserved.
    unsafe { Host.commit(Range { start: base, len: 4 * page }).unwrap() };
    PLACE.store(base + 4 * page, Ordering::SeqCst);
    base + 4 * page
}

/// Prints a fault, its address relative to the border.
fn describe(fault: &Fault) {
    let relative = fault.address.map(|address| address.wrapping_sub(PLACE.load(Ordering::SeqCst)) as isize);
    let address = match (relative, fault.address) {
        (Some(near), _) if near.abs() < 100_000 => format!("border{near:+}"),
        (_, Some(far)) => format!("{far:#x}"),
        (_, None) => "nowhere".into(),
    };
    let (access, size, others) = (fault.access.name(), fault.size, fault.others);
    let (decoded, sent) = (fault.decoded, fault.sent);
    say(&format!(
        "{} {access} {address} {size:?} decoded={decoded} sent={sent} others={others}",
        fault.signal
    ));
    assert!(
        fault
            .registers
            .values()
            .iter()
            .any(|(name, value)| matches!(*name, "rip" | "pc") && *value == fault.pc as u64)
    );
}

pub(crate) fn describe_and_die(fault: &Fault) -> Verdict {
    describe(fault);
    Verdict::Die
}

pub(crate) fn describe_and_pass(fault: &Fault) -> Verdict {
    describe(fault);
    Verdict::Pass
}

fn open_and_resume(fault: &Fault) -> Verdict {
    ASKED.fetch_add(1, Ordering::SeqCst);
    // A real handler would leave errno as this does: changed.
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = 99 };
    let page = Host.page_size();
    let start = fault.address.unwrap() & !(page - 1);
    // SAFETY: the page is one of the reservation's.
    unsafe { Host.commit(Range { start, len: page }).unwrap() };
    Verdict::Resume
}

/// Removes the standard library's handlers, as in a C program.
pub(crate) fn forget_handlers() {
    // SAFETY: the default effect needs no function.
    unsafe {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

fn prepare(on_fault: fn(&Fault) -> Verdict) -> usize {
    forget_handlers();
    let border = border();
    Host.install(on_fault).unwrap();
    assert!(Host.is_installed());
    border
}

fn write_dies() {
    let border = prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe { (border as *mut u32).write_volatile(1) };
}

fn straddling_read_dies() {
    let border = prepare(describe_and_pass);
    // SAFETY: it is not, on purpose.
    unsafe { core::hint::black_box(((border - 3) as *const u64).read_unaligned()) };
}

fn call_of_data_dies() {
    let border = prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("call {}", in(reg) border + 16);
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("blr {}", in(reg) border + 16, out("x30") _);
    }
}

/// By an instruction whose meaning the decoder does not claim to know: what it does, the processor's word alone tells.
#[cfg(target_arch = "aarch64")]
fn told_by_the_syndrome() {
    let border = prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe { core::arch::asm!("st1 {{v0.16b}}, [{}]", in(reg) border) };
}

#[cfg(target_arch = "x86_64")]
fn non_canonical_write() {
    prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe {
        core::arch::asm!("mov word ptr [{} + 2*{}], ax", in(reg) 0xdead_0000_0000_0000_u64, in(reg) 8_u64)
    };
}

#[cfg(target_arch = "x86_64")]
fn non_canonical_stack() {
    prepare(describe_and_die);
    // The processor raises another exception for the stack, and the kernel another signal.
    // SAFETY: it is not, on purpose.
    unsafe {
        core::arch::asm!("push rbp", "mov rbp, {}", "mov rax, [rbp + 8]", "pop rbp",
            in(reg) 0xdead_0000_0000_0000_u64, out("rax") _)
    };
}

#[cfg(target_arch = "x86_64")]
fn non_canonical_jump() {
    prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe { core::arch::asm!("jmp {}", in(reg) 0xdead_0000_0000_0000_u64) };
}

#[cfg(target_arch = "x86_64")]
fn non_canonical_return() {
    prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe { core::arch::asm!("push {}", "ret", in(reg) 0xdead_0000_0000_0000_u64) };
}

#[cfg(target_arch = "x86_64")]
fn misaligned() {
    let border = prepare(describe_and_die);
    // SAFETY: it is not, on purpose.
    unsafe { core::arch::asm!("movaps xmm0, [{}]", in(reg) border - 31, out("xmm0") _) };
}

fn resumed() {
    let border = prepare(open_and_resume);
    // SAFETY: errno is this thread's; the handler makes the page usable.
    unsafe {
        *libc::__errno_location() = 11;
        (border as *mut u8).write_volatile(5);
        assert_eq!((border as *const u8).read_volatile(), 5);
        assert_eq!(*libc::__errno_location(), 11);
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 1);
}

/// Threads on the small stacks of the standard library fault at once, with a handler that needs more.
fn many_at_once() {
    border();
    forget_handlers();
    Host.install(|fault| {
        let mut room = [0u8; 128 << 10];
        core::hint::black_box(&mut room);
        open_and_resume(fault)
    })
    .unwrap();
    let page = Host.page_size();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let pages = Range { start: Host.reserve(100 * page, page).unwrap(), len: 100 * page };
                for at in 0..100 {
                    // SAFETY: the handler makes the page usable.
                    unsafe { ((pages.start + at * page) as *mut u8).write_volatile(1) };
                }
            });
        }
    });
    assert_eq!(ASKED.load(Ordering::SeqCst), 800);
}

fn file_cut_short() {
    prepare(describe_and_pass);
    let path = std::env::temp_dir().join(format!("fencepost-cut-{}", std::process::id()));
    let file = std::fs::File::create_new(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    use std::os::fd::AsRawFd;
    let flags = libc::MAP_PRIVATE;
    // SAFETY: a new mapping of a file without content, which is read on purpose.
    unsafe {
        let start = libc::mmap(core::ptr::null_mut(), 4096, libc::PROT_READ, flags, file.as_raw_fd(), 0);
        PLACE.store(start.addr(), Ordering::SeqCst);
        start.cast::<u8>().read_volatile();
    }
}

fn sent_by_a_process() {
    prepare(describe_and_pass);
    // SAFETY: sends this process a signal.
    unsafe { libc::kill(libc::getpid(), libc::SIGSEGV) };
    // Any thread may get it.
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

fn sent_to_die() {
    prepare(describe_and_die);
    // SAFETY: sends this thread a signal.
    unsafe { libc::raise(libc::SIGBUS) };
}

fn abort_past_handlers() {
    extern "C" fn ignore(_: i32) {}
    // SAFETY: the handler does nothing; the set is ours.
    unsafe {
        libc::signal(libc::SIGABRT, ignore as extern "C" fn(i32) as usize);
        let mut all = core::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, core::ptr::null_mut());
    }
    Host.die_by_abort()
}

fn exit_at_once() {
    extern "C" fn never() {
        say("not reached: exit functions do not run");
    }
    Host.at_exit(never).unwrap();
    Host.exit_now(7)
}

extern "C" fn prepare_fork() {
    say("prepare");
}
extern "C" fn after_in_parent() {
    ASKED.store(77, Ordering::SeqCst);
}
extern "C" fn after_in_child() {
    say("child");
}
extern "C" fn at_exit() {
    say("exit");
}

fn forks_and_exits() {
    let border = prepare(describe_and_die);
    Host.at_fork(prepare_fork, after_in_parent, after_in_child).unwrap();
    Host.at_exit(at_exit).unwrap();
    // SAFETY: the child calls only what a fork of a threaded process may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        assert!(Host.is_installed() && Host.thread_id() == Host.process_id());
        Host.install(describe_and_die).unwrap();
        // SAFETY: it is not, on purpose.
        unsafe { (border as *mut u8).write_volatile(1) };
    }
    let mut status = 0;
    // SAFETY: the place is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
    assert_eq!(ASKED.load(Ordering::SeqCst), 77, "the parent's side ran");
    Host.flush_streams();
    Host.write(2, b"end\n").unwrap();
}

#[rustfmt::skip]
pub(crate) fn scenes() -> Vec<Scene> {
    let (segv, bus) = (|| End::Signal(libc::SIGSEGV), || End::Signal(libc::SIGBUS));
    vec![
        ("write_dies", write_dies, segv(), &["11 write border+0 Some(4) decoded=false sent=false others=false"]),
        ("straddling_read_dies", straddling_read_dies, segv(),
            &["11 read border+0 Some(8) decoded=false sent=false others=false"]),
        ("call_of_data_dies", call_of_data_dies, segv(),
            &["11 execute border+16 None decoded=false sent=false others=false"]),
        // An emulator of programs hands no syndrome on.
        #[cfg(target_arch = "aarch64")]
        ("told_by_the_syndrome", told_by_the_syndrome, segv(), match std::env::var("FENCEPOST_TEST_RUNNER").as_deref() {
            Err(_) | Ok("") => &["11 write border+0 None decoded=false sent=false others=false"],
            _ => &["11 none border+0 None decoded=false sent=false others=false"],
        }),
        #[cfg(target_arch = "x86_64")]
        ("non_canonical_write", non_canonical_write, segv(),
            &["11 write 0xdead000000000010 Some(2) decoded=true sent=false others=false"]),
        #[cfg(target_arch = "x86_64")]
        ("non_canonical_stack", non_canonical_stack, bus(),
            &["7 read 0xdead000000000008 Some(8) decoded=true sent=false others=false"]),
        #[cfg(target_arch = "x86_64")]
        ("misaligned", misaligned, segv(), &["11 none nowhere None decoded=false sent=false others=false"]),
        ("resumed", resumed, End::Status(0), &[]),
        ("many_at_once", many_at_once, End::Status(0), &[]),
        ("file_cut_short", file_cut_short, bus(), &["7 read border+0 Some(1) decoded=false sent=false others=false"]),
        ("sent_by_a_process", sent_by_a_process, segv(),
            &["11 none nowhere None decoded=false sent=true others=false"]),
        ("sent_to_die", sent_to_die, bus(), &["7 none nowhere None decoded=false sent=true others=false"]),
        ("abort_past_handlers", abort_past_handlers, End::Signal(libc::SIGABRT), &[]),
        ("exit_at_once", exit_at_once, End::Status(7), &[]),
        #[cfg(target_arch = "x86_64")]
        ("non_canonical_jump", non_canonical_jump, segv(),
            &["11 execute 0xdead000000000000 None decoded=true sent=false others=false"]),
        #[cfg(target_arch = "x86_64")]
        ("non_canonical_return", non_canonical_return, segv(),
            &["11 execute 0xdead000000000000 None decoded=true sent=false others=false"]),
        ("forks_and_exits", forks_and_exits, End::Status(0), &["prepare", "child",
            "11 write border+0 Some(1) decoded=false sent=false others=false", "end", "exit"]),
    ]
}
