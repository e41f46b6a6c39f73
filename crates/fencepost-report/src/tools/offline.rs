//! Names for addresses of a program that is not running: from the files of its modules, by module and offset.
//!
//! A file is used only if its build id is the report's: names from another build would be wrong, and a wrong stack
//! is worse than none. Where a distribution keeps debug information apart (`/usr/lib/debug/.build-id`), it is
//! found by the build id.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fencepost_record::Record;
use object::{Object, ObjectSection, ObjectSymbol};

use crate::{Resolver, Symbol};

/// Where debug information of packages is installed.
const DEBUG_FOLDER: &str = "/usr/lib/debug/.build-id";

/// Why a module gave no names. Reads after "no names for".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoNames {
    /// The file could not be read.
    Unreadable(String),
    /// The file is of another build than the one that the report is about.
    Rebuilt,
}

impl fmt::Display for NoNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoNames::Unreadable(why) => write!(f, "its file cannot be read ({why})"),
            NoNames::Rebuilt => f.write_str(
                "its file has changed since (another build id): run again, or resolve where the report was made",
            ),
        }
    }
}

/// The files of modules, opened once each and kept.
#[derive(Default)]
pub struct Modules {
    known: BTreeMap<(String, Vec<u8>), Result<Names, NoNames>>,
}

impl Modules {
    /// None opened yet.
    pub fn new() -> Modules {
        Modules::default()
    }

    /// The modules that gave no names so far, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &NoNames)> {
        self.known.iter().filter_map(|((path, _), names)| Some((path.as_str(), names.as_ref().err()?)))
    }

    fn names(&mut self, path: &str, build_id: &[u8]) -> Option<&Names> {
        let key = (path.to_owned(), build_id.to_vec());
        self.known.entry(key).or_insert_with(|| Names::open(Path::new(path), build_id)).as_ref().ok()
    }

    /// What resolves the addresses of one record.
    pub fn of<'a>(&'a mut self, record: &'a Record) -> impl Resolver + use<'a> {
        OfRecord { modules: self, record }
    }
}

struct OfRecord<'a> {
    modules: &'a mut Modules,
    record: &'a Record,
}

impl Resolver for OfRecord<'_> {
    fn resolve(&mut self, address: u64, exact: bool) -> Vec<Symbol> {
        let inside = if exact { address } else { address.saturating_sub(1) };
        let Some(module) = self.record.modules.find(inside) else { return Vec::new() };
        // A path that was cut names another file.
        if module.path.is_cut() {
            return Vec::new();
        }
        let id = module.build_id.get(..usize::from(module.build_id_len)).unwrap_or(&[]);
        let offset = inside.wrapping_sub(module.bias);
        self.modules.names(module.path.as_str(), id).map(|names| names.at(offset)).unwrap_or_default()
    }
}

/// What is known of one file.
struct Names {
    loader: addr2line::Loader,
    /// Functions that the dynamic linker knows: all that a stripped library tells.
    exported: BTreeMap<u64, (u64, String)>,
}

impl Names {
    fn open(path: &Path, build_id: &[u8]) -> Result<Names, NoNames> {
        let unreadable = |error: &dyn fmt::Display| NoNames::Unreadable(error.to_string());
        let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let file = object::File::parse(bytes.as_slice()).map_err(|error| unreadable(&error))?;
        let real = file.build_id().ok().flatten().unwrap_or(&[]);
        if !build_id.is_empty() && real != build_id {
            return Err(NoNames::Rebuilt);
        }
        let plain = || addr2line::Loader::new(path).map_err(|error| unreadable(&error));
        let loader = match separate_debug_file(&file, real) {
            Some(debug) => addr2line::Loader::new(debug).or_else(|_| plain())?,
            None => plain()?,
        };
        let mut exported = BTreeMap::new();
        for symbol in file.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
            if let Ok(name) = symbol.name()
                && symbol.kind() == object::SymbolKind::Text
            {
                exported.insert(symbol.address(), (symbol.size(), name.to_owned()));
            }
        }
        Ok(Names { loader, exported })
    }

    /// The functions at an offset, innermost first.
    fn at(&self, offset: u64) -> Vec<Symbol> {
        let mut symbols = Vec::new();
        // A Windows program's debug information speaks of where it would like to be loaded.
        let linked = offset.wrapping_add(self.loader.relative_address_base());
        if let Ok(mut frames) = self.loader.find_frames(linked) {
            while let Ok(Some(frame)) = frames.next() {
                let function = frame.function.and_then(|name| name.demangle().ok().map(|n| n.into_owned()));
                let place = frame.location;
                symbols.push(Symbol {
                    function,
                    file: place.as_ref().and_then(|place| place.file).map(str::to_owned),
                    line: place.as_ref().and_then(|place| place.line),
                    column: place.as_ref().and_then(|place| place.column),
                });
            }
        }
        // The symbol table knows functions that debug information leaves out.
        if let Some(name) = self.table_name(offset, linked) {
            match symbols.last_mut() {
                None => symbols.push(Symbol { function: Some(name), ..Symbol::default() }),
                Some(outermost) if outermost.function.is_none() => outermost.function = Some(name),
                Some(_) => {}
            }
        }
        symbols
    }

    fn table_name(&self, offset: u64, linked: u64) -> Option<String> {
        let exported = || {
            let (start, (size, name)) = self.exported.range(..=offset).next_back()?;
            (offset < start.saturating_add(*size)).then_some(name.as_str())
        };
        let name = self.loader.find_symbol(linked).or_else(exported)?;
        Some(addr2line::demangle_auto(name.into(), None).into_owned())
    }
}

/// The file with the debug information of a module that has none itself.
fn separate_debug_file(file: &object::File<'_>, build_id: &[u8]) -> Option<PathBuf> {
    let has_own = file.section_by_name(".debug_info").is_some_and(|section| section.size() > 0);
    if has_own || build_id.is_empty() {
        return None;
    }
    let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (folder, name) = hex.split_at_checked(2)?;
    let path = Path::new(DEBUG_FOLDER).join(folder).join(format!("{name}.debug"));
    path.is_file().then_some(path)
}
