//! The line in which a run that left blocks out says where they came from, so that the next run can guard all of them.

use core::fmt::{self, Write};

use super::writer::Json;
use crate::replay::{self, Rerun};

/// The name and version of this line's format.
pub const SITES_SCHEMA: &str = "fencepost-sites/1";
/// The most sites that one command names: as many as the option's list holds.
pub const SITES_PER_RUN: usize = 8;

/// What the line says of the run as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Sites<'a> {
    /// The process.
    pub pid: u32,
    /// The mode's name.
    pub mode: &'a str,
    /// Calling contexts that were seen, and those of which a block was guarded, so that their site is known.
    pub contexts: u64,
    /// See `contexts`.
    pub contexts_guarded: u64,
    /// What it takes to run the program again.
    pub rerun: Rerun<'a>,
    /// The sites, those first that the run says least about.
    pub sites: &'a [Site],
}

/// One site of allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Its number, for `only_site`.
    pub site: u64,
    /// Bytes that its first block asked for.
    pub size: u64,
    /// Blocks asked for; `None` where they were not counted.
    pub uses: Option<u64>,
    /// Blocks guarded.
    pub guarded: u64,
    /// A stack of its allocations, as whoever calls [`sites`] numbers them.
    pub trace: u32,
}

/// One call on the way to an allocation. Texts that are not known are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The file of the module.
    pub module: &'a str,
    /// The function.
    pub function: &'a str,
    /// Bytes from the function's start, or the module's where there is none.
    pub offset: u64,
}

/// Gives each call of a trace to the function that is passed to it, innermost first.
pub type Calls<'c> = dyn Fn(u32, &mut dyn FnMut(Call<'_>)) + 'c;

/// Writes the sites of a run as one JSON object, without the line's end.
///
/// # Errors
/// Those of `out`.
pub fn sites(run: &Sites<'_>, calls: &Calls<'_>, out: &mut dyn Write) -> fmt::Result {
    let mut json = Json::new(out);
    json.open('{')?;
    json.field("schema")?.string(SITES_SCHEMA)?;
    json.field("pid")?.number(u64::from(run.pid))?;
    json.field("mode")?.text(run.mode)?;
    json.field("contexts")?.number(run.contexts)?;
    json.field("contexts_guarded")?.number(run.contexts_guarded)?;
    json.field("sites")?.open('[')?;
    for site in run.sites {
        json.open('{')?;
        json.field("site")?.hex(site.site)?;
        json.field("size")?.number(site.size)?;
        json.field("uses")?.number_or_null(site.uses)?;
        json.field("guarded")?.number(site.guarded)?;
        json.field("calls")?.open('[')?;
        let mut written = Ok(());
        calls(site.trace, &mut |call| {
            if written.is_ok() {
                written = write_call(call, &mut json);
            }
        });
        written?;
        json.close(']')?;
        json.close('}')?;
    }
    json.close(']')?;
    json.field("only_site")?;
    if !json.quoted(|out| write_command(run, out))? {
        json.null()?;
    }
    json.close('}')
}

/// Writes the command that guards every block of the first of these sites, and no other; false where there is none.
///
/// # Errors
/// Those of `out`.
pub fn write_command(run: &Sites<'_>, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let mut first = [0; SITES_PER_RUN];
    let mut count = 0usize;
    for (place, site) in first.iter_mut().zip(run.sites) {
        *place = site.site;
        count = count.saturating_add(1);
    }
    replay::write_sites(&run.rerun, first.get(..count).unwrap_or(&[]), out)
}

fn write_call(call: Call<'_>, json: &mut Json<'_>) -> fmt::Result {
    json.open('{')?;
    json.field("module")?.text(call.module)?;
    json.field("function")?.text(call.function)?;
    json.field("offset")?.hex(call.offset)?;
    json.close('}')
}
