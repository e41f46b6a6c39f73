//! Resolving names inside the process, on behalf of the runtime.
//!
//! The runtime calls [`render`] on a stack of its own, with this thread's allocations served from a private arena and
//! a watchdog running. Whatever goes wrong in here (a fault in damaged debug info, a lock that the interrupted code
//! holds, a panic) costs the names, never the report.
//!
//! The unsynchronised functions of the `backtrace` crate are used because its lock may be held by the very code that
//! was interrupted; the runtime lets only one thread in here at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fencepost_guard::{RenderStyle, Rendered};
use fencepost_record::{Record, text};
use fencepost_report::{Resolved, Resolver, Style, Symbol, render_json};

/// Resolves names by the debug info that the program carries.
struct InProcess;

impl Resolver for InProcess {
    fn resolve(&mut self, address: u64, exact: bool) -> Vec<Symbol> {
        // The crate looks up the byte before what it is given, since it expects return addresses.
        let Some(address) = usize::try_from(address).ok().and_then(|a| a.checked_add(usize::from(exact)))
        else {
            return Vec::new();
        };
        let mut symbols = Vec::new();
        // SAFETY: the runtime lets one thread at a time resolve names (its reporter's lock), so nothing else in
        // this crate uses the tables at once. Other users of the `backtrace` crate are synchronised among
        // themselves only; a report that meets one of them at work may lose its names (see above).
        unsafe {
            backtrace::resolve_unsynchronized(address as *mut core::ffi::c_void, |symbol| {
                symbols.push(Symbol {
                    function: symbol.name().map(|name| name.to_string()),
                    file: symbol.filename().map(|file| file.to_string_lossy().into_owned()),
                    line: symbol.lineno(),
                    column: symbol.colno(),
                });
            });
        }
        symbols
    }
}

/// Renders a report for the runtime.
pub(crate) fn render(record: &Record, style: RenderStyle, out: &mut Rendered<'_>) {
    // What a panic would leave half done is dropped with it.
    let rendered = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "test-hooks")]
        break_on_purpose();
        let name = std::thread::current().name().map(str::to_owned);
        let resolved = Resolved::new(record, &mut InProcess, name);
        let mut body = String::new();
        let written = text::body(record, &resolved, Style { color: style.color, resolved: true }, &mut body);
        let json = if style.json { render_json(record, &resolved).ok() } else { None };
        written.is_ok().then_some((body, json))
    }));
    if let Ok(Some((body, json))) = rendered {
        (out.text)(&body);
        if let Some(mut json) = json {
            json.push('\n');
            (out.json)(&json);
        }
    }
}

/// The two forms of a record that is taken out of the ring later, on an ordinary stack.
pub(crate) fn rendered(record: &Record) -> (String, String) {
    let resolved = Resolved::new(record, &mut InProcess, None);
    let text = fencepost_report::render(record, &resolved, Style { color: false, resolved: true });
    (text, render_json(record, &resolved).unwrap_or_default())
}

/// Fails in the way that `FENCEPOST_TEST_BREAK_SYMBOLIZE` asks for.
#[cfg(feature = "test-hooks")]
fn break_on_purpose() {
    match std::env::var("FENCEPOST_TEST_BREAK_SYMBOLIZE").as_deref() {
        Ok("fault") => {
            // SAFETY: the address is never mapped, and the fault that follows is what is asked for.
            unsafe { core::ptr::without_provenance::<u8>(16).read_volatile() };
        }
        Ok("hang") => loop {
            std::hint::spin_loop();
        },
        Ok("wait") => loop {
            std::thread::park();
        },
        Ok("panic") => std::panic::resume_unwind(Box::new("asked for")),
        _ => {}
    }
}
