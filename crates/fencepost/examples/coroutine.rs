//! Coroutines whose stacks start with a page and grow to megabytes as they are used.
//! `cargo run --features corosensei --example coroutine`, and with ` overflow` behind it to see the end of one described.
//!
//! A walk over a tree, deep in its recursion, hands out one value after the other: it is suspended between two of them, with
//! all of its calls on a stack of its own. How deep it will go nobody knows beforehand. With stacks of fixed size one would
//! choose between waste and overflow; a `CallStack` takes a bound in addresses, and memory for what was touched.

use std::cell::Cell;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use fencepost::growing::{CallStack, Options};
use fencepost::memory::{MemoryError, regions};

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

/// A list, as the most lopsided of trees.
struct Node(u64, Option<Box<Node>>);

fn list(len: u64) -> Node {
    (1..len).rev().fold(Node(len, None), |rest, n| Node(n, Some(Box::new(rest))))
}

impl Drop for Node {
    /// One after the other: the language's own way is to recurse.
    fn drop(&mut self) {
        let mut rest = self.1.take();
        while let Some(mut node) = rest {
            rest = node.1.take();
        }
    }
}

/// Hands out the values of a tree, each from as deep in the stack as its node is in the tree.
#[inline(never)]
fn walk(yielder: &Yielder<(), u64>, node: &Node) {
    let frame = black_box([node.0; 8]);
    yielder.suspend(node.0);
    if let Some(next) = &node.1 {
        walk(yielder, next);
    }
    // Used after the call, so that the compiler keeps the frame.
    assert_eq!(black_box(frame)[0], node.0);
}

/// Bytes of memory of the stack that an address lies on.
fn memory_of_stack(address: usize) -> usize {
    let region = regions::find(address).expect("a call stack is a region");
    region.resident().expect("the system says")
}

fn stack(name: &str, bound: usize) -> Result<CallStack, MemoryError> {
    Options::new(bound).name(name).call_stack()
}

fn walks_a_deep_tree() -> Result<(), MemoryError> {
    let stack = stack("walk", 64 << 20)?;
    let somewhere = stack.addresses().start;
    println!("{} KiB of addresses, {} KiB of memory", stack.bound() >> 10, stack.resident()? >> 10);
    let mut walker = Coroutine::with_stack(stack, |yielder, ()| walk(yielder, &list(30_000)));
    let mut sum = 0;
    while let CoroutineResult::Yield(value) = walker.resume(()) {
        sum += value;
        if [1, 100, 10_000, 30_000].contains(&value) {
            println!("{value} calls deep: {} KiB of memory", memory_of_stack(somewhere) >> 10);
        }
    }
    assert_eq!(sum, 30_000 * 30_001 / 2);
    // It has come to its end, so its stack can be had back, be trimmed, and serve another.
    let mut stack = walker.into_stack();
    assert!(stack.resident()? > 2 << 20, "it has grown by megabytes");
    stack.trim()?;
    println!("trimmed: {} KiB of memory", stack.resident()? >> 10);
    assert!(stack.resident()? <= 64 << 10);
    Ok(())
}

/// Reads a megabyte into a buffer on this stack that no instruction has touched, with a break in between.
#[inline(never)]
fn reads(yielder: &Yielder<(), usize>) -> std::io::Result<usize> {
    let mut buffer = [const { std::mem::MaybeUninit::<u8>::uninit() }; 1 << 20];
    let mut zeros = File::open("/dev/zero")?;
    // SAFETY: `read` only writes to the buffer; nothing looks at bytes that were not written.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<u8>(), buffer.len()) };
    let (first, second) = buffer.split_at_mut(512 << 10);
    let mut len = zeros.read(first)?;
    yielder.suspend(len);
    len += zeros.read(second)?;
    Ok(len)
}

fn the_kernel_writes_to_its_stack() -> Result<(), MemoryError> {
    let mut reader = Coroutine::with_stack(stack("reader", 4 << 20)?, |yielder, ()| reads(yielder));
    assert_eq!(reader.resume(()).as_yield(), Some(512 << 10));
    let read = reader.resume(()).as_return().expect("it is done").expect("no EFAULT");
    println!("system calls wrote {read} bytes to stack that was never touched");
    assert_eq!(read, 1 << 20);
    Ok(())
}

/// Counts how many of its kind have been dropped.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn one_is_dropped_half_way() -> Result<(), MemoryError> {
    let dropped = Rc::new(Cell::new(0));
    let counted = Counted(dropped.clone());
    let mut half_way = Coroutine::with_stack(stack("half-way", 1 << 20)?, move |yielder, ()| {
        let _first = counted;
        yielder.suspend(1);
        let _second = Counted(Rc::clone(&_first.0));
        yielder.suspend(2);
        unreachable!("nobody resumes it again");
    });
    assert_eq!((half_way.resume(()).as_yield(), half_way.resume(()).as_yield()), (Some(1), Some(2)));
    assert_eq!(dropped.get(), 0);
    // What lies on its stack is unwound, as by a panic, before the stack goes.
    drop(half_way);
    println!("dropped half-way: {} of its 2 values were dropped with it", dropped.get());
    assert_eq!(dropped.get(), 2);
    Ok(())
}

fn a_panic_goes_on_at_resume() -> Result<(), MemoryError> {
    let mut panics = Coroutine::with_stack(stack("panics", 1 << 20)?, |yielder: &Yielder<(), ()>, ()| {
        yielder.suspend(());
        // As `panic!` does, without its message.
        std::panic::resume_unwind(Box::new("over there"));
    });
    assert!(panics.resume(()).as_yield().is_some());
    let panic = catch_unwind(AssertUnwindSafe(|| panics.resume(()))).expect_err("it goes on here");
    println!("a panic came out of resume: {:?}", panic.downcast_ref::<&str>());
    assert!(panic.is::<&str>() && panics.done());
    Ok(())
}

fn main() -> Result<(), MemoryError> {
    walks_a_deep_tree()?;
    the_kernel_writes_to_its_stack()?;
    one_is_dropped_half_way()?;
    a_panic_goes_on_at_resume()?;
    if std::env::args().any(|word| word == "overflow") {
        let stack = stack("too small", 1 << 20)?;
        let mut deep = Coroutine::with_stack(stack, |yielder, ()| walk(yielder, &list(100_000)));
        while deep.resume(()).as_yield().is_some() {}
    }
    Ok(())
}
