//! What the kernel asks for moving a page and touching it where it is then, without any allocator: the floor under a pair
//! of engine move.

use std::time::Duration;

use super::clock::{self, Spent};
use super::process::Mapping;

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_MOVE: libc::c_ulong = 0xc028_aa05;
/// `UFFD_FEATURE_SIGBUS` and `UFFD_FEATURE_MOVE` of `include/uapi/linux/userfaultfd.h`.
const FEATURES: u64 = 1 << 7 | 1 << 16;
const PAGE: usize = 4096;
/// Pages of the area: 32 GiB of addresses.
const AREA_PAGES: usize = 8 << 20;
/// Bytes that are written down about each block of a mix.
const RECORD: usize = 64;
/// Places after which what is empty is dropped whole, with its page table: 2 MiB.
const SPAN: usize = 256;

/// Memory whose pages are missing, and pages that move through it.
struct Moves {
    file: i32,
    area: Mapping,
    /// Pages that move together; one that is missing lies between two such, as in a heap with guard pages.
    pages: usize,
    /// Where each is.
    at: Vec<usize>,
    next: usize,
    state: u32,
}

/// Nanoseconds of one move and touch, with `live` times so many pages of which a random one moves.
pub fn run(live: usize, pages: usize, enough: Duration) -> Result<Spent, String> {
    let mut moves = Moves::new(live, pages)?;
    clock::repeat(enough, 256, || (0..256).try_for_each(|_| moves.one()))
}

/// What a mix of so many live blocks costs with a page for each at least: in each operation a block is written into the
/// page that is ready, something about it is written down, another one is read once more, and its page moves.
pub fn mix(live: usize, enough: Duration) -> Result<Spent, String> {
    let mut moves = Moves::new(live + 1, 1)?;
    // The last one is the page that is ready.
    moves.next = moves.at.pop().unwrap_or(0);
    let records = Mapping::map(
        AREA_PAGES / 2 * RECORD,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        -1,
    )?;
    clock::repeat(enough, 256, || (0..256).try_for_each(|_| moves.replace(&records)))
}

impl Drop for Moves {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { libc::close(self.file) };
    }
}

impl Moves {
    fn new(live: usize, pages: usize) -> Result<Moves, String> {
        // SAFETY: takes flags and gives a descriptor.
        let file = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) };
        let file = i32::try_from(file).map_err(|error| error.to_string())?;
        let area = Mapping::map(
            AREA_PAGES * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )?;
        let start = area.start().expose_provenance() as u64;
        // SAFETY: the range is the mapping made just now. Advice only.
        unsafe { libc::madvise(area.start().cast(), AREA_PAGES * PAGE, libc::MADV_NOHUGEPAGE) };
        let mut moves = Moves { file, area, pages, at: Vec::new(), next: live, state: 1 };
        moves.ask(UFFDIO_API, &mut [UFFD_API, FEATURES, 0, 0, 0])?;
        moves.ask(UFFDIO_REGISTER, &mut [start, (AREA_PAGES * PAGE) as u64, 3, 0, 0])?;
        let bytes = pages * PAGE;
        let source = Mapping::anonymous(bytes)?;
        for place in 0..live {
            let to = moves.address(place);
            moves
                .ask(UFFDIO_COPY, &mut [to, source.start().expose_provenance() as u64, bytes as u64, 1, 0])?;
            moves.at.push(place);
        }
        Ok(moves)
    }

    fn address(&self, place: usize) -> u64 {
        // Within the area: places go round before its end.
        let stride = self.pages + 1;
        (self.area.start().expose_provenance() + place % (AREA_PAGES / stride) * stride * PAGE) as u64
    }

    fn ask(&self, what: libc::c_ulong, words: &mut [u64; 5]) -> Result<(), String> {
        // SAFETY: each of these calls reads and writes at most five words, and acts on the area alone.
        match unsafe { libc::ioctl(self.file, what, words.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(format!("userfaultfd: {}", std::io::Error::last_os_error())),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (self.state >> 8) as usize % below
    }

    fn one(&mut self) -> Result<(), String> {
        let which = self.draw(self.at.len());
        let (from, to) = (self.address(self.at[which]), self.address(self.next));
        let bytes = self.pages * PAGE;
        self.ask(UFFDIO_MOVE, &mut [to, from, bytes as u64, 1, 0])?;
        let start = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: the pages have been moved there just now, and are the area's.
        unsafe {
            start.write_volatile(1);
            if self.pages > 1 {
                start.add(bytes - 1).write_volatile(2);
            }
        }
        self.at[which] = self.next;
        self.next += 1;
        if self.at.len() == 1 && self.pages == 1 && self.next.is_multiple_of(SPAN) {
            let start = self.address(self.next - SPAN);
            // SAFETY: the range is a part of the area whose pages have moved on, but for the last.
            unsafe {
                let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start as usize);
                libc::madvise(start, 2 * (SPAN - 1) * PAGE, libc::MADV_DONTNEED)
            };
        }
        Ok(())
    }

    fn replace(&mut self, records: &Mapping) -> Result<(), String> {
        let size = 16 << self.draw(7);
        let which = self.draw(self.at.len());
        let end = self.address(self.next) as usize + PAGE;
        let note = records.start().wrapping_add(self.next % (AREA_PAGES / 2) * RECORD).cast::<usize>();
        let old = self.address(self.at[which]);
        let last = std::ptr::with_exposed_provenance::<u8>(old as usize + PAGE - 1);
        // SAFETY: the page at `next` is there and nobody's, the old one is there as well, and the note lies within its mapping.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<u8>(end - size).write_bytes(7, size);
            note.write_volatile(end - size);
            last.read_volatile();
        }
        self.at[which] = self.next;
        self.next += 1;
        self.ask(UFFDIO_MOVE, &mut [self.address(self.next), old, PAGE as u64, 1, 0])
    }
}
