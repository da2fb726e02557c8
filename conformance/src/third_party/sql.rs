//! An SQL engine. C, emscripten: a megabyte of code, function pointers everywhere, an imported memory.

use super::guest::memory_of;
use super::{Guest, compile, define_rest, expect};
use alloc::{
    format,
    string::{String, ToString},
};
use namespace_bridge::{CrateNamespace, LoadOptions};

/// `SQLITE_OK`, `SQLITE_ROW`, `SQLITE_DONE` (sqlite.org/rescode.html).
const OK: i32 = 0;
const ROW: i32 = 100;
const DONE: i32 = 101;

/// A table of a thousand rows in memory, and what follows from its definition.
const SETUP: &str = "create table planks (n integer primary key, s text);
    with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000)
        insert into planks select n, 'p' || n from c;
    create index by_text on planks (s);
    update planks set s = upper(s) where n % 2 = 0;
    delete from planks where n between 500 and 599;";

/// Queries of one row and one column, and their answers.
const ANSWERS: [(&str, &str); 4] = [
    ("select count(*) from planks", "900"),
    // The squares up to 1,000 make 333,833,500, those from 500 to 599 30,278,350.
    ("select sum(n * n) from planks", "303555150"),
    (
        "select group_concat(s, '-') from (select s from planks where n <= 600 order by n desc limit 3)",
        "P600-p499-P498",
    ),
    ("select s from planks where s like 'P99%' order by length(s), s desc limit 1 offset 1", "p999"),
];

/// Creates a database in memory and asks it.
pub fn queries_have_the_known_answers(wasm: &[u8]) -> Result<(), String> {
    let namespace = CrateNamespace::new("third party", None);
    let module = compile("sql", wasm)?;
    // There is no file (it looks for one with random numbers; `ENOENT` is 44), and the time is always 0.
    let open = |_directory: i32, _path: i32, _flags: i32, _more: i32| -44;
    namespace.define("env", "__syscall_openat", open).map_err(|e| e.to_string())?;
    define_rest(&namespace, &module)?;
    let cell = namespace.load_module("sql", &module, LoadOptions::default()).map_err(|e| e.to_string())?;
    let memory = match namespace.get_crate("env") {
        Some(env) => memory_of(&env, "memory")?,
        None => memory_of(&cell, "memory")?,
    };
    let guest = Guest { cell, memory };
    guest.call("__wasm_call_ctors", &[])?;
    let put = |text: &str| {
        let at = guest.call("malloc", &[text.len() as i32 + 1])?;
        guest.write(at, &[text.as_bytes(), &[0]].concat()).map(|()| at)
    };
    let handle = put("1234567")?; // room for a pointer
    expect("open", guest.call("sqlite3_open", &[put(":memory:")?, handle])?, OK)?;
    let database = guest.word(handle)?;
    let checked = |what: &str, code: i32, known: i32| match code == known {
        true => Ok(()),
        false => Err(format!("{what}: {}", guest.text(guest.call("sqlite3_errmsg", &[database])?)?)),
    };
    checked("setup", guest.call("sqlite3_exec", &[database, put(SETUP)?, 0, 0, 0])?, OK)?;
    for (query, answer) in ANSWERS {
        checked(query, guest.call("sqlite3_prepare_v2", &[database, put(query)?, -1, handle, 0])?, OK)?;
        let statement = guest.word(handle)?;
        checked(query, guest.call("sqlite3_step", &[statement])?, ROW)?;
        let found = guest.text(guest.call("sqlite3_column_text", &[statement, 0])?)?;
        expect(query, &*found, answer)?;
        checked(query, guest.call("sqlite3_step", &[statement])?, DONE)?;
        checked(query, guest.call("sqlite3_finalize", &[statement])?, OK)?;
    }
    checked("a wrong query", guest.call("sqlite3_exec", &[database, put("select nothing")?, 0, 0, 0])?, 1)?;
    expect("close", guest.call("sqlite3_close_v2", &[database])?, OK)
}
