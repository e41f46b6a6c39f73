//! Call stacks as the stacks of coroutines, by the trait of the `corosensei` crate.
//!
//! To switch between stacks takes a page of assembly and of unwind tables for every processor and system. That crate has
//! them, with panics that go on at `resume`, backtraces that go on in the resumer, and the unwinding of what lies on a
//! coroutine that is dropped half-way. What it asks for is memory that is guarded below; what is ours is that this memory
//! grows, and that its end has a name.
#![cfg(feature = "corosensei")]

use core::num::NonZeroUsize;

use corosensei::stack::{MIN_STACK_SIZE, STACK_ALIGNMENT, Stack, StackPointer};

use super::CallStack;
use super::call_stack::{GUARD, LEAST};
use crate::System;

const _: () = assert!(LEAST >= MIN_STACK_SIZE && GUARD.is_multiple_of(STACK_ALIGNMENT));

// SAFETY: the bytes from `addresses().start` to `addresses().end` are committed memory of this value's alone, at least
// `LEAST` of them, on whole pages; the `GUARD` bytes below are never committed and trap. They stay where they are when this
// value moves, and no safe method that changes them can be called while a coroutine owns or borrows it.
unsafe impl<M: System + 'static> Stack for CallStack<M> {
    #[inline]
    fn base(&self) -> StackPointer {
        pointer(self.addresses().end)
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        pointer(self.addresses().start - GUARD)
    }

    fencepost_sys::stack_of_this_system!();
}

#[inline]
fn pointer(address: usize) -> StackPointer {
    NonZeroUsize::new(address).expect("no stack lies at address zero")
}
