//! Which frames of a stack a person needs: the program's, from the first to the last.
//!
//! The frames that only every stack has in common go: above the program's code the guard, the allocator's door
//! and the library code that led there, below it what runs before `main`, in between what catches panics. When
//! nothing of the program would be left, the stack is shown as it was: a long stack is better than a wrong one.

use crate::name::{self, Origin};

/// How much of a stack's top belongs to the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    /// The stack was taken inside the allocator: all above its door is the allocator's own, whatever its name.
    Allocator,
    /// The stack was taken at an instruction that may be anyone's.
    Anywhere,
}

/// What trimming needs to know of a frame.
pub(crate) trait Named {
    /// Its clean name.
    fn function(&self) -> Option<&str>;
    /// Its source file.
    fn file(&self) -> Option<&str>;
}

/// The frames to show of `frames`, innermost first.
pub(crate) fn trim<F: Named>(mut frames: Vec<F>, top: Top) -> Vec<F> {
    let origins: Vec<Option<Origin>> = frames.iter().map(|frame| origin(frame)).collect();
    let from = first(&origins, top, &[Origin::Guard, Origin::Shim, Origin::Std, Origin::Panic]);
    let to = end(&frames, &origins, from);
    let (from, to) = if from < to {
        (from, to)
    } else {
        // All is the library's, as before main: take off what is ours alone.
        match first(&origins, top, &[Origin::Guard, Origin::Shim]) {
            all if all == frames.len() => return frames,
            from => (from, frames.len()),
        }
    };
    frames.truncate(to);
    let mut origins = origins.into_iter().skip(from);
    let mut kept: Vec<F> = frames.drain(from..).collect();
    let whole_library =
        kept.iter().all(|frame| origin(frame).is_some_and(|origin| origin != Origin::Program));
    kept.retain(|_| whole_library || origins.next().flatten() != Some(Origin::Panic));
    kept
}

fn origin(frame: &impl Named) -> Option<Origin> {
    frame.function().map(|function| name::origin(function, frame.file()))
}

/// The first frame to show.
fn first(origins: &[Option<Origin>], top: Top, runtime: &[Origin]) -> usize {
    let door = origins.iter().position(|origin| *origin == Some(Origin::Shim));
    let start = match (top, door) {
        (Top::Allocator, Some(door)) => door.saturating_add(1),
        _ => 0,
    };
    let skipped =
        origins.iter().skip(start).take_while(|origin| origin.is_some_and(|o| runtime.contains(&o)));
    start.saturating_add(skipped.count())
}

/// One past the last frame to show.
fn end<F: Named>(frames: &[F], origins: &[Option<Origin>], from: usize) -> usize {
    let names = || frames.iter().map(|frame| frame.function().unwrap_or(""));
    let marker = names().enumerate().skip(from).find(|(_, function)| name::is_marker(function));
    let c_main = names().any(name::is_rust_start);
    let mut end = marker.map_or(frames.len(), |(index, _)| index);
    while let Some(index) = end.checked_sub(1).filter(|index| *index >= from) {
        let shim = c_main && frames.get(index).and_then(Named::function) == Some("main");
        let runs_up = matches!(
            origins.get(index).copied().flatten(),
            Some(Origin::Std | Origin::Start | Origin::Panic | Origin::Guard)
        );
        if !shim && !runs_up {
            break;
        }
        end = index;
    }
    end
}
