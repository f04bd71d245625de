//! Secrets that are erased.

use std::mem::{ManuallyDrop, needs_drop};
use std::ops::Deref;

use zeroize::zeroize_flat_type;

/// A secret that is overwritten with zeros when it is dropped, for types of libraries that do not do so themselves. It
/// stays in one place for as long as it lives, however this value is moved.
pub struct Erased<T>(Box<ManuallyDrop<T>>);

impl<T> Erased<T> {
    /// Of a type that owns nothing outside of itself, or this does not compile.
    pub fn new(secret: T) -> Self {
        const { assert!(!needs_drop::<T>(), "what it owns elsewhere would be neither erased nor freed") };
        Self(Box::new(ManuallyDrop::new(secret)))
    }
}

impl<T> Deref for Erased<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Erased<T> {
    /// Nothing may look at the secret after this.
    fn erase(&mut self) {
        let secret: *mut ManuallyDrop<T> = &raw mut *self.0;
        // SAFETY: the memory is this value's own and as large as the type. What is in it after this may not be a value
        // of the type, but nobody looks at it any more: it has nothing to drop, as `new` has seen to.
        unsafe { zeroize_flat_type(secret) };
    }
}

impl<T> Drop for Erased<T> {
    fn drop(&mut self) {
        self.erase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_secret() {
        let mut secret = Erased::new([7_u8; 64]);
        secret.erase();
        assert_eq!(*secret, [0; 64]);
    }
}
