//! Modules that count, for faults at the k-th instruction, call or memory access: a call of `$tick` before each of them.

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Instruction, Module};
use wasmparser::{FunctionBody, KnownCustom, Name, Operator, Parser, Payload};

/// What is added to a workload. `arm(k)` has the k-th tick from then on make the fault that `run` was given.
pub const TEXT: &str = r#"
(global $ticks (mut i64) (i64.const 0))
(func $tick
    (global.set $ticks (i64.sub (global.get $ticks) (i64.const 1)))
    (if (i64.eqz (global.get $ticks)) (then
        (global.set $left (i32.const 0))
        (call_indirect $faults (type $fault) (global.get $arg) (global.get $kind)))))
(func $arm (export "arm") (param i64) (global.set $ticks (local.get 0)))
(func $ticks (export "ticks") (result i64) (global.get $ticks))"#;

/// Functions that do not count: they say what is to happen at which tick.
const UNCOUNTED: [&str; 4] = ["tick", "arm", "ticks", "run"];

/// What is counted.
#[derive(Clone, Copy)]
pub enum Counted {
    Instructions,
    Calls,
    Accesses,
}

impl Counted {
    pub const ALL: [(Counted, &'static str); 3] =
        [(Counted::Instructions, "instruction"), (Counted::Calls, "call"), (Counted::Accesses, "access")];

    fn counts(self, operator: &Operator<'_>) -> bool {
        // The names of WebAssembly's text format, as far as letters go.
        let name = format!("{operator:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default();
        match self {
            Counted::Instructions => true,
            Counted::Calls => name.contains("Call"),
            Counted::Accesses => ["Load", "Store", "Memory", "Atomic", "Table", "GlobalGet", "GlobalSet"]
                .iter()
                .any(|part| name.contains(part)),
        }
    }
}

/// The module with its calls of `$tick`.
pub fn counting(wasm: &[u8], counted: Counted) -> Vec<u8> {
    let (mut functions, mut imported) = (Vec::new(), 0);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("wat makes modules that can be read") {
            Payload::ImportSection(imports) => {
                let all = imports.into_imports().map(|import| import.expect("as above"));
                imported = all.filter(|import| matches!(import.ty, wasmparser::TypeRef::Func(_))).count() as u32;
            }
            Payload::CustomSection(section) => {
                let KnownCustom::Name(names) = section.as_known() else { continue };
                for names in names {
                    let Name::Function(names) = names.expect("as above") else { continue };
                    functions.extend(names.into_iter().map(|naming| naming.expect("as above")));
                }
            }
            _ => {}
        }
    }
    let index = |wanted: &str| functions.iter().find(|naming| naming.name == wanted).map(|naming| naming.index);
    let uncounted = UNCOUNTED.map(|name| index(name).expect("every workload has these"));
    let mut counter = Counter { counted, tick: uncounted[0], uncounted, next: imported };
    let mut module = Module::new();
    counter.parse_core_module(&mut module, Parser::new(0), wasm).expect("what was read can be written");
    module.finish()
}

struct Counter {
    counted: Counted,
    tick: u32,
    uncounted: [u32; 4],
    /// Index of the function whose body comes next.
    next: u32,
}

impl Reencode for Counter {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        let counts = !self.uncounted.contains(&self.next);
        self.next += 1;
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            if counts && self.counted.counts(&operator) {
                function.instruction(&Instruction::Call(self.tick));
            }
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }
}
