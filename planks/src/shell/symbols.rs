//! `sym`.

use super::{Reply, Shell, misused};
use crate::failure::{Failure, Kind};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime_port::memory::VirtualAddress;
use serde_json::{Value, json};

pub(super) fn symbols(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let prefix = match words {
        [] => "",
        [word] => word,
        _ => return Err(misused("sym")),
    };
    if let Some(hex) = prefix.strip_prefix("0x") {
        let address = usize::from_str_radix(hex, 16)
            .map_err(|_| Failure::usage(format!("{prefix}: not an address; write it as 0x7f…")))?;
        return at(shell, address);
    }
    let mut text = String::new();
    let mut rows: Vec<Value> = Vec::new();
    for (name, section) in shell.namespace.find_symbols_starting_with(prefix) {
        let Some(section) = section.upgrade() else { continue };
        let ty = section.item.ty().map_or_else(String::new, |t| t.to_string());
        let address = section.virt_addr.value();
        text += &format!("{address:#018x} {:>8}  {name}  {ty}\n", section.size);
        rows.push(json!({ "name": &*name, "address": address, "size": section.size, "type": ty }));
    }
    if rows.is_empty() {
        let which =
            if prefix.is_empty() { "no symbols".to_string() } else { format!("no symbol starts with `{prefix}`") };
        return Err(Failure::new(Kind::Link, which));
    }
    Ok(Reply::new(text, rows.into()))
}

/// What lies at an address.
fn at(shell: &Shell<'_>, address: usize) -> Result<Reply, Failure> {
    let nothing = || Failure::new(Kind::Link, format!("{address:#x} lies in no cell"));
    let virt = VirtualAddress::new(address).ok_or_else(nothing)?;
    let (section, offset) = shell.namespace.get_section_containing_address(virt).ok_or_else(nothing)?;
    let text = format!("{address:#x} is {}+{offset:#x}\n", section.name);
    Ok(Reply::new(text, json!({ "address": address, "symbol": &*section.name, "offset": offset })))
}
