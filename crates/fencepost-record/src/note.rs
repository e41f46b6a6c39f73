//! Facts beside the diagnosis, as a set of sentences.

/// A fact that the reader of a report should know. Several hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Note {
    /// The address is not canonical, so the processor did not say which it was.
    NonCanonical,
    /// The address is the pattern that new memory is filled with.
    FillPattern,
    /// The block's record has been recycled; it was freed long ago.
    LongFreed,
    /// Two blocks are about as near; the nearer was named.
    TwoNear,
    /// The access is further than a page from the block it was given to.
    Far,
    /// The memory was never handed out.
    NeverAllocated,
    /// The size differs (layout mismatch).
    SizeDiffers,
    /// The alignment differs (layout mismatch).
    AlignDiffers,
    /// Another thread freed or resized the block at the same moment.
    FreeRace,
    /// Found by a check: the moment of the damage is not known.
    FoundLater,
    /// The sealed block was being freed.
    FreedWhileSealed,
    /// The page was opened so that the program could go on.
    PageOpened,
    /// The access was let through for its thread alone, and the page closed again.
    SteppedAlone,
    /// The access was let through, and the page closed again; meanwhile it was open to all threads.
    SteppedShared,
    /// The stack could not be walked to its end.
    StackCutShort,
    /// Names could not be resolved.
    NotResolved,
    /// The address was read from the instruction and the registers.
    AddressDecoded,
    /// The pointer was given back where the kernel holds nothing mapped.
    NothingMapped,
    /// The pointer lies in a thread's stack.
    StackAddress,
    /// The pointer lies in a module's own data.
    GlobalAddress,
    /// The block is one of Rust's allocator (alloc-dealloc mismatch).
    AllocatedByRust,
    /// The block is one of malloc's.
    AllocatedByMalloc,
    /// The block is one of `operator new`.
    AllocatedByNew,
    /// The block is one of `operator new[]`.
    AllocatedByNewArray,
    /// It was freed by Rust's allocator.
    FreedByRust,
    /// It was given to free or realloc.
    FreedByFree,
    /// It was given to `operator delete`.
    FreedByDelete,
    /// It was given to `operator delete[]`.
    FreedByDeleteArray,
    /// Found by looking at what a system call was given, before the kernel saw it.
    BeforeSystemCall,
}

impl Note {
    /// All notes, in the order they are printed.
    pub const ALL: [Note; 29] = [
        Note::NonCanonical,
        Note::FillPattern,
        Note::LongFreed,
        Note::TwoNear,
        Note::Far,
        Note::NeverAllocated,
        Note::SizeDiffers,
        Note::AlignDiffers,
        Note::FreeRace,
        Note::FoundLater,
        Note::FreedWhileSealed,
        Note::PageOpened,
        Note::SteppedAlone,
        Note::SteppedShared,
        Note::StackCutShort,
        Note::NotResolved,
        Note::AddressDecoded,
        Note::NothingMapped,
        Note::StackAddress,
        Note::GlobalAddress,
        Note::AllocatedByRust,
        Note::AllocatedByMalloc,
        Note::AllocatedByNew,
        Note::AllocatedByNewArray,
        Note::FreedByRust,
        Note::FreedByFree,
        Note::FreedByDelete,
        Note::FreedByDeleteArray,
        Note::BeforeSystemCall,
    ];

    /// Whether it bears on the diagnosis itself, rather than on what the report could show.
    pub const fn is_evidence(self) -> bool {
        !matches!(
            self,
            Note::PageOpened
                | Note::SteppedAlone
                | Note::SteppedShared
                | Note::StackCutShort
                | Note::NotResolved
        )
    }

    /// The sentence that a report prints.
    pub const fn text(self) -> &'static str {
        match self {
            Note::NonCanonical => {
                "the address is non-canonical: the processor does not say which address it was"
            }
            Note::FillPattern => {
                "the address is made of the pattern that new memory is filled with: \
                 a pointer was used before it was written"
            }
            Note::LongFreed => "freed long ago: its record has been recycled, so its stacks are not known",
            Note::TwoNear => "two blocks are about as near to the address; the nearer one is named",
            Note::Far => "the address is more than a page away from the block that is named",
            Note::NeverAllocated => {
                "the address lies in the guarded heap, in memory that was never handed out"
            }
            Note::SizeDiffers => "the size given differs from the size of the allocation",
            Note::AlignDiffers => "the alignment given differs from the alignment of the allocation",
            Note::FreeRace => "another thread was freeing the same block at the same moment",
            Note::FoundLater => "found by a check: when and by whom the bytes were written is not known",
            Note::FreedWhileSealed => "the block was freed while it was sealed",
            Note::PageOpened => {
                "the page was opened so that the program goes on: later errors on it stay unseen"
            }
            Note::SteppedAlone => {
                "the program goes on: this access was let through for its thread alone, and the page closed again"
            }
            Note::SteppedShared => {
                "the program goes on: this access was let through, and the page closed again; \
                 an access of another thread's in that moment stays unseen"
            }
            Note::StackCutShort => "the stack could not be walked to its end",
            Note::NotResolved => "names could not be resolved: frames are given as module and offset",
            Note::AddressDecoded => "the address was worked out from the instruction and the registers",
            Note::NothingMapped => "nothing is mapped at the pointer that was freed",
            Note::StackAddress => "the pointer lies in a thread's stack",
            Note::GlobalAddress => "the pointer lies in the data of a module, not in the heap",
            Note::AllocatedByRust => "the block was allocated by Rust's allocator",
            Note::AllocatedByMalloc => "the block was allocated by malloc or one of its relatives",
            Note::AllocatedByNew => "the block was allocated by operator new",
            Note::AllocatedByNewArray => "the block was allocated by operator new[]",
            Note::FreedByRust => "it was given back to Rust's allocator",
            Note::FreedByFree => "it was given to free or realloc",
            Note::FreedByDelete => "it was given to operator delete",
            Note::FreedByDeleteArray => "it was given to operator delete[]",
            Note::BeforeSystemCall => {
                "found by comparing the buffer and the length given to a system call, before the kernel saw them"
            }
        }
    }
}

/// A set of [`Note`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes(u64);

impl Notes {
    /// No notes.
    pub const NONE: Notes = Notes(0);

    /// Adds one.
    pub const fn add(&mut self, note: Note) {
        self.0 |= 1_u64 << note as u8;
    }

    /// This set with one more.
    pub const fn with(mut self, note: Note) -> Notes {
        self.add(note);
        self
    }

    /// Whether it holds the note.
    pub const fn has(self, note: Note) -> bool {
        self.0 & (1_u64 << note as u8) != 0
    }

    /// Its notes, in order.
    pub fn iter(self) -> impl Iterator<Item = Note> {
        Note::ALL.into_iter().filter(move |note| self.has(*note))
    }
}
