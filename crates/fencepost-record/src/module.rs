//! Loaded executables and libraries: what turns an address into a place in a file.

use crate::Text;

/// The most modules (executable and shared libraries) one record can name.
pub const MODULES_MAX: usize = 48;

/// One loaded executable or library.
#[derive(Clone, Copy, Debug, Default)]
pub struct Module {
    /// First mapped address.
    pub start: u64,
    /// One past the last mapped address.
    pub end: u64,
    /// What to subtract from an address to get the address in the file's own numbering.
    pub bias: u64,
    /// Its path.
    pub path: Text<240>,
    /// The GNU build id, and how many of its bytes are used.
    pub build_id: [u8; 20],
    /// Used bytes of `build_id`; 0 when the module has none.
    pub build_id_len: u8,
}

/// The modules of a record.
#[derive(Clone, Copy, Debug)]
pub struct ModuleTable {
    modules: [Module; MODULES_MAX],
    len: u8,
}

impl ModuleTable {
    /// Appends a module; false when the table is full.
    pub fn push(&mut self, module: Module) -> bool {
        match self.modules.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = module;
                self.len = self.len.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// The module that holds an address.
    pub fn find(&self, address: u64) -> Option<&Module> {
        self.all().iter().find(|module| (module.start..module.end).contains(&address))
    }

    /// The modules.
    pub fn all(&self) -> &[Module] {
        self.modules.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Forgets all modules.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl Default for ModuleTable {
    fn default() -> Self {
        const NONE: Module =
            Module { start: 0, end: 0, bias: 0, path: Text::EMPTY, build_id: [0; 20], build_id_len: 0 };
        ModuleTable { modules: [NONE; MODULES_MAX], len: 0 }
    }
}
