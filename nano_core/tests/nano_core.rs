//! Every single allocation of a cell's life on the heap fails once: how a kernel whose allocation-error handler unwinds gets on.
//!
//! Here, and under this name, because hooking into failed allocations takes a feature gate of the compiler, which only
//! this crate has (docs/ARCHITECTURE.md, "Toolchain").
#![feature(alloc_error_hook)]

use injector::heap::{Allocations, FailingAllocator};
use injector::world::World;
use injector::{Kind, Plan, run};
use std::alloc::{System, set_alloc_error_hook};

#[global_allocator]
static ALLOCATOR: FailingAllocator<System> = FailingAllocator::new(System);

#[test]
fn every_failed_allocation_is_an_error_and_leaves_nothing() {
    set_alloc_error_hook(|_| runtime_port::heap::exhausted());
    let count = Allocations::new(&World::new("count").unwrap()).unwrap().total();
    let report = run(&Plan::new(Kind::Heap, 1, count), |_, _| {}).unwrap();
    let total = report.total();
    assert_eq!((total.injected, total.lost), (count, 0), "{report}");
    // The rest is allocations whose failure changes nothing, such as room that is reserved in advance.
    assert!(total.recovered * 10 >= count * 8, "{report}");
}
