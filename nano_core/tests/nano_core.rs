//! Every single allocation of the lives of cells on the heap fails once: how a kernel whose allocation-error handler unwinds gets on.
//!
//! Here, and under this name, because hooking into failed allocations takes a feature gate of the compiler, which only
//! few crates have (docs/ARCHITECTURE.md, "Toolchain"). `cargo xtask boot --inject "100000 kind=heap"` does the same in ring 0.
#![feature(alloc_error_hook)]

use injector::heap::{Allocations, FailingAllocator, failures_unwind};
use injector::world::World;
use injector::{Kind, Plan, run};
use runtime_port::heap::{Reserve, exhausted, served_by_reserve};
use std::alloc::{System, set_alloc_error_hook};
use std::thread;

#[global_allocator]
static ALLOCATOR: Reserve<FailingAllocator<System>> = Reserve::behind(FailingAllocator::new(System));

#[test]
fn every_failed_allocation_is_an_error_and_leaves_nothing() {
    set_alloc_error_hook(|_| exhausted());
    failures_unwind();
    // In a thread of its own, whose stack goes with it.
    let count = || Allocations::new(&World::new("count").unwrap()).unwrap().total();
    let count = thread::scope(|s| s.spawn(count).join()).unwrap();
    let report = run(&Plan::new(Kind::Heap, 1, count), |_, _| {}).unwrap();
    let total = report.total();
    assert_eq!((total.injected, total.lost), (count, 0), "{report}");
    // The rest is allocations whose failure changes nothing, such as room that is reserved in advance.
    let served = served_by_reserve();
    assert!(served > 0 && (total.recovered + served) * 10 >= count * 8, "{served} made by the reserve\n{report}");
}
