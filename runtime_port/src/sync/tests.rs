//! Locks under contention, on the hosted port.

use super::*;
use core::time::Duration;
use std::thread;

const THREADS: u64 = 4;
const ROUNDS: u64 = 20_000;

#[test]
fn mutex_excludes() {
    let counter = Mutex::new((0u64, 0u64));
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let mut pair = counter.lock();
                    pair.0 += 1;
                    pair.1 = pair.0;
                }
            });
        }
    });
    assert_eq!(*counter.lock(), (THREADS * ROUNDS, THREADS * ROUNDS));
    let held = counter.lock();
    assert!(counter.try_lock().is_none());
    drop(held);
    assert!(counter.try_lock().is_some());
}

#[test]
fn mutex_waiters_sleep_and_are_woken() {
    let lock = Mutex::new(0);
    let held = lock.lock();
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| *lock.lock() += 1);
        }
        thread::sleep(Duration::from_millis(20));
        drop(held);
    });
    assert_eq!(*lock.lock(), THREADS);
}

#[test]
fn rw_lock_admits_readers_together_and_writers_alone() {
    let lock = RwLock::new((0u64, 0u64));
    {
        let _first = lock.read();
        assert!(lock.try_read().is_some() && lock.try_write().is_none());
    }
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let mut pair = lock.write();
                    pair.0 += 1;
                    pair.1 += 1;
                }
            });
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let pair = lock.read();
                    assert_eq!(pair.0, pair.1);
                }
            });
        }
    });
    assert_eq!(lock.read().0, 2 * ROUNDS);
}

#[test]
fn irq_safe_mutex_excludes() {
    let counter = IrqSafeMutex::new(0);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| (0..ROUNDS).for_each(|_| *counter.lock() += 1));
        }
    });
    assert_eq!(*counter.lock(), 2 * ROUNDS);
}

#[test]
fn wait_queue_hands_over_and_times_out() {
    let (queue, mailbox) = (WaitQueue::new(), Mutex::new(None));
    thread::scope(|s| {
        let receiver = s.spawn(|| {
            (0..1000)
                .map(|_| {
                    let value = queue.wait_until(|| mailbox.lock().take());
                    queue.notify_all();
                    value
                })
                .sum::<u64>()
        });
        for i in 0..1000u64 {
            queue.wait_until(|| {
                let mut m = mailbox.lock();
                m.is_none().then(|| *m = Some(i))
            });
            queue.notify_all();
        }
        assert_eq!(receiver.join().unwrap(), 499_500);
    });
    assert_eq!(queue.wait_until_timeout(Duration::from_millis(5), || None::<()>), None);
    assert_eq!(queue.wait_until_timeout(Duration::ZERO, || Some(1)), Some(1));
}
