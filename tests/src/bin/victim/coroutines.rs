//! Errors on the stacks of coroutines, one of which resumes another.

use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use fencepost::growing::{CallStack, Options};
use std::hint::black_box;

type Worker = Coroutine<(), usize, (), CallStack>;

fn stack(name: &str) -> CallStack {
    Options::new(1 << 20).name(name).call_stack().expect("memory")
}

/// `overflow`, or `overrun|freed above|below`: where the stack of the coroutine that works lies, seen from its resumer's.
pub fn misuse(words: &[&str]) {
    match words {
        ["overflow"] => overflow(),
        [what @ ("overrun" | "freed"), place @ ("above" | "below")] => {
            let (one, other) = (stack("one"), stack("other"));
            let swap = (one.addresses().start > other.addresses().start) == (*place == "above");
            let (outer, inner) = if swap { (other, one) } else { (one, other) };
            let freed = *what == "freed";
            let mut outer = Coroutine::with_stack(outer, move |yielder: &Yielder<(), usize>, ()| {
                victim_resumes_inner(yielder, inner, freed);
            });
            let mut block = 0;
            while let CoroutineResult::Yield(address) = outer.resume(()) {
                block = address;
            }
            // Where the inner coroutine has freed it, the error is the thread's own.
            victim_touches(core::ptr::with_exposed_provenance_mut::<u8>(block).wrapping_add(3), Touch::Read);
        }
        _ => {
            eprintln!("victim: which misuse?");
            std::process::exit(2);
        }
    }
}

#[inline(never)]
fn victim_resumes_inner(yielder: &Yielder<(), usize>, stack: CallStack, freed: bool) {
    let mut inner: Worker = Coroutine::with_stack(stack, move |yielder, ()| victim_works(yielder, freed));
    while let CoroutineResult::Yield(address) = inner.resume(()) {
        yielder.suspend(address);
    }
    black_box(&mut inner);
}

/// Allocates, is suspended, and does it.
#[inline(never)]
fn victim_works(yielder: &Yielder<(), usize>, freed: bool) {
    let block = victim_allocates(24, 8);
    yielder.suspend(block.expose_provenance());
    if freed {
        victim_frees(block, 24, 8);
        armed();
        yielder.suspend(block.expose_provenance());
    } else {
        armed();
        victim_touches(block.wrapping_add(24), Touch::Write);
    }
    black_box(block);
}

#[inline(never)]
fn victim_descends(yielder: &Yielder<(), usize>, depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    if depth.is_multiple_of(1000) {
        yielder.suspend(depth);
    }
    // The sum after the call keeps it from becoming a loop.
    if depth == usize::MAX { 0 } else { victim_descends(yielder, depth + 1) + frame[depth % 64] }
}

fn overflow() {
    let mut walk = Coroutine::with_stack(stack("walk"), |yielder: &Yielder<(), usize>, ()| {
        black_box(victim_descends(yielder, 0));
    });
    armed();
    while walk.resume(()).as_yield().is_some() {}
}
