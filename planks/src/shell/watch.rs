//! `watch`: a cell follows a file.
//!
//! The file is looked at again and again, through [`Host::stamp`](super::Host::stamp). Once it has changed, then stayed the
//! same for a moment, and nobody has it open for writing, it is read; when its contents are new they become the next version. A version that is refused
//! leaves the old one in service, and the next change is another try. Each thing that is in the way is said once.

use super::swap::{Swap, take_plan};
use super::{Reply, Shell, misused};
use crate::failure::Failure;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use namespace_bridge::{LoadOptions, ModuleDiff, compile_module_reusing};
use serde_json::json;

#[cfg(test)]
mod tests;

pub(super) fn watch(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, plan) = take_plan(&words, "watch")?;
    let (words, times) = take_times(words)?;
    let force = words.contains(&"--force");
    let words: Vec<&str> = words.into_iter().filter(|w| *w != "--force").collect();
    let [name, path] = words[..] else { return Err(misused("watch")) };
    super::info::find(shell, name)?;
    if shell.host.stamp(path).is_none() {
        return Err(Failure::usage(format!("{path} cannot be watched: it is no file, or files do not change here")));
    }
    let (content, seen) = shell.host.read_stamped(path)?;
    // The file may have changed since the cell was loaded.
    let serving = is_in_service(shell, name, path, &content).then(|| content.clone());
    let mut watch = Watch { name, path, seen, serving, content, looks: 0, said: None, tried: 0, swapped: 0 };
    let mut next = watch.serving.is_none().then(|| watch.content.clone());
    while times.is_none_or(|times| watch.tried < times) {
        let bytes = match next.take() {
            Some(bytes) => bytes,
            None if !shell.host.pause() => break,
            None => match watch.look(shell) {
                Some(bytes) => bytes,
                None => continue,
            },
        };
        let swap = Swap { name, path, plan: plan.clone(), force, dry_run: false, keep_exports: !force };
        next = watch.take(shell, &swap, bytes);
    }
    let (swapped, refused) = (watch.swapped, watch.tried - watch.swapped);
    let text = format!("{path} was watched: {swapped} new versions, {refused} refused\n");
    Ok(Reply::new(text, json!({ "cell": name, "swapped": swapped, "refused": refused })))
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

/// Looks after which it is said what a change waits for.
const PATIENCE: u32 = 20;

/// Looks after a version was read when its file is read again although its stamp says that it is the same: clocks of file systems tick in up to two seconds.
const READ_AGAIN: [u32; 2] = [10, 25];

/// What is known of the file.
struct Watch<'a> {
    name: &'a str,
    path: &'a str,
    /// Its stamp when it was read last.
    seen: Option<u64>,
    /// What is in service, if it came from the file.
    serving: Option<Vec<u8>>,
    /// What was read last.
    content: Vec<u8>,
    /// Looks since that.
    looks: u32,
    /// What was said last of what is in the way.
    said: Option<String>,
    tried: u64,
    swapped: u64,
}

impl Watch<'_> {
    /// Swaps the version in, or says why not. Gives it back if it is to be tried again.
    fn take(&mut self, shell: &mut Shell<'_>, swap: &Swap<'_>, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match swap.run(shell, bytes.clone()) {
            Ok(reply) => {
                (self.tried, self.swapped) = (self.tried + 1, self.swapped + 1);
                self.said = None;
                self.serving = Some(bytes);
                shell.host.show(&reply);
                None
            }
            // The file may change while somebody is in the way.
            Err(failure) if failure.is_passing() => {
                self.say(shell, &failure.to_string(), "and is tried again");
                if !shell.host.pause() {
                    return None;
                }
                let newer = self.look(shell);
                newer.or_else(|| (self.content == bytes).then_some(bytes))
            }
            Err(failure) => {
                self.tried += 1;
                self.said = None;
                let (name, json) = (self.name, failure.to_json());
                let text = format!("{name} stays as it is: {failure}\n");
                shell.host.show(&Reply::new(text, json!({ "cell": name, "refused": json })));
                None
            }
        }
    }

    /// Says what is in the way, once.
    fn say(&mut self, shell: &mut Shell<'_>, what: &str, then: &str) {
        if self.said.as_deref() != Some(what) {
            let name = self.name;
            let text = format!("{name} stays as it is {then}: {what}\n");
            shell.host.show(&Reply::new(text, json!({ "cell": name, "waits": what })));
            self.said = Some(what.into());
        }
    }

    /// New contents, if there are any that have settled.
    fn look(&mut self, shell: &mut Shell<'_>) -> Option<Vec<u8>> {
        self.looks = self.looks.saturating_add(1);
        let mut stamp = shell.host.stamp(self.path);
        if stamp == self.seen && !READ_AGAIN.contains(&self.looks) {
            return None;
        }
        let mut waited = 0;
        loop {
            // It may be away for a moment while an editor replaces it.
            let hindrance = match stamp {
                None => Some(format!("{} is gone, or is no file", self.path)),
                Some(_) => shell.host.writer(self.path).map(|by| format!("{} is being written by {by}", self.path)),
            };
            waited += 1;
            if let Some(hindrance) = hindrance.as_ref().filter(|_| waited > PATIENCE) {
                self.say(shell, hindrance, "for now");
            }
            if !shell.host.pause() {
                return None;
            }
            let now = shell.host.stamp(self.path);
            if now == stamp && hindrance.is_none() {
                break;
            }
            stamp = now;
        }
        let (bytes, stamp) = match shell.host.read_stamped(self.path) {
            // Written to, or another one under the name, while it was read: another look will tell.
            Ok((_, read)) if read != stamp => return None,
            Ok(read) => read,
            Err(failure) => {
                self.say(shell, &failure.to_string(), "for now");
                return None;
            }
        };
        self.said = None;
        if self.seen != stamp {
            (self.seen, self.looks) = (stamp, 0);
        }
        if bytes == self.content {
            return None;
        }
        self.content.clone_from(&bytes);
        if self.serving.as_ref() == Some(&bytes) {
            let (name, path) = (self.name, self.path);
            let text = format!("{name} stays as it is: {path} is what it was made of again\n");
            shell.host.show(&Reply::new(text, json!({ "cell": name, "again": path })));
            return None;
        }
        Some(bytes)
    }
}
