//! The library that this program carries inside itself, and the file that it becomes.
//!
//! The file lies in the user's cache under a name made of its content, so that versions do not get in each other's
//! way. It is compared byte by byte before each use, and written beside its place and renamed into it, so that
//! nobody ever loads half of it.

use std::io::Write;
use std::path::{Path, PathBuf};

use fencepost_record::Fnv;

use crate::failure::Failure;

/// The library; empty in builds without it.
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libfencepost_preload.so"));
/// Names another build of the library, for those who work on it.
const VARIABLE: &str = "FENCEPOST_PRELOAD";

/// The path of the library, ready to be preloaded.
pub fn library() -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        return match path.canonicalize() {
            Ok(path) => usable(path).map(Some),
            Err(error) => Err(Failure::file(&format!("use {VARIABLE}:"), &path, &error)),
        };
    }
    if LIBRARY.is_empty() {
        return Ok(None);
    }
    let folder =
        cache().ok_or_else(|| Failure::unguarded("no folder for the library: set XDG_CACHE_HOME or HOME"))?;
    let cannot = |error: std::io::Error| {
        Failure::unguarded(format_args!(
            "the library cannot be put into {}: {error}: set XDG_CACHE_HOME to a folder that can be written",
            folder.display()
        ))
    };
    let mut hash = Fnv::new();
    hash.add(LIBRARY);
    let path = folder.join(format!("libfencepost_preload-{:016x}.so", hash.0));
    if !std::fs::read(&path).is_ok_and(|bytes| bytes == LIBRARY) {
        put(&folder, &path).map_err(cannot)?;
    }
    usable(path).map(Some)
}

fn put(folder: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix("new-").tempfile_in(folder)?;
    file.write_all(LIBRARY)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The loader divides `LD_PRELOAD` at spaces and colons, with no way to quote them.
fn usable(path: PathBuf) -> Result<PathBuf, Failure> {
    if path.to_string_lossy().contains([' ', ':']) {
        return Err(Failure::unguarded(format_args!(
            "the path {} has a space or a colon, which LD_PRELOAD cannot have: set XDG_CACHE_HOME to one without",
            path.display()
        )));
    }
    Ok(path)
}

fn cache() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("fencepost"))
}
