//! The files and annotations that a run leaves.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use fencepost_report::tools::Collection;
use fencepost_report::tools::render::{Format, Setting, render};

use crate::failure::Failure;
use crate::settings::Settings;

/// Files that are open and waiting for their content.
pub struct Outputs {
    files: Vec<(Format, PathBuf, File)>,
    github: bool,
    setting: Setting,
}

impl Outputs {
    /// Opens every file, so that one that cannot be written is known before the programs run.
    pub fn open(settings: &Settings) -> Result<Outputs, Failure> {
        let mut files = Vec::new();
        for (format, path) in &settings.outputs {
            let file = File::create(path).map_err(|error| Failure::file("write", path, &error))?;
            files.push((*format, path.clone(), file));
        }
        let setting = Setting { root: std::env::current_dir().ok(), color: false };
        Ok(Outputs { files, github: settings.github, setting })
    }

    /// Writes all of them.
    pub fn write(self, collection: &Collection) -> Result<(), Failure> {
        for (format, path, mut file) in self.files {
            let text = text(collection, format, &self.setting)?;
            file.write_all(text.as_bytes()).map_err(|error| Failure::file("write", &path, &error))?;
        }
        if self.github {
            let text = text(collection, Format::Github, &self.setting)?;
            std::io::stdout().write_all(text.as_bytes()).map_err(|error| {
                Failure::usage(format_args!(
                    "the annotations could not be written to standard output: {error}"
                ))
            })?;
        }
        Ok(())
    }
}

/// A collection in a form.
pub fn text(collection: &Collection, format: Format, setting: &Setting) -> Result<String, Failure> {
    let mut text = String::new();
    render(collection, format, setting, &mut text)
        .map_err(|_| Failure::usage(format_args!("the {} form could not be made", format.name())))?;
    Ok(text)
}
