//! The calling thread's message page: words 6 and up of a message.

use core::marker::PhantomData;

/// Each thread that the runtime starts gets an aligned area of this size: the message page first, then a
/// guard, then the stack up to the end. So a thread finds its page from its stack pointer.
pub(crate) const THREAD_AREA: u64 = 4 << 20;
/// Where those areas begin.
pub(crate) const THREADS_BASE: u64 = sila_abi::protocol::layout::DYNAMIC_BASE + (1 << 40);
/// One past the last of them.
pub(crate) const THREADS_END: u64 = THREADS_BASE + 64 * THREAD_AREA;

/// The calling thread's message page. Neither Send nor Sync: it stays with the thread.
pub(crate) struct MessagePage {
    base: *mut u64,
    _thread: PhantomData<*mut u64>,
}

/// The address of the message page of the thread whose stack holds this address.
pub(crate) const fn page_of(stack_pointer: u64) -> u64 {
    if stack_pointer >= THREADS_BASE && stack_pointer < THREADS_END {
        stack_pointer & !(THREAD_AREA - 1)
    } else {
        sila_abi::protocol::layout::MESSAGE_PAGE
    }
}

impl MessagePage {
    /// This thread's page; `None` on a host.
    pub(crate) fn current() -> Option<Self> {
        if cfg!(not(target_os = "none")) {
            return None;
        }
        let here = 0u8;
        let base = page_of(core::ptr::from_ref(&here).expose_provenance() as u64);
        Some(MessagePage {
            base: core::ptr::with_exposed_provenance_mut(base as usize),
            _thread: PhantomData,
        })
    }

    /// Copies words out of the page, from word 6 on.
    pub(crate) fn read(&self, words: &mut [u64]) {
        for (i, word) in words.iter_mut().enumerate().take(sila_abi::syscall::MAX_WORDS - 6) {
            // SAFETY: the page is mapped for as long as the thread lives, word 6 + i is below 120 and so inside
            // it, and only this thread and, during its calls, the kernel access it.
            *word = unsafe { self.base.add(6 + i).read_volatile() };
        }
    }

    /// Copies words into the page, from word 6 on.
    pub(crate) fn write(&self, words: &[u64]) {
        for (i, word) in words.iter().enumerate().take(sila_abi::syscall::MAX_WORDS - 6) {
            // SAFETY: as in `read`.
            unsafe { self.base.add(6 + i).write_volatile(*word) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_finds_its_page_from_its_stack() {
        let area = THREADS_BASE + 3 * THREAD_AREA;
        assert_eq!(page_of(area + THREAD_AREA - 16), area);
        assert_eq!(page_of(area + 4096), area);
        let top = sila_abi::protocol::layout::STACK_TOP;
        assert_eq!(page_of(top - 8), sila_abi::protocol::layout::MESSAGE_PAGE);
        assert_eq!(page_of(THREADS_END), sila_abi::protocol::layout::MESSAGE_PAGE);
    }
}
