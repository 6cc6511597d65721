//! `wasm`: runs one exported function of a WebAssembly program, within fuel and memory limits.
//!
//! The program is data: it gains nothing beyond what it computes. It has no host functions (imports are
//! refused), no threads, and no state that outlives the call. [`run`] is a pure function.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command;
mod trap;

pub use trap::Trap;

use alloc::vec::Vec;

use wasmi::errors::{ErrorKind, InstantiationError};
use wasmi::{
    CompilationMode, Config, EnforcedLimits, Engine, Error, Extern, Func, Instance, Linker, Module, Store,
    StoreLimits, StoreLimitsBuilder, TrapCode, Val, ValType,
};

/// Bytes of a WebAssembly page.
pub const PAGE_SIZE: usize = 64 * 1024;
/// The largest program that is looked at.
pub const MAX_PROGRAM_LEN: usize = 1 << 20;
/// The most arguments that an exported function may take.
pub const MAX_ARGS: usize = 16;
/// Bytes that the program's own stack may grow to.
const MAX_STACK_BYTES: usize = 256 * 1024;
/// How deep the program's calls may nest.
const MAX_CALL_DEPTH: usize = 1000;
/// Elements that the program's tables may hold, each.
const MAX_TABLE_ELEMENTS: usize = 10_000;

/// What a program may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units of work; about one for each instruction, more for bulk memory operations.
    pub fuel: u64,
    /// Pages of 64 KiB of linear memory.
    pub memory_pages: u32,
}

impl Limits {
    /// Ten million units and 1 MiB.
    pub const DEFAULT: Limits = Limits { fuel: 10_000_000, memory_pages: 16 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a program's function returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A 32-bit integer.
    I32(i32),
    /// A 64-bit integer.
    I64(i64),
}

impl Value {
    /// The value as one word, a 32-bit one sign-extended.
    #[must_use]
    pub const fn word(self) -> i64 {
        match self {
            Self::I32(value) => value as i64,
            Self::I64(value) => value,
        }
    }
}

/// A finished run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The function's result, if it has one.
    pub result: Option<Value>,
    /// The fuel that was used.
    pub fuel_used: u64,
}

/// Runs the function that `program` exports as `export` with `args`.
///
/// A parameter of type i32 takes any argument that fits in 32 bits, signed or unsigned. Functions with float
/// or reference types in their signature, or with more than one result, are refused.
///
/// # Errors
/// One [`Trap`] for each way to fail. The same program with the same arguments and limits fails the same way.
pub fn run(program: &[u8], export: &str, args: &[i64], limits: Limits) -> Result<Outcome, Trap> {
    if program.len() > MAX_PROGRAM_LEN {
        return Err(Trap::ProgramTooLarge);
    }
    if has_hollow_code(program) {
        return Err(Trap::InvalidProgram);
    }
    let engine = Engine::new(&config());
    let module = Module::new(&engine, program).map_err(|error| refused(&error))?;
    if module.imports().next().is_some() {
        return Err(Trap::ImportsRefused);
    }
    let mut store = Store::new(&engine, store_limits(limits));
    store.limiter(|limits| limits);
    store.set_fuel(limits.fuel).map_err(|_| Trap::Internal)?;
    let instance =
        Linker::new(&engine).instantiate_and_start(&mut store, &module).map_err(|error| trapped(&error))?;
    let func = exported(&instance, &store, export)?;
    let (params, mut results) = signature(&func, &store, args)?;
    func.call(&mut store, &params, &mut results).map_err(|error| trapped(&error))?;
    let left = store.get_fuel().map_err(|_| Trap::Internal)?;
    let result = match results.first() {
        None => None,
        Some(Val::I32(value)) => Some(Value::I32(*value)),
        Some(Val::I64(value)) => Some(Value::I64(*value)),
        Some(_) => return Err(Trap::Internal),
    };
    Ok(Outcome { result, fuel_used: limits.fuel.saturating_sub(left) })
}

/// Number of the section that holds the functions' bodies.
const CODE_SECTION: u8 = 10;
/// Bytes that the number of functions takes at most.
const COUNT_MAX: usize = 5;

/// Whether a code section says that it has no function and yet is longer than that takes. No such program is valid, and
/// wasmi 2.0.0 divides by the number of functions before it sees that.
fn has_hollow_code(program: &[u8]) -> bool {
    let mut rest = program.get(8..).unwrap_or_default();
    while let Some((&id, tail)) = rest.split_first() {
        let Some((size, content)) = number(tail) else { return false };
        if id == CODE_SECTION && size > COUNT_MAX && number(content).is_none_or(|(count, _)| count == 0) {
            return true;
        }
        let Some(next) = content.get(size..) else { return false };
        rest = next;
    }
    false
}

/// A number of seven bits a byte, least ones first, at most 32 bits; and what follows.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u32;
    for (at, byte) in bytes.iter().enumerate().take(COUNT_MAX) {
        value |= u32::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()?.checked_mul(7)?)?;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(at.checked_add(1)?..)?));
        }
    }
    None
}

/// Everything is translated before anything runs, with the limits that wasmi advises against hostile programs.
fn config() -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .compilation_mode(CompilationMode::Eager)
        .enforced_limits(EnforcedLimits::strict())
        .ignore_custom_sections(true)
        .set_max_recursion_depth(MAX_CALL_DEPTH)
        .set_max_stack_height(MAX_STACK_BYTES)
        .set_max_cached_stacks(1);
    config
}

fn store_limits(limits: Limits) -> StoreLimits {
    StoreLimitsBuilder::new()
        .memory_size((limits.memory_pages as usize).saturating_mul(PAGE_SIZE))
        .table_elements(MAX_TABLE_ELEMENTS)
        .instances(1)
        .memories(1)
        .tables(16)
        .trap_on_grow_failure(true)
        .build()
}

fn exported(instance: &Instance, store: &Store<StoreLimits>, export: &str) -> Result<Func, Trap> {
    match instance.get_export(store, export) {
        Some(Extern::Func(func)) => Ok(func),
        Some(_) => Err(Trap::NotAFunction),
        None => Err(Trap::NoSuchExport),
    }
}

/// The arguments as the function wants them, and room for its results.
fn signature(func: &Func, store: &Store<StoreLimits>, args: &[i64]) -> Result<(Vec<Val>, Vec<Val>), Trap> {
    let ty = func.ty(store);
    if ty.params().len() != args.len() || args.len() > MAX_ARGS {
        return Err(Trap::ArgumentCount);
    }
    let params =
        ty.params().iter().zip(args).map(|(ty, arg)| argument(*ty, *arg)).collect::<Result<_, _>>()?;
    let results = match ty.results() {
        [] => Vec::new(),
        [ValType::I32] => alloc::vec![Val::I32(0)],
        [ValType::I64] => alloc::vec![Val::I64(0)],
        _ => return Err(Trap::BadSignature),
    };
    Ok((params, results))
}

fn argument(ty: ValType, arg: i64) -> Result<Val, Trap> {
    match ty {
        ValType::I64 => Ok(Val::I64(arg)),
        ValType::I32 => i32::try_from(arg)
            .or_else(|_| u32::try_from(arg).map(u32::cast_signed))
            .map(Val::I32)
            .map_err(|_| Trap::ArgumentRange),
        _ => Err(Trap::BadSignature),
    }
}

/// Why a program was not even translated.
fn refused(error: &Error) -> Trap {
    match error.kind() {
        ErrorKind::UserLimits(_) | ErrorKind::ImplementationLimits(_) => Trap::ProgramLimits,
        _ => Trap::InvalidProgram,
    }
}

/// Why a program stopped.
fn trapped(error: &Error) -> Trap {
    if let Some(code) = error.as_trap_code() {
        return from_code(code);
    }
    match error.kind() {
        ErrorKind::Memory(_) => Trap::MemoryLimit,
        ErrorKind::Table(_) => Trap::TableLimit,
        ErrorKind::Instantiation(error) => from_instantiation(error),
        ErrorKind::UserLimits(_) | ErrorKind::ImplementationLimits(_) => Trap::ProgramLimits,
        _ => Trap::Internal,
    }
}

fn from_instantiation(error: &InstantiationError) -> Trap {
    match error {
        InstantiationError::ElementSegmentDoesNotFit { .. } => Trap::TableOutOfBounds,
        InstantiationError::FailedToInstantiateMemory(_) | InstantiationError::TooManyMemories => {
            Trap::MemoryLimit
        }
        InstantiationError::FailedToInstantiateTable(_) | InstantiationError::TooManyTables => {
            Trap::TableLimit
        }
        _ => Trap::InvalidProgram,
    }
}

fn from_code(code: TrapCode) -> Trap {
    match code {
        TrapCode::UnreachableCodeReached => Trap::Unreachable,
        TrapCode::MemoryOutOfBounds => Trap::MemoryOutOfBounds,
        TrapCode::TableOutOfBounds => Trap::TableOutOfBounds,
        TrapCode::IndirectCallToNull => Trap::IndirectCallToNull,
        TrapCode::IntegerDivisionByZero => Trap::DivisionByZero,
        TrapCode::IntegerOverflow => Trap::IntegerOverflow,
        TrapCode::BadConversionToInteger => Trap::BadConversion,
        TrapCode::StackOverflow => Trap::StackOverflow,
        TrapCode::BadSignature => Trap::IndirectCallType,
        TrapCode::OutOfFuel => Trap::OutOfFuel,
        TrapCode::GrowthOperationLimited => Trap::MemoryLimit,
        TrapCode::OutOfSystemMemory => Trap::OutOfMemory,
    }
}

#[cfg(test)]
mod tests;
