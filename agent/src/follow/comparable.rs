//! Comparing settings behind a trait, to see whether a reload has changed them.

use std::any::Any;

/// Comparison of values behind a trait. A trait with this supertrait gets its `PartialEq` in one line.
pub trait Comparable: Any {
    /// True if `other` has the same type and is equal.
    fn is_same(&self, other: &dyn Any) -> bool;
}

impl<T: Any + PartialEq> Comparable for T {
    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref() == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    trait Animal: Comparable {}

    impl PartialEq for dyn Animal {
        fn eq(&self, other: &Self) -> bool {
            self.is_same(other)
        }
    }

    #[derive(PartialEq)]
    struct Cat(u8);
    #[derive(PartialEq)]
    struct Dog(u8);
    impl Animal for Cat {}
    impl Animal for Dog {}

    #[test]
    fn values_are_the_same_if_type_and_content_are() {
        let [cat, same, other]: [Box<dyn Animal>; 3] =
            [Box::new(Cat(1)), Box::new(Cat(1)), Box::new(Cat(2))];
        let dog: Box<dyn Animal> = Box::new(Dog(1));
        assert!(*cat == *same && *cat != *other && *cat != *dog);
    }
}
