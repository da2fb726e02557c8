//! `deps`: the dependency graph.

use super::{Reply, Shell, misused};
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
    let roots: Vec<String> = match words {
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
    Ok(Reply::new(text, json!({ "roots": roots, "edges": edges })))
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
        let symbols: Vec<&str> = symbols.iter().map(|s| s.rsplit_once("::").map_or(&**s, |(_, s)| s)).collect();
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
