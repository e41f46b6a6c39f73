//! Seals and what the kernel makes of them: mappings, and a fork.

use crate::seals::victim_seals;
use crate::{Touch, armed, victim_allocates, victim_frees, victim_touches};

/// Mappings of this process. Takes no memory, so that counting changes nothing.
fn mappings() -> i64 {
    let mut file = std::fs::File::open("/proc/self/maps").expect("maps");
    let mut piece = [0u8; 4096];
    let mut lines = 0;
    while let Ok(got @ 1..) = std::io::Read::read(&mut file, &mut piece) {
        lines += piece[..got].iter().filter(|byte| **byte == b'\n').count() as i64;
    }
    lines
}

/// `seal-many`: seals 2,000 pages, counts mappings, writes to one page of the middle, and unseals.
pub fn many() {
    const LEN: usize = 5000;
    let blocks: Vec<*mut u8> = (0..1000).map(|_| victim_allocates(LEN, 8)).collect();
    let mut seals = Vec::with_capacity(blocks.len());
    seals.push(victim_seals(blocks[0], LEN));
    seals.pop();
    let before = mappings();
    seals.extend(blocks.iter().map(|block| victim_seals(*block, LEN)));
    let after = mappings();
    armed();
    victim_touches(blocks[500], Touch::Write);
    victim_touches(blocks[500], Touch::Write);
    println!("violations {}", seals.iter().map(fencepost::Seal::violations).sum::<u32>());
    println!("written {:#x}", victim_touches(blocks[500], Touch::Read));
    println!("more mappings {}", after - before);
    println!("and after a step {}", mappings() - before);
    drop(seals);
    for block in blocks {
        victim_touches(block, Touch::Write);
    }
    println!("left over {}", mappings() - before);
}

/// `seal-forked`: a child writes to what its parent has sealed, and then the parent does.
pub fn forked() {
    let block = victim_allocates(100, 4);
    let seal = victim_seals(block, 100);
    armed();
    // SAFETY: only this thread exists, and the child does nothing that another could hold up.
    let child = unsafe { libc::fork() };
    if child == 0 {
        victim_touches(block, Touch::Write);
        println!("child {}", seal.violations());
        std::process::exit(0);
    }
    let mut status = 0;
    // SAFETY: the child is ours, and the status is written to a variable of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    victim_touches(block, Touch::Write);
    println!("parent {}", seal.violations());
}

/// A block that was audited is guarded as before: also on its pages that nobody wrote to.
pub fn audited_and_freed() {
    let block = victim_allocates(3 * 4096, 4096);
    armed();
    // SAFETY: the block is alive and nobody writes to it while the slice is read.
    let bytes = unsafe { std::slice::from_raw_parts(block, 3 * 4096) };
    let phase = || victim_touches(block.wrapping_add(4096), Touch::Write);
    let (_, audit) = fencepost::audit(bytes, phase).expect("audited");
    println!("{} written", audit.pages.len());
    victim_frees(block, 3 * 4096, 4096);
    victim_touches(block.wrapping_add(2 * 4096), Touch::Read);
}

/// What a write that a watch notes costs, alone and among very many seals, by the system's clock.
pub fn crowd_cost() {
    const ROUNDS: usize = 200;
    let block = victim_allocates(64, 8);
    let options = fencepost::WatchOptions::new().by_pages();
    // SAFETY: the block is never freed.
    let _watch = unsafe { fencepost::watch_raw(block, 8, options) }.expect("watched");
    let cost = || {
        let began = std::time::Instant::now();
        (0..ROUNDS).for_each(|_| {
            victim_touches(block, Touch::Write);
        });
        began.elapsed().as_nanos() as usize / ROUNDS
    };
    cost();
    let alone = cost();
    let blocks: Vec<_> = (0..30_000u64).map(Box::new).collect();
    let seals: Vec<_> = blocks.iter().map(|block| fencepost::seal(&**block).expect("sealed")).collect();
    println!("{alone} ns a write that is noted, {} among {} seals", cost(), seals.len());
}
