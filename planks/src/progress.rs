//! Says what takes long: after a second, and only to a person.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::Duration;

/// Runs `f`; a spinner with a clock appears after a second if standard error is a terminal.
pub fn during<R>(what: &str, f: impl FnOnce() -> R) -> R {
    if !std::io::stderr().is_terminal() {
        return f();
    }
    std::thread::scope(|scope| {
        let (done, finished) = mpsc::channel::<()>();
        let what = what.to_string();
        scope.spawn(move || {
            if finished.recv_timeout(Duration::from_secs(1)) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner().with_message(what);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            let _ = finished.recv();
            bar.finish_and_clear();
        });
        let result = f();
        drop(done);
        result
    })
}
