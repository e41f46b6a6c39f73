//! Coroutines on growing stacks: suspended and resumed, grown, dropped half-way, forgotten, unwound, walked through.
#![cfg(feature = "corosensei")]

use std::cell::Cell;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use corosensei::{Coroutine, CoroutineResult, ScopedCoroutine, Yielder};
use fencepost_memory::growing::{CallStack, Options};
use fencepost_memory::{page_size, regions};

fn stack(name: &str, bound: usize) -> CallStack {
    Options::new(bound).name(name).call_stack().expect("memory")
}

fn memory_at(address: usize) -> usize {
    regions::find(address).expect("a call stack is a region").resident().expect("the system says")
}

/// Suspends at every depth on the way down.
#[inline(never)]
fn descend(yielder: &Yielder<(), u64>, depth: u64) {
    let frame = black_box([depth; 64]);
    if depth > 0 {
        yielder.suspend(depth);
        descend(yielder, depth - 1);
    }
    assert!(black_box(frame).iter().all(|word| *word == depth), "what lay on the stack is still there");
}

#[test]
fn a_coroutine_starts_small_and_grows_while_it_is_suspended_and_resumed() {
    let stack = stack("grows", 64 << 20);
    let start = stack.addresses().start;
    let mut coroutine = Coroutine::with_stack(stack, |yielder, ()| descend(yielder, 10_000));
    let mut left = 10_000;
    let mut before = memory_at(start);
    assert!(before <= 4 * page_size(), "{before}");
    while let CoroutineResult::Yield(depth) = coroutine.resume(()) {
        assert_eq!(depth, left);
        left -= 1;
        if depth % 1000 == 0 {
            let now = memory_at(start);
            assert!(now >= before, "it only grows");
            before = now;
        }
    }
    assert_eq!(left, 0);
    assert!(memory_at(start) >= 5 << 20, "half a kilobyte a call, ten thousand calls");
    let mut stack = coroutine.into_stack();
    stack.trim().expect("memory is taken back");
    assert!(memory_at(start) <= page_size());
    let again: CoroutineResult<(), u32> = Coroutine::with_stack(stack, |_, n: u32| n + 1).resume(7);
    assert_eq!(again.as_return(), Some(8), "the stack is good for another");
}

#[test]
fn many_take_turns_and_each_costs_what_it_touches() {
    let mut all: Vec<_> = (0..200_u64)
        .map(|number| {
            Coroutine::with_stack(stack("turns", 16 << 20), move |yielder: &Yielder<(), u64>, ()| {
                (0..number % 7).for_each(|turn| yielder.suspend(number * 10 + turn));
                number
            })
        })
        .collect();
    let (mut turn, mut left) = (0, all.len());
    while left > 0 {
        for (number, coroutine) in all.iter_mut().enumerate().filter(|(_, coroutine)| !coroutine.done()) {
            match coroutine.resume(()) {
                CoroutineResult::Yield(value) => assert_eq!(value, number as u64 * 10 + turn),
                CoroutineResult::Return(value) => {
                    assert_eq!((value, turn), (number as u64, number as u64 % 7));
                    left -= 1;
                }
            }
        }
        turn += 1;
    }
    let all: Vec<_> = regions::all().into_iter().filter(|region| region.name() == "turns").collect();
    let taken: usize = all.iter().filter_map(regions::Region::resident).sum();
    assert_eq!(all.len(), 200);
    assert!(taken <= 200 * 8 * page_size(), "{taken} bytes for 3 GiB of bounds");
}

#[test]
fn the_kernel_writes_to_a_part_of_its_stack_that_was_never_touched() {
    if !std::path::Path::new("/dev/zero").exists() {
        println!(
            "skipped: no file of zeros here, and where stacks grow by a guard page the buffer has to be on them"
        );
        return;
    }
    let stack = stack("read", 4 << 20);
    let addresses = stack.addresses();
    let mut coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), usize>, ()| {
        let mut zeros = File::open("/dev/zero").expect("a file of zeros");
        for far in [1, 2] {
            // By address, far below the stack pointer: no instruction has touched these pages.
            let buffer = core::ptr::with_exposed_provenance_mut::<u8>(addresses.start + (far << 20));
            let before = memory_at(buffer.addr());
            // SAFETY: the memory is committed, and this far below the stack pointer nothing lies.
            let buffer = unsafe { core::slice::from_raw_parts_mut(buffer, 4 * page_size()) };
            let read = zeros.read(buffer).expect("no EFAULT");
            assert!(memory_at(buffer.as_ptr().addr()) >= before + read, "it was not there before");
            yielder.suspend(read);
        }
    });
    assert_eq!(coroutine.resume(()).as_yield(), Some(4 * page_size()));
    assert_eq!(coroutine.resume(()).as_yield(), Some(4 * page_size()));
    assert!(coroutine.resume(()).as_return().is_some());
}

/// Counts how many of its kind have been dropped.
#[derive(Clone)]
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

type Half = Coroutine<(), u32, (), CallStack>;

/// One that owns a value from the start and makes another, and is suspended between and after.
fn with_values(dropped: &Rc<Cell<u32>>) -> (Half, usize) {
    let first = Counted(Rc::clone(dropped));
    let stack = stack("half-way", 1 << 20);
    let start = stack.addresses().start;
    let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), u32>, ()| {
        let first = first;
        yielder.suspend(1);
        let _second = first.clone();
        yielder.suspend(2);
    });
    (coroutine, start)
}

#[test]
fn what_lies_on_an_unfinished_coroutine_is_dropped_once_with_it() {
    for (resumed, values) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
        let dropped = Rc::new(Cell::new(0));
        let (mut coroutine, start) = with_values(&dropped);
        (0..resumed).for_each(|_| _ = coroutine.resume(()));
        assert_eq!(dropped.get(), if resumed == 3 { 2 } else { 0 });
        drop(coroutine);
        assert_eq!((dropped.get(), Rc::strong_count(&dropped)), (values, 1), "resumed {resumed} times");
        let gone = regions::find(start).is_none_or(|region| region.name() != "half-way");
        assert!(gone, "the stack went with it");
    }
}

#[test]
fn a_coroutine_that_catches_panics_is_unwound_all_the_same() {
    let dropped = Rc::new(Cell::new(0));
    let outer = Counted(Rc::clone(&dropped));
    let mut coroutine =
        Coroutine::with_stack(stack("catches", 1 << 20), move |yielder: &Yielder<(), ()>, ()| {
            let outer = outer;
            for _ in 0..3 {
                let inner = outer.clone();
                let caught = catch_unwind(AssertUnwindSafe(|| yielder.suspend(())));
                drop((inner, caught));
            }
        });
    assert!(coroutine.resume(()).as_yield().is_some());
    drop(coroutine);
    assert_eq!((dropped.get(), Rc::strong_count(&dropped)), (4, 1));
}

#[test]
fn a_forgotten_coroutine_keeps_its_stack_and_what_lies_on_it() {
    let dropped = Rc::new(Cell::new(0));
    let (mut coroutine, start) = with_values(&dropped);
    coroutine.resume(());
    std::mem::forget(coroutine);
    // Others come and go; what was forgotten is nobody else's.
    drop(stack("half-way", 1 << 20));
    let region = regions::find(start).expect("its addresses are still taken");
    assert_eq!((region.name(), region.start), ("half-way", start));
    assert_eq!((dropped.get(), Rc::strong_count(&dropped)), (0, 2));
}

#[test]
fn a_panic_goes_on_at_resume_and_so_does_one_through_two_coroutines() {
    let mut outer = Coroutine::with_stack(stack("outer", 1 << 20), |yielder: &Yielder<(), ()>, ()| {
        let mut inner = Coroutine::with_stack(stack("inner", 1 << 20), |yielder: &Yielder<(), ()>, ()| {
            yielder.suspend(());
            std::panic::resume_unwind(Box::new(7_u32));
        });
        _ = inner.resume(());
        yielder.suspend(());
        let _: CoroutineResult<(), ()> = inner.resume(());
        unreachable!("the panic goes on past here");
    });
    assert!(outer.resume(()).as_yield().is_some());
    let panic = catch_unwind(AssertUnwindSafe(|| outer.resume(()))).expect_err("it comes out here");
    assert_eq!(panic.downcast_ref::<u32>(), Some(&7));
    assert!(outer.done());
    outer.into_stack().trim().expect("the stack can be had back");
}

#[test]
fn one_may_borrow_a_stack_and_what_lies_around_it() {
    let mut stack = stack("borrowed", 1 << 20);
    let mut sum = 0;
    for round in 1..=3 {
        let adds = ScopedCoroutine::with_stack(&mut stack, |yielder: &Yielder<u32, ()>, mut value| {
            while value != 0 {
                sum += value * round;
                value = yielder.suspend(());
            }
        });
        adds.scope(|mut adds| (0..4).rev().for_each(|value| _ = adds.as_mut().resume(value)));
    }
    assert_eq!(sum, (3 + 2 + 1) * (1 + 2 + 3));
}

#[inline(never)]
fn the_inner_one(seen: &Cell<String>) {
    seen.set(std::backtrace::Backtrace::force_capture().to_string());
    black_box(seen);
}

#[inline(never)]
fn the_outer_one(stack: CallStack, seen: Rc<Cell<String>>) {
    let mut inner = Coroutine::with_stack(stack, move |_: &Yielder<(), ()>, ()| the_inner_one(&seen));
    let done = inner.resume(()).as_return();
    assert!(black_box(done).is_some());
}

/// Two stacks, one above the other: whichever resumes the other, the walk goes on in the resumer.
#[test]
fn a_backtrace_goes_on_in_the_resumer_wherever_its_stack_lies() {
    let mut stacks = [(); 4].map(|()| stack("walked", 1 << 20));
    stacks.sort_by_key(|stack| stack.addresses().start);
    let [lowest, low, high, highest] = stacks;
    let walk = |outer: CallStack, inner: CallStack| {
        let seen = Rc::new(Cell::new(String::new()));
        let given = Rc::clone(&seen);
        let mut coroutine =
            Coroutine::with_stack(outer, move |_: &Yielder<(), ()>, ()| the_outer_one(inner, given));
        assert!(coroutine.resume(()).as_return().is_some());
        let walked = seen.take();
        let places = ["the_inner_one", "the_outer_one", "a_backtrace_goes_on"].map(|name| walked.find(name));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{walked}");
    };
    walk(lowest, highest);
    walk(high, low);
}

/// Resolved to one of the two only for what is not `Send`: else this does not compile.
trait Either<Which> {
    const FOUND: bool = true;
}
impl<T> Either<()> for T {}
struct Sends;
impl<T: Send> Either<Sends> for T {}

#[test]
fn an_empty_stack_goes_to_another_thread_and_a_coroutine_does_not() {
    const { assert!(<Coroutine<(), (), (), CallStack> as Either<_>>::FOUND) };
    let stack = stack("sent", 1 << 20);
    let done = std::thread::spawn(move || {
        let mut coroutine =
            Coroutine::with_stack(stack, |yielder: &Yielder<u32, ()>, first| first + yielder.suspend(()));
        (coroutine.resume(1).as_yield(), coroutine.resume(2).as_return())
    });
    assert_eq!(done.join().expect("no panic"), (Some(()), Some(3)));
}
