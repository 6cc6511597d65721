//! System call numbers, the register layout and the message tag.
//!
//! | register | in | out |
//! |---|---|---|
//! | `rax` | [`Tag`] | [`Outcome`] |
//! | `rdi` | capability slot | badge of the sender |
//! | `rsi rdx r10 r8 r9 r12` | words 0 to 5 | words 0 to 5 |
//! | `r13` | [`Receive`]: reply slot, slots for received capabilities | unchanged |
//! | `r14` | deadline, ns since boot ([`NO_WAIT`], [`FOREVER`]) | unchanged |
//! | `r15` | up to four slots of capabilities to send, 16 bits each | unchanged |
//!
//! `rcx` and `r11` are overwritten by the processor; every other register keeps its value. Words 6 and
//! up travel in the thread's message page, word *n* at byte 8·*n*.

/// A deadline that has always passed: do not block.
pub const NO_WAIT: u64 = 0;
/// A deadline that never passes.
pub const FOREVER: u64 = u64::MAX;
/// The longest message, in words.
pub const MAX_WORDS: usize = 120;
/// Words that travel in registers.
pub const REGISTER_WORDS: usize = 6;
/// The most capabilities one message carries.
pub const MAX_CAPS: usize = 4;

/// Word 0 of the answer to a fault ([`Outcome::is_fault`]): end the process.
pub const FAULT_KILL: u64 = 0;
/// Word 0 of the answer to a fault: let the thread go on.
pub const FAULT_RESUME: u64 = 1;
/// Bit of word 1 of the answer: word 2 is the new instruction pointer.
pub const FAULT_SET_INSTRUCTION: u64 = 1;
/// Bit of word 1 of the answer: word 3 is the new stack pointer.
pub const FAULT_SET_STACK: u64 = 2;

/// The number of a slot in a CSpace. Slot 0 never holds a capability: it means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// No slot.
    pub const NONE: Slot = Slot(0);

    /// A slot from a message word; `None` above 65535.
    pub fn from_word(word: u64) -> Option<Self> {
        u16::try_from(word).ok().map(Slot)
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $num:literal),* $(,)?) => {
        /// The system calls.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Call { $($(#[$doc])* $name = $num),* }
        impl Call {
            /// Every system call, in order of number.
            pub const ALL: &'static [Call] = &[$(Call::$name),*];
            /// The call with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($num => Some(Call::$name),)* _ => None }
            }
        }
    };
}

calls! {
    /// Let other threads of the same priority run. Names no capability.
    Yield = 0,
    /// End the calling thread's process; word 0 is the exit code. Names no capability.
    Exit = 1,
    /// Send a message to an Endpoint and wait until it is received.
    Send = 2,
    /// Receive from an Endpoint, or wait for a Notification.
    Recv = 3,
    /// Send a message to an Endpoint and wait for the reply.
    Call = 4,
    /// Answer a call; `rdi` is the slot of the Reply. Never blocks.
    Reply = 5,
    /// Answer the call whose Reply is in the reply slot, then receive.
    ReplyRecv = 6,
    /// An operation on an object; the label is an [`crate::ops::Op`].
    Invoke = 7,
    /// End the calling thread only. Names no capability.
    ExitThread = 8,
}

/// The input tag in `rax`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tag(pub u64);

impl Tag {
    /// A tag: call number in bits 0 to 7, length in words in 8 to 15, capabilities in 16 to 18, label in
    /// 32 to 63. All other bits are zero.
    pub const fn new(call: Call, words: u8, caps: u8, label: u32) -> Self {
        Tag(call as u64 | (words as u64) << 8 | ((caps & 7) as u64) << 16 | (label as u64) << 32)
    }
    /// The system call number.
    pub const fn call(self) -> u8 {
        self.0 as u8
    }
    /// Message length in words.
    pub const fn words(self) -> usize {
        (self.0 >> 8) as u8 as usize
    }
    /// Capabilities sent.
    pub const fn caps(self) -> usize {
        ((self.0 >> 16) & 7) as usize
    }
    /// Message label, or operation number of an Invoke.
    pub const fn label(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// True if no undefined bit is set and the counts are in range.
    pub const fn is_well_formed(self) -> bool {
        self.0 & 0xfff8_0000 == 0 && self.words() <= MAX_WORDS && self.caps() <= MAX_CAPS
    }
}

/// The result in `rax`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome(pub u64);

impl Outcome {
    const FLAGS: u64 = 1 << 24;
    const CALL: u64 = 1 << 28;
    const FAULT: u64 = 1 << 29;

    /// A received message or the success of an operation with `words` result words. The fields lie where those of a
    /// [`Tag`] do: the status (0) where the call number does, length in words in bits 8 to 15, capabilities in 16 to
    /// 18, label in 32 to 63.
    pub const fn message(words: u8, caps: u8, label: u32) -> Self {
        Outcome((words as u64) << 8 | ((caps & 7) as u64) << 16 | (label as u64) << 32)
    }
    /// What the receiver of a call without capabilities sees, given the call's tag: the tag without its call number,
    /// with the mark of [`Outcome::with_reply`].
    pub const fn of_plain_call(tag: u64) -> Self {
        Outcome(tag.wrapping_add(Self::CALL - Call::Call as u64))
    }
    /// What the caller sees of an answer without capabilities, given the tag of the `reply_recv`.
    pub const fn of_plain_reply_recv(tag: u64) -> Self {
        Outcome(tag.wrapping_sub(Call::ReplyRecv as u64))
    }
    /// The same, for a message that came by `call`: its Reply lies in the reply slot.
    pub const fn with_reply(self) -> Self {
        Outcome(self.0 | Self::CALL)
    }
    /// The same, for the call that the kernel makes for a thread that faulted. Nobody else can set this mark.
    pub const fn with_fault(self) -> Self {
        Outcome(self.0 | Self::FAULT)
    }
    /// True if the kernel reports a fault: words exception vector, error code, faulting address, instruction, stack
    /// pointer, flags.
    pub const fn is_fault(self) -> bool {
        self.0 & Self::FAULT != 0
    }
    /// True if a Reply came with the message; a message that came by `send` has none.
    pub const fn has_reply(self) -> bool {
        self.0 & Self::CALL != 0
    }
    /// A Notification's flags were received (in word 0) and no message.
    pub const fn flags() -> Self {
        Outcome(Self::FLAGS | 1 << 8)
    }
    /// A refusal; `words` details follow in the words.
    pub const fn error(error: crate::Error, words: u8) -> Self {
        Outcome(error as u64 | (words as u64) << 8)
    }
    /// The error; `Ok` if the status is 0. An unknown number reads as `InvalidOperation`.
    pub const fn status(self) -> Result<(), crate::Error> {
        match self.number() {
            0 => Ok(()),
            n => Err(match crate::Error::from_number(n as u16) {
                Some(e) => e,
                None => crate::Error::InvalidOperation,
            }),
        }
    }
    /// The status as a number: 0, or the error's.
    pub const fn number(self) -> u8 {
        self.0 as u8
    }
    /// Length in words.
    pub const fn words(self) -> usize {
        (self.0 >> 8) as u8 as usize
    }
    /// True if this is a Notification's flags.
    pub const fn is_flags(self) -> bool {
        self.0 & Self::FLAGS != 0
    }
    /// Capabilities received, in the slots named by [`Receive`], in order.
    pub const fn caps(self) -> usize {
        ((self.0 >> 16) & 7) as usize
    }
    /// The message label.
    pub const fn label(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Where a receiver wants the Reply and the capabilities of a message (`r13`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Receive {
    /// Free slot for the Reply of a call; [`Slot::NONE`] refuses calls (they stay queued) with
    /// `ReplySlotTaken`.
    pub reply: Slot,
    /// First of the free slots for received capabilities.
    pub base: Slot,
    /// How many such slots (0 to 4).
    pub count: u8,
}

impl Receive {
    /// Bits 0 to 15 reply slot, 16 to 31 first slot, 32 to 39 count.
    pub const fn to_word(self) -> u64 {
        self.reply.0 as u64 | (self.base.0 as u64) << 16 | (self.count as u64) << 32
    }
    /// The inverse of [`Receive::to_word`]; counts above 4 read as 4, undefined bits are ignored.
    pub const fn from_word(word: u64) -> Self {
        let count = (word >> 32) as u8;
        Receive {
            reply: Slot(word as u16),
            base: Slot((word >> 16) as u16),
            count: if count > 4 { 4 } else { count },
        }
    }
}

/// Packs the slots of capabilities to send (`r15`).
pub const fn pack_caps(slots: [Slot; MAX_CAPS]) -> u64 {
    slots[0].0 as u64 | (slots[1].0 as u64) << 16 | (slots[2].0 as u64) << 32 | (slots[3].0 as u64) << 48
}

/// Unpacks `r15`.
pub const fn unpack_caps(word: u64) -> [Slot; MAX_CAPS] {
    [Slot(word as u16), Slot((word >> 16) as u16), Slot((word >> 32) as u16), Slot((word >> 48) as u16)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn tag_round_trips_and_rejects_undefined_bits() {
        let t = Tag::new(Call::Call, 120, 4, 0xdead_beef);
        assert_eq!((t.call(), t.words(), t.caps(), t.label()), (4, 120, 4, 0xdead_beef));
        assert!(t.is_well_formed());
        assert!(!Tag::new(Call::Call, 121, 0, 0).is_well_formed());
        assert!(!Tag::new(Call::Call, 1, 5, 0).is_well_formed());
        assert!(!Tag(t.0 | 1 << 20).is_well_formed());
    }

    #[test]
    fn outcome_keeps_status_and_counts_apart() {
        let o = Outcome::message(7, 3, 9);
        assert_eq!((o.status(), o.words(), o.caps(), o.label(), o.is_flags()), (Ok(()), 7, 3, 9, false));
        assert!(!o.has_reply() && o.with_reply().has_reply());
        assert_eq!((o.with_reply().words(), o.with_reply().caps(), o.with_reply().label()), (7, 3, 9));
        assert!(!o.is_fault() && o.with_fault().is_fault());
        assert!(Outcome::flags().is_flags());
        assert_eq!(Outcome::error(Error::Timeout, 2).status(), Err(Error::Timeout));
        assert_eq!(Outcome(0xff).status(), Err(Error::InvalidOperation));
        let of = |call| Tag::new(call, 7, 0, 9).0;
        assert_eq!(Outcome::of_plain_call(of(Call::Call)), Outcome::message(7, 0, 9).with_reply());
        assert_eq!(Outcome::of_plain_reply_recv(of(Call::ReplyRecv)), Outcome::message(7, 0, 9));
    }

    #[test]
    fn receive_and_caps_pack_and_unpack() {
        let r = Receive { reply: Slot(9), base: Slot(300), count: 4 };
        assert_eq!(Receive::from_word(r.to_word()), r);
        assert_eq!(Receive::from_word(0xff << 32).count, 4);
        let s = [Slot(1), Slot(2), Slot(3), Slot(65535)];
        assert_eq!(unpack_caps(pack_caps(s)), s);
    }
}
