//! Threads that come and go, and hand blocks to one another.

use crate::{Dice, Marked};
use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Waves of threads; each takes over what the wave before it allocated.
pub fn thread_churn(waves: usize) {
    let mut inherited: Vec<Marked> = Vec::new();
    let mut total = 0;
    for wave in 0..waves {
        let parts: Vec<Vec<Marked>> = std::thread::scope(|scope| {
            let mut rest = inherited.drain(..);
            let threads: Vec<_> = (0..8)
                .map(|index| {
                    let mine: Vec<Marked> = rest.by_ref().take(50).collect();
                    scope.spawn(move || {
                        mine.iter().for_each(Marked::verify);
                        drop(mine);
                        (0..50)
                            .map(|n| Marked::new((wave + index + n) as u8, 1 + (n * 37 + index) % 3000))
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that ends")).collect()
        });
        inherited = parts.into_iter().flatten().collect();
        total += inherited.iter().map(|block| block.bytes.len()).sum::<usize>();
    }
    println!("{waves} waves, {total} bytes");
}

/// Four threads that allocate, check and free each other's blocks for a number of seconds.
pub fn exchange(seconds: usize) {
    const THREADS: usize = 4;
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let (senders, receivers): (Vec<Sender<Marked>>, Vec<Receiver<Marked>>) =
        (0..THREADS).map(|_| channel()).unzip();
    let exchanged: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(index, inbox)| {
                let outboxes = senders.clone();
                scope.spawn(move || {
                    let mut dice = Dice(0x1234_5678_9abc_def1 + index as u64);
                    let (mut kept, mut count): (Vec<Marked>, usize) = (Vec::new(), 0);
                    while Instant::now() < end {
                        for _ in 0..64 {
                            let len =
                                if dice.roll(50) == 0 { dice.roll(200_000) } else { 1 + dice.roll(600) };
                            let block = Marked::new(dice.roll(256) as u8, len);
                            // The inbox of a thread that has ended is gone: then the block is freed here.
                            drop(outboxes[dice.roll(THREADS)].send(block));
                        }
                        for block in inbox.try_iter() {
                            count += 1;
                            kept.push(block);
                            if kept.len() > 500 {
                                kept.swap_remove(dice.roll(500)).verify();
                            }
                        }
                        if let Some(block) = kept.last_mut() {
                            block.verify();
                            let next = block.seed.wrapping_add(block.bytes.len() as u8);
                            block.bytes.push(next);
                        }
                    }
                    kept.iter().for_each(Marked::verify);
                    count
                })
            })
            .collect();
        drop(senders);
        threads.into_iter().map(|thread| thread.join().expect("a thread that ends")).sum()
    });
    assert!(exchanged > 0);
    eprintln!("figure: {exchanged} blocks exchanged in {seconds} s");
    println!("exchanged for {seconds} s");
}

/// Allocates when it is dropped, which for a thread's own value is at the very end of the thread.
struct Late(RefCell<Vec<String>>);

impl Drop for Late {
    fn drop(&mut self) {
        let more: Vec<String> = self.0.borrow().iter().map(|line| format!("late {line}")).collect();
        assert!(more.iter().all(|line| line.starts_with("late line")));
        // What is left for the end of this thread is allocated by a destructor, too.
        AFTER.with(|after| after.0.borrow_mut().extend(more));
    }
}

struct After(RefCell<Vec<String>>);

impl Drop for After {
    fn drop(&mut self) {
        let joined = self.0.borrow().join(",");
        assert_eq!(joined.matches("late line").count(), self.0.borrow().len());
    }
}

thread_local! {
    static LATE: Late = const { Late(RefCell::new(Vec::new())) };
    static AFTER: After = const { After(RefCell::new(Vec::new())) };
}

/// Threads whose destructors allocate and free.
pub fn tls_destructors(threads: usize) {
    for index in 0..threads {
        std::thread::spawn(move || {
            LATE.with(|late| late.0.borrow_mut().extend((0..5).map(|n| format!("line {index} {n}"))));
        })
        .join()
        .expect("a thread that ends");
    }
    println!("{threads} threads");
}
