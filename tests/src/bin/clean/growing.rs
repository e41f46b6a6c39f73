//! The growing allocators, strict, with everything that they allow.

use fencepost::growing::Options;

/// Uses all of them, and leaves some to the end of the process.
pub fn allocators() {
    let strict = |name| Options::new(16 << 20).name(name).strict(true);
    let mut arena = strict("arena").arena().expect("addresses");
    let mut pool = strict("pool").pool::<String>().expect("addresses");
    let mut vector = strict("vector").vec::<u64>().expect("addresses");
    let mut stack = strict("stack").stack().expect("addresses");
    let mut fiber = strict("fiber").call_stack().expect("memory");
    let mut sum = 0u64;
    for round in 0..50u64 {
        let text = arena.alloc_str("the same every time").expect("room");
        sum += text.len() as u64;
        arena.scope(|arena| sum += arena.alloc_slice(&[round; 3000]).expect("room").iter().sum::<u64>());
        let handle = pool.insert(format!("round {round}")).expect("room");
        if round % 3 != 0 {
            sum += pool.remove(handle).expect("it is there").len() as u64;
        }
        vector.extend_from_slice(&[round; 1000]).expect("room");
        vector.truncate(vector.len() - 400);
        let place = stack.push(vec![round; 10]).expect("room");
        sum += fiber.run(|| (0..round).sum::<u64>());
        sum += stack.pop(place).expect("the newest").len() as u64;
    }
    println!("{sum} {} {}", pool.len(), vector.len());
    std::mem::forget((arena, pool, vector, stack, fiber));
}
