//! Where the blocks of a run came from that leaves most of them out, so that a run that found nothing says what the next one
//! is to guard.
//!
//! Under `mode=budget` the table of contexts has all that is needed. Under `mode=sample` the same table gets an entry for
//! each stack of a guarded block, where `report=` or `summary=on` will want it: on the way of guarded blocks alone.
//!
//! A context says little if few of its blocks were guarded and some were not: those come first.

use core::cmp::Reverse;
use core::sync::atomic::Ordering;

use fencepost_record::json::{Call, SITES_PER_RUN, Site, Sites};
use fencepost_record::{ProcessInfo, json, replay::Rerun};
use fencepost_sys::Platform;

use crate::contexts::Context;
use crate::filter::{SITE_FRAMES, file_name};
use crate::options::{Mode, Options, When};
use crate::output::Line;
use crate::pattern::mix;
use crate::runtime::{Guard, Setup};

/// Contexts that are named: two on average for each site of a few runs. Finding a site's name may mean reading files.
const LISTED: usize = 64;

/// Whether a run with these options is to keep the sites of guarded blocks under `mode=sample`.
pub(crate) fn keeps_samples(options: &Options) -> bool {
    options.mode == Mode::Sample && (options.report.is_some() || options.summary == When::On)
}

/// The contexts that say least, as a list that is sorted as it grows.
struct Least {
    sites: [Site; LISTED],
    count: usize,
}

impl Least {
    /// How little is known: few guarded, then many left out.
    fn rank(site: &Site) -> (u64, Reverse<u64>) {
        (site.guarded, Reverse(site.uses.unwrap_or(site.guarded)))
    }

    fn add(&mut self, site: Site) {
        let kept = self.sites.get(..self.count).unwrap_or(&[]);
        let place =
            kept.iter().position(|other| Least::rank(&site) < Least::rank(other)).unwrap_or(self.count);
        if let Some(rest) = self.sites.get_mut(place..) {
            rest.rotate_right(usize::from(!rest.is_empty()));
        }
        if let Some(free) = self.sites.get_mut(place) {
            *free = site;
            self.count = self.count.saturating_add(1).min(LISTED);
        }
    }

    /// Gives the sites their numbers, makes one of those that are the same, and drops those that cannot be told.
    fn name<P: Platform>(&mut self, guard: &Guard<P>) {
        let mut named = Least { sites: [Site::default(); LISTED], count: 0 };
        for context in self.sites.iter().take(self.count) {
            let Some(frames) = guard.depot.frames(context.trace) else { continue };
            let Some(number) = guard.site_of(frames) else { continue };
            match named.sites.iter_mut().take(named.count).find(|site| site.site == number) {
                Some(site) => {
                    site.guarded = site.guarded.saturating_add(context.guarded);
                    site.uses = site.uses.zip(context.uses).map(|(one, other)| one.saturating_add(other));
                }
                None => {
                    if let Some(place) = named.sites.get_mut(named.count) {
                        *place = Site { site: number, ..*context };
                        named.count = named.count.saturating_add(1);
                    }
                }
            }
        }
        *self = named;
    }
}

impl<P: Platform> Guard<P> {
    /// Notes where a guarded block came from, under `mode=sample`.
    pub(crate) fn note_sample(&self, setup: &Setup, trace: u32, size: usize) {
        if trace == 0 || !keeps_samples(&setup.options) {
            return;
        }
        let index = self.contexts.find(mix(u64::from(trace)) | 1, size);
        if let Some(context) = self.contexts.at(index) {
            self.contexts.use_one(context);
            self.contexts.cover(context, trace);
        }
    }

    /// Calls `with` with the sites that this run says least about; not if there are none.
    fn with_sites(&self, setup: &Setup, with: impl FnOnce(&Sites<'_>)) {
        let by_budget = setup.options.mode == Mode::Budget;
        if !by_budget && !keeps_samples(&setup.options) {
            return;
        }
        let mut least = Least { sites: [Site::default(); LISTED], count: 0 };
        for context in self.contexts.all().filter(|context| is_doubtful(context, by_budget)) {
            least.add(Site {
                site: 0,
                size: u64::from(context.size.load(Ordering::Relaxed)),
                uses: by_budget.then(|| context.uses.load(Ordering::Relaxed)),
                guarded: u64::from(context.guarded.load(Ordering::Relaxed)),
                trace: context.trace.load(Ordering::Relaxed),
            });
        }
        least.name(self);
        let Some(sites) = least.sites.get(..least.count).filter(|sites| !sites.is_empty()) else { return };
        let mut process = ProcessInfo::default();
        self.fill_command(&mut process);
        let (contexts, contexts_guarded) = self.contexts.counts();
        let rerun = Rerun { process: &process, options: &setup.options_text, seed: setup.seed };
        let mode = setup.options.mode.word();
        with(&Sites { pid: process.pid, mode, contexts, contexts_guarded, rerun, sites });
    }

    /// The sites as a line of the machine-readable file `file`.
    pub(crate) fn write_sites_line(&self, setup: &Setup, file: i32) {
        use core::fmt::Write;
        self.with_sites(setup, |sites| {
            let mut line = Line::new(&self.platform, file);
            let calls = |trace: u32, each: &mut dyn FnMut(Call<'_>)| self.each_call(trace, each);
            let written = json::sites(sites, &calls, &mut line).and_then(|()| line.write_str("\n"));
            line.end(written);
        });
    }

    /// The command that guards those sites whole, for people.
    pub(crate) fn print_sites(&self, setup: &Setup, file: i32) {
        use core::fmt::Write;
        self.with_sites(setup, |sites| {
            let mut line = Line::new(&self.platform, file);
            let count = sites.sites.len().min(SITES_PER_RUN);
            let written = write!(
                line,
                "fencepost: fewest blocks were guarded of {count} sites; only these, and whole: "
            )
            .and_then(|()| json::write_command(sites, &mut line))
            .and_then(|_| line.write_str("\n"));
            line.end(written);
        });
    }

    fn each_call(&self, trace: u32, each: &mut dyn FnMut(Call<'_>)) {
        for frame in self.depot.frames(trace).unwrap_or(&[]).iter().take(SITE_FRAMES) {
            let known = self.with_place(*frame, &mut |place| {
                let module = core::str::from_utf8(file_name(place.module)).unwrap_or("");
                (self.hooks.demangle)(place.function, &mut |name| {
                    each(Call {
                        module,
                        function: core::str::from_utf8(name).unwrap_or(""),
                        offset: place.offset,
                    });
                });
            });
            if !known {
                each(Call { module: "", function: "", offset: *frame });
            }
        }
    }
}

/// Whether blocks of a context may have been left out. How many there were is known under `mode=budget` alone.
fn is_doubtful(context: &Context, by_budget: bool) -> bool {
    let guarded = u64::from(context.guarded.load(Ordering::Relaxed));
    let left_out = context.uses.load(Ordering::Relaxed) > guarded;
    context.trace.load(Ordering::Relaxed) != 0 && (left_out || !by_budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contexts_that_say_least_are_kept_in_order() {
        let mut least = Least { sites: [Site::default(); LISTED], count: 0 };
        for number in 0..1000u64 {
            // In an order that is neither: 7 and 1000 share no divisor.
            let number = number * 7 % 1000;
            least.add(Site {
                site: number,
                guarded: number / 10,
                uses: Some(2000 + number % 10),
                ..Site::default()
            });
        }
        assert_eq!(least.count, LISTED);
        let kept: std::vec::Vec<u64> = least.sites.iter().map(|site| site.site).collect();
        let expected = |place: u64| place / 10 * 10 + 9 - place % 10;
        assert_eq!(kept, (0..LISTED as u64).map(expected).collect::<std::vec::Vec<_>>());
    }
}
