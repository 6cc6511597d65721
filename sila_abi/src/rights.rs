//! Rights that a capability carries (the book, Concepts, Capabilities).

bitflags::bitflags! {
    /// What a capability lets its holder do to the object. Rights only ever shrink along a derivation.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct Rights: u16 {
        /// Read the object's contents or state; map it readable; use a Region as an image.
        const READ = 1 << 0;
        /// Change the object's contents; map it writable.
        const WRITE = 1 << 1;
        /// Send to an Endpoint, signal a Notification.
        const SEND = 1 << 2;
        /// Receive from an Endpoint, wait for a Notification.
        const RECV = 1 << 3;
        /// Send capabilities along with a message.
        const GRANT = 1 << 4;
        /// Change how the object behaves: start, suspend, terminate, bind, watch.
        const MANAGE = 1 << 5;
        /// Make new objects that this Pool pays for, or new processes in this Job.
        const CREATE = 1 << 6;
        /// Freeze a Region for ever.
        const SEAL = 1 << 7;
        /// Copy or mint this capability. Without it the capability can only be moved or deleted.
        const COPY = 1 << 8;
        /// The holder may only name this capability as a source when a process is created: not use,
        /// map, copy, mint or send it. The other rights are what the new process may get.
        const ENDOW = 1 << 15;
    }
}

impl Rights {
    /// Every right but [`Rights::ENDOW`].
    pub const USE: Rights = Rights::all().difference(Rights::ENDOW);

    /// Rights from a message word; `None` if a bit is set that names no right.
    pub fn from_word(word: u64) -> Option<Self> {
        u16::try_from(word).ok().and_then(Rights::from_bits)
    }

    /// True if the holder can use the object at all (not endow-only).
    pub const fn usable(self) -> bool {
        !self.contains(Rights::ENDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_right_bits_are_refused() {
        assert_eq!(Rights::from_word(1 << 12), None);
        assert_eq!(Rights::from_word(1 << 16), None);
        assert_eq!(Rights::from_word(3), Some(Rights::READ | Rights::WRITE));
    }
}
