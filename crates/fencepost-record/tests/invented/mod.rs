//! Invented errors: one record a case, with addresses, modules and names that no machine ever had.

#![allow(dead_code, reason = "each test binary uses a part")]

use fencepost_record::*;

/// The program's module starts here; the C library's there.
pub const PROGRAM: u64 = 0x5555_0000_0000;
pub const LIBRARY: u64 = 0x7777_0000_0000;
/// The guarded heap of these records.
pub const HEAP: u64 = 0x2000_0000_0000;

/// What the invented symbol table knows of an offset in the program: function, line, column, inlined.
const SYMBOLS: [(u64, &str, u32, u32, bool); 8] = [
    (0x1234, "demo::ring::Ring::push", 41, 9, false),
    (0x1300, "<demo::ring::Ring as core::iter::Extend<u8>>::extend::{closure#0}", 57, 13, true),
    (0x1310, "demo::main", 12, 5, false),
    (0x2000, "demo::ring::Ring::with_capacity", 22, 20, false),
    (0x2100, "demo::main", 9, 16, false),
    (0x3000, "demo::worker::run", 77, 9, false),
    (0x3100, "demo::spawn::{closure#0}", 80, 5, false),
    (0x4000, "demo::seal_table", 90, 17, false),
];

pub fn thread(id: u32, name: &str) -> ThreadInfo {
    ThreadInfo { id, name: Text::new(name.as_bytes()) }
}

pub fn stack(thread: ThreadInfo, age_ms: u64, exact: bool, addresses: &[u64]) -> Stack {
    let mut trace = Trace::EMPTY;
    trace.first_is_exact = exact;
    for address in addresses {
        assert!(trace.push(*address));
    }
    Stack { thread, trace, age_ms }
}

fn main_thread() -> ThreadInfo {
    thread(4242, "main")
}

fn allocated() -> Stack {
    stack(main_thread(), 1234, false, &[PROGRAM + 0x2001, PROGRAM + 0x2101])
}

fn freed() -> Stack {
    stack(thread(4243, "worker"), 37, false, &[PROGRAM + 0x3001, PROGRAM + 0x3101])
}

fn faulting() -> Stack {
    stack(main_thread(), 0, true, &[PROGRAM + 0x1234, PROGRAM + 0x1301, PROGRAM + 0x1311])
}

pub fn block(size: u64, place: Where, distance: u64) -> Block {
    let align = if size.is_multiple_of(8) { 8 } else { 1 };
    Block {
        address: HEAP + 0x1000 - size,
        size,
        align,
        site: Some(0x51e5_51e5_0000_0018),
        place,
        distance,
        state: BlockState::Live,
        allocated: allocated(),
        ..Block::default()
    }
}

pub fn freed_block(size: u64, place: Where, distance: u64) -> Block {
    Block { state: BlockState::Freed, freed: Some(freed()), ..block(size, place, distance) }
}

/// A record with everything around the error filled in.
pub fn base(kind: ErrorKind) -> Record {
    let mut record = Record {
        number: 1,
        kind,
        fault: faulting(),
        signal: 11,
        engine: "marker",
        seed: 0x5eed_0123_4567_89ab,
        options: Text::new(b"mode=strict,only_fn='demo::*,other'"),
        coverage: Coverage { guarded: 12_345, total: 12_350 },
        ..Record::default()
    };
    record.process = ProcessInfo {
        pid: 4242,
        exe: Text::new(b"/home/user/demo/target/debug/demo"),
        args: Text::new(b"demo\0--input\0it's a file.txt\0"),
        ..ProcessInfo::default()
    };
    let mut build_id = [0; 20];
    for (index, byte) in build_id.iter_mut().enumerate() {
        *byte = 0xa0 + u8::try_from(index).unwrap();
    }
    let program = Module {
        start: PROGRAM,
        end: PROGRAM + 0x10_0000,
        bias: PROGRAM,
        path: Text::new(b"/home/user/demo/target/debug/demo"),
        build_id,
        build_id_len: 20,
    };
    let library = Module {
        start: LIBRARY,
        end: LIBRARY + 0x20_0000,
        bias: LIBRARY,
        path: Text::new(b"/usr/lib/libc.so.6"),
        ..Module::default()
    };
    assert!(record.modules.push(program));
    assert!(record.modules.push(library));
    record
}

pub fn access(kind: AccessType, address: u64, size: Option<u32>) -> Access {
    Access { kind, address: Some(address), size }
}

/// The invented symbol table over a record's own addresses.
pub struct Named<'a>(pub &'a Record);

impl Frames for Named<'_> {
    fn each(&self, which: Which, each: &mut dyn FnMut(&FrameView<'_>)) {
        let Some(trace) = which.trace(self.0) else { return };
        for (index, address) in trace.frames().iter().enumerate() {
            let exact = index == 0 && trace.first_is_exact;
            let mut view = RawFrames::frame(self.0, *address, exact);
            let inside = if exact { *address } else { address - 1 };
            let found = SYMBOLS.iter().find(|symbol| PROGRAM + symbol.0 == inside);
            if let Some((_, function, line, column, inlined)) = found {
                view.function = Some(function);
                view.file = Some("/home/user/demo/src/ring.rs");
                view.line = Some(*line);
                view.column = Some(*column);
                view.inlined = *inlined;
            } else if (LIBRARY..LIBRARY + 0x20_0000).contains(&inside) {
                view.function = Some("memcpy");
            }
            each(&view);
        }
    }

    fn excerpt(&self, each: &mut dyn FnMut(&ExcerptLine<'_>)) {
        let lines = [
            (40, "    pub fn push(&mut self, byte: u8) {"),
            (41, "        unsafe { *self.at.add(self.len) = byte };"),
            (42, ""),
        ];
        for (number, text) in lines {
            let hit = number == 41;
            each(&ExcerptLine {
                stack: Which::Fault,
                direct: true,
                file: "/home/user/demo/src/ring.rs",
                number,
                text,
                hit,
                column: hit.then_some((9, 18)),
            });
        }
    }

    fn fingerprint(&self) -> u64 {
        0x0123_4567_89ab_cdef
    }
}

/// One case a kind and more where a kind has several shapes: its file name and its record.
pub fn cases() -> Vec<(&'static str, Record)> {
    let mut all = heap_accesses();
    all.extend(heap_frees());
    all.extend(found_later());
    all.extend(other_faults());
    all
}

fn heap_accesses() -> Vec<(&'static str, Record)> {
    use AccessType::{Read, Write};
    use ErrorKind::{HeapBufferOverflow, HeapBufferUnderflow, UseAfterFree};
    let end = HEAP + 0x1000;
    let case = |kind, access, block| Record { access, block: Some(block), ..base(kind) };
    let mut overflow = case(HeapBufferOverflow, access(Write, end, Some(1)), block(24, Where::After, 0));
    for (name, value) in
        [("rip", PROGRAM + 0x1234), ("rsp", 0x7fff_ffff_e000), ("rax", 24), ("rdi", end), ("r15", 0)]
    {
        overflow.registers.push(name, value);
    }
    let whole = CopyInfo {
        function: "memcpy",
        to: end - 24,
        from: Some(0x7fff_ffff_e100),
        size: Some(1_064),
        left: None,
    };
    let mut copied = case(HeapBufferOverflow, access(Write, end, Some(32)), block(24, Where::After, 0));
    copied.copy = Some(whole);
    let mut erms = copied;
    erms.access.size = Some(1);
    erms.copy = Some(CopyInfo { left: Some(1_040), ..whole });
    let mut filled = copied;
    filled.access.size = Some(8);
    filled.copy = Some(CopyInfo { function: "", to: end, from: None, size: None, left: Some(80) });
    let mut recycled = case(UseAfterFree, access(Read, HEAP + 0x10, None), Block::default());
    recycled.block = None;
    recycled.notes = Notes::NONE.with(Note::LongFreed);
    recycled.confidence = Confidence::Low;
    vec![
        ("heap-buffer-overflow", overflow),
        ("heap-buffer-overflow-copy", copied),
        ("heap-buffer-overflow-copy-left", erms),
        ("heap-buffer-overflow-repeated", filled),
        (
            "heap-buffer-overflow-straddling",
            case(HeapBufferOverflow, access(Read, end - 4, Some(8)), block(24, Where::Inside, 20)),
        ),
        (
            "heap-buffer-overflow-begun-inside",
            case(HeapBufferOverflow, access(Read, end - 4, Some(8)), block(24, Where::After, 0)),
        ),
        (
            "heap-buffer-underflow",
            case(HeapBufferUnderflow, access(Read, end - 8 - 1, Some(1)), block(8, Where::Before, 0)),
        ),
        (
            "use-after-free",
            case(UseAfterFree, access(Read, end - 32, Some(8)), freed_block(48, Where::Inside, 16)),
        ),
        ("use-after-free-recycled", recycled),
    ]
}

fn heap_frees() -> Vec<(&'static str, Record)> {
    use AccessType::{Free, Realloc};
    use ErrorKind::{AllocDeallocMismatch, DoubleFree, InvalidFree, LayoutMismatch};
    let start = |size: u64| HEAP + 0x1000 - size;
    let case = |kind, access, block| Record { access, block, signal: 6, ..base(kind) };
    let mut layout = case(
        LayoutMismatch,
        access(Free, HEAP, None),
        Some(Block { address: HEAP, ..block(4_294_967_360, Where::Inside, 0) }),
    );
    layout.given_layout = Some((64, 1));
    layout.notes = Notes::NONE.with(Note::SizeDiffers);
    let mut stack_address = case(InvalidFree, access(Free, 0x7fff_ffff_e010, None), None);
    stack_address.notes = Notes::NONE.with(Note::StackAddress);
    stack_address.neighbours[0] =
        Some(Neighbour { address: HEAP, size: 11, state: BlockState::Freed, distance: 0x5fff_ffff_e005 });
    vec![
        (
            "double-free",
            case(DoubleFree, access(Free, start(24), None), Some(freed_block(24, Where::Inside, 0))),
        ),
        (
            "double-free-realloc",
            case(DoubleFree, access(Realloc, start(80), None), Some(freed_block(80, Where::Inside, 0))),
        ),
        (
            "invalid-free",
            case(InvalidFree, access(Free, start(24) + 8, None), Some(block(24, Where::Inside, 8))),
        ),
        ("invalid-free-stack", stack_address),
        ("layout-mismatch", layout),
        (
            "alloc-dealloc-mismatch",
            case(AllocDeallocMismatch, access(Free, start(18), None), Some(block(18, Where::Inside, 0))),
        ),
    ]
}

fn found_later() -> Vec<(&'static str, Record)> {
    use ErrorKind::{Leak, RedzoneCorruption, WriteAfterFree};
    let end = HEAP + 0x1000;
    let mut redzone =
        Record { access: access(AccessType::Free, end - 13, None), signal: 6, ..base(RedzoneCorruption) };
    redzone.block = Some(Block { slack: 3, ..block(13, Where::After, 0) });
    redzone.damage = Some((end, 3));
    redzone.notes = Notes::NONE.with(Note::FoundLater);
    let mut checked = redzone;
    checked.access = Access::default();
    checked.damage = Some((end - 14, 1));
    checked.block = Some(block(13, Where::Before, 0));
    // A check that runs at exit has no stack worth keeping, and the allocation's stack was lost.
    checked.fault.trace = Trace::EMPTY;
    checked.block.as_mut().unwrap().allocated = Stack::default();
    let mut poison = Record { signal: 6, ..base(WriteAfterFree) };
    poison.block = Some(freed_block(11, Where::Inside, 4));
    poison.damage = Some((end - 7, 2));
    let mut leak = Record { signal: 0, fault: Stack::default(), ..base(Leak) };
    leak.block = Some(block(800, Where::Inside, 0));
    leak.leak = Some(LeakInfo { blocks: 1, bytes: 800, ..LeakInfo::default() });
    let mut leaks = leak;
    leaks.leak = Some(LeakInfo { blocks: 3, bytes: 2_400, through_blocks: 12, through_bytes: 1_536 });
    vec![
        ("redzone-corruption", redzone),
        ("redzone-corruption-check", checked),
        ("write-after-free", poison),
        ("leak", leak),
        ("leak-many", leaks),
    ]
}

fn other_faults() -> Vec<(&'static str, Record)> {
    use AccessType::{Execute, Read, Write};
    use ErrorKind::{NullDereference, SealViolation, StackOverflow, Tripwire, WildAccess};
    let end = HEAP + 0x1000;
    let sealer = stack(main_thread(), 61_000, false, &[PROGRAM + 0x4001]);
    let mut seal = Record { access: access(Write, end - 52, Some(4)), ..base(SealViolation) };
    seal.block = Some(block(64, Where::Inside, 12));
    let pages = (end - 4096, 4096);
    let (old, new) = (Bytes::new(&[1, 0, 0, 0]), Bytes::new(&[2, 0, 0, 0]));
    seal.seal = Some(SealInfo { address: end - 64, size: 64, pages, old, new, sealer });
    let mut global = seal;
    global.block = None;
    let mut tripwire = Record { access: access(Read, end - 32, Some(8)), ..base(Tripwire) };
    tripwire.block = Some(block(48, Where::Inside, 16));
    tripwire.seal = Some(SealInfo { address: end - 48, size: 48, pages, sealer, ..SealInfo::default() });
    let mut wild = Record { access: access(Execute, end, None), ..base(WildAccess) };
    wild.neighbours = [
        Some(Neighbour { address: end - 4096, size: 24, state: BlockState::Live, distance: 4072 }),
        Some(Neighbour { address: end + 4096, size: 1, state: BlockState::Unknown, distance: 4096 }),
    ];
    let mut canonical =
        Record { access: Access { kind: Read, address: None, size: Some(8) }, ..base(WildAccess) };
    canonical.notes = Notes::NONE.with(Note::NonCanonical);
    let mut library = Record { access: access(Read, 0, None), ..base(NullDereference) };
    library.fault = stack(thread(7, ""), 0, true, &[LIBRARY + 0x18_0010, PROGRAM + 0x1311, 0x1000]);
    let arena = RegionInfo {
        kind: Text::new(b"arena"),
        name: Text::new(b"frames"),
        address: HEAP,
        reserved: 1 << 20,
        committed: 8192,
        used: Some(6144),
        place: RegionPlace::Past,
        distance: 2048,
        slot: None,
    };
    let past = Record {
        access: access(Write, HEAP + 8192, Some(8)),
        region: Some(arena),
        ..base(ErrorKind::HeapBufferOverflow)
    };
    let pool = RegionInfo {
        kind: Text::new(b"pool"),
        name: Text::EMPTY,
        used: None,
        place: RegionPlace::FreedSlot,
        distance: 4,
        slot: Some(7),
        ..arena
    };
    let freed = Record {
        access: access(Read, HEAP + 60, Some(4)),
        region: Some(pool),
        ..base(ErrorKind::UseAfterFree)
    };
    let fiber = RegionInfo { kind: Text::new(b"call stack"), place: RegionPlace::Before, ..arena };
    let fiber =
        Record { access: access(Write, HEAP - 8, Some(8)), region: Some(fiber), ..base(StackOverflow) };
    vec![
        ("region-past", past),
        ("region-freed-slot", freed),
        ("region-stack-overflow", fiber),
        ("seal-violation", seal),
        ("seal-violation-global", global),
        ("tripwire", tripwire),
        ("null-dereference", library),
        ("null-dereference-field", Record { access: access(Write, 0x10, Some(8)), ..base(NullDereference) }),
        (
            "stack-overflow",
            Record { access: access(Write, 0x7fff_ff7f_f000, Some(8)), ..base(StackOverflow) },
        ),
        ("wild-access", wild),
        ("wild-access-non-canonical", canonical),
    ]
}
