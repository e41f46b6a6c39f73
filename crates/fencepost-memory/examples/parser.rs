//! A parser whose tree lies in an arena: nodes point to each other by plain references, and all of it goes at once.
//! `cargo run -p fencepost-memory --example parser -- '2 * (3 + 4) - 5'`
//!
//! With a `Box` a node, a deep tree is freed node by node, by recursion. Here nothing is freed but the arena.

use fencepost_memory::MemoryError;
use fencepost_memory::growing::Arena;

#[derive(Clone, Copy)]
enum Node<'arena> {
    Number(f64),
    Minus(&'arena Node<'arena>),
    Both(u8, &'arena Node<'arena>, &'arena Node<'arena>),
}

impl Node<'_> {
    fn value(&self) -> f64 {
        match *self {
            Node::Number(number) => number,
            Node::Minus(node) => -node.value(),
            Node::Both(operator, left, right) => {
                let (left, right) = (left.value(), right.value());
                match operator {
                    b'+' => left + right,
                    b'-' => left - right,
                    b'*' => left * right,
                    _ => left / right,
                }
            }
        }
    }
}

#[derive(Debug)]
enum Failure {
    /// Where the text makes no sense.
    Unexpected(usize),
    /// The arena is full, or there is no memory.
    Memory(MemoryError),
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Memory(error)
    }
}

struct Parser<'text, 'arena> {
    text: &'text [u8],
    at: usize,
    arena: &'arena Arena,
}

impl<'arena> Parser<'_, 'arena> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Operators of one rank, weakest first, and what they join.
    fn joined(&mut self, rank: usize) -> Result<&'arena Node<'arena>, Failure> {
        let Some(operators) = [b"+-", b"*/"].get(rank) else { return self.single() };
        let mut left = self.joined(rank + 1)?;
        while let Some(operator) = self.peek().filter(|byte| operators.contains(byte)) {
            self.at += 1;
            let right = self.joined(rank + 1)?;
            left = self.arena.alloc(Node::Both(operator, left, right))?;
        }
        Ok(left)
    }

    fn single(&mut self) -> Result<&'arena Node<'arena>, Failure> {
        match self.peek() {
            Some(b'-') => {
                self.at += 1;
                let node = self.single()?;
                Ok(self.arena.alloc(Node::Minus(node))?)
            }
            Some(b'(') => {
                self.at += 1;
                let node = self.joined(0)?;
                if self.peek() != Some(b')') {
                    return Err(Failure::Unexpected(self.at));
                }
                self.at += 1;
                Ok(node)
            }
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Result<&'arena Node<'arena>, Failure> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let digits = std::str::from_utf8(&rest[..len]).ok().and_then(|text| text.parse().ok());
        let number = digits.ok_or(Failure::Unexpected(self.at))?;
        self.at += len;
        Ok(self.arena.alloc(Node::Number(number))?)
    }
}

fn parse<'arena>(text: &str, arena: &'arena Arena) -> Result<&'arena Node<'arena>, Failure> {
    let mut parser = Parser { text: text.as_bytes(), at: 0, arena };
    let tree = parser.joined(0)?;
    if parser.peek().is_some() { Err(Failure::Unexpected(parser.at)) } else { Ok(tree) }
}

/// Computes what the arguments say, and a few things besides, in one arena.
pub fn main() -> Result<(), MemoryError> {
    let mut arena = Arena::reserve(64 << 20)?;
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|word| word.contains(['+', '*', '/', '('])).collect();
    let texts = ["2 * (3 + 4) - 5", "-(1 - 2) / 4", "1 + * 2"].map(str::to_owned);
    for text in texts.iter().chain(&asked) {
        match parse(text, &arena) {
            Ok(tree) => println!("{text} = {}, a tree of {} bytes", tree.value(), arena.used()),
            Err(failure) => println!("{text}: {failure:?}"),
        }
        arena.reset();
    }
    assert_eq!(parse("2 * (3 + 4) - 5", &arena).map(Node::value).ok(), Some(9.0));
    assert!(matches!(parse("1 + * 2", &arena), Err(Failure::Unexpected(4))));
    // A sum of a hundred thousand terms, and an arena that is too small for it: an error, and the program goes on.
    let long = "1+".repeat(100_000) + "1";
    let small = Arena::reserve(1 << 20)?;
    assert!(matches!(parse(&long, &small), Err(Failure::Memory(error)) if error.is_full()));
    Ok(())
}
