//! The line of sites, as it stands in a file.

use fencepost_record::json::SITES_PER_RUN;

use super::Hex;
use super::numbers::nullable;

/// Where the blocks of a run came from that left most of them out.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct SitesDocument {
    /// The process.
    pub pid: u32,
    /// The mode's name.
    #[serde(deserialize_with = "nullable")]
    pub mode: Option<String>,
    /// Calling contexts seen.
    pub contexts: u64,
    /// Those of which a block was guarded.
    pub contexts_guarded: u64,
    /// The sites that the run says least about come first.
    pub sites: Vec<Site>,
    /// The command that guards every block of the first of them, and no other.
    #[serde(deserialize_with = "nullable")]
    pub only_site: Option<String>,
}

/// One site of allocations.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Site {
    /// Its number, for `only_site`.
    pub site: Hex,
    /// Bytes that its first block asked for.
    pub size: u64,
    /// Blocks asked for.
    #[serde(deserialize_with = "nullable")]
    pub uses: Option<u64>,
    /// Blocks guarded.
    pub guarded: u64,
    /// The way to its allocations, innermost first.
    pub calls: Vec<Call>,
}

/// One call on the way.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Call {
    /// The file of the module.
    #[serde(deserialize_with = "nullable")]
    pub module: Option<String>,
    /// The function.
    #[serde(deserialize_with = "nullable")]
    pub function: Option<String>,
    /// Bytes from the function's start, or the module's.
    pub offset: Hex,
}

impl SitesDocument {
    /// The numbers of the sites that one run can guard whole, for `only_site`, with commas between them.
    pub fn numbers(&self) -> String {
        let first = self.sites.iter().take(SITES_PER_RUN);
        first.map(|site| format!("{:#x}", site.site.0)).collect::<Vec<_>>().join(",")
    }
}
