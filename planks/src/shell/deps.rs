//! `deps`: the dependency graph.

use super::{Reply, Shell, misused, take_flag};
use crate::failure::Failure;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use namespace_bridge::CellInfo;
use serde_json::{Value, json};

/// Edges by dependent and then by cell depended on, with the symbols.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

pub(super) fn deps(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let cells = super::info::all(shell);
    let graph = graph(&cells);
    let (words, dot) = take_flag(words, "--dot");
    let roots: Vec<String> = match words[..] {
        [] => roots(&cells),
        [name] => [super::info::find(shell, name)?.crate_name.to_string()].into(),
        _ => return Err(misused("deps")),
    };
    let mut text = String::new();
    for root in &roots {
        text += &format!("{root}\n");
        tree(&graph, root, "", &mut [root.clone()].into(), &mut text);
    }
    if text.is_empty() {
        text = "no cell is loaded\n".to_string();
    }
    let edges: Vec<Value> = graph
        .iter()
        .filter(|(from, _)| words.is_empty() || roots.contains(from))
        .flat_map(|(from, to)| {
            to.iter().map(move |(to, symbols)| json!({ "from": from, "to": to, "symbols": symbols }))
        })
        .collect();
    if dot {
        text = graphviz(&graph, &roots);
    }
    Ok(Reply::new(text, json!({ "roots": roots, "edges": edges })))
}

/// What is reachable from `roots` as a directed graph in the language of Graphviz (its manual, "DOT Language").
fn graphviz(graph: &Graph, roots: &[String]) -> String {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut next: Vec<&str> = roots.iter().map(String::as_str).collect();
    while let Some(name) = next.pop() {
        if reached.insert(name) {
            next.extend(graph.get(name).into_iter().flat_map(|edges| edges.keys().map(String::as_str)));
        }
    }
    let mut text = String::from("digraph cells {\n");
    for name in &reached {
        text += &format!("  {};\n", quoted(name));
    }
    for name in &reached {
        for (to, symbols) in graph.get(*name).into_iter().flatten() {
            let symbols: Vec<&str> = symbols.iter().map(|s| short(s)).collect();
            text += &format!("  {} -> {} [label={}];\n", quoted(name), quoted(to), quoted(&symbols.join(", ")));
        }
    }
    text + "}\n"
}

/// A quoted string of the DOT language. Backslashes would begin escapes in labels, and control characters have no place in
/// names.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A symbol without its cell.
fn short(symbol: &str) -> &str {
    symbol.rsplit_once("::").map_or(symbol, |(_, s)| s)
}

fn graph(cells: &[CellInfo]) -> Graph {
    let mut graph = Graph::new();
    for c in cells {
        let edges = graph.entry(c.name.to_string()).or_default();
        for d in &c.dependencies {
            let to = if d.cell.is_empty() { "(unloaded)" } else { &d.cell };
            edges.entry(to.to_string()).or_default().insert(d.symbol.to_string());
        }
    }
    graph
}

/// Cells that no other depends on; all of them when there is none such.
fn roots(cells: &[CellInfo]) -> Vec<String> {
    let unused = |c: &&CellInfo| c.dependents.iter().all(|(user, _)| *user == c.name);
    let names: Vec<String> = cells.iter().filter(unused).map(|c| c.name.to_string()).collect();
    if names.is_empty() { cells.iter().map(|c| c.name.to_string()).collect() } else { names }
}

/// Draws what `name` depends on. `path` holds the names above, so that a circle ends.
fn tree(graph: &Graph, name: &str, indent: &str, path: &mut Vec<String>, text: &mut String) {
    let Some(edges) = graph.get(name) else { return };
    for (i, (to, symbols)) in edges.iter().enumerate() {
        let last = i + 1 == edges.len();
        let symbols: Vec<&str> = symbols.iter().map(|s| short(s)).collect();
        let around = path.contains(to);
        let mark = if around { " (see above)" } else { "" };
        *text += &format!("{indent}{}─ {to}  ({}){mark}\n", if last { "└" } else { "├" }, symbols.join(", "));
        if !around {
            path.push(to.clone());
            tree(graph, to, &format!("{indent}{}  ", if last { " " } else { "│" }), path, text);
            path.pop();
        }
    }
}
