//! Every refusal that a test meets is one that the ABI documents of the operation.

use sila_abi::syscall::{Call, Tag};
use sila_abi::{Error, Op, refusals};

/// A system call was refused.
pub(crate) fn met(tag: Tag, error: Error) {
    if !tag.is_well_formed() || tag.call() != Call::Invoke as u8 {
        return;
    }
    if let Some(op) = Op::from_number(tag.label()) {
        assert!(refusals::may_refuse(op, error), "{op:?} is not said to refuse with {error:?}");
    }
}

#[test]
#[should_panic(expected = "PoolStatus is not said to refuse with Timeout")]
fn a_refusal_that_is_not_documented_is_noticed() {
    met(Tag::new(Call::Invoke, 0, 0, Op::PoolStatus as u32), Error::Timeout);
}
