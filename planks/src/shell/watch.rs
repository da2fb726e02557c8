//! `watch`: a cell follows a file.
//!
//! The file is looked at again and again, through [`Host::stamp`](super::Host::stamp). Once it has changed and then stayed the
//! same for a moment, it is read; when its contents are new they become the next version. A version that is refused – also
//! because the file was only half written – leaves the old one in service, and the next change is another try.

use super::swap::{Swap, take_plan};
use super::{Reply, Shell, misused};
use crate::failure::Failure;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use namespace_bridge::{LoadOptions, ModuleDiff, compile_module_reusing};
use serde_json::json;

pub(super) fn watch(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, plan) = take_plan(&words, "watch")?;
    let (words, times) = take_times(words)?;
    let [name, path] = words[..] else { return Err(misused("watch")) };
    super::info::find(shell, name)?;
    if shell.host.stamp(path).is_none() {
        return Err(Failure::usage(format!("{path} cannot be watched: it is no file, or files do not change here")));
    }
    let seen = shell.host.stamp(path);
    let content = shell.host.read(path)?;
    // The file may have changed since the cell was loaded.
    let mut next = (!is_in_service(shell, name, path, &content)).then(|| content.clone());
    let mut watch = Watch { path, seen, content, tried: 0, swapped: 0 };
    while times.is_none_or(|times| watch.tried < times) {
        let bytes = match next.take() {
            Some(bytes) => bytes,
            None if !shell.host.pause() => break,
            None => match watch.look(shell) {
                Some(bytes) => bytes,
                None => continue,
            },
        };
        watch.tried += 1;
        let swap = Swap { name, path, plan: plan.clone(), force: false, dry_run: false };
        let outcome = swap.run(shell, bytes);
        watch.swapped += u64::from(outcome.is_ok());
        match outcome {
            Ok(reply) => shell.host.show(&reply),
            Err(failure) => shell.host.show(&Reply::new(
                format!("{name} stays as it is: {failure}\n"),
                json!({ "cell": name, "refused": failure.to_json() }),
            )),
        }
    }
    let text = format!("{path} was watched: {} new versions, {} refused\n", watch.swapped, watch.tried - watch.swapped);
    Ok(Reply::new(text, json!({ "cell": name, "swapped": watch.swapped, "refused": watch.tried - watch.swapped })))
}

/// Whether the cell does what the file says.
fn is_in_service(shell: &mut Shell<'_>, name: &str, path: &str, bytes: &[u8]) -> bool {
    if bytes.starts_with(b"\x7fELF") {
        return true;
    }
    let Ok(cell) = super::info::find(shell, name) else { return false };
    let (Some(old), Ok(wasm)) = (cell.module(), super::load::wasm(shell, path, bytes.to_vec())) else { return false };
    let new = compile_module_reusing(name, &wasm, &LoadOptions::default(), old);
    new.is_ok_and(|(new, _)| ModuleDiff::between(old, &new).is_empty())
}

fn take_times(words: Vec<&str>) -> Result<(Vec<&str>, Option<u64>), Failure> {
    let Some(at) = words.iter().position(|w| *w == "--times") else { return Ok((words, None)) };
    let n = words.get(at + 1).and_then(|n| n.parse().ok());
    let n = n.ok_or_else(|| Failure::usage("--times: how many versions to try before ending"))?;
    Ok((words.iter().enumerate().filter(|(i, _)| *i != at && *i != at + 1).map(|(_, w)| *w).collect(), Some(n)))
}

/// What is known of the file.
struct Watch<'a> {
    path: &'a str,
    /// Its stamp when it was looked at last.
    seen: Option<u64>,
    /// What was made of it last, or tried to be.
    content: Vec<u8>,
    tried: u64,
    swapped: u64,
}

impl Watch<'_> {
    /// New contents, if there are any that have settled.
    fn look(&mut self, shell: &mut Shell<'_>) -> Option<Vec<u8>> {
        let mut stamp = shell.host.stamp(self.path);
        // It may be away for a moment while an editor replaces it.
        if stamp.is_none() || stamp == self.seen {
            return None;
        }
        loop {
            if !shell.host.pause() {
                return None;
            }
            let now = shell.host.stamp(self.path);
            if now == stamp {
                break;
            }
            stamp = now;
        }
        let bytes = shell.host.read(self.path).ok()?;
        // Written to while it was read: another look will tell.
        if shell.host.stamp(self.path) != stamp {
            return None;
        }
        self.seen = stamp;
        if bytes == self.content {
            return None;
        }
        self.content.clone_from(&bytes);
        Some(bytes)
    }
}
