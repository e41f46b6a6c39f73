//! Simulated files: bytes in memory that the test reads back.

use std::boxed::Box;
use std::vec::Vec;

use fencepost_record::Module;

use super::{Sim, lock};
use crate::{Code, CodePlace, Loader, Names, Output, VmError, VmResult};

/// Standard output and standard error, which are there from the start and have no path.
const STREAMS: usize = 3;
const NOT_OPEN: VmError = VmError::Other(9);

/// The files of one instance.
pub(super) struct State {
    files: Vec<File>,
    modules: Vec<Module>,
    refused: bool,
}

/// A file; its descriptor is its index plus [`STREAMS`], or for a stream its index.
struct File {
    /// Empty for a stream.
    path: Box<[u8]>,
    stream: Option<i32>,
    bytes: Vec<u8>,
    locked: bool,
}

impl State {
    pub(super) const fn new() -> State {
        State { files: Vec::new(), modules: Vec::new(), refused: false }
    }

    fn file(&mut self, descriptor: i32) -> Option<&mut File> {
        if descriptor == 1 || descriptor == 2 {
            if !self.files.iter().any(|file| file.stream == Some(descriptor)) {
                let path = Box::default();
                self.files.push(File { path, stream: Some(descriptor), bytes: Vec::new(), locked: false });
            }
            return self.files.iter_mut().find(|file| file.stream == Some(descriptor));
        }
        let index = usize::try_from(descriptor).ok()?.checked_sub(STREAMS)?;
        self.files.get_mut(index).filter(|file| file.stream.is_none())
    }
}

impl Sim {
    /// What was written to a descriptor: 1, 2, or one that [`Output::open_append`] gave.
    pub fn written(&self, descriptor: i32) -> Vec<u8> {
        lock(&self.output).file(descriptor).map(|file| file.bytes.clone()).unwrap_or_default()
    }

    /// What a file holds, if it was opened.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let state = lock(&self.output);
        let mut files = state.files.iter().filter(|file| file.stream.is_none());
        files.find(|file| *file.path == *path.as_bytes()).map(|file| file.bytes.clone())
    }

    /// Makes every opening and every write fail, or ends that.
    pub fn refuse_output(&self, refused: bool) {
        lock(&self.output).refused = refused;
    }

    /// Sets what [`Output::each_module`] tells.
    pub fn set_modules(&self, modules: &[Module]) {
        lock(&self.output).modules = modules.to_vec();
    }
}

impl Output for Sim {
    fn open_append(&self, path: &[u8]) -> VmResult<i32> {
        let mut state = lock(&self.output);
        if state.refused {
            return Err(VmError::Denied);
        }
        let known = state.files.iter().position(|file| file.stream.is_none() && *file.path == *path);
        let index = known.unwrap_or_else(|| {
            state.files.push(File { path: Box::from(path), stream: None, bytes: Vec::new(), locked: false });
            state.files.len().wrapping_sub(1)
        });
        i32::try_from(index.saturating_add(STREAMS)).map_err(|_| VmError::OutOfMemory)
    }

    fn close(&self, _file: i32) {}

    fn write(&self, file: i32, bytes: &[u8]) -> VmResult {
        let mut state = lock(&self.output);
        if state.refused {
            return Err(VmError::Denied);
        }
        state.file(file).ok_or(NOT_OPEN)?.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn file_len(&self, file: i32) -> Option<u64> {
        lock(&self.output).file(file).filter(|file| file.stream.is_none()).map(|file| file.bytes.len() as u64)
    }

    fn truncate(&self, file: i32, len: u64) -> VmResult {
        let mut state = lock(&self.output);
        let file = state.file(file).filter(|file| file.stream.is_none()).ok_or(NOT_OPEN)?;
        file.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn lock(&self, file: i32) -> bool {
        let mut state = lock(&self.output);
        state.file(file).is_some_and(|file| !core::mem::replace(&mut file.locked, true))
    }

    fn unlock(&self, file: i32) {
        if let Some(file) = lock(&self.output).file(file) {
            file.locked = false;
        }
    }

    fn is_terminal(&self, _file: i32) -> bool {
        false
    }

    fn each_module(&self, each: &mut dyn FnMut(&Module)) {
        let modules = lock(&self.output).modules.clone();
        modules.iter().for_each(each);
    }

    fn executable(&self, into: &mut [u8]) -> usize {
        fill(into, b"/simulated/program")
    }

    fn arguments(&self, into: &mut [u8]) -> usize {
        fill(into, b"program\0argument\0")
    }
}

/// Simulated programs have no code: their tests say what the stacks are.
impl Loader for Sim {
    fn code_at(&self, _address: usize, _look: &mut dyn FnMut(&Code)) -> bool {
        false
    }

    fn departures(&self) -> Option<u64> {
        None
    }

    fn leave_loader_alone(&self) {}
}

/// Every 4 KiB of a module's addresses are a function of their own.
impl Names for Sim {
    fn place_of_code(&self, address: usize, with: &mut dyn FnMut(&CodePlace<'_>)) -> bool {
        let modules = lock(&self.output).modules.clone();
        let found = modules.iter().find(|module| (module.start..module.end).contains(&(address as u64)));
        let Some(module) = found else { return false };
        let name = std::format!("code_{:x}", address >> 12);
        let offset = address as u64 & 0xfff;
        with(&CodePlace { module: module.path.as_str().as_bytes(), function: name.as_bytes(), offset });
        true
    }
}

fn fill(into: &mut [u8], from: &[u8]) -> usize {
    into.iter_mut().zip(from).map(|(place, byte)| *place = *byte).count()
}
