//! Blocks that nothing reaches at the end, and those that something does.

use crate::{armed, layout, number, victim_allocates};
use std::alloc::{GlobalAlloc, System};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::{Mutex, OnceLock};

/// Runs `work` further down the stack than the end of the process will reach: what it leaves there would look like
/// pointers, and count as such.
#[inline(never)]
fn deeper(depth: usize, work: &dyn Fn()) -> usize {
    let room = black_box([1usize; 512]);
    if depth == 0 {
        work();
        room[7]
    } else {
        deeper(depth - 1, work) + black_box(&room)[9]
    }
}

#[inline(never)]
fn victim_loses(size: usize, count: usize) {
    for _ in 0..count {
        black_box(victim_allocates(black_box(size), 8));
    }
}

struct Ring {
    next: RefCell<Option<Rc<Ring>>>,
    _content: Vec<u64>,
}

#[inline(never)]
fn victim_makes_a_ring() {
    let ring = |size| Rc::new(Ring { next: RefCell::new(None), _content: vec![7; size] });
    let (one, other) = (ring(10), ring(20));
    *one.next.borrow_mut() = Some(other.clone());
    *other.next.borrow_mut() = Some(one);
}

/// `block SIZE COUNT` or `ring`.
pub fn lose(words: &[&str]) {
    let loss = || match words.first() {
        Some(&"block") => victim_loses(number(words, 1), number(words, 2)),
        Some(&"ring") => victim_makes_a_ring(),
        _ => panic!("block or ring?"),
    };
    black_box(deeper(20, &loss));
    armed();
    std::process::exit(0);
}

static KEPT: OnceLock<&'static [u64]> = OnceLock::new();
static TABLE: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);
static mut RAW: *mut u8 = std::ptr::null_mut();

thread_local! {
    static LOCAL: RefCell<Vec<[Option<Box<u32>>; 1]>> = const { RefCell::new(Vec::new()) };
}

/// Everything here is still reached when the process ends: by a static, by what a static reaches, by a pointer into the
/// middle, by a stack, by a thread-local variable of a thread that still runs, by an unguarded block.
pub fn keep() {
    KEPT.set(Box::leak(vec![1u64; 1000].into_boxed_slice())).expect("once");
    let table = (0..100).map(|index| (format!("key {index}"), vec![1u8; index + 1])).collect();
    *TABLE.lock().expect("no panic") = Some(table);
    let block = victim_allocates(5000, 8);
    // SAFETY: only this thread knows the static, and the block has that many bytes.
    unsafe { RAW = block.add(2500) };
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let on_stack = black_box(Box::new([5u64; 100]));
        LOCAL.with_borrow_mut(|local| local.extend((0..10).map(|index| [Some(Box::new(index))])));
        tell.send(()).expect("main listens");
        loop {
            std::thread::park();
            black_box(&on_stack);
        }
    });
    told.recv().expect("the thread tells");
    // What the system's heap gives out is not guarded here, and may hold pointers.
    //
    // SAFETY: the block has room for a pointer; it is never freed.
    unsafe {
        let unguarded = System.alloc(layout(64, 8)).cast::<*mut u8>();
        unguarded.write(victim_allocates(24, 8));
        std::ptr::addr_of_mut!(UNGUARDED).write(unguarded);
    }
    let here = black_box(victim_allocates(40, 8));
    armed();
    finish(here);
}

static mut UNGUARDED: *mut *mut u8 = std::ptr::null_mut();

#[inline(never)]
fn finish(here: *mut u8) -> ! {
    let status = i32::from(black_box(here).is_null());
    // SAFETY: the block was allocated with this layout by the caller.
    unsafe { std::alloc::dealloc(here, layout(40, 8)) };
    std::process::exit(status)
}
