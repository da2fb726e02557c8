//! Stopping code in the middle of an operation that counts as one, and work that a guest can make unbounded.

use super::{call, load, namespace};
use namespace_bridge::{Val, kill_task};
use std::sync::mpsc;
use std::thread;
use wasm_cell::trap::TrapCode;

#[test]
fn bulk_operations_without_end_are_killed_and_leave_a_usable_cell() {
    let ns = namespace();
    let cell = load(
        &ns,
        "bulk",
        r#"(module (memory 1024 1024) (table $t 100000 funcref) (global $n (mut i32) (i32.const 0))
            (func (export "fill") (loop $again
                (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x4000000))
                (global.set $n (i32.add (global.get $n) (i32.const 1))) (br $again)))
            (func (export "copy") (loop $again
                (memory.copy (i32.const 1) (i32.const 0) (i32.const 0x3ffffff)) (br $again)))
            (func (export "table") (loop $again
                (table.fill $t (i32.const 0) (ref.null func) (i32.const 100000)) (br $again)))
            (func (export "works") (param i32) (result i32) (i32.store (i32.const 64) (local.get 0)) (i32.load (i32.const 64))))"#,
    );
    for (round, name) in ["fill", "copy", "table"].into_iter().cycle().take(9).enumerate() {
        let (send, receive) = mpsc::channel();
        let victim = {
            let cell = cell.clone();
            thread::spawn(move || {
                // The first call makes the task known.
                call(&cell, "works", &[Val::I32(1)]).unwrap();
                send.send(runtime_port::task::current().id.get()).unwrap();
                call(&cell, name, &[])
            })
        };
        let id = receive.recv().unwrap();
        thread::sleep(std::time::Duration::from_millis(round as u64 * 3));
        kill_task(id).unwrap();
        assert_eq!(victim.join().unwrap(), Err(TrapCode::Killed), "{name}");
        assert_eq!(call(&cell, "works", &[Val::I32(round as i32)]), Ok(Val::I32(round as i32)));
    }
}
