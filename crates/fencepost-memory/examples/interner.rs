//! A string interner: every text is kept once, at an address that never changes, and is known by a small number.
//! `cargo run -p fencepost-memory --example interner`
//!
//! Since nothing moves, the table from text to number can borrow its keys from the arena, and texts that were given out
//! stay good while more come in. With a `String` that grows, both would dangle.

use std::collections::HashMap;

use fencepost_memory::MemoryError;
use fencepost_memory::growing::{AppendArena, Options};

/// The number of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Symbol(u32);

struct Interner<'arena> {
    arena: &'arena AppendArena,
    numbers: HashMap<&'arena str, Symbol>,
    texts: Vec<&'arena str>,
}

impl<'arena> Interner<'arena> {
    fn new(arena: &'arena AppendArena) -> Self {
        Interner { arena, numbers: HashMap::new(), texts: Vec::new() }
    }

    fn intern(&mut self, text: &str) -> Result<Symbol, MemoryError> {
        if let Some(symbol) = self.numbers.get(text) {
            return Ok(*symbol);
        }
        let kept = self.arena.alloc_str(text)?;
        let symbol = Symbol(self.texts.len() as u32);
        self.texts.push(kept);
        self.numbers.insert(kept, symbol);
        Ok(symbol)
    }

    /// Lives as long as the arena, not as long as this borrow: the text never moves.
    fn text(&self, symbol: Symbol) -> Option<&'arena str> {
        self.texts.get(symbol.0 as usize).copied()
    }
}

/// Interns a hundred thousand names, and shows that the first one is where it was.
pub fn main() -> Result<(), MemoryError> {
    let arena = Options::new(4 << 30).name("names").append_arena()?;
    let mut names = Interner::new(&arena);
    let first = names.intern("main")?;
    let text = names.text(first).unwrap_or_default();
    for n in 0..100_000 {
        names.intern(&format!("local_{n}"))?;
    }
    assert_eq!(names.intern("main")?, first);
    assert_eq!(names.text(first).map(str::as_ptr), Some(text.as_ptr()), "it has not moved");
    println!(
        "{} names in {} KiB, of which {} KiB are used; {text:?} is still at {:p}",
        names.texts.len(),
        arena.committed() >> 10,
        arena.used() >> 10,
        text.as_ptr()
    );
    Ok(())
}
