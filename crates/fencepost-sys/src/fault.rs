//! What a system tells about a fault.

use fencepost_record::{AccessType, Registers};

/// What a fault was, as the processor and the system told it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The signal (or exception) number.
    pub signal: i32,
    /// The address that was touched; `None` when the processor does not say (a non-canonical address).
    pub address: Option<usize>,
    /// Where the access began, if the instruction tells and it is not at `address`: it straddles two pages, of which
    /// the first lets it pass.
    pub start: Option<usize>,
    /// Whether the address was worked out from the instruction rather than told by the processor.
    pub decoded: bool,
    /// How it was touched.
    pub access: AccessType,
    /// How many bytes the instruction touches, where it was understood.
    pub size: Option<u32>,
    /// The instruction.
    pub pc: usize,
    /// The stack pointer.
    pub sp: usize,
    /// The frame pointer.
    pub fp: usize,
    /// Where the function of the instruction returns to, as the processor keeps it in a register (aarch64, where a call
    /// stands before that place); certain only of a function that calls nobody.
    pub caller: Option<usize>,
    /// Whether the signal was sent by a process rather than raised by an instruction.
    pub sent: bool,
    /// All registers.
    pub registers: Registers,
    /// Whether somebody else has a handler for this signal, who is asked next.
    pub others: bool,
    /// Whether the page is open to another thread's step, and to nobody else until that has ended.
    pub held: bool,
    /// Whether the thread had leave to write to pages that are closed by key ([`Keys`](crate::Keys)).
    pub can_write: bool,
    /// Whether the access finds its page open when it is made again: the system's own alarm ([`Protection::Once`](crate::Protection::Once)).
    pub once: bool,
    /// What is left of the copy or filling that one repeated instruction makes, where it is one.
    pub repeated: Option<fencepost_record::CopyInfo>,
}

impl Fault {
    /// A fault at `pc` of which nothing else is known yet: raised by an instruction, without an address.
    pub const fn at(signal: i32, [pc, sp, fp]: [usize; 3], registers: Registers) -> Fault {
        Fault {
            signal,
            address: None,
            start: None,
            decoded: false,
            access: AccessType::None,
            size: None,
            pc,
            sp,
            fp,
            caller: None,
            sent: false,
            registers,
            others: false,
            held: false,
            can_write: false,
            once: false,
            repeated: None,
        }
    }
}
