//! There is no register of protection keys here that this project uses.

use super::keys::Rights;

/// Whether there is one: no.
pub(super) fn has_keys() -> bool {
    false
}

/// Nothing to change: no key is ever found.
pub(super) fn set_here(_key: i32, _rights: Rights) {}

/// What a key allows that there is not.
pub(super) fn rights_here(_key: i32) -> Rights {
    Rights::All
}
