//! Coroutines on growing stacks that take turns, some dropped half-way, and some suspended at the end of the process.

use corosensei::{Coroutine, Yielder};
use fencepost::growing::{CallStack, Options};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Reaches those that are still there at the end.
static KEPT: AtomicPtr<Task> = AtomicPtr::new(std::ptr::null_mut());

type Task = Coroutine<u64, u64, u64, CallStack>;

fn works(yielder: &Yielder<u64, u64>, first: u64) -> u64 {
    // Blocks that nothing else reaches.
    let mut texts = vec![format!("text {first}")];
    for round in 0..20 {
        let given = yielder.suspend(texts.iter().map(|text| text.len() as u64).sum());
        texts.push(format!("round {round} of {first}, given {given}"));
    }
    texts.len() as u64
}

pub fn take_turns() {
    let task = |_| {
        let stack = Options::new(1 << 20).name("task").call_stack();
        Coroutine::with_stack(stack.expect("memory"), works)
    };
    let mut tasks: Vec<Task> = (0..20).map(task).collect();
    let mut sum = 0;
    for turn in 0..15 {
        for (number, task) in tasks.iter_mut().enumerate() {
            sum += task.resume(turn + number as u64).as_yield().unwrap_or(0);
        }
    }
    // Half of them are given up; the rest stay as they are to the end of the process.
    tasks.truncate(10);
    println!("{sum}");
    KEPT.store(tasks.leak().as_mut_ptr(), Ordering::Release);
}
