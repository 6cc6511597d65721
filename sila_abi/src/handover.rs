//! What the words of Handover operations mean.

/// Services that one Handover covers at most.
pub const MAX_SERVICES: usize = 8;
/// Capabilities that a Handover keeps at most.
pub const MAX_DEPOSITS: usize = 64;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $num:literal),* $(,)?) => {
        /// Where a Handover stands.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum State { $($(#[$doc])* $name = $num),* }

        impl State {
            /// Every state, in order of number.
            pub const ALL: &'static [State] = &[$(State::$name),*];

            /// The state with this number.
            pub const fn from_word(word: u64) -> Option<Self> {
                match word { $($num => Some(State::$name),)* _ => None }
            }

            /// The state's name.
            pub const fn name(self) -> &'static str {
                match self { $(State::$name => stringify!($name)),* }
            }
        }
    };
}

words! {
    /// At least one gate is open, and the services serve.
    Open = 1,
    /// Every gate is shut.
    Closed = 2,
    /// The services have moved and can move back.
    Committed = 3,
    /// The services have moved.
    Finalised = 4,
    /// Nothing has moved.
    Aborted = 5,
    /// The services have moved back.
    RolledBack = 6,
}

impl State {
    /// True if services are covered: the Handover can still change.
    pub const fn is_active(self) -> bool {
        matches!(self, State::Open | State::Closed | State::Committed)
    }
}

/// Why a Handover was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cause {
    /// It was not.
    None = 0,
    /// A manager asked for it.
    Manager = 1,
    /// The last capability with the right to manage it has gone.
    Unmanaged = 2,
    /// Its deadline passed.
    Deadline = 3,
}

/// Flag of a service: its gate is shut.
pub const SHUT: u64 = 1 << 0;
/// Flag of a service: its state was exported.
pub const EXPORTED: u64 = 1 << 1;
/// Flag of a service: the exported state is sealed.
pub const SEALED: u64 = 1 << 2;
/// Flag of a service: from lives.
pub const FROM_LIVES: u64 = 1 << 3;
/// Flag of a service: to lives.
pub const TO_LIVES: u64 = 1 << 4;
/// Bit of the detail of `ParticipantDead` that is set if it is to, not from.
pub const DEAD_TO: u64 = 1 << 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_are_dense() {
        for (at, &state) in State::ALL.iter().enumerate() {
            assert_eq!(state as usize, at + 1);
            assert_eq!(State::from_word(state as u64), Some(state));
        }
        assert_eq!(State::from_word(0), None);
        assert_eq!(State::ALL.iter().filter(|state| state.is_active()).count(), 3);
    }
}
