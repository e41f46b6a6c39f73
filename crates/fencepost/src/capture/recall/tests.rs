//! Walks of an invented machine, remembered and changed.
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::HashMap;

use super::*;

struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A walk of an invented machine: every word says how far away the next one is.
fn walk(stack: &[u64], fp: usize) -> (Vec<u64>, Reads) {
    let mut reads = Reads::new();
    let mut found = Vec::new();
    let mut place = 3;
    while let Some(value) = stack.get(place).copied().filter(|_| found.len() < 40) {
        reads.add(place * 8, value);
        found.push(value);
        if value % 11 == 5 && !reads.uses_fp {
            reads.uses_fp = true;
            place += fp % 4;
        }
        if value % 29 == 7 {
            break;
        }
        place += 1 + value as usize % 5;
    }
    (found, reads)
}

fn memory() -> Box<[u64]> {
    vec![0; size_of::<Recall>() / 8].into_boxed_slice()
}

#[test]
fn a_stack_is_recalled_only_if_a_walk_would_give_it() {
    let mut memory = memory();
    let recall = memory.as_mut_ptr().cast::<Recall>();
    let mut draw = Draw(1);
    let mut stack: Vec<u64> = (0..200).map(|_| draw.below(1 << 20) as u64).collect();
    let mut numbers = HashMap::new();
    let (mut recalled, mut walked, mut missing) = (0u32, 0u32, 0u32);
    for _ in 0..200_000 {
        // A few words have a few values each, as return addresses have; now and then anything changes.
        let place = 3 + draw.below(6) * 7;
        stack[place] = (place * 31 + draw.below(2)) as u64;
        if draw.below(5000) == 0 {
            let place = draw.below(stack.len());
            stack[place] = draw.below(1 << 20) as u64;
        }
        let fp = usize::from(draw.below(1000) == 0);
        let sp = stack.as_ptr().addr();
        let end = sp + stack.len() * 8;
        let key = Key { ip: 1, sp, fp, anchor: sp + draw.below(2) };
        let (expected, reads) = walk(&stack, fp);
        let number = u32::try_from(numbers.len()).expect("few") + 1;
        // What the anchor would leave out is part of the result.
        let number = *numbers.entry((key.anchor, expected)).or_insert(number);
        // SAFETY: the memory is a zeroed `Recall` that only this test uses; the words lie in `stack`.
        unsafe {
            match find(recall, &key, end) {
                Some(found) => {
                    assert_eq!(found, number);
                    recalled += 1;
                }
                None => {
                    walked += 1;
                    remember(recall, &key, end, &reads, number);
                    // Forks of several trees share a table, so now and then one is lost again.
                    missing += u32::from(find(recall, &key, end) != Some(number));
                }
            }
        }
    }
    assert!(missing * 20 < walked, "{missing} of {walked} were not found again");
    assert!(recalled > 10 * walked, "{recalled} recalled, {walked} walked");
}

#[test]
fn every_single_changed_word_makes_a_miss() {
    let mut memory = memory();
    let recall = memory.as_mut_ptr().cast::<Recall>();
    let mut stack: Vec<u64> = (0..60).map(|place| place * 35).collect();
    let sp = stack.as_ptr().addr();
    let end = sp + stack.len() * 8;
    let key = Key { ip: 1, sp, fp: 2, anchor: 3 };
    let (_, reads) = walk(&stack, 2);
    // SAFETY: as above.
    let recalled = |key: &Key, end| unsafe { find(recall, key, end) };
    // SAFETY: as above.
    unsafe { remember(recall, &key, end, &reads, 9) };
    for place in 0..stack.len() {
        let was = stack[place];
        stack[place] ^= 1 << (place % 64);
        core::hint::black_box(&mut stack);
        let read = reads.at(place as u16).is_some();
        assert_eq!(recalled(&key, end), (!read).then_some(9), "word {place}");
        stack[place] = was;
    }
    assert_eq!(recalled(&key, end), Some(9));
    for other in [Key { ip: 0, ..key }, Key { anchor: 0, ..key }] {
        assert_eq!(recalled(&other, end), None);
    }
    let last = usize::from(reads.offsets[..reads.used].iter().copied().max().expect("some"));
    assert_eq!(recalled(&key, sp + last * 8), None, "a stack that ends before the last word");
    assert_eq!(recalled(&key, sp + last * 8 + 8), Some(9));
}

#[test]
fn a_walk_too_long_to_be_remembered_is_not() {
    let mut memory = memory();
    let recall = memory.as_mut_ptr().cast::<Recall>();
    let stack = [7u64; 2 * WORDS];
    let sp = stack.as_ptr().addr();
    let key = Key { ip: 1, sp, fp: 0, anchor: 0 };
    for (words, kept) in [(0, false), (1, true), (WORDS, true), (WORDS + 1, false), (2 * WORDS, false)] {
        let mut reads = Reads::new();
        (0..words).for_each(|word| reads.add(word * 8, 7));
        memory.fill(0);
        // SAFETY: as above.
        let found = unsafe {
            remember(recall, &key, sp + size_of_val(&stack), &reads, 4);
            find(recall, &key, sp + size_of_val(&stack))
        };
        assert_eq!(found, kept.then_some(4), "{words}");
    }
}
