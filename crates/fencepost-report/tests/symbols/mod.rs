//! Invented symbol tables, and stacks that were taken from real programs and written down.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

use fencepost_record::{
    AccessType, Block, BlockState, ErrorKind, Frames, Record, Stack, ThreadInfo, Trace, Where, Which,
};
use fencepost_report::{Resolved, Resolver, Symbol};

/// Answers from a table of address and functions, innermost first.
#[derive(Clone, Default)]
pub struct Table {
    pub symbols: BTreeMap<u64, Vec<Symbol>>,
    pub asked: Vec<(u64, bool)>,
}

impl Resolver for Table {
    fn resolve(&mut self, address: u64, exact: bool) -> Vec<Symbol> {
        self.asked.push((address, exact));
        self.symbols.get(&address).cloned().unwrap_or_default()
    }
}

pub fn symbol(function: &str, file: &str, line: u32) -> Symbol {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Symbol { function: text(function), file: text(file), line: Some(line), column: Some(5) }
}

impl Table {
    /// A stack with a frame of its own for each function, and its addresses.
    pub fn stack(&mut self, functions: &[&str]) -> Vec<u64> {
        functions.iter().map(|function| self.frame(vec![symbol(function, "", 0)])).collect()
    }

    /// One more address, at which these functions lie.
    pub fn frame(&mut self, symbols: Vec<Symbol>) -> u64 {
        let address = 0x1000 + 0x10 * self.symbols.len() as u64;
        self.symbols.insert(address, symbols);
        address
    }
}

pub fn stack(addresses: &[u64], exact: bool) -> Stack {
    let mut trace = Trace::EMPTY;
    trace.first_is_exact = exact;
    addresses.iter().for_each(|address| assert!(trace.push(*address)));
    Stack { thread: ThreadInfo { id: 1, ..ThreadInfo::default() }, trace, age_ms: 1 }
}

/// A use after free with these stacks.
pub fn record(fault: &[u64], allocated: &[u64], freed: &[u64]) -> Record {
    let mut record = Record { kind: ErrorKind::UseAfterFree, fault: stack(fault, true), ..Record::default() };
    record.access.kind = AccessType::Read;
    record.access.address = Some(0x2000);
    record.block = Some(Block {
        address: 0x2000,
        size: 8,
        align: 8,
        place: Where::Inside,
        state: BlockState::Freed,
        allocated: stack(allocated, false),
        freed: Some(stack(freed, false)),
        ..Block::default()
    });
    record
}

/// The names of a resolved stack.
pub fn names(resolved: &Resolved<'_>, which: Which) -> Vec<String> {
    let mut names = Vec::new();
    resolved.each(which, &mut |frame| {
        names.push(frame.function.map_or_else(|| format!("{:#x}", frame.address), str::to_owned));
    });
    names
}

/// One written-down stack: what was going on, and its frames.
pub struct Shape {
    pub what: String,
    pub table: Table,
    pub addresses: Vec<u64>,
}

/// Reads a file of `tests/shapes`: `== what` begins a stack, `address|function|file|line` is a function of it, and
/// neighbours with one address are inlined into one another.
pub fn shapes(text: &str) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for line in text.lines() {
        if let Some(what) = line.strip_prefix("== ") {
            shapes.push(Shape { what: what.to_owned(), table: Table::default(), addresses: Vec::new() });
            continue;
        }
        let shape = shapes.last_mut().expect("a stack begins with ==");
        let fields: Vec<&str> = line.split('|').collect();
        let [address, function, file, number] = fields[..] else { panic!("{line}") };
        let address = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap();
        if shape.addresses.last() != Some(&address) {
            shape.addresses.push(address);
        }
        let function = if function == "?" { "" } else { function };
        shape.table.symbols.entry(address).or_default().push(symbol(
            function,
            file,
            number.parse().unwrap_or(0),
        ));
    }
    shapes
}
