//! Faults in regions of the program's own: arenas, pools and stacks that grow within addresses they have reserved.
//!
//! The facade knows these regions and says what an address is to one (`Hooks::region`); which error that is, is decided
//! here, by a pure function. A plain reservation may trap on purpose, for a handler of the program's own; what is allocated
//! from an arena, a pool or a stack never does.

use fencepost_record::{AccessType, Confidence, ErrorKind, RegionInfo, RegionPlace};
use fencepost_sys::{Fault, Platform, Protection, Range, Verdict};

use crate::geometry::align_down;
use crate::report::Case;
use crate::runtime::{Guard, Setup};

/// Which error an access at a place of a region is.
pub(crate) fn kind_of(region: &RegionInfo, access: AccessType) -> (ErrorKind, Confidence) {
    let kind = match region.place {
        _ if access == AccessType::Execute => ErrorKind::WildAccess,
        RegionPlace::Before if region.kind.as_str() == "call stack" => ErrorKind::StackOverflow,
        RegionPlace::Before => ErrorKind::HeapBufferUnderflow,
        RegionPlace::GivenBack | RegionPlace::FreedSlot => ErrorKind::UseAfterFree,
        RegionPlace::Past => ErrorKind::HeapBufferOverflow,
        RegionPlace::Inside => ErrorKind::WildAccess,
    };
    let confidence = if kind == ErrorKind::WildAccess { Confidence::Low } else { Confidence::High };
    (kind, confidence)
}

impl<P: Platform> Guard<P> {
    /// A fault in a region of the program's own. Runs in the fault handler.
    pub(crate) fn in_region(
        &self,
        setup: &Setup,
        fault: &Fault,
        address: usize,
        region: RegionInfo,
    ) -> Verdict {
        let (kind, confidence) = kind_of(&region, fault.access);
        let on_purpose = region.kind.as_str() == "reservation" || region.place == RegionPlace::Inside;
        if on_purpose && fault.others {
            return Verdict::Pass;
        }
        let mut case = Case::of(kind, fault.access, fault.start.unwrap_or(address));
        case.access.size = fault.size;
        case.confidence = confidence;
        case.region = Some(region);
        self.ours(setup, fault, address, case)
    }

    /// Opens a page of a region after a report, so that the program goes on.
    pub(crate) fn open_region_page(&self, address: usize) {
        let page = self.platform.page_size();
        let range = Range { start: align_down(address, page), len: page };
        // SAFETY: the page is part of a reservation of the program's, where nothing is in use, by the diagnosis; the
        // report has said that it is opened.
        if unsafe { self.platform.protect(range, Protection::ReadWrite) }.is_err() {
            self.complain(format_args!(
                "the page at {:#x} could not be opened: the program cannot go on",
                range.start
            ));
            self.platform.die_by_abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencepost_record::Text;

    #[test]
    fn the_place_decides() {
        let kind = |kind: &str, place, access| {
            let region = RegionInfo { kind: Text::new(kind.as_bytes()), place, ..RegionInfo::default() };
            kind_of(&region, access).0
        };
        let write = AccessType::Write;
        assert_eq!(kind("arena", RegionPlace::Past, write), ErrorKind::HeapBufferOverflow);
        assert_eq!(kind("arena", RegionPlace::GivenBack, write), ErrorKind::UseAfterFree);
        assert_eq!(kind("pool", RegionPlace::FreedSlot, write), ErrorKind::UseAfterFree);
        assert_eq!(kind("arena", RegionPlace::Before, write), ErrorKind::HeapBufferUnderflow);
        assert_eq!(kind("call stack", RegionPlace::Before, write), ErrorKind::StackOverflow);
        assert_eq!(kind("arena", RegionPlace::Inside, write), ErrorKind::WildAccess);
        assert_eq!(kind("arena", RegionPlace::Past, AccessType::Execute), ErrorKind::WildAccess);
    }
}
