//! Every way of walking against the unwinder of the C runtime, on stacks of real code.
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::hint::black_box;
use std::process::Command;

use fencepost_guard::Tracing;
use fencepost_sys::{Host, Range, Threads};

use super::recall::Recall;
use super::{MEMORY, by_unwinder, tables};
use crate::runtime::here;

/// What the runtime keeps for a thread, kept for a test.
struct Keeper {
    memory: Box<[u64]>,
    stack: Range,
    depth: usize,
    numbers: HashMap<Vec<u64>, u32>,
    stacks: Vec<Vec<u64>>,
    checked: usize,
    /// Stacks that were found without a walk.
    recalled: usize,
    /// Stacks for which there were no rules.
    left: usize,
}

thread_local! {
    static KEEPER: RefCell<Option<Keeper>> = const { RefCell::new(None) };
}

impl Keeper {
    fn new(depth: usize) -> Keeper {
        assert!(MEMORY.is_multiple_of(8) && align_of::<Recall>() == 8);
        Keeper {
            memory: vec![0; MEMORY / 8].into_boxed_slice(),
            stack: Range::default(),
            depth,
            numbers: HashMap::new(),
            stacks: Vec::new(),
            checked: 0,
            recalled: 0,
            left: 0,
        }
    }

    /// Does some work on this thread, as the one whose memory this is.
    fn during(mut self, work: impl FnOnce()) -> Keeper {
        self.stack = Host.stack_bounds().expect("a thread has a stack");
        KEEPER.set(Some(self));
        work();
        KEEPER.take().expect("set above")
    }
}

/// Compares the walks of the caller's stack, twice: as it is met now, and as it is remembered.
#[inline(never)]
fn check() {
    let anchor = here();
    KEEPER.with_borrow_mut(|keeper| {
        let keeper = keeper.as_mut().expect("called within `during`");
        for _ in 0..2 {
            let mut expected = [0; 128];
            let count = by_unwinder(anchor, &mut expected[..keeper.depth]);
            let expected = &expected[..count];
            let tracing = Tracing {
                anchor,
                depth: keeper.depth,
                stack: keeper.stack,
                memory: Range { start: keeper.memory.as_mut_ptr().addr(), len: MEMORY },
            };
            let found = RefCell::new(None);
            let number = tables::trace(&tracing, &|frames| {
                *found.borrow_mut() = Some(frames.to_vec());
                let next = u32::try_from(keeper.numbers.len()).expect("few") + 1;
                keeper.numbers.get(frames).copied().unwrap_or(next)
            });
            keeper.checked += 1;
            match (number, found.into_inner()) {
                (None, _) => keeper.left += 1,
                (Some(number), Some(frames)) => {
                    assert_eq!(frames, expected);
                    if keeper.numbers.insert(frames.clone(), number).is_none() {
                        keeper.stacks.push(frames);
                    }
                }
                (Some(number), None) => {
                    assert_eq!(keeper.stacks[number as usize - 1], expected, "a remembered stack");
                    keeper.recalled += 1;
                }
            }
        }
    });
}

/// A way through the program below, the same for the same seed.
struct Way(u64);

impl Way {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn step(way: &mut Way, depth: u32) {
    if depth == 0 {
        // Two places in one function: the same registers, and stacks that differ in one word.
        if way.next(2) == 0 {
            check();
            black_box(0);
        } else {
            check();
            black_box(1);
        }
        return;
    }
    match way.next(5) {
        0 => narrow(way, depth - 1),
        1 => wide(way, depth - 1),
        2 => through_c(way, depth - 1),
        3 => unwinding(way, depth - 1),
        _ => {
            narrow(way, depth - 1);
            check();
        }
    }
    black_box(depth);
}

#[inline(never)]
fn narrow(way: &mut Way, depth: u32) {
    step(way, depth);
    black_box(way.0);
}

#[inline(never)]
fn wide(way: &mut Way, depth: u32) {
    let mut room = [way.0; 300];
    step(way, depth);
    room[7] = way.0;
    black_box(&mut room);
}

/// A frame whose code the walk meets inside a block with a landing pad.
#[inline(never)]
fn unwinding(way: &mut Way, depth: u32) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(way, depth)));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

unsafe extern "C" {
    fn qsort(
        base: *mut c_void,
        count: usize,
        size: usize,
        by: extern "C" fn(*const c_void, *const c_void) -> c_int,
    );
    fn dlopen(path: *const core::ffi::c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const core::ffi::c_char) -> *mut c_void;
    fn dlclose(library: *mut c_void) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn raise(number: c_int) -> c_int;
}

thread_local! {
    static HELD: RefCell<Vec<(u64, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Frames of the C library, which has no frame pointers.
#[inline(never)]
fn through_c(way: &mut Way, depth: u32) {
    extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
        if let Some((seed, depth)) = HELD.with_borrow_mut(Vec::pop) {
            step(&mut Way(seed), depth);
        }
        0
    }
    HELD.with_borrow_mut(|held| held.push((way.0, depth)));
    let mut numbers = [2u32, 1];
    // SAFETY: the array has two elements of four bytes; `compare` unwinds only when the test fails.
    unsafe { qsort(numbers.as_mut_ptr().cast(), 2, 4, compare) };
    black_box(&mut numbers);
}

#[test]
fn stacks_of_random_programs_are_walked_and_recalled_rightly() {
    for depth in [1, 5, 32, 128] {
        let keeper = Keeper::new(depth).during(|| {
            for round in 0..3 {
                for seed in 0..200 {
                    step(&mut Way(seed), u32::try_from(seed % 23).expect("small"));
                    black_box(round);
                }
            }
        });
        assert_eq!(keeper.left, 0, "there is a rule for all of this code");
        // At least the second look at each stack is not walked, unless it has more words than are remembered.
        let enough = depth > 32 || keeper.recalled * 2 >= keeper.checked;
        assert!(enough, "{} of {}", keeper.recalled, keeper.checked);
        assert!(keeper.stacks.len() > if depth < 32 { 2 } else { 100 }, "{}", keeper.stacks.len());
    }
}

#[test]
fn threads_that_use_one_memory_after_another_recall_rightly() {
    let mut keeper = Keeper::new(32);
    for round in 0..20usize {
        // Stacks of different lengths, at the same addresses or not: the system decides.
        let thread = std::thread::Builder::new().stack_size((1 + round % 3) << 20).spawn(move || {
            keeper.during(|| {
                for seed in 0..50 {
                    step(&mut Way(seed), u32::try_from(seed % 11).expect("small"));
                }
            })
        });
        keeper = match thread.expect("a thread").join() {
            Ok(keeper) => keeper,
            Err(panic) => std::panic::resume_unwind(panic),
        };
    }
    assert_eq!(keeper.left, 0);
    assert!(keeper.recalled * 2 >= keeper.checked);
}

#[test]
fn a_signal_handlers_frame_is_left_to_the_unwinder() {
    extern "C" fn handler(_: c_int) {
        check();
    }
    let keeper = Keeper::new(32).during(|| {
        // SAFETY: the handler does what a test's thread may do at this moment: it interrupts `raise` only.
        unsafe {
            signal(12, handler as *const () as usize);
            raise(12);
        }
    });
    assert_eq!((keeper.checked, keeper.left), (2, 2));
}

/// A library whose frames are as wide as `room` says: else the same to the byte, as far as a compiler can do that.
fn library(folder: &std::path::Path, room: usize) {
    let source = format!(
        "void run(void (*work)(void)) {{ volatile char room[{room}]; room[0] = 1; work(); room[1] = room[0]; }}"
    );
    let file = folder.join("plugin.c");
    std::fs::write(&file, source).expect("a temporary file");
    let cc = std::env::var("FENCEPOST_TEST_CC").unwrap_or_else(|_| "cc".into());
    let built = Command::new(cc)
        .args(["-shared", "-fPIC", "-O1", "-fomit-frame-pointer", "-fno-stack-protector", "-o"])
        .arg(folder.join("plugin.so"))
        .arg(&file)
        .status()
        .expect("a C compiler, which links this test");
    assert!(built.success());
}

#[test]
fn a_library_that_goes_and_comes_back_otherwise_is_walked_by_its_new_tables() {
    extern "C" fn work() {
        check();
    }
    let folder = std::env::temp_dir().join(format!("fencepost-plugin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let path = CString::new(folder.join("plugin.so").to_str().expect("text")).expect("no zero");
    let mut places = HashMap::new();
    let keeper = Keeper::new(32).during(|| {
        for round in 0..12usize {
            library(&folder, [400, 4000][round % 2]);
            // SAFETY: the library is the one built above, and `run` has the type given here; nothing of it is used
            // after it is closed.
            unsafe {
                let library = dlopen(path.as_ptr(), 2);
                assert!(!library.is_null());
                let run = dlsym(library, c"run".as_ptr());
                assert!(!run.is_null());
                *places.entry(run.addr()).or_insert(0) += 1;
                let run: extern "C" fn(extern "C" fn()) = core::mem::transmute(run);
                for _ in 0..3 {
                    run(work);
                }
                assert_eq!(dlclose(library), 0);
            }
        }
    });
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!((keeper.left, keeper.recalled), (0, 0), "such stacks are walked each time, by rules");
    // Else the test shows nothing.
    assert!(places.values().any(|times| *times >= 4), "the loader uses addresses again: {places:?}");
}
