//! Host tests: programs in the text format, and bytes that are no program at all.

use super::*;
use proptest::prelude::*;

/// `(module)` as bytes, by hand: the magic number and version 1.
const EMPTY_MODULE: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];

/// `(func (export "a") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)`, by hand.
const ADD: &[u8] = &[
    0, b'a', b's', b'm', 1, 0, 0, 0, // header
    1, 7, 1, 0x60, 2, 0x7F, 0x7F, 1, 0x7F, // one type: (i32, i32) -> i32
    3, 2, 1, 0, // one function of that type
    7, 5, 1, 1, b'a', 0, 0, // exported as "a"
    10, 9, 1, 7, 0, 0x20, 0, 0x20, 1, 0x6A, 0x0B, // its body
];

fn program(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("test program")
}

fn run_text(text: &str, export: &str, args: &[i64]) -> Result<Outcome, Trap> {
    run(&program(text), export, args, Limits { fuel: 1_000_000, memory_pages: 4 })
}

fn trap_of(text: &str) -> Trap {
    run_text(text, "f", &[]).expect_err("should trap")
}

fn word(outcome: Result<Outcome, Trap>) -> Option<i64> {
    outcome.expect("should run").result.map(Value::word)
}

#[test]
fn wasm_runs_a_hand_encoded_addition() {
    let outcome = run(ADD, "a", &[40, 2], Limits::DEFAULT);
    assert_eq!(outcome.map(|outcome| outcome.result), Ok(Some(Value::I32(42))));
}

#[test]
fn wasm_computes_fibonacci() {
    let fib = r#"(module (func $fib (export "fib") (param i64) (result i64)
        (if (result i64) (i64.lt_s (local.get 0) (i64.const 2)) (then (local.get 0))
        (else (i64.add (call $fib (i64.sub (local.get 0) (i64.const 1)))
                       (call $fib (i64.sub (local.get 0) (i64.const 2))))))))"#;
    assert_eq!(word(run_text(fib, "fib", &[20])), Some(6765));
}

#[test]
fn wasm_computes_factorial_in_a_loop() {
    let text = r#"(module (func (export "f") (param i64) (result i64) (local i64)
        (local.set 1 (i64.const 1))
        (block (loop (br_if 1 (i64.eqz (local.get 0)))
            (local.set 1 (i64.mul (local.get 1) (local.get 0)))
            (local.set 0 (i64.sub (local.get 0) (i64.const 1))) (br 0)))
        (local.get 1)))"#;
    assert_eq!(word(run_text(text, "f", &[20])), Some(2_432_902_008_176_640_000));
}

#[test]
fn wasm_infinite_loop_runs_out_of_fuel() {
    assert_eq!(trap_of(r#"(module (func (export "f") (loop (br 0))))"#), Trap::OutOfFuel);
}

#[test]
fn wasm_start_function_is_bound_by_the_same_fuel() {
    let text = r#"(module (func $s (loop (br 0))) (start $s) (func (export "f")))"#;
    assert_eq!(trap_of(text), Trap::OutOfFuel);
}

#[test]
fn wasm_fuel_is_counted_exactly_and_repeatably() {
    let first = run(ADD, "a", &[1, 2], Limits::DEFAULT).expect("runs");
    assert_eq!(run(ADD, "a", &[1, 2], Limits::DEFAULT), Ok(first));
    assert!(first.fuel_used > 0);
    let exact = Limits { fuel: first.fuel_used, ..Limits::DEFAULT };
    assert_eq!(run(ADD, "a", &[1, 2], exact), Ok(first));
    let short = Limits { fuel: first.fuel_used - 1, ..Limits::DEFAULT };
    assert_eq!(run(ADD, "a", &[1, 2], short), Err(Trap::OutOfFuel));
}

#[test]
fn wasm_memory_growth_stops_at_the_limit() {
    let text = |pages: u32| {
        format!(
            r#"(module (memory 1) (func (export "f") (result i32)
            (drop (memory.grow (i32.const {pages}))) (memory.size)))"#
        )
    };
    assert_eq!(word(run_text(&text(3), "f", &[])), Some(4));
    assert_eq!(trap_of(&text(4)), Trap::MemoryLimit);
    assert_eq!(trap_of(&text(60_000)), Trap::MemoryLimit);
}

#[test]
fn wasm_initial_memory_above_the_limit_is_refused() {
    assert_eq!(trap_of(r#"(module (memory 5) (func (export "f")))"#), Trap::MemoryLimit);
    assert_eq!(trap_of(r#"(module (memory 65536) (func (export "f")))"#), Trap::MemoryLimit);
}

#[test]
fn wasm_large_tables_are_refused() {
    assert_eq!(trap_of(r#"(module (table 10001 funcref) (func (export "f")))"#), Trap::TableLimit);
}

#[test]
fn wasm_traps_have_their_own_names() {
    let body = |body: &str| format!(r#"(module (memory 1) (func (export "f") {body}))"#);
    let cases = [
        ("(unreachable)", Trap::Unreachable),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", Trap::DivisionByZero),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", Trap::IntegerOverflow),
        ("(drop (i32.load (i32.const 65536)))", Trap::MemoryOutOfBounds),
        ("(i64.store (i32.const -1) (i64.const 1))", Trap::MemoryOutOfBounds),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", Trap::BadConversion),
    ];
    for (text, trap) in cases {
        assert_eq!(trap_of(&body(text)), trap, "{text}");
    }
}

#[test]
fn wasm_indirect_calls_are_checked() {
    let text = |index: u32| {
        format!(
            r#"(module (type $t (func)) (table 3 funcref) (elem (i32.const 1) $g)
            (func $g (result i32) (i32.const 1))
            (func (export "f") (call_indirect (type $t) (i32.const {index}))))"#
        )
    };
    assert_eq!(trap_of(&text(0)), Trap::IndirectCallToNull);
    assert_eq!(trap_of(&text(1)), Trap::IndirectCallType);
    assert_eq!(trap_of(&text(3)), Trap::TableOutOfBounds);
}

#[test]
fn wasm_endless_recursion_overflows_the_stack_cleanly() {
    let text = r#"(module (func $f (export "f") (call $f) (call $f)))"#;
    assert_eq!(trap_of(text), Trap::StackOverflow);
}

#[test]
fn wasm_imports_are_refused() {
    let text = r#"(module (import "env" "print" (func)) (func (export "f")))"#;
    assert_eq!(trap_of(text), Trap::ImportsRefused);
}

#[test]
fn wasm_data_and_element_segments_must_fit() {
    let data = r#"(module (memory 1) (data (i32.const 65536) "x") (func (export "f")))"#;
    assert_eq!(trap_of(data), Trap::MemoryOutOfBounds);
    let elements = r#"(module (table 1 funcref) (elem (i32.const 1) $f) (func $f (export "f")))"#;
    assert_eq!(trap_of(elements), Trap::TableOutOfBounds);
}

#[test]
fn wasm_exports_and_signatures_are_checked() {
    let text = r#"(module (global (export "g") i32 (i32.const 1))
        (func (export "i") (param i32) (result i32) (local.get 0))
        (func (export "float") (param f64)) (func (export "to_float") (result f32) (f32.const 1))
        (func (export "two") (result i32 i32) (i32.const 1) (i32.const 2)))"#;
    let cases: [(&str, &[i64], Trap); 9] = [
        ("nosuch", &[], Trap::NoSuchExport),
        ("", &[], Trap::NoSuchExport),
        ("g", &[], Trap::NotAFunction),
        ("i", &[], Trap::ArgumentCount),
        ("i", &[1, 2], Trap::ArgumentCount),
        ("i", &[1 << 32], Trap::ArgumentRange),
        ("float", &[1], Trap::BadSignature),
        ("to_float", &[], Trap::BadSignature),
        ("two", &[], Trap::BadSignature),
    ];
    for (export, args, trap) in cases {
        assert_eq!(run_text(text, export, args), Err(trap), "{export} {args:?}");
    }
    assert_eq!(word(run_text(text, "i", &[0xFFFF_FFFF])), Some(-1));
    assert_eq!(word(run_text(text, "i", &[-5])), Some(-5));
}

#[test]
fn wasm_bytes_that_are_no_program_are_refused() {
    for bytes in [&[][..], b"\0asm", b"MZ\x90\0", &EMPTY_MODULE[..7], &[0, b'a', b's', b'm', 2, 0, 0, 0]] {
        assert_eq!(run(bytes, "f", &[], Limits::DEFAULT), Err(Trap::InvalidProgram), "{bytes:?}");
    }
    assert_eq!(run(&EMPTY_MODULE, "f", &[], Limits::DEFAULT), Err(Trap::NoSuchExport));
    let large = vec![0; MAX_PROGRAM_LEN + 1];
    assert_eq!(run(&large, "f", &[], Limits::DEFAULT), Err(Trap::ProgramTooLarge));
}

#[test]
fn wasm_every_truncation_of_a_program_is_refused() {
    for len in 0..ADD.len() {
        let result = run(&ADD[..len], "a", &[1, 2], Limits::DEFAULT);
        assert!(matches!(result, Err(Trap::InvalidProgram | Trap::NoSuchExport)), "{len}: {result:?}");
    }
}

#[test]
fn wasm_programs_with_a_flood_of_functions_are_refused() {
    let functions = "(func)".repeat(10_001);
    let text = format!(r#"(module {functions} (func (export "f")))"#);
    assert_eq!(trap_of(&text), Trap::ProgramLimits);
}

#[test]
fn wasm_trap_numbers_are_stable_and_distinct() {
    for (index, trap) in Trap::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(trap.code()), index + 1);
        assert_eq!(Trap::from_code(trap.code()), Some(trap));
        assert!(!trap.to_string().is_empty());
    }
    assert_eq!(Trap::from_code(0), None);
}

/// wasmi 2.0.0 divides by the number of functions.
#[test]
fn wasm_long_code_section_without_functions_is_refused() {
    let mut bytes = ADD.to_vec();
    (bytes[29], bytes[30]) = (128, 128);
    let limits = Limits { fuel: 10_000, memory_pages: 1 };
    assert_eq!(run(&bytes, "a", &[1, 2], limits), Err(Trap::InvalidProgram));
    for size in [6u8, 100] {
        let mut module = EMPTY_MODULE.to_vec();
        module.extend([10, 0x80 | size, 16, 0]);
        module.resize(module.len() + 4000, 0);
        assert_eq!(run(&module, "a", &[], limits), Err(Trap::InvalidProgram));
    }
}

/// Code that goes on behind the end of its function. (A debug assertion of wasmi 2.0.0 minds, before the validator does;
/// the workspace builds wasmi without them, as the module is shipped.)
#[test]
fn wasm_code_behind_the_end_of_a_function_is_refused() {
    let mut bytes = ADD.to_vec();
    bytes[35] = 0x0b;
    assert!(run(&bytes, "a", &[1, 2], Limits { fuel: 10_000, memory_pages: 1 }).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn wasm_random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let limits = Limits { fuel: 10_000, memory_pages: 1 };
        prop_assert_eq!(run(&bytes, "a", &[], limits), Err(Trap::InvalidProgram));
        let mut module = EMPTY_MODULE.to_vec();
        module.extend(bytes);
        prop_assert!(run(&module, "a", &[], limits).is_err());
    }

    #[test]
    fn wasm_mutated_programs_never_panic(flips in prop::collection::vec((8..ADD.len(), any::<u8>()), 1..4)) {
        let mut bytes = ADD.to_vec();
        for (at, value) in flips {
            bytes[at] = value;
        }
        let _ = run(&bytes, "a", &[1, 2], Limits { fuel: 10_000, memory_pages: 1 });
    }

    #[test]
    fn wasm_addition_wraps_like_i32(a in any::<i32>(), b in any::<i32>()) {
        let outcome = run(ADD, "a", &[i64::from(a), i64::from(b)], Limits::DEFAULT);
        prop_assert_eq!(outcome.map(|outcome| outcome.result), Ok(Some(Value::I32(a.wrapping_add(b)))));
    }
}
