//! The words of a report: what went wrong, how, and where beside the block.

/// What kind of error a report is about. The names are part of the public contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorKind {
    /// An access at or past the end of a block.
    HeapBufferOverflow,
    /// An access before the start of a block.
    HeapBufferUnderflow,
    /// An access to a block that was freed.
    UseAfterFree,
    /// A second free of the same block.
    DoubleFree,
    /// A free of an address that no allocation returned.
    InvalidFree,
    /// A free or resize with another size or alignment than the allocation had.
    LayoutMismatch,
    /// A free by another family of functions than the allocation (C and C++).
    AllocDeallocMismatch,
    /// The pattern around a block was found damaged.
    RedzoneCorruption,
    /// The poison of a freed block was found damaged.
    WriteAfterFree,
    /// A write to memory that was sealed read-only.
    SealViolation,
    /// A first access to a one-shot guard.
    Tripwire,
    /// An access through a pointer near zero.
    NullDereference,
    /// A thread ran past the end of its stack.
    StackOverflow,
    /// An access to memory that belongs to nothing we know.
    #[default]
    WildAccess,
    /// A block that nothing reaches any more.
    Leak,
}

impl ErrorKind {
    /// Every kind, in the order of the contract.
    pub const ALL: [ErrorKind; 15] = [
        ErrorKind::HeapBufferOverflow,
        ErrorKind::HeapBufferUnderflow,
        ErrorKind::UseAfterFree,
        ErrorKind::DoubleFree,
        ErrorKind::InvalidFree,
        ErrorKind::LayoutMismatch,
        ErrorKind::AllocDeallocMismatch,
        ErrorKind::RedzoneCorruption,
        ErrorKind::WriteAfterFree,
        ErrorKind::SealViolation,
        ErrorKind::Tripwire,
        ErrorKind::NullDereference,
        ErrorKind::StackOverflow,
        ErrorKind::WildAccess,
        ErrorKind::Leak,
    ];

    /// The name that reports, options and tests use.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::HeapBufferOverflow => "heap-buffer-overflow",
            ErrorKind::HeapBufferUnderflow => "heap-buffer-underflow",
            ErrorKind::UseAfterFree => "use-after-free",
            ErrorKind::DoubleFree => "double-free",
            ErrorKind::InvalidFree => "invalid-free",
            ErrorKind::LayoutMismatch => "layout-mismatch",
            ErrorKind::AllocDeallocMismatch => "alloc-dealloc-mismatch",
            ErrorKind::RedzoneCorruption => "redzone-corruption",
            ErrorKind::WriteAfterFree => "write-after-free",
            ErrorKind::SealViolation => "seal-violation",
            ErrorKind::Tripwire => "tripwire",
            ErrorKind::NullDereference => "null-dereference",
            ErrorKind::StackOverflow => "stack-overflow",
            ErrorKind::WildAccess => "wild-access",
            ErrorKind::Leak => "leak",
        }
    }
}

/// How memory was touched when the error showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AccessType {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
    /// A deallocation.
    Free,
    /// A resize.
    Realloc,
    /// None: found by a check, not by an access.
    #[default]
    None,
}

impl AccessType {
    /// The name used in JSON and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            AccessType::Read => "read",
            AccessType::Write => "write",
            AccessType::Execute => "execute",
            AccessType::Free => "free",
            AccessType::Realloc => "realloc",
            AccessType::None => "none",
        }
    }
}

/// Where an address lies beside a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Where {
    /// Below its first byte.
    Before,
    /// Within its bytes.
    #[default]
    Inside,
    /// At or above its end.
    After,
}

impl Where {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Where::Before => "before",
            Where::Inside => "inside",
            Where::After => "after",
        }
    }
}

/// Whether a block was alive when the error showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockState {
    /// Allocated and not freed.
    Live,
    /// Freed.
    Freed,
    /// Its record has been recycled, or was never kept.
    #[default]
    Unknown,
}

impl BlockState {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            BlockState::Live => "live",
            BlockState::Freed => "freed",
            BlockState::Unknown => "unknown",
        }
    }
}

/// How sure the diagnosis is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Confidence {
    /// The evidence allows one reading only.
    #[default]
    High,
    /// Another reading is possible; the notes say which.
    Low,
}

impl Confidence {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Confidence::High => "high",
            Confidence::Low => "low",
        }
    }
}
