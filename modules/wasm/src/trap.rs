//! The ways a run can fail: stable numbers and sentences.

use core::fmt;

/// Why a program gave no result. The numbers are stable: they cross process boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Trap {
    /// The bytes are not a valid WebAssembly module.
    InvalidProgram = 1,
    /// The program is larger than the service accepts.
    ProgramTooLarge = 2,
    /// The program has more functions, globals or segments than the service accepts.
    ProgramLimits = 3,
    /// The program imports something, and there is nothing to import.
    ImportsRefused = 4,
    /// The program exports nothing of that name.
    NoSuchExport = 5,
    /// The export is not a function.
    NotAFunction = 6,
    /// The function takes another number of arguments.
    ArgumentCount = 7,
    /// An argument does not fit in the parameter's 32 bits.
    ArgumentRange = 8,
    /// The function's signature has types other than i32 and i64, or several results.
    BadSignature = 9,
    /// The fuel is used up.
    OutOfFuel = 10,
    /// The program wants more memory than its limit, or grows a table beyond one.
    MemoryLimit = 11,
    /// The program wants larger or more tables than the service allows.
    TableLimit = 12,
    /// The service itself has no memory left.
    OutOfMemory = 13,
    /// The program executed `unreachable`.
    Unreachable = 14,
    /// The program reached outside its memory.
    MemoryOutOfBounds = 15,
    /// The program reached outside a table.
    TableOutOfBounds = 16,
    /// An indirect call through an empty table element.
    IndirectCallToNull = 17,
    /// An indirect call to a function of another type.
    IndirectCallType = 18,
    /// A division by zero.
    DivisionByZero = 19,
    /// A signed division whose result does not fit.
    IntegerOverflow = 20,
    /// A float that is no integer was converted to one.
    BadConversion = 21,
    /// The program's calls nest too deep.
    StackOverflow = 22,
    /// The interpreter failed in a way that it should not.
    Internal = 23,
}

impl Trap {
    /// Every trap, in the order of their numbers.
    pub const ALL: [Trap; 23] = [
        Self::InvalidProgram,
        Self::ProgramTooLarge,
        Self::ProgramLimits,
        Self::ImportsRefused,
        Self::NoSuchExport,
        Self::NotAFunction,
        Self::ArgumentCount,
        Self::ArgumentRange,
        Self::BadSignature,
        Self::OutOfFuel,
        Self::MemoryLimit,
        Self::TableLimit,
        Self::OutOfMemory,
        Self::Unreachable,
        Self::MemoryOutOfBounds,
        Self::TableOutOfBounds,
        Self::IndirectCallToNull,
        Self::IndirectCallType,
        Self::DivisionByZero,
        Self::IntegerOverflow,
        Self::BadConversion,
        Self::StackOverflow,
        Self::Internal,
    ];

    /// The stable number of this trap.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The trap with this number.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|trap| trap.code() == code)
    }

    /// What happened, as the end of a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::InvalidProgram => "the program is not a valid WebAssembly module",
            Self::ProgramTooLarge => "the program is larger than 1 MiB",
            Self::ProgramLimits => "the program has too many functions, globals or segments",
            Self::ImportsRefused => "the program imports something, and nothing can be imported",
            Self::NoSuchExport => "the program exports nothing of that name",
            Self::NotAFunction => "the export is not a function",
            Self::ArgumentCount => "the function takes another number of arguments",
            Self::ArgumentRange => "an argument does not fit in 32 bits",
            Self::BadSignature => "the function takes or returns something other than i32 and i64",
            Self::OutOfFuel => "the program used up its fuel",
            Self::MemoryLimit => "the program wants more memory (or a larger table) than its limit",
            Self::TableLimit => "the program wants more tables than the service allows",
            Self::OutOfMemory => "the wasm service has no memory left",
            Self::Unreachable => "the program reached an unreachable instruction",
            Self::MemoryOutOfBounds => "the program reached outside its memory",
            Self::TableOutOfBounds => "the program reached outside a table",
            Self::IndirectCallToNull => "the program called through an empty table element",
            Self::IndirectCallType => "the program called a function as another type",
            Self::DivisionByZero => "the program divided by zero",
            Self::IntegerOverflow => "a division's result does not fit",
            Self::BadConversion => "a float that is no integer was converted to one",
            Self::StackOverflow => "the program's calls nest too deep",
            Self::Internal => "the interpreter failed unexpectedly",
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.describe())
    }
}

impl core::error::Error for Trap {}
