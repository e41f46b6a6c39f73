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
/// Places for a page, every second one of the area, as a heap with guard pages has them: 32 GiB of addresses.
const PLACES: usize = 4 << 20;
/// Places after which what is empty is dropped whole, with its page table: 2 MiB.
const SPAN: usize = 256;

/// Memory whose pages are missing, and pages that move through it.
struct Moves {
    file: i32,
    area: Mapping,
    /// Where each page is.
    at: Vec<usize>,
    next: usize,
    state: u32,
}

/// Nanoseconds of one move and touch, with `live` pages of which a random one moves.
pub fn run(live: usize, enough: Duration) -> Result<Spent, String> {
    let mut moves = Moves::new(live)?;
    let result = clock::repeat(enough, 256, || (0..256).try_for_each(|_| moves.one()));
    // SAFETY: the descriptor is this function's own.
    unsafe { libc::close(moves.file) };
    result
}

impl Moves {
    fn new(live: usize) -> Result<Moves, String> {
        // SAFETY: takes flags and gives a descriptor.
        let file = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) };
        let file = i32::try_from(file).map_err(|error| error.to_string())?;
        let area = Mapping::map(
            2 * PLACES * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )?;
        let start = area.start().expose_provenance() as u64;
        // SAFETY: the range is the mapping made just now. Advice only.
        unsafe { libc::madvise(area.start().cast(), 2 * PLACES * PAGE, libc::MADV_NOHUGEPAGE) };
        let mut moves = Moves { file, area, at: Vec::new(), next: live, state: 1 };
        moves.ask(UFFDIO_API, &mut [UFFD_API, FEATURES, 0, 0, 0])?;
        moves.ask(UFFDIO_REGISTER, &mut [start, (2 * PLACES * PAGE) as u64, 3, 0, 0])?;
        let source = Mapping::anonymous(PAGE)?;
        for place in 0..live {
            let to = moves.address(place);
            moves
                .ask(UFFDIO_COPY, &mut [to, source.start().expose_provenance() as u64, PAGE as u64, 1, 0])?;
            moves.at.push(place);
        }
        Ok(moves)
    }

    fn address(&self, place: usize) -> u64 {
        // Within the area: places go round before its end.
        (self.area.start().expose_provenance() + 2 * (place % PLACES) * PAGE) as u64
    }

    fn ask(&self, what: libc::c_ulong, words: &mut [u64; 5]) -> Result<(), String> {
        // SAFETY: each of these calls reads and writes at most five words, and acts on the area alone.
        match unsafe { libc::ioctl(self.file, what, words.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(format!("userfaultfd: {}", std::io::Error::last_os_error())),
        }
    }

    fn one(&mut self) -> Result<(), String> {
        self.state = self.state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let which = (self.state >> 8) as usize % self.at.len();
        let (from, to) = (self.address(self.at[which]), self.address(self.next));
        self.ask(UFFDIO_MOVE, &mut [to, from, PAGE as u64, 1, 0])?;
        // SAFETY: the page has been moved there just now, and is the area's.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(to as usize).write_volatile(1) };
        self.at[which] = self.next;
        self.next += 1;
        if self.at.len() == 1 && self.next.is_multiple_of(SPAN) {
            let start = self.address(self.next - SPAN);
            // SAFETY: the range is a part of the area whose pages have moved on, but for the last.
            unsafe {
                let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start as usize);
                libc::madvise(start, 2 * (SPAN - 1) * PAGE, libc::MADV_DONTNEED)
            };
        }
        Ok(())
    }
}
