//! The one place where the operator asks what time it is: planning, rendering and reporting get it as an argument.

use jiff::Timestamp;

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}
