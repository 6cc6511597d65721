//! Signatures that tests have the verification context check.

use sila_abi::Error;

use super::failing::scenes;
use crate::tests::signed::case;

/// What the context says about these bytes.
fn verdict(bytes: &[u8]) -> Result<(), Error> {
    scenes::signature_case(bytes).perform()
}

#[test]
fn a_valid_signature_is_told_from_an_invalid_one() {
    let good = case(b"message");
    assert_eq!(verdict(&good), Ok(()));
    let signature = good.len() - 4627;
    for at in [signature - 1, signature, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(verdict(&bad), Err(Error::RecordSignature), "byte {at}");
    }
}

#[test]
fn what_is_no_case_has_no_verdict() {
    let good = case(b"message");
    assert_eq!(verdict(&good[..good.len() - 1]), Err(Error::RecordMalformed));
    assert_eq!(verdict(&[0; 19]), Err(Error::RecordMalformed));
    let mut other = good.clone();
    other[0] = 2;
    assert_eq!(verdict(&other), Err(Error::UnknownKey), "an unknown algorithm");
    let mut short = good;
    short[4] -= 1;
    assert_eq!(verdict(&short), Err(Error::UnknownKey), "a key of another length");
}
